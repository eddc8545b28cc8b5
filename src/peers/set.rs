//! All peers of a node: the links to them, what is awaited from them, and the connections that they made.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::inbound::{Connection, Inbound, Sender};
use super::link::{Link, LinkFull, Outgoing, connect_bytes};
use super::message::Message;
use super::peer::SharedPeer;
use super::spill::Spill;
use crate::transport::client_stream::Detached;
use crate::transport::dial::Dial;
use crate::types::config::LINKS_MAX;
use crate::types::payload::PayloadStore;
use crate::types::tasks::BlockingPool;
use crate::types::{Chunk, NodeId};

/// Runs tasks where raft runs.
pub type Spawn = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

/// What the peers of a node are made of.
pub struct PeersParts {
    /// This node.
    pub id: NodeId,
    /// What the others know it by.
    pub address: Bytes,
    /// Connects to them.
    pub dial: Arc<dyn Dial>,
    /// Where their tasks run.
    pub spawn: Spawn,
    /// Where they read and write files.
    pub pool: Arc<dyn BlockingPool>,
    /// Where large payloads go that need not be in memory.
    pub payloads: Option<Arc<dyn PayloadStore>>,
    /// Ends all of them.
    pub stop: CancellationToken,
}

/// Peers of one node. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    id: NodeId,
    hello: Bytes,
    dial: Arc<dyn Dial>,
    spawn: Spawn,
    pool: Arc<dyn BlockingPool>,
    payloads: Option<Arc<dyn PayloadStore>>,
    stop: CancellationToken,
    links: Mutex<BTreeMap<(NodeId, Bytes), Arc<Link>>>,
    peers: Mutex<BTreeMap<NodeId, SharedPeer>>,
    inbound: OnceLock<Arc<dyn Inbound>>,
    connections: AtomicU64,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl Peers {
    /// Nobody is dialled before there is a message.
    #[must_use]
    pub fn new(parts: PeersParts) -> Peers {
        Peers {
            inner: Arc::new(Inner {
                id: parts.id,
                hello: connect_bytes(parts.id, &parts.address),
                dial: parts.dial,
                spawn: parts.spawn,
                pool: parts.pool,
                payloads: parts.payloads,
                stop: parts.stop,
                links: Mutex::default(),
                peers: Mutex::default(),
                inbound: OnceLock::new(),
                connections: AtomicU64::new(0),
            }),
        }
    }

    /// Who gets what peers send. Connections that come before are closed, as upstream does while raft does not run.
    pub fn set_inbound(&self, inbound: Arc<dyn Inbound>) {
        // A second one changes nothing.
        let _ = self.inner.inbound.set(inbound);
    }

    /// What is awaited from a peer.
    #[must_use]
    pub fn peer(&self, id: NodeId) -> SharedPeer {
        let mut peers = self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() > LINKS_MAX && !peers.contains_key(&id) {
            // Strangers must not fill the memory; a peer that somebody waits for is held elsewhere.
            peers.retain(|_, peer| Arc::strong_count(peer) > 1);
        }
        peers.entry(id).or_default().clone()
    }

    /// The link to a peer, made if need be. None if there are too many.
    #[must_use]
    pub fn link(&self, id: NodeId, address: &Bytes) -> Option<Arc<Link>> {
        let mut links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (id, address.clone());
        if let Some(link) = links.get(&key).filter(|link| !link.has_ended()) {
            return Some(link.clone());
        }
        if links.len() >= LINKS_MAX {
            links.retain(|_, link| !link.has_ended());
            if links.len() >= LINKS_MAX {
                return None;
            }
        }
        let link = Arc::new(Link::default());
        links.insert(key, link.clone());
        let inner = &self.inner;
        let running = link.clone().run(
            id,
            address.clone(),
            inner.hello.clone(),
            inner.dial.clone(),
            inner.pool.clone(),
            inner.stop.child_token(),
        );
        (inner.spawn)(Box::pin(running));
        Some(link)
    }

    /// Queues a message.
    ///
    /// # Errors
    /// The queue is full, or there are too many links.
    pub fn send(&self, id: NodeId, address: &Bytes, chunks: Vec<Chunk>) -> Result<(), LinkFull> {
        let message = Outgoing { chunks };
        let link = self.link(id, address).ok_or(LinkFull::Ended)?;
        match link.send(message.clone()) {
            // A link may end between being found and being used; a new one does not.
            Err(LinkFull::Ended) => self.link(id, address).ok_or(LinkFull::Ended)?.send(message),
            sent => sent,
        }
    }

    /// Answers whoever made a connection; an answer that cannot be queued is lost, as on a network.
    pub(super) fn answer(&self, to: &Sender, message: &Message) {
        if let Err(error) = self.send(to.id, &to.address, vec![message.encode().into()]) {
            debug!(peer = to.id.0, %error, "answer dropped");
        }
    }

    /// Connects beside the link, for a snapshot.
    pub fn dial(
        &self,
        address: &Bytes,
    ) -> BoxFuture<'static, std::io::Result<crate::transport::dial::Stream>> {
        self.inner.dial.dial(address.to_vec())
    }

    /// What a connection to a peer begins with.
    #[must_use]
    pub fn hello(&self) -> Bytes {
        self.inner.hello.clone()
    }

    /// Cancelled when the node stops.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.inner.stop
    }

    /// Where large payloads go, if they need not be in memory.
    pub(super) fn spill(&self) -> Option<Spill> {
        let store = self.inner.payloads.clone()?;
        Some(Spill { store, pool: self.inner.pool.clone() })
    }

    /// Takes a connection that a peer made; `received` came behind CONNECT.
    pub fn accept(&self, id: NodeId, address: Bytes, received: Bytes, stream: Detached) {
        let inner = &self.inner;
        let Some(inbound) = inner.inbound.get().cloned() else { return };
        if id.0 == 0 || id == inner.id {
            warn!(peer = id.0, "a raft connection with an id that no other node can have is closed");
            return;
        }
        let number = inner.connections.fetch_add(1, Ordering::Relaxed) + 1;
        // Who connects is there: an answer or a vote need not wait for the next dial.
        self.links_of(id).iter().for_each(|link| link.poke());
        let connection = Connection {
            from: Sender { id, address },
            number,
            peer: self.peer(id),
            peers: self.clone(),
            inbound,
            stop: inner.stop.clone(),
        };
        (inner.spawn)(Box::pin(async move {
            // Read where raft runs: a message wakes no other thread.
            match stream.attach() {
                Ok(stream) => connection.run(stream, received).await,
                Err(error) => warn!(peer = id.0, %error, "a raft connection could not be taken over"),
            }
        }));
    }

    fn links_of(&self, id: NodeId) -> Vec<Arc<Link>> {
        let links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter(|((peer, _), _)| *peer == id).map(|(_, link)| link.clone()).collect()
    }
}
