//! One connection that a peer made: its messages go to raft in their order, the answers go out on this node's own
//! connection to the peer. Nothing is ever written here. spec: raft-wire 1, 5, 6.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::inbound::{Inbound, Refusal, Sender};
use super::known::Known;
use super::limits::speakers::FENCE_BASE;
use super::limits::{Moment, Pace, Verdict};
use super::links::Links;
use super::memory::{Memory, Share};
use super::message::Message;
use super::places::Place;
use super::reader::{MessageReader, ReceiveError, Received};
use super::spill::Spill;
use crate::types::config::{
    APPENDS_IN_FLIGHT_BYTES_MAX, DRIP_MIN_BYTES, DRIP_WINDOW, INBOUND_MESSAGES_MAX, SNAPSHOT_CHUNKS_AHEAD,
};
use crate::types::fault::{self, Fault};
use crate::types::{EntryData, Term};

/// How often raft hears that a snapshot or entries are still coming in.
const RECEIVING_INTERVAL: Duration = Duration::from_millis(200);

type Answered = (usize, Result<Option<Message>, Refusal>);

/// The content of a snapshot on its way from the connection to raft.
struct Content {
    left: u64,
    term: Term,
    /// None when raft wants no more: the rest is read and dropped.
    sender: Option<mpsc::Sender<Bytes>>,
    waiting: Option<Bytes>,
    /// Bytes of it so far.
    came: u64,
    told: Told,
}

/// When raft last heard that something large is coming, and how much of it had come.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    bytes: u64,
}

impl Told {
    /// Whether raft is to hear of it again, and enough has come meanwhile: what drips is no sign of life.
    fn is_due(&mut self, bytes: u64) -> bool {
        let since = self.at.elapsed();
        if since < RECEIVING_INTERVAL {
            return false;
        }
        let wanted = u128::from(DRIP_MIN_BYTES) * since.as_millis() / DRIP_WINDOW.as_millis();
        let has_progress = u128::from(bytes - self.bytes) >= wanted;
        *self = Told { at: Instant::now(), bytes };
        has_progress || fault::is_planted(Fault::DripRenews)
    }
}

/// A connection and what it needs.
pub(super) struct Connection {
    pub(super) from: Sender,
    pub(super) number: u64,
    pub(super) place: Place,
    pub(super) known: Arc<Known>,
    pub(super) links: Links,
    pub(super) memory: Arc<Memory>,
    pub(super) spill: Option<Spill>,
    pub(super) inbound: Arc<dyn Inbound>,
    pub(super) stop: CancellationToken,
}

/// Work of a connection that is not finished.
#[derive(Default)]
struct Work {
    /// Appends answer in order.
    ordered: FuturesOrdered<BoxFuture<'static, Answered>>,
    /// Heartbeats and votes need not wait for a disk.
    unordered: FuturesUnordered<BoxFuture<'static, Answered>>,
    bytes: usize,
    content: Option<Content>,
}

impl Work {
    fn has_room(&self) -> bool {
        self.ordered.len() + self.unordered.len() < INBOUND_MESSAGES_MAX
            && self.bytes < APPENDS_IN_FLIGHT_BYTES_MAX
    }

