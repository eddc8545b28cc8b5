//! The stream of a client as its two directions, and how it moves to another runtime when it turns into a raft connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use super::quiet::Quiet;

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

/// A stream that a client may have.
pub trait ClientStream: Send + 'static {
    /// What the client sends.
    type Read: AsyncRead + Send + Unpin + 'static;
    /// What goes to the client.
    type Write: AsyncWrite + Send + Unpin + 'static;

    /// Its two directions.
    fn split(self) -> (Self::Read, Self::Write);

    /// Takes both directions off their runtime.
    fn detach(read: Self::Read, write: Self::Write) -> Detached;
}

impl ClientStream for TcpStream {
    type Read = tcp::OwnedReadHalf;
    type Write = Quiet<tcp::OwnedWriteHalf>;

    fn split(self) -> (Self::Read, Self::Write) {
        let (read, write) = self.into_split();
        (read, Quiet(write))
    }

    fn detach(read: Self::Read, write: Self::Write) -> Detached {
        let stream = read.reunite(write.0).map_err(io::Error::other).and_then(TcpStream::into_std);
        Detached(Box::new(move || Ok(Box::new(TcpStream::from_std(stream?)?))))
    }
}

impl ClientStream for UnixStream {
    type Read = unix::OwnedReadHalf;
    type Write = Quiet<unix::OwnedWriteHalf>;

    fn split(self) -> (Self::Read, Self::Write) {
        let (read, write) = self.into_split();
        (read, Quiet(write))
    }

    fn detach(read: Self::Read, write: Self::Write) -> Detached {
        let stream = read.reunite(write.0).map_err(io::Error::other).and_then(UnixStream::into_std);
        Detached(Box::new(move || Ok(Box::new(UnixStream::from_std(stream?)?))))
    }
}

/// Two directions that belong to no runtime in particular.
impl<R, W> ClientStream for (R, W)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Read = R;
    type Write = W;

    fn split(self) -> (R, W) {
        self
    }

    fn detach(read: R, write: W) -> Detached {
        Detached(Box::new(move || Ok(Box::new(Both { read, _write: write }))))
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
