//! A client's connection as the node sees it: without a network in between, and with an end at a poll of the node's choosing.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use dqlite::transport::client_stream::{ClientRead, ClientStream, ClientWrite, Detached};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, ReadHalf, WriteHalf};

/// Polls after which a stream that has no such end breaks.
const NEVER: u32 = u32::MAX;

/// When a stream breaks.
#[derive(Debug)]
pub struct Fate {
    broken: AtomicBool,
    /// The client has closed it in both directions.
    closed: AtomicBool,
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
    pub fate: ClientFate,
}

/// The client's hold of its connection; dropped when it closes it.
#[derive(Debug)]
pub struct ClientFate(Arc<Fate>);

impl std::ops::Deref for ClientFate {
    type Target = Fate;

    fn deref(&self) -> &Fate {
        &self.0
    }
}

impl Drop for ClientFate {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

/// Both ends of a connection with this many bytes that nobody has read, each way.
#[must_use]
pub fn connection(buffer_bytes: usize) -> (ClientEnd, ServedStream, Weak<Fate>) {
    let (near, far) = tokio::io::duplex(buffer_bytes);
    let fate = Arc::new(Fate {
        broken: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        polls_left: AtomicU32::new(NEVER),
    });
    let weak = Arc::downgrade(&fate);
    (
        ClientEnd { stream: near, fate: ClientFate(Arc::clone(&fate)) },
        ServedStream { stream: far, fate },
        weak,
    )
}

/// What a client sends.
#[derive(Debug)]
pub struct ServedRead {
    half: ReadHalf<DuplexStream>,
    fate: Arc<Fate>,
}

/// What it is answered.
#[derive(Debug)]
pub struct ServedWrite {
    half: WriteHalf<DuplexStream>,
    fate: Arc<Fate>,
}

impl ClientStream for ServedStream {
    type Read = ServedRead;
    type Write = ServedWrite;

    fn split(self) -> (ServedRead, ServedWrite) {
        let (read, write) = tokio::io::split(self.stream);
        (
            ServedRead { half: read, fate: Arc::clone(&self.fate) },
            ServedWrite { half: write, fate: self.fate },
        )
    }

    fn detach(read: ServedRead, write: ServedWrite) -> Detached {
        let (read, write) = (read.half, write.half).split();
        <(ReadHalf<DuplexStream>, WriteHalf<DuplexStream>)>::detach(read, write)
    }
}

impl AsyncRead for ServedRead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.fate.look();
        if self.fate.is_broken() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.half).poll_read(context, buffer)
    }
}

impl ClientRead for ServedRead {
    fn is_hung_up(&self) -> bool {
        self.fate.is_broken() || self.fate.closed.load(Ordering::Acquire)
    }
}

impl AsyncWrite for ServedWrite {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.fate.is_broken() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.half).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_shutdown(context)
    }
}

impl ClientWrite for ServedWrite {
    fn set_others_wait(&self, _others_wait: bool) {}
}