    /// What the connection is doing.
    fn moment<S: AsyncRead + Unpin>(&self, reader: &MessageReader<S>) -> Moment {
        let messages = reader.messages();
        match &self.content {
            Some(content) if content.waiting.is_some() => Moment::NotRead,
            // Between the message that announced it and the next one.
            Some(_) => Moment::Inside(2 * messages, reader.taken()),
            None if !reader.is_inside() => Moment::Between,
            None if !self.has_room() => Moment::NotRead,
            None => Moment::Inside(2 * messages + 1, reader.taken()),
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Connection {
    /// Reads until the stream ends, says something that no peer says, or the node stops.
    pub(super) async fn run<S: AsyncRead + Send + Unpin>(self, stream: S, received: Bytes) {
        self.inbound.connected(&self.from, self.number);
        let (inbound, from) = (self.inbound.clone(), self.from.clone());
        let share = Share::new(self.memory.clone(), self.number, move |term| inbound.follows(&from, term));
        let mut reader = MessageReader::new(stream, received, self.spill.clone()).with_share(share);
        let mut work = Work::default();
        let ended = tokio::select! {
            biased;
            () = self.place.end.cancelled() => Ok(()),
            ended = self.serve(&mut reader, &mut work) => ended,
        };
        if let Err(reason) = ended {
            let address = String::from_utf8_lossy(&self.from.address);
            warn!(peer = self.from.id.0, %address, reason, "raft connection closed");
        } else {
            debug!(peer = self.from.id.0, "raft connection ended");
        }
        if let Some(peer) = self.known.get(self.from.id) {
            peer.connection_ended(self.number);
        }
        self.inbound.disconnected(&self.from, self.number);
        // What raft has taken is answered all the same.
        work.content = None;
        let rest = async {
            while let Some(answered) = next_answer(&mut work).await {
                self.finish(&mut work.bytes, answered).ok();
            }
        };
        tokio::select! { biased; () = self.stop.cancelled() => {} () = rest => {} }
    }

    async fn serve<S: AsyncRead + Send + Unpin>(
        &self,
        reader: &mut MessageReader<S>,
        work: &mut Work,
    ) -> Result<(), String> {
        let text = |error: ReceiveError| error.to_string();
        let mut pace = Pace::default();
        let mut told = Told { at: Instant::now(), bytes: 0 };
        loop {
            // A leader sends nothing else while large entries are on their way.
            let tell_at = reader.is_inside().then(|| {
                if told.is_due(reader.taken())
                    && let Some(term) = reader.entries_under_way()
                {
                    self.inbound.receiving(&self.from, term);
                }
                told.at + RECEIVING_INTERVAL
            });
            let look_at = match pace.look(work.moment(reader), Instant::now()) {
                Verdict::Fine(look_at) => look_at,
                Verdict::Drips if fault::is_planted(Fault::DripRenews) => None,
                Verdict::Drips => {
                    return Err(format!("a message comes in drips: {} bytes in all", reader.taken()));
                }
            };
            let room = work.has_room();
            let Work { ordered, unordered, bytes, content } = &mut *work;
            tokio::select! {
                biased;
                Some(answered) = unordered.next() => self.finish(bytes, answered)?,
                Some(answered) = ordered.next() => self.finish(bytes, answered)?,
                step = step(reader, content.as_mut()), if content.is_some() || room => match step.map_err(text)? {
                    Step::Began => {}
                    Step::Moved => self.moved(content),
                    Step::Received(received) => self.dispatch(work, received)?,
                    Step::End => return Ok(()),
                },
                () = until(look_at.into_iter().chain(tell_at).min()) => {}
            }
        }
    }

    /// Tells raft now and then that a snapshot is coming, and sees its end.
    fn moved(&self, content: &mut Option<Content>) {
        let Some(some) = content.as_mut() else { return };
        if some.told.is_due(some.came) {
            self.inbound.receiving(&self.from, some.term);
        }
        if some.left == 0 && some.waiting.is_none() {
            *content = None;
        }
    }

    fn finish(&self, bytes: &mut usize, (taken, answer): Answered) -> Result<(), String> {
        *bytes = bytes.saturating_sub(taken);
        match answer {
            Ok(Some(message)) => {
                self.links.answer(&self.from, &message, || self.inbound.caller(&self.from));
            }
            Ok(None) => {}
            Err(refusal) => return Err(refusal.0),
        }
        Ok(())
    }

    fn dispatch(&self, work: &mut Work, received: Received) -> Result<(), String> {
        let Received { message, payloads } = received;
        let (term, is_answer) = (message.term(), message.is_answer());
        self.inbound.admit(term, is_answer).map_err(|refusal| refusal.0)?;
        let may_lead = matches!(message, Message::AppendEntries(_) | Message::InstallSnapshot(_));
        match message {
            Message::AppendEntries(append) => {
                let taken = payloads.iter().map(EntryData::len).sum();
                let is_fence = append.previous_index.0 >= FENCE_BASE;
                let answer = self.inbound.append(&self.from, append, payloads);
                let answer: BoxFuture<'static, Answered> = Box::pin(async move {
                    (taken, answer.await.map(|answer| answer.map(Message::AppendEntriesResult)))
                });
                work.bytes += taken;
                if is_fence { work.unordered.push(answer) } else { work.ordered.push_back(answer) }
            }
            Message::RequestVote(request) => {
                let answer = self.inbound.request_vote(&self.from, request);
                work.unordered
                    .push(Box::pin(async move { (0, Ok(answer.await.map(Message::RequestVoteResult))) }));
            }
            Message::InstallSnapshot(install) => {
                let (sender, content) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
                let (left, term) = (install.content_bytes, install.term);
                let answer = self.inbound.install_snapshot(&self.from, install, content);
                work.unordered
                    .push(Box::pin(async move { (0, Ok(answer.await.map(Message::AppendEntriesResult))) }));
                let told = Told { at: Instant::now(), bytes: 0 };
                let content = Content { left, term, sender: Some(sender), waiting: None, came: 0, told };
                work.content = (left > 0).then_some(content);
            }
            Message::TimeoutNow(now) => self.inbound.timeout_now(&self.from, now),
            Message::AppendEntriesResult(result) => {
                let peer = self.known.get(self.from.id);
                if peer.is_some_and(|peer| peer.append_result(result, self.number)) {
                    self.inbound.answered(&self.from, result.term);
                }
            }
            Message::RequestVoteResult(result) => {
                if let Some(peer) = self.known.get(self.from.id) {
                    peer.vote_result(result);
                }
            }
        }
        self.place.used(may_lead && self.inbound.follows(&self.from, term));
        Ok(())
    }
}

async fn next_answer(work: &mut Work) -> Option<Answered> {
    tokio::select! {
        biased;
        Some(answered) = work.unordered.next() => Some(answered),
        Some(answered) = work.ordered.next() => Some(answered),
        else => None,
    }
}

enum Step {
    Began,
    Received(Received),
    Moved,
    End,
}

/// The beginning of the next message, then all of it; while a snapshot comes in, a piece off the connection or a piece to raft.
async fn step<S: AsyncRead + Send + Unpin>(
    reader: &mut MessageReader<S>,
    content: Option<&mut Content>,
) -> Result<Step, ReceiveError> {
    let Some(content) = content else {
        if !reader.is_inside() {
            // Its time counts from its first byte.
            return Ok(if reader.begin().await? { Step::Began } else { Step::End });
        }
        return Ok(reader.next().await?.map_or(Step::End, Step::Received));
    };
    if let Some(sender) = content.sender.clone().filter(|_| content.waiting.is_some()) {
        match sender.reserve().await {
            Ok(permit) => {
                if let Some(piece) = content.waiting.take() {
                    permit.send(piece);
                }
            }
            Err(_) => {
                content.sender = None;
                content.waiting = None;
            }
        }
        return Ok(Step::Moved);
    }
    let piece = reader.content(content.left).await?;
    content.left -= piece.len() as u64;
    content.came += piece.len() as u64;
    if content.sender.is_some() {
        content.waiting = Some(piece);
    }
    Ok(Step::Moved)
}
