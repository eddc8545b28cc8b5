//! The stream of a client as its two directions, and how it moves to another runtime when it turns into a raft connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use super::dial::watch_peer;
use super::quiet::Quiet;
use crate::host::register::Kept;
use crate::host::sockets;
use crate::types::config::{
    CLIENT_STALL_MAX, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_INTERVAL_WITH_TURN, KEEPALIVE_QUESTIONS,
};

/// What a client's messages are read from.
pub type Reading = Box<dyn AsyncRead + Send + Unpin>;

/// A stream that belongs to no runtime until it is attached.
pub struct Detached(Box<dyn FnOnce() -> io::Result<Reading> + Send>);

impl std::fmt::Debug for Detached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detached").finish_non_exhaustive()
    }
}

impl Detached {
    /// The stream, on the runtime of the calling task. Its way back stays open as long as it lives.
    ///
    /// # Errors
    /// The operating system's.
    pub fn attach(self) -> io::Result<Reading> {
        (self.0)()
    }
}

/// The direction in which a client sends.
pub trait ClientRead: AsyncRead + Send + Unpin + 'static {
    /// Whether the other end has gone, though not all that it sent was read.
    fn is_hung_up(&self) -> bool;

    /// Whether the other end sends nothing behind what was not read yet; false where nobody can know.
    fn sends_no_more(&self) -> bool {
        false
    }

    /// Whether the other end is a machine of its own, that can be gone without a word: then somebody has to look at `silence`.
    const CAN_FALL_SILENT: bool = false;

    /// How long the machine at the other end has let nothing be heard of it while it owes acknowledgements; None if it owes none.
    fn silence(&self) -> Option<Duration> {
        None
    }
}

/// The direction in which a client is answered.
pub trait ClientWrite: AsyncWrite + Send + Unpin + 'static {
    /// How long a client may keep silent that others wait for, or that nobody waits for: its machine is asked for signs of
    /// life accordingly.
    fn set_others_wait(&self, others_wait: bool);
}

/// A stream that a client may have.
pub trait ClientStream: Send + 'static {
    /// What the client sends.
    type Read: ClientRead;
    /// What goes to the client.
    type Write: ClientWrite;

    /// Its two directions.
    fn split(self) -> (Self::Read, Self::Write);

    /// Takes both directions off their runtime.
    fn detach(read: Self::Read, write: Self::Write) -> Detached;
}

impl ClientStream for Kept<TcpStream> {
    type Read = Kept<tcp::OwnedReadHalf>;
    type Write = Quiet<Kept<tcp::OwnedWriteHalf>>;

    fn split(self) -> (Self::Read, Self::Write) {
        let (read, write) = Kept::split(self, TcpStream::into_split);
        (read, Quiet(write))
    }

    fn detach(read: Self::Read, write: Self::Write) -> Detached {
        let stream = read.try_join(write.0, |read, write| {
            read.reunite(write).map_err(io::Error::other).and_then(TcpStream::into_std)
        });
        if let Ok(stream) = &stream {
            watch_peer(SockRef::from(&**stream));
        }
        Detached(Box::new(move || Ok(Box::new(stream?.try_map(TcpStream::from_std)?))))
    }
}

impl ClientStream for Kept<UnixStream> {
    type Read = Kept<unix::OwnedReadHalf>;
    type Write = Quiet<Kept<unix::OwnedWriteHalf>>;

    fn split(self) -> (Self::Read, Self::Write) {
        let (read, write) = Kept::split(self, UnixStream::into_split);
        (read, Quiet(write))
    }

    fn detach(read: Self::Read, write: Self::Write) -> Detached {
        let stream = read.try_join(write.0, |read, write| {
            read.reunite(write).map_err(io::Error::other).and_then(UnixStream::into_std)
        });
        Detached(Box::new(move || Ok(Box::new(stream?.try_map(UnixStream::from_std)?))))
    }
}

/// A hang-up is an event of both directions.
fn is_closed(ready: Option<io::Result<Ready>>) -> bool {
    matches!(ready, Some(Ok(ready)) if ready.is_write_closed())
}

/// The end of what is sent is an event of its own, whatever lies before it.
fn is_at_its_end(ready: Option<io::Result<Ready>>) -> bool {
    matches!(ready, Some(Ok(ready)) if ready.is_read_closed())
}

impl ClientRead for Kept<tcp::OwnedReadHalf> {
    fn is_hung_up(&self) -> bool {
        let stream: &TcpStream = (**self).as_ref();
        is_closed(stream.ready(Interest::WRITABLE).now_or_never())
    }

    fn sends_no_more(&self) -> bool {
        let stream: &TcpStream = (**self).as_ref();
        is_at_its_end(stream.ready(Interest::READABLE).now_or_never())
    }

    const CAN_FALL_SILENT: bool = true;

    fn silence(&self) -> Option<Duration> {
        let stream: &TcpStream = (**self).as_ref();
        sockets::silence(stream)
    }
}

impl ClientRead for Kept<unix::OwnedReadHalf> {
    fn is_hung_up(&self) -> bool {
        let stream: &UnixStream = (**self).as_ref();
        is_closed(stream.ready(Interest::WRITABLE).now_or_never())
    }

    fn sends_no_more(&self) -> bool {
        let stream: &UnixStream = (**self).as_ref();
        is_at_its_end(stream.ready(Interest::READABLE).now_or_never())
    }
}

impl ClientWrite for Quiet<Kept<tcp::OwnedWriteHalf>> {
    fn set_others_wait(&self, others_wait: bool) {
        let stream: &TcpStream = (*self.0).as_ref();
        let socket = SockRef::from(stream);
        let (silence, idle, interval) = if others_wait {
            (Some(CLIENT_STALL_MAX), CLIENT_STALL_MAX / 2, KEEPALIVE_INTERVAL_WITH_TURN)
        } else {
            (None, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL)
        };
        // A client whose socket cannot be set is waited for as long as any other.
        let _ = socket.set_tcp_user_timeout(silence);
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
        let _ = socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_QUESTIONS));
    }
}

/// The end of a process closes its sockets.
impl ClientWrite for Quiet<Kept<unix::OwnedWriteHalf>> {
    fn set_others_wait(&self, _others_wait: bool) {}
}

/// One direction of a stream of which only its bytes are known.
#[derive(Debug)]
pub struct Plain<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> AsyncRead for Plain<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Plain<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Send + Unpin + 'static> ClientRead for Plain<S> {
    fn is_hung_up(&self) -> bool {
        false
    }
}

impl<S: AsyncWrite + Send + Unpin + 'static> ClientWrite for Plain<S> {
    fn set_others_wait(&self, _others_wait: bool) {}
}

/// Two directions that belong to no runtime in particular.
impl<R, W> ClientStream for (R, W)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Read = Plain<R>;
    type Write = Plain<W>;

    fn split(self) -> (Plain<R>, Plain<W>) {
        (Plain(self.0), Plain(self.1))
    }

    fn detach(read: Plain<R>, write: Plain<W>) -> Detached {
        Detached(Box::new(move || Ok(Box::new(Both { read: read.0, _write: write.0 }))))
    }
}

/// Reads, and keeps the way back open: closing it early would be seen by proxies.
struct Both<R, W> {
    read: R,
    _write: W,
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Both<R, W> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().read).poll_read(context, buffer)
    }
}
