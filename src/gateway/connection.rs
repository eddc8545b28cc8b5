//! The life of one connection: handshake, then request after request until the stream ends or turns into a raft
//! connection.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::executor::{Executor, Session};
use crate::raft::engine::Engine;
use crate::transport::client_stream::{ClientStream, Detached};
use crate::types::NodeId;
use crate::types::config::STATEMENT_WITHOUT_CLIENT_MAX;
use crate::types::tasks::Tasks;

use super::inbox::{Dialled, End, Event, Inbox};
use super::reader::FrameReader;

/// Protocol version of a client. spec: client-protocol 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Before 1.0: another answer to LEADER.
    Legacy,
    /// Version 1.
    One,
}

impl Version {
    fn from_handshake(word: u64) -> Option<Version> {
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
        })
    }

    /// Serves a client until its stream ends or the node stops.
    pub fn serve<S: ClientStream>(self: &Arc<Gateway>, stream: S) {
        let (read, write) = stream.split();
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            let stop = gateway.stop.clone();
            let mut frames = FrameReader::new(read);
            let version = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                word = frames.handshake() => match word {
                    Ok(Some(word)) => Version::from_handshake(word),
                    Ok(None) => None,
                    Err(error) => { debug!(%error, "no handshake"); None }
                },
            };
            let Some(version) = version else { return };
            let session = gateway.executor.session();
            let inbox = Arc::new(Inbox::new(frames, session.interrupt_handle()));
            let watcher = gateway.tasks.spawn(watch(
                Arc::clone(&inbox),
                session.interrupt_handle().runs_long(),
                Arc::clone(&gateway),
            ));
            let mut connection = Connection { gateway, session, write, version, inbox };
            let dialled = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                dialled = connection.run() => dialled,
            };
            watcher.abort();
            let Connection { gateway, session, write, inbox, .. } = connection;
            inbox.interrupt();
            drop(session);
            if let Some(Dialled { id, address, received, stream }) = dialled {
                let stream = S::detach(stream, write);
                gateway.peers.accept(PeerConnection { id, address, received, stream });
            }
        });
    }
}

/// Stands in for a connection's task while that is inside SQLite for long.
async fn watch<R>(inbox: Arc<Inbox<R>>, mut runs_long: watch::Receiver<Option<u64>>, gateway: Arc<Gateway>)
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let mut current = gateway.executor.watch_epoch();
    loop {
        let Ok(Some(epoch)) = runs_long.wait_for(Option::is_some).await.map(|epoch| *epoch) else { return };
        let over = async {
            tokio::select! {
                () = gateway.stop.cancelled() => {}
                // Whatever runs may be reading a version that is no more.
                _ = current.wait_for(|current| *current != epoch) => {}
            }
            inbox.interrupt();
            std::future::pending::<()>().await
        };
        let reading = async {
            let end = poll_fn(|context| {
                inbox.poll_ahead_instead(context);
                inbox.end().map_or(Poll::Pending, Poll::Ready)
            });
            if end.await == End::Closed {
                tokio::time::sleep(STATEMENT_WITHOUT_CLIENT_MAX).await;
            }
            inbox.interrupt();
            std::future::pending::<()>().await
        };
        tokio::select! {
            biased;
            _ = runs_long.wait_for(Option::is_none) => {}
            () = over => {}
            () = reading => {}
        }
        inbox.hand_back();
    }
}

/// The worker's side of a connection.
pub struct Connection<R, W> {
    pub(super) gateway: Arc<Gateway>,
    pub(super) session: Session,
    pub(super) write: W,
    pub(super) version: Version,
    pub(super) inbox: Arc<Inbox<R>>,
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

impl<R, W> Connection<R, W>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin,
{
    async fn run(&mut self) -> Option<Dialled<R>> {
        let mut epoch = self.gateway.executor.watch_epoch();
        let inbox = Arc::clone(&self.inbox);
        loop {
            let event = tokio::select! {
                biased;
                event = poll_fn(|context| inbox.poll_next(context)) => event,
                Ok(()) = epoch.changed() => { self.session.drop_if_stale(); continue }
            };
            let frame = match event? {
                Event::Request(frame) => frame,
                Event::Peer(dialled) => return Some(dialled),
            };
            let mut answer = pin!(self.answer(frame));
            let next = poll_fn(|context| {
                let answered = answer.as_mut().poll(context);
                if answered.is_pending() {
                    inbox.poll_ahead(context);
                }
                answered
            });
            let next = next.await;
            inbox.answered();
            match next {
                Ok(Next::Request) => {}
                Ok(Next::Close) => return None,
                Err(error) => {
                    debug!(%error, "client connection lost");
                    return None;
                }
            }
        }
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        self.write.write_all(message).await
    }
}
