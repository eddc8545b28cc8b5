//! The life of one connection: handshake, then request after request until the stream ends or turns into a raft
//! connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::executor::sqlite::{End, Heeds};
use crate::executor::{Executor, Session};
use crate::pages::{Database, Root};
use crate::raft::Engine;
use crate::transport::client_stream::{ClientRead, ClientStream, ClientWrite, Detached};
use crate::types::NodeId;
use crate::types::config::{CLIENT_LOOK_EVERY, CLIENT_STALL_MAX, PAGE_SIZE, PINNED_OLD_BYTES_MAX};
use crate::types::fault::{self, Fault};
use crate::types::tasks::Tasks;

use super::attendant::Attendant;
use super::inbox::{Dialled, Event, Inbox};
use super::reader::{Frame, FrameReader};
use super::stalled::{Stall, Stalled};

/// Protocol version of a client. spec: client-protocol 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Before 1.0: another answer to LEADER.
    Legacy,
    /// Version 1.
    One,
}

impl Version {
    pub(super) fn from_handshake(word: u64) -> Option<Version> {
        match word {
            1 => Some(Version::One),
            0x8610_4dd7_6043_3fe5 => Some(Version::Legacy),
            _ => None,
        }
    }
}

/// A stream that turned into a raft connection: who dialled, and what was received behind CONNECT.
pub struct PeerConnection {
    /// Id that the peer gave.
    pub id: NodeId,
    /// Address that the peer gave.
    pub address: Bytes,
    /// Bytes behind CONNECT.
    pub received: Bytes,
    /// The rest of the stream. Nothing is ever written back.
    pub stream: Detached,
}

/// Takes raft connections.
pub trait PeerSink: Send + Sync {
    /// Takes one; the gateway is done with it.
    fn accept(&self, peer: PeerConnection);
}

/// What connections share.
pub struct Gateway {
    pub(super) executor: Arc<Executor>,
    pub(super) engine: Engine,
    pub(super) failure_domain: Arc<AtomicU64>,
    pub(super) weight: Arc<AtomicU64>,
    pub(super) peers: Arc<dyn PeerSink>,
    pub(super) tasks: Tasks,
    pub(super) stop: CancellationToken,
    stalled: Arc<Stalled>,
}

/// What a gateway is made of.
pub struct GatewayParts {
    /// Runs SQL.
    pub executor: Arc<Executor>,
    /// Leadership and membership.
    pub engine: Engine,
    /// Reported by DESCRIBE; the host may change it.
    pub failure_domain: Arc<AtomicU64>,
    /// Reported by DESCRIBE, set by WEIGHT.
    pub weight: Arc<AtomicU64>,
    /// Where raft connections go.
    pub peers: Arc<dyn PeerSink>,
    /// Where connections run.
    pub tasks: Tasks,
    /// Ends all connections.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway over its parts.
    #[must_use]
    pub fn new(parts: GatewayParts) -> Arc<Gateway> {
        Arc::new(Gateway {
            executor: parts.executor,
            engine: parts.engine,
            failure_domain: parts.failure_domain,
            weight: parts.weight,
            peers: parts.peers,
            tasks: parts.tasks,
            stop: parts.stop,
            stalled: Stalled::new(PINNED_OLD_BYTES_MAX),
        })
    }

    /// Sets how many bytes of old versions may be kept beside clients that take nothing.
    #[cfg(test)]
    pub(crate) fn set_pinned_old_bytes_max(&self, bytes: u64) {
        self.stalled.set_kept_bytes_max(bytes);
    }

    /// Serves a client until its stream ends or the node stops.
    pub fn serve<S: ClientStream>(self: &Arc<Gateway>, stream: S) {
        let (read, write) = stream.split();
        write.set_others_wait(false);
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut frames = FrameReader::new(read);
            let version = tokio::select! {
                biased;
                () = gateway.stop.cancelled() => return,
                word = frames.handshake() => match word {
                    Ok(Some(word)) => Version::from_handshake(word),
                    Ok(None) => None,
                    Err(error) => { debug!(%error, "no handshake"); None }
                },
            };
            let Some(version) = version else { return };
            let session = gateway.executor.session();
            let inbox = Arc::new(Inbox::new(frames, session.ended().clone()));
            let [mut attendant, stand_in] =
                [(); 2].map(|()| Attendant::new(Arc::clone(&inbox), &session, gateway.stop.clone()));
            // It holds nothing. It goes with this task, however that ends.
            let stand_in = AbortOnDropHandle::new(gateway.tasks.spawn(stand_in.stand_in()));
            let mut connection = Connection {
                gateway,
                session,
                write,
                version,
                inbox,
                others_wait: false,
                dumped: None,
                stall: None,
            };
            let dialled = connection.run(&mut attendant).await;
            drop(stand_in);
            let Connection { gateway, session, write, dumped, stall, .. } = connection;
            drop(dumped);
            // It counts until all that it holds has gone.
            session.end_before(stall);
            if let Some(Dialled { id, address, received, stream }) = dialled {
                let stream = S::detach(stream, write);
                gateway.peers.accept(PeerConnection { id, address, received, stream });
            }
        });
    }
}

/// The worker's side of a connection.
pub struct Connection<R, W> {
    pub(super) gateway: Arc<Gateway>,
    pub(super) session: Session,
    write: W,
    pub(super) version: Version,
    pub(super) inbox: Arc<Inbox<R>>,
    /// Whether the client's socket knows that others wait for it.
    others_wait: bool,
    /// What a DUMP sends.
    pub(super) dumped: Option<Dumped>,
    /// It keeps old pages, and its client does not take what it is sent.
    stall: Option<Stall>,
}

