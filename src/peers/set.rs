//! All peers of a node: the links to them, what is awaited from each, and the connections that they made.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::connection::Connection;
use super::inbound::{Inbound, Sender};
use super::link::connect_bytes;
use super::links::{Links, LinksParts, Spawn};
use super::peer::SharedPeer;
use super::spill::Spill;
use crate::transport::client_stream::Detached;
use crate::transport::dial::Dial;
use crate::types::NodeId;
use crate::types::config::PEERS_KEPT;
use crate::types::payload::PayloadStore;
use crate::types::tasks::BlockingPool;

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
    links: Links,
    spawn: Spawn,
    spill: Option<Spill>,
    stop: CancellationToken,
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
        let PeersParts { id, address, dial, spawn, pool, payloads, stop } = parts;
        let spill = payloads.map(|store| Spill { store, pool: pool.clone() });
        let hello = connect_bytes(id, &address);
        let links = Links::new(LinksParts { hello, dial, spawn: spawn.clone(), pool, stop: stop.clone() });
        Peers {
            inner: Arc::new(Inner {
                id,
                links,
                spawn,
                spill,
                stop,
                peers: Mutex::default(),
                inbound: OnceLock::new(),
                connections: AtomicU64::new(0),
            }),
        }
    }

    /// The links to them.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.inner.links
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
        if peers.len() > PEERS_KEPT && !peers.contains_key(&id) {
            // Strangers must not fill the memory; a peer that somebody waits for is held elsewhere.
            peers.retain(|_, peer| Arc::strong_count(peer) > 1);
        }
        peers.entry(id).or_default().clone()
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
        inner.links.poke(id);
        let connection = Connection {
            from: Sender { id, address },
            number,
            peer: self.peer(id),
            links: inner.links.clone(),
            spill: inner.spill.clone(),
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
}
