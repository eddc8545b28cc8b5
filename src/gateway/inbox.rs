//! What a connection has received and not yet answered, and how its stream has ended. Whoever looks after the connection reads,
//! also while a request is worked on, so that an INTERRUPT and the client's end are noticed at once.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{debug, info};

use super::reader::{Frame, FrameReader};
use crate::executor::sqlite::Ended;
use crate::protocol::request::{Kind, Request};
use crate::transport::client_stream::ClientRead;
use crate::types::{NodeId, config};

/// What comes next on a connection.
#[derive(Debug)]
pub(super) enum Event<R> {
    /// A request.
    Request(Frame),
    /// The stream has turned into a raft connection.
    Peer(Dialled<R>),
}

/// A raft connection without its way back.
pub(super) struct Dialled<R> {
    pub(super) id: NodeId,
    pub(super) address: Bytes,
    pub(super) received: Bytes,
    pub(super) stream: R,
}

impl<R> std::fmt::Debug for Dialled<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialled").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client sends no more, but may wait for its answers.
    Closed {
        /// When that was noticed, or when it last took bytes.
        since: Instant,
    },
    /// It is gone: nothing more of it is carried out.
    Failed,
}

/// The inbox of one connection.
pub(super) struct Inbox<R> {
    state: Mutex<State<R>>,
    ended: Ended,
}

struct State<R> {
    /// None once the stream has ended or has become a raft connection.
    reader: Option<FrameReader<R>>,
    /// How the stream has ended, if it has.
    end: Option<End>,
    events: VecDeque<Event<R>>,
    /// Wakes the connection's own task when the other one has read in its place.
    waker: Option<Waker>,
    /// A request is worked on.
    working: bool,
    /// An INTERRUPT has come behind the request that is worked on.
    interrupted: bool,
    /// The client's machine may owe acknowledgements of what was sent.
    is_owed: bool,
    /// The next message is too large to be read ahead.
    holds_back: bool,
}

/// What there is of a stream.
pub(super) struct Seen {
    /// As much was read ahead as is allowed.
    pub(super) is_full: bool,
    /// The client's machine may owe acknowledgements, so that it has to be looked for.
    pub(super) is_owed: bool,
    /// How the stream has ended, if it has.
    pub(super) end: Option<End>,
}

