//! One connection that this node dialled: messages go out, nothing comes back on it. spec: raft-wire 1.1, 1.2.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::dialler::Dialler;
use super::limits::LinkKind;
use crate::transport::dial::Stream;
use crate::types::config::{
    DIAL_FAILED_KEEP, DIAL_RETRY, LINK_IDLE, LINK_QUEUE_BYTES_MAX, LINK_QUEUE_MESSAGES_MAX, PAGE_SIZE,
    PAYLOAD_WINDOW_BYTES, STRANGER_LINK_IDLE,
};
use crate::types::fault::{self, Fault};
use crate::types::tasks::{BlockingPool, on_pool};
use crate::types::{Chunk, NodeId};

/// Slices handed to one write.
const SLICES_MAX: usize = 64;

/// A message ready to be written.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its bytes in order.
    pub chunks: Vec<Chunk>,
}

impl Outgoing {
    fn bytes(&self) -> usize {
        self.chunks.iter().map(Chunk::len).sum()
    }
}

/// Where a link stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Connections made so far. What was sent on an earlier one may be lost.
    pub generation: u64,
    /// Whether the last of them is in use.
    pub connected: bool,
    /// Dials that failed so far.
    pub failures: u64,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkFull {
    /// Too many messages or bytes wait.
    #[error("{messages} messages of {bytes} bytes wait to be sent")]
    Full {
        /// Messages.
        messages: usize,
        /// Bytes.
        bytes: usize,
    },
    /// The link has ended.
    #[error("the link has ended")]
    Ended,
}

#[derive(Debug)]
struct Queue {
    /// Each with the time until which it may wait for a connection.
    messages: VecDeque<(Instant, Outgoing)>,
    bytes: usize,
    ended: bool,
    kind: LinkKind,
}

impl Queue {
    fn count_bytes(&mut self) {
        self.bytes = self.messages.iter().map(|(_, message)| message.bytes()).sum();
    }

    /// Drops what has waited for too long: whoever sent it has given up.
    fn drop_late(&mut self) {
        let now = Instant::now();
        if self.messages.front().is_some_and(|(deadline, _)| *deadline <= now) {
            self.messages.retain(|(deadline, _)| *deadline > now);
            self.count_bytes();
        }
    }
}

/// Messages to one peer at one address.
#[derive(Debug)]
pub struct Link {
    queue: Mutex<Queue>,
    filled: Notify,
    poked: Notify,
    state: watch::Sender<LinkState>,
    /// How long a message may wait for a connection.
    patience: Duration,
}

/// Bytes that turn a client connection into a raft connection. spec: raft-wire 1.1.
#[must_use]
pub fn connect_bytes(id: NodeId, address: &[u8]) -> Bytes {
    let padded = (address.len() + 1).next_multiple_of(8);
    let mut bytes = BytesMut::with_capacity(24 + padded);
    bytes.put_u64_le(1);
    bytes.put_u32_le(((8 + padded) / 8) as u32);
    bytes.put_slice(&[11, 0, 0, 0]);
    bytes.put_u64_le(id.0);
    bytes.put_slice(address);
    bytes.put_bytes(0, padded - address.len());
    bytes.freeze()
}

impl Link {
    /// A link on which a message may wait for a connection for `patience`.
    #[must_use]
    pub fn new(kind: LinkKind, patience: Duration) -> Link {
        let queue = Queue { messages: VecDeque::new(), bytes: 0, ended: false, kind };
        Link {
            queue: Mutex::new(queue),
            filled: Notify::new(),
            poked: Notify::new(),
            state: watch::channel(LinkState::default()).0,
            patience,
        }
    }

    /// Whom it is to.
    #[must_use]
    pub fn kind(&self) -> LinkKind {
        self.lock().kind
    }

    /// Whoever is there has become a member.
    pub fn set_kind(&self, kind: LinkKind) {
        self.lock().kind = kind;
    }

