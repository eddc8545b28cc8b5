//! The sending direction of a socket. Whoever sends to a peer that has gone gets an error; a plain write would end a host that
//! has left SIGPIPE as it was. spec: c-api 3.0 "Signals".

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use crate::host::register::Kept;

/// A socket's half that sends.
#[derive(Debug)]
pub struct Quiet<W>(pub W);

/// The socket behind such a half.
pub trait Sending: AsyncWrite + Unpin {
    /// Waits until the socket takes bytes.
    ///
    /// # Errors
    /// The runtime has ended.
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Sends what the socket takes at once.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing; the operating system's.
    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Sending for tcp::OwnedWriteHalf {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_ref().poll_write_ready(context)
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream: &TcpStream = self.as_ref();
        stream.try_io(Interest::WRITABLE, || send_quietly(&SockRef::from(stream), slices))
    }
}

impl Sending for unix::OwnedWriteHalf {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_ref().poll_write_ready(context)
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream: &UnixStream = self.as_ref();
        stream.try_io(Interest::WRITABLE, || send_quietly(&SockRef::from(stream), slices))
    }
}

impl<W: Sending> Sending for Kept<W> {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_ready(context)
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.checked()?.send(slices)
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Kept<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut **self).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut **self).poll_shutdown(context)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Kept<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_read(context, buffer)
    }
}

fn send_quietly(socket: &SockRef<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match socket.send_vectored_with_flags(slices, libc::MSG_NOSIGNAL) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl<W: Sending> AsyncWrite for Quiet<W> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_ready(context))?;
            match self.0.send(slices) {
                // It takes nothing after all: the runtime has noted it, and wakes this task when it is.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
