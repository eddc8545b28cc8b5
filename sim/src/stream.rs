//! A client's connection as the node sees it: without a network in between, and with an end at a poll of the node's choosing.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Polls after which a stream that has no such end breaks.
const NEVER: u32 = u32::MAX;

/// When a stream breaks.
#[derive(Debug)]
pub struct Fate {
    broken: AtomicBool,
    polls_left: AtomicU32,
}

impl Fate {
    /// Breaks the stream now: nothing gets through any more.
    pub fn break_now(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Breaks the stream when the node looks for further requests for the `polls`-th time from now on.
    pub fn break_after(&self, polls: u32) {
        self.polls_left.store(polls, Ordering::Release);
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Counts one look of the node.
    fn look(&self) {
        let left = self.polls_left.load(Ordering::Acquire);
        if left == 0 {
            self.break_now();
        } else if left != NEVER {
            self.polls_left.store(left - 1, Ordering::Release);
        }
    }
}

/// The node's end of a client's connection.
#[derive(Debug)]
pub struct ServedStream {
    stream: DuplexStream,
    fate: Arc<Fate>,
}

/// The client's end, and the fate of the connection.
#[derive(Debug)]
pub struct ClientEnd {
    /// Reads and writes.
    pub stream: DuplexStream,
    /// Breaks it.
    pub fate: Arc<Fate>,
}

/// Both ends of a connection with this many bytes that nobody has read, each way.
#[must_use]
pub fn connection(buffer_bytes: usize) -> (ClientEnd, ServedStream, Weak<Fate>) {
    let (near, far) = tokio::io::duplex(buffer_bytes);
    let fate = Arc::new(Fate { broken: AtomicBool::new(false), polls_left: AtomicU32::new(NEVER) });
    let weak = Arc::downgrade(&fate);
    (ClientEnd { stream: near, fate: Arc::clone(&fate) }, ServedStream { stream: far, fate }, weak)
}

impl AsyncRead for ServedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.fate.look();
        if self.fate.is_broken() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ServedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.fate.is_broken() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