/// A database as it was when its DUMP began.
pub(super) struct Dumped {
    pub(super) database: Arc<Database>,
    pub(super) root: Root,
}

/// The wait of one message for its socket.
struct Waiting {
    since: Instant,
    next_look: Pin<Box<Sleep>>,
    /// While others wait for the client.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    fn begin() -> Waiting {
        let since = Instant::now();
        Waiting { since, next_look: Box::pin(sleep(CLIENT_LOOK_EVERY)), patience: None }
    }
}

impl<R, W> std::fmt::Debug for Connection<R, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It does.
    Request,
    /// It is to be closed.
    Close,
}

impl<R: ClientRead, W: ClientWrite> Connection<R, W> {
    /// Answers request after request. One that was begun is carried to its end, however it ends: it is never dropped.
    async fn run(&mut self, attendant: &mut Attendant<R>) -> Option<Dialled<R>> {
        loop {
            let frame = match self.next_event(attendant).await? {
                Event::Request(frame) => frame,
                Event::Peer(dialled) => return Some(dialled),
            };
            match self.answer_attended(frame, attendant).await {
                Ok(Next::Request) => self.tell_socket(),
                Ok(Next::Close) => return None,
                Err(error) => {
                    debug!(%error, "client connection lost");
                    return None;
                }
            }
        }
    }

    async fn answer_attended(&mut self, frame: Frame, attendant: &mut Attendant<R>) -> io::Result<Next> {
        let inbox = Arc::clone(&self.inbox);
        let mut answer = pin!(self.answer(frame));
        let next = poll_fn(|context| {
            loop {
                let known = attendant.ended().look(Heeds::All);
                // Most requests never wait: then nobody has to look after the connection meanwhile.
                if let Poll::Ready(next) = answer.as_mut().poll(context) {
                    return Poll::Ready(next);
                }
                inbox.remember(context);
                attendant.look(context);
                if attendant.ended().look(Heeds::All) == known {
                    return Poll::Pending;
                }
            }
        });
        let next = next.await;
        inbox.answered();
        next
    }

    /// The next request; None when there is none any more or nobody waits for its answer.
    async fn next_event(&mut self, attendant: &mut Attendant<R>) -> Option<Event<R>> {
        let inbox = Arc::clone(&self.inbox);
        poll_fn(|context| {
            // Before it looks: the stand-in may be about to hand back.
            inbox.remember(context);
            attendant.look(context);
            if self.has_ended() { Poll::Ready(None) } else { inbox.poll_next() }
        })
        .await
    }

    /// Whether nothing more goes to the client. What belongs to an epoch that is over is left at once, whether the client knows or
    /// not: others need the seat. A message under way is finished all the same.
    fn has_ended(&mut self) -> bool {
        self.session.leave_if_stale();
        self.tell_socket();
        let end = self.session.ended().look(Heeds::AllButInterrupt);
        matches!(end, Some(End::Stopping | End::ClientGone))
    }

    /// A client that holds the writer's turn between two requests must not vanish unnoticed.
    fn tell_socket(&mut self) {
        let others_wait = self.session.holds_turn();
        if std::mem::replace(&mut self.others_wait, others_wait) != others_wait {
            self.write.set_others_wait(others_wait);
        }
    }

    /// Sends a whole message. What the socket does not take at once waits for the client, and for whatever ends that wait.
    ///
    /// # Errors
    /// The socket's; the node stops or the client has gone; a client that others wait for takes nothing for too long; too many old
    /// pages are kept, and no client has waited longer.
    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut rest = message;
        let mut waiting: Option<Waiting> = None;
        let sent = poll_fn(|context| {
            while !rest.is_empty() {
                match Pin::new(&mut self.write).poll_write(context, rest) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(taken)) => {
                        rest = rest.get(taken..).unwrap_or_default();
                        self.inbox.client_takes();
                        // Slow is not silent; how long the message takes in all counts for the pages.
                        if let Some(waiting) = &mut waiting {
                            waiting.patience = None;
                        }
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        let waiting = waiting.get_or_insert_with(Waiting::begin);
                        return self.wait_for_client(waiting, context).map(Err);
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await;
        if sent.is_ok() {
            self.stall = None;
        }
        sent
    }

    /// What ends the wait for a client that takes nothing.
    fn wait_for_client(&mut self, waiting: &mut Waiting, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.has_ended() {
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, "ended while it waited"));
        }
        while waiting.next_look.as_mut().poll(context).is_ready() {
            waiting.next_look = Box::pin(sleep(CLIENT_LOOK_EVERY));
            if self.must_go(waiting.since) {
                return Poll::Ready(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "it keeps old versions of pages and does not take what it is sent",
                ));
            }
        }
        if !self.session.holds_turn() || fault::is_planted(Fault::StallUnseen) {
            waiting.patience = None;
            return Poll::Pending;
        }
        let patience = waiting.patience.get_or_insert_with(|| Box::pin(sleep(CLIENT_STALL_MAX)));
        patience.as_mut().poll(context).map(|()| {
            io::Error::new(io::ErrorKind::TimedOut, "it holds the writer's turn and takes no bytes")
        })
    }

    /// Whether this connection, which waits for its client, has to go on account of the old pages that are kept.
    fn must_go(&mut self, since: Instant) -> bool {
        let dumps_old = |dumped: &Dumped| dumped.database.committed().root.version() != dumped.root.version();
        if !self.session.keeps_old_pages() && !self.dumped.as_ref().is_some_and(dumps_old) {
            self.stall = None;
            return false;
        }
        let store = self.gateway.executor.store();
        let stall = self.stall.get_or_insert_with(|| self.gateway.stalled.enter(since));
        stall.must_go(|| store.pages_kept_by_old_pins() * PAGE_SIZE as u64)
    }
}
