//! The links to all peers: made when there is a message, bounded in number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::inbound::Sender;
use super::link::{Link, LinkFull, Outgoing};
use super::message::Message;
use crate::transport::dial::{Dial, Stream};
use crate::types::config::LINKS_MAX;
use crate::types::tasks::BlockingPool;
use crate::types::{Chunk, NodeId};

/// Runs tasks where raft runs.
pub type Spawn = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

/// Links of one node. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    inner: Arc<Inner>,
}

/// What links are made of.
pub(super) struct LinksParts {
    /// What a connection begins with.
    pub(super) hello: Bytes,
    /// Connects to peers.
    pub(super) dial: Arc<dyn Dial>,
    /// Where links run.
    pub(super) spawn: Spawn,
    /// Where they read files.
    pub(super) pool: Arc<dyn BlockingPool>,
    /// Ends all of them.
    pub(super) stop: CancellationToken,
}

struct Inner {
    parts: LinksParts,
    links: Mutex<BTreeMap<(NodeId, Bytes), Arc<Link>>>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

impl Links {
    pub(super) fn new(parts: LinksParts) -> Links {
        Links { inner: Arc::new(Inner { parts, links: Mutex::default() }) }
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
        let parts = &self.inner.parts;
        let running = link.clone().run(
            id,
            address.clone(),
            parts.hello.clone(),
            parts.dial.clone(),
            parts.pool.clone(),
            parts.stop.child_token(),
        );
        (parts.spawn)(Box::pin(running));
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
    pub fn dial(&self, address: &Bytes) -> BoxFuture<'static, std::io::Result<Stream>> {
        self.inner.parts.dial.dial(address.to_vec())
    }

    /// What a connection to a peer begins with.
    #[must_use]
    pub fn hello(&self) -> Bytes {
        self.inner.parts.hello.clone()
    }

    /// The links to this peer, whatever their addresses, need not wait for their next dial.
    pub(super) fn poke(&self, id: NodeId) {
        let links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer: Vec<Arc<Link>> =
            links.iter().filter(|((peer, _), _)| *peer == id).map(|(_, link)| link.clone()).collect();
        drop(links);
        of_peer.iter().for_each(|link| link.poke());
    }
}
