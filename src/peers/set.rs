//! All peers of a node: the links to them, what is awaited from each, and the connections that they made.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::connection::Connection;
use super::dialler::{Dialler, Spawn};
use super::inbound::{Caller, Inbound, Sender};
use super::known::Known;
use super::link::connect_bytes;
use super::links::{Links, LinksParts};
use super::memory::Memory;
use super::peer::SharedPeer;
use super::places::Places;
use super::spill::Spill;
use crate::transport::client_stream::Detached;
use crate::transport::dial::Dial;
use crate::types::NodeId;
use crate::types::payload::PayloadStore;
use crate::types::random::RandomSource;
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
    /// How long a message may wait for a connection.
    pub patience: Duration,
    /// What a stranger cannot guess comes from here.
    pub random: Arc<RandomSource>,
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
    known: Arc<Known>,
    inbound: OnceLock<Arc<dyn Inbound>>,
    connections: AtomicU64,
    places: Arc<Places>,
    memory: Arc<Memory>,
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
        let PeersParts { id, address, dial, spawn, pool, payloads, patience, random, stop } = parts;
        let spill = payloads.map(|store| Spill { store, pool: pool.clone() });
        let hello = connect_bytes(id, &address);
        let dialler = Dialler::new(dial, spawn.clone(), stop.clone());
        let links = Links::new(LinksParts {
            hello,
            dialler,
            spawn: spawn.clone(),
            pool,
            patience,
            stop: stop.clone(),
        });
        Peers {
            inner: Arc::new(Inner {
                id,
                links,
                spawn,
                spill,
                stop,
                known: Arc::new(Known::new(random)),
                inbound: OnceLock::new(),
                connections: AtomicU64::new(0),
                places: Arc::default(),
                memory: Arc::default(),
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

    /// What is awaited from a member.
    #[must_use]
    pub fn peer(&self, id: NodeId) -> SharedPeer {
        let inbound = self.inner.inbound.get();
        let is_member = |id| {
            let member = Sender { id, address: Bytes::new() };
            inbound.is_none_or(|inbound| inbound.caller(&member) != Caller::Stranger)
        };
        self.inner.known.member(id, is_member)
    }

    /// Whoever has made a connection is to be heard on it as soon as it has proved that it is the member that it says.
    fn ask(&self, inbound: &dyn Inbound, id: NodeId) {
        let Some((term, address)) = inbound.leads(id) else { return };
        if let Some(fence) = self.inner.known.get(id).and_then(|peer| peer.fence_to_connection(term)) {
            // Without it, the next heartbeat asks.
            let _ = self.inner.links.send(id, &address, vec![fence.encode().into()]);
        }
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
        self.ask(inbound.as_ref(), id);
        let from = Sender { id, address };
        let place = inner.places.enter(number, &from, inbound.as_ref(), &inner.known, &inner.stop);
        let connection = Connection {
            from,
            number,
            place,
            known: inner.known.clone(),
            links: inner.links.clone(),
            memory: inner.memory.clone(),
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