impl<R: ClientRead> Inbox<R> {
    /// The inbox of a stream behind its handshake; an INTERRUPT is told to `ended`.
    pub(super) fn new(reader: FrameReader<R>, ended: Ended) -> Inbox<R> {
        let state = State {
            reader: Some(reader),
            end: None,
            events: VecDeque::new(),
            waker: None,
            working: false,
            interrupted: false,
            is_owed: false,
            holds_back: false,
        };
        Inbox { state: Mutex::new(state), ended }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next of what was read ahead, which counts as worked on until `answered`; None at the end of the stream.
    pub(super) fn poll_next(&self) -> Poll<Option<Event<R>>> {
        let mut state = self.lock();
        match state.events.pop_front() {
            Some(event) => {
                state.working = true;
                self.ended.next_request();
                state.heed_interrupt(&self.ended);
                Poll::Ready(Some(event))
            }
            None if state.reader.is_none() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// The connection's own task is to be woken by `hand_back`.
    pub(super) fn remember(&self, context: &Context<'_>) {
        self.lock().remember(context);
    }

    /// Reads on behind the request that is worked on, up to a bound. The stream wakes who has asked last.
    pub(super) fn read_ahead(&self, context: &mut Context<'_>) -> Seen {
        let mut state = self.lock();
        state.read_ahead(context, &self.ended);
        let is_full =
            state.reader.is_some() && (state.holds_back || state.events.len() >= config::REQUESTS_AHEAD);
        Seen { is_full, is_owed: state.is_owed, end: state.end }
    }

    /// Looks how long the client's machine has been silent, if it owes acknowledgements: whether it does, and is to be looked for
    /// again. A stream that was read to its end has a bound of its own.
    pub(super) fn look_for_silence(&self) -> bool {
        let mut state = self.lock();
        let silence = state.reader.as_ref().and_then(|reader| reader.stream().silence());
        state.is_owed = silence.is_some_and(|silence| silence < config::CLIENT_SILENCE_MAX);
        if silence.is_some() && !state.is_owed {
            info!(?silence, "a client's machine is silent: its connection is closed");
            state.fail();
        }
        state.is_owed
    }

    /// Looks whether the client has gone, or sends no more, though the stream was not read to its end.
    pub(super) fn look_for_hang_up(&self) {
        let mut state = self.lock();
        if state.reader.as_ref().is_some_and(|reader| reader.stream().is_hung_up()) {
            debug!("client connection closed behind requests that were not read");
            state.fail();
        } else if state.reader.as_ref().is_some_and(|reader| reader.stream().sends_no_more()) {
            state.closed();
        }
    }

    /// The client's socket has taken bytes. If it sends no more, it lives: to one that has closed its socket nothing can be sent
    /// but once.
    pub(super) fn client_takes(&self) {
        let mut state = self.lock();
        state.is_owed = R::CAN_FALL_SILENT;
        if let Some(End::Closed { since }) = &mut state.end {
            *since = Instant::now();
        }
    }

    /// Nobody waits for answers any more: what was read ahead is not carried out.
    pub(super) fn set_failed(&self) {
        self.lock().fail();
    }

    /// The connection's own task reads again: a stream wakes only who has asked it last.
    pub(super) fn hand_back(&self) {
        if let Some(waker) = self.lock().waker.take() {
            waker.wake();
        }
    }

    /// The request that was worked on has its answer.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        state.working = false;
        state.interrupted = false;
    }

    /// Whether the client has asked to stop the request that is worked on.
    pub(super) fn is_interrupted(&self) -> bool {
        self.lock().interrupted
    }

    /// How the stream has ended, if it has.
    pub(super) fn end(&self) -> Option<End> {
        self.lock().end
    }
}

impl<R: ClientRead> State<R> {
    fn fail(&mut self) {
        self.reader = None;
        self.end = Some(End::Failed);
        self.events.clear();
    }

    /// The client sends no more, which counts from when it was first noticed.
    fn closed(&mut self) {
        self.end.get_or_insert_with(|| End::Closed { since: Instant::now() });
    }

    fn remember(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.waker = Some(context.waker().clone()),
        }
    }

    fn read_ahead(&mut self, context: &mut Context<'_>, ended: &Ended) {
        while self.events.len() < config::REQUESTS_AHEAD && self.poll_read(context, ended) {}
    }

    /// Bytes of the requests that wait.
    fn bytes_ahead(&self) -> u64 {
        let bytes = |event: &Event<R>| match event {
            Event::Request(frame) => frame.body.len() as u64,
            Event::Peer(_) => 0,
        };
        self.events.iter().map(bytes).sum()
    }

    /// Takes the next message off the stream, if a whole one is there: whether it was one. What is too large to be read ahead is
    /// begun when nothing else is to be done: whoever looks for the next request asks again.
    fn poll_read(&mut self, context: &mut Context<'_>, ended: &Ended) -> bool {
        let (is_next, bytes_ahead) = (self.events.is_empty() && !self.working, self.bytes_ahead());
        let Some(reader) = self.reader.as_mut() else { return false };
        let holds_back = &mut self.holds_back;
        *holds_back = false;
        let may_begin = |bytes: u64| {
            *holds_back = !is_next && bytes_ahead + bytes > config::REQUESTS_AHEAD_MAX_BYTES;
            !*holds_back
        };
        let frame = match reader.poll_frame(context, may_begin) {
            Poll::Pending => return false,
            Poll::Ready(Ok(Some(frame))) => frame,
            Poll::Ready(Ok(None)) => {
                self.reader = None;
                self.closed();
                return false;
            }
            Poll::Ready(Err(error)) => {
                debug!(%error, "client connection closed");
                self.fail();
                return false;
            }
        };
        if frame.header.kind == Kind::Connect as u8 && frame.header.schema == 0 {
            let request = Request::decode(frame.header.kind, frame.header.schema, &frame.body);
            if let (Ok(Request::Connect { id, address }), Some(reader)) = (request, self.reader.take()) {
                let (stream, received) = reader.into_parts();
                self.events.push_back(Event::Peer(Dialled { id: NodeId(id), address, received, stream }));
            }
            return false;
        }
        self.events.push_back(Event::Request(frame));
        self.heed_interrupt(ended);
        true
    }

    /// Stops the request that is worked on, whatever it is, if the very next message is an INTERRUPT, whichever of the two was read
    /// or taken last.
    fn heed_interrupt(&mut self, ended: &Ended) {
        if self.working && !self.interrupted && self.events.front().is_some_and(is_interrupt) {
            self.interrupted = true;
            ended.interrupt();
        }
    }
}

fn is_interrupt<R>(event: &Event<R>) -> bool {
    matches!(event, Event::Request(frame) if frame.header.kind == Kind::Interrupt as u8)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::executor::sqlite::{End as Why, Heeds};
    use crate::pages::PageStore;
    use crate::transport::client_stream::{ClientStream, Plain};

    fn inbox() -> (DuplexStream, Inbox<Plain<DuplexStream>>) {
        let (client, node) = duplex(1 << 16);
        let (node, _) = ClientStream::split((node, tokio::io::sink()));
        (client, Inbox::new(FrameReader::new(node), Ended::new(PageStore::new())))
    }

    async fn send(client: &mut DuplexStream, kinds: &[Kind]) {
        for kind in kinds {
            client.write_all(&[1, 0, 0, 0, *kind as u8, 0, 0, 0]).await.unwrap();
            client.write_all(&[0; 8]).await.unwrap();
        }
    }

    fn read(inbox: &Inbox<Plain<DuplexStream>>) {
        inbox.read_ahead(&mut Context::from_waker(Waker::noop()));
    }

    #[tokio::test]
    async fn what_is_large_is_not_begun_before_all_else_is_done() {
        let max = usize::try_from(config::REQUESTS_AHEAD_MAX_BYTES).unwrap();
        let (mut client, node) = duplex(8 * max);
        let (node, _) = ClientStream::split((node, tokio::io::sink()));
        let inbox = Inbox::new(FrameReader::new(node), Ended::new(PageStore::new()));
        for body in [2 * max, max / 2, max / 2, 8, 2 * max] {
            let words = u32::try_from(body / 8).unwrap().to_le_bytes();
            client.write_all(&[&words[..], &[Kind::ExecSql as u8, 0, 0, 0]].concat()).await.unwrap();
            client.write_all(&vec![0; body]).await.unwrap();
        }
        let look = || inbox.read_ahead(&mut Context::from_waker(Waker::noop())).is_full;
        let take = || {
            let Poll::Ready(Some(Event::Request(frame))) = inbox.poll_next() else {
                panic!("nothing is next")
            };
            frame.body.len()
        };
        let waiting = || {
            let state = inbox.lock();
            (state.events.len(), state.bytes_ahead() as usize)
        };

        // One alone is read however large it is, and nothing behind it.
        assert!(look());
        assert_eq!((waiting(), take()), ((1, 2 * max), 2 * max));
        // As many as fit.
        assert!(look());
        assert_eq!(waiting(), (2, max));
        for (next, left) in [(max / 2, 2), (max / 2, 1), (8, 0)] {
            inbox.answered();
            assert_eq!(take(), next);
            assert!(look());
            assert_eq!(waiting().0, left);
        }
        // Whoever looks for the next request begins it.
        inbox.answered();
        assert!(!look());
        assert_eq!((waiting(), take()), ((1, 2 * max), 2 * max));
    }

    #[tokio::test]
    async fn an_interrupt_stops_what_it_follows_whether_they_come_together_or_apart() {
        let kinds = [Kind::Query, Kind::QuerySql, Kind::Exec, Kind::ExecSql, Kind::Prepare, Kind::Open];
        for kind in kinds {
            let cases: [(&[Kind], &[Kind], bool); 5] = [
                (&[kind, Kind::Interrupt], &[], true),
                (&[kind], &[Kind::Interrupt], true),
                (&[kind, Kind::Client], &[Kind::Interrupt], false),
                (&[kind], &[Kind::Client, Kind::Interrupt], false),
                (&[kind], &[], false),
            ];
            for (first, then, is_stopped) in cases {
                let (mut client, inbox) = inbox();
                send(&mut client, first).await;
                read(&inbox);
                assert!(matches!(inbox.poll_next(), Poll::Ready(Some(Event::Request(_)))));
                send(&mut client, then).await;
                read(&inbox);

                let why = inbox.ended.look(Heeds::All);
                let case = format!("{first:?} {then:?}");
                assert_eq!(why, is_stopped.then_some(Why::Interrupted), "{case}");
                assert_eq!(inbox.is_interrupted(), is_stopped, "{case}");
                // Nothing of it is left for the next one.
                inbox.answered();
                assert!(!inbox.is_interrupted());
                drop(inbox.poll_next());
                assert_eq!(inbox.ended.look(Heeds::All).is_some(), inbox.is_interrupted(), "{case}");
            }
        }
    }
}
