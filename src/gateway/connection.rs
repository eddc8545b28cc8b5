//! The life of one connection: handshake, then request after request until the stream ends or turns into a raft
//! connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::executor::sqlite::InterruptHandle;
use crate::executor::{Executor, Session};
use crate::protocol::request::{Kind, Request};
use crate::raft::engine::Engine;
use crate::types::tasks::Tasks;
use crate::types::{NodeId, config};

use super::reader::{Frame, FrameReader};

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
    /// The rest of the stream.
    pub stream: Box<dyn AsyncRead + Send + Unpin>,
    /// The way back: nothing is ever written there, but closing it early would be seen by proxies.
    pub unused: Box<dyn AsyncWrite + Send + Unpin>,
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
    pub fn serve<R, W>(self: &Arc<Gateway>, read: R, write: W)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
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
            let progress = Arc::new(Progress::new(session.interrupt_handle()));
            let (sender, requests) = mpsc::channel(config::REQUESTS_AHEAD);
            gateway.tasks.spawn(read_requests(frames, sender, Arc::clone(&progress), Arc::clone(&gateway)));
            let mut connection = Connection { gateway, session, write, version, progress };
            let dialled = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                dialled = connection.run(requests) => dialled,
            };
            let Connection { gateway, session, write, progress, .. } = connection;
            progress.interrupt.interrupt();
            drop(session);
            if let Some(Dialled { id, address, received, stream }) = dialled {
                gateway.peers.accept(PeerConnection {
                    id,
                    address,
                    received,
                    stream,
                    unused: Box::new(write),
                });
            }
        });
    }
}

/// What the reader hands to the worker.
#[derive(Debug)]
enum Event {
    Request(Frame),
    Peer(Dialled),
}

/// A raft connection without its way back.
struct Dialled {
    id: NodeId,
    address: Bytes,
    received: Bytes,
    stream: Box<dyn AsyncRead + Send + Unpin>,
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialled").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What reader and worker of a connection know of each other.
#[derive(Debug)]
pub(super) struct Progress {
    /// Requests read and not yet answered.
    unanswered: AtomicUsize,
    /// An INTERRUPT has come behind the request that is worked on.
    interrupted: AtomicBool,
    interrupt: InterruptHandle,
}

impl Progress {
    fn new(interrupt: InterruptHandle) -> Progress {
        Progress { unanswered: AtomicUsize::new(0), interrupted: AtomicBool::new(false), interrupt }
    }

    /// Whether the client has asked to stop the query that runs.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }
}

async fn read_requests<R>(
    mut frames: FrameReader<R>,
    requests: mpsc::Sender<Event>,
    progress: Arc<Progress>,
    gateway: Arc<Gateway>,
) where
    R: AsyncRead + Send + Unpin + 'static,
{
    let mut epoch = gateway.executor.watch_epoch();
    loop {
        let frame = tokio::select! {
            biased;
            () = requests.closed() => return,
            () = gateway.stop.cancelled() => { progress.interrupt.interrupt(); return }
            // Whatever runs may be reading a version that is no more.
            Ok(()) = epoch.changed() => { progress.interrupt.interrupt(); continue }
            frame = frames.frame() => frame,
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                debug!(%error, "client connection closed");
                return;
            }
        };
        if frame.header.kind == Kind::Connect as u8 && frame.header.schema == 0 {
            if let Ok(Request::Connect { id, address }) =
                Request::decode(frame.header.kind, frame.header.schema, &frame.body)
            {
                let (stream, received) = frames.into_parts();
                let dialled = Dialled { id: NodeId(id), address, received, stream: Box::new(stream) };
                // A worker that has gone closes the stream.
                let _ = requests.send(Event::Peer(dialled)).await;
            }
            return;
        }
        let waiting = progress.unanswered.fetch_add(1, Ordering::AcqRel);
        if frame.header.kind == Kind::Interrupt as u8 && waiting == 1 {
            progress.interrupted.store(true, Ordering::Release);
            progress.interrupt.interrupt();
        }
        if requests.send(Event::Request(frame)).await.is_err() {
            return;
        }
    }
}

/// The worker's side of a connection.
pub struct Connection<W> {
    pub(super) gateway: Arc<Gateway>,
    pub(super) session: Session,
    pub(super) write: W,
    pub(super) version: Version,
    pub(super) progress: Arc<Progress>,
}

impl<W> std::fmt::Debug for Connection<W> {
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

impl<W: AsyncWrite + Send + Unpin> Connection<W> {
    async fn run(&mut self, mut requests: mpsc::Receiver<Event>) -> Option<Dialled> {
        let mut epoch = self.gateway.executor.watch_epoch();
        loop {
            let frame = tokio::select! {
                biased;
                frame = requests.recv() => frame,
                Ok(()) = epoch.changed() => { self.session.drop_if_stale(); continue }
            };
            let frame = match frame? {
                Event::Request(frame) => frame,
                Event::Peer(dialled) => return Some(dialled),
            };
            let next = self.answer(frame).await;
            self.progress.interrupted.store(false, Ordering::Release);
            self.progress.unanswered.fetch_sub(1, Ordering::AcqRel);
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