    fn idle(&self) -> Duration {
        if self.kind() == LinkKind::Member { LINK_IDLE } else { STRANGER_LINK_IDLE }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message; it is dialled for if need be.
    ///
    /// # Errors
    /// The queue is full, or the link was idle for too long and has ended: make another one.
    pub fn send(&self, message: Outgoing) -> Result<(), LinkFull> {
        let waits = !self.state.borrow().connected;
        let mut queue = self.lock();
        if queue.ended {
            return Err(LinkFull::Ended);
        }
        if waits {
            queue.drop_late();
        }
        let (messages, bytes) = (queue.messages.len(), queue.bytes);
        // A message that is larger than the bound goes alone.
        if messages >= LINK_QUEUE_MESSAGES_MAX
            || (bytes > 0 && bytes + message.bytes() > LINK_QUEUE_BYTES_MAX)
        {
            return Err(LinkFull::Full { messages, bytes });
        }
        queue.bytes += message.bytes();
        queue.messages.push_back((Instant::now() + self.patience, message));
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Whether it takes no more messages.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// The peer shows signs of life: a dial that waits to be tried again is tried now.
    pub fn poke(&self) {
        self.poked.notify_one();
    }

    /// Signs of life from before a dial began or a connection ended say nothing about what comes after it.
    fn forget_pokes(&self) {
        let _forgotten = self.poked.notified().now_or_never();
    }

    /// Where the link stands, as it changes.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    fn take(&self) -> Vec<Outgoing> {
        let mut queue = self.lock();
        queue.bytes = 0;
        queue.messages.drain(..).map(|(_, message)| message).collect()
    }

    /// Whether no message waits that is still wanted.
    fn is_empty(&self) -> bool {
        let mut queue = self.lock();
        queue.drop_late();
        queue.messages.is_empty()
    }

    /// Returns when no message waits any more.
    async fn until_empty(&self) {
        while !self.is_empty() {
            let last = self.lock().messages.back().map(|(deadline, _)| *deadline);
            sleep_until(last.unwrap_or_else(Instant::now)).await;
        }
    }

    /// After a failed dial only the newest messages stay.
    fn keep_newest(&self) {
        let mut queue = self.lock();
        let old = queue.messages.len().saturating_sub(DIAL_FAILED_KEEP);
        queue.messages.drain(..old);
        queue.count_bytes();
    }

    /// Ends the link if nothing waits. Whether it has ended.
    fn end_if_idle(&self) -> bool {
        let mut queue = self.lock();
        queue.drop_late();
        queue.ended = queue.messages.is_empty();
        queue.ended
    }

    /// Dials and writes until `stop`, or until nobody has sent anything for long.
    pub async fn run(
        self: Arc<Link>,
        peer: NodeId,
        address: Bytes,
        hello: Bytes,
        dialler: Dialler,
        pool: Arc<dyn BlockingPool>,
        stop: CancellationToken,
    ) {
        let running = async {
            loop {
                while self.is_empty() {
                    if timeout(self.idle(), self.filled.notified()).await.is_err() && self.end_if_idle() {
                        return;
                    }
                }
                let began = Instant::now();
                self.forget_pokes();
                let dialled = tokio::select! {
                    biased;
                    dialled = dialler.dial(&address, self.kind()) => dialled,
                    // It may take for ever.
                    () = self.until_empty() => Err(io::ErrorKind::TimedOut.into()),
                };
                match dialled {
                    Ok(stream) => {
                        self.state.send_modify(|state| {
                            state.generation += 1;
                            state.connected = true;
                        });
                        debug!(peer = peer.0, "connected");
                        let ended = self.serve(stream, hello.clone(), pool.as_ref()).await;
                        self.state.send_modify(|state| state.connected = false);
                        debug!(peer = peer.0, ?ended, "connection ended");
                        self.forget_pokes();
                        if ended.is_ok_and(|idle| idle) && self.end_if_idle() {
                            return;
                        }
                    }
                    Err(error) => {
                        let text = String::from_utf8_lossy(&address).into_owned();
                        debug!(peer = peer.0, address = text, %error, "no connection");
                        self.keep_newest();
                        self.state.send_modify(|state| state.failures += 1);
                        let is_over = match self.kind() {
                            _ if fault::is_planted(Fault::SharedLinks) => false,
                            LinkKind::Stranger => true,
                            LinkKind::MemberElsewhere | LinkKind::Member => self.end_if_idle(),
                        };
                        if is_over {
                            return;
                        }
                    }
                }
                // A peer that closes every connection at once is not dialled in a loop.
                if began.elapsed() < DIAL_RETRY {
                    tokio::select! { biased; () = sleep(DIAL_RETRY) => {} () = self.poked.notified() => {} }
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = running => {}
        }
        self.lock().ended = true;
        info!(peer = peer.0, "no more messages to this peer");
    }

    /// Writes what is queued; true when nothing was for long.
    async fn serve(&self, stream: Stream, hello: Bytes, pool: &dyn BlockingPool) -> io::Result<bool> {
        let Stream { mut read, mut write } = stream;
        write_all(write.as_mut(), vec![hello].into()).await?;
        loop {
            let messages = self.take();
            if messages.is_empty() {
                tokio::select! {
                    biased;
                    () = self.filled.notified() => {}
                    closed = until_closed(read.as_mut()) => return closed.map(|()| false),
                    () = sleep(self.idle()) => return Ok(true),
                }
                continue;
            }
            let mut chunks = messages.into_iter().flat_map(|message| message.chunks);
            while let Some(window) = next_window(&mut chunks, pool).await? {
                write_all(write.as_mut(), window).await?;
            }
        }
    }
}

/// The next bytes to write: what is in memory as it is; what is not is read away from this thread, a window at a time.
async fn next_window(
    chunks: &mut (dyn Iterator<Item = Chunk> + Send),
    pool: &dyn BlockingPool,
) -> io::Result<Option<VecDeque<Bytes>>> {
    let mut window = VecDeque::new();
    let mut stored = Vec::new();
    for chunk in chunks {
        match chunk {
            Chunk::Memory(bytes) if stored.is_empty() => window.push_back(bytes),
            chunk => match chunk.cached() {
                Some(bytes) if stored.is_empty() => window.push_back(bytes),
                _ => stored.push(chunk),
            },
        }
        let windowed = window.len() + stored.len();
        if windowed * PAGE_SIZE >= PAYLOAD_WINDOW_BYTES {
            break;
        }
    }
    if !stored.is_empty() {
        let read = on_pool(pool, move || stored.iter().map(Chunk::read).collect::<io::Result<Vec<_>>>());
        window.extend(read.await.map_err(io::Error::other)??);
    }
    Ok((!window.is_empty()).then_some(window))
}

/// Nothing is ever read here: bytes are dropped, the end is noticed.
async fn until_closed(read: &mut (dyn AsyncRead + Send + Unpin)) -> io::Result<()> {
    let mut dropped = [0; 64];
    loop {
        if read.read(&mut dropped).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Writes all chunks, several at once.
///
/// # Errors
/// The stream's.
pub async fn write_all(
    write: &mut (dyn AsyncWrite + Send + Unpin),
    mut chunks: VecDeque<Bytes>,
) -> io::Result<()> {
    loop {
        while chunks.front().is_some_and(Bytes::is_empty) {
            chunks.pop_front();
        }
        if chunks.is_empty() {
            return write.flush().await;
        }
        let slices: Vec<IoSlice> = chunks.iter().take(SLICES_MAX).map(|chunk| IoSlice::new(chunk)).collect();
        let mut written = write.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = chunks.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            chunks.pop_front();
            if written == 0 {
                break;
            }
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
