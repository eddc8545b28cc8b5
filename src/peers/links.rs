//! The links to all peers: made when there is a message, bounded in number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::inbound::Sender;
use super::link::{Link, LinkFull, Outgoing};
use super::message::Message;
use crate::transport::dial::{Dial, Stream};
use crate::types::config::STRANGER_LINKS_MAX;
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
    links: Mutex<ByPeer>,
}

type ByPeer = BTreeMap<(NodeId, Bytes), Arc<Link>>;

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

impl Links {
    pub(super) fn new(parts: LinksParts) -> Links {
        Links { inner: Arc::new(Inner { parts, links: Mutex::default() }) }
    }

    /// The link to a member, made if need be.
    #[must_use]
    pub fn link(&self, id: NodeId, address: &Bytes) -> Arc<Link> {
        let mut links = self.lock();
        let key = (id, address.clone());
        let link = links.get(&key).filter(|link| !link.has_ended()).cloned();
        let link = link.unwrap_or_else(|| self.make(&mut links, key, Link::default()));
        link.set_of_member();
        link
    }

    /// The link to whoever made a connection, made if need be. None if there are too many to strangers, whom nobody knows and
    /// whose addresses may be anything: members never have to make room for them.
    fn link_back(&self, to: &Sender, is_member: impl FnOnce() -> bool) -> Option<Arc<Link>> {
        let mut links = self.lock();
        let key = (to.id, to.address.clone());
        if let Some(link) = links.get(&key).filter(|link| !link.has_ended()) {
            if link.is_of_stranger() && is_member() {
                link.set_of_member();
            }
            return Some(link.clone());
        }
        if is_member() {
            return Some(self.make(&mut links, key, Link::default()));
        }
        let strangers = links.values().filter(|link| link.is_of_stranger() && !link.has_ended()).count();
        (strangers < STRANGER_LINKS_MAX).then(|| self.make(&mut links, key, Link::to_stranger()))
    }

    fn lock(&self) -> MutexGuard<'_, ByPeer> {
        self.inner.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, links: &mut ByPeer, key: (NodeId, Bytes), link: Link) -> Arc<Link> {
        links.retain(|_, link| !link.has_ended());
        let (id, address) = key.clone();
        let link = Arc::new(link);
        links.insert(key, link.clone());
        let parts = &self.inner.parts;
        let running = link.clone().run(
            id,
            address,
            parts.hello.clone(),
            parts.dial.clone(),
            parts.pool.clone(),
            parts.stop.child_token(),
        );
        (parts.spawn)(Box::pin(running));
        link
    }

    /// Queues a message to a member.
    ///
    /// # Errors
    /// The queue is full.
    pub fn send(&self, id: NodeId, address: &Bytes, chunks: Vec<Chunk>) -> Result<(), LinkFull> {
        let message = Outgoing { chunks };
        match self.link(id, address).send(message.clone()) {
            // A link may end between being found and being used; a new one does not.
            Err(LinkFull::Ended) => self.link(id, address).send(message),
            sent => sent,
        }
    }

    /// Answers whoever made a connection; an answer that cannot be queued is lost, as on a network.
    pub(super) fn answer(&self, to: &Sender, message: &Message, is_member: impl Fn() -> bool) {
        let message = Outgoing { chunks: vec![message.encode().into()] };
        let send = || match self.link_back(to, &is_member) {
            Some(link) => link.send(message.clone()).map_err(|error| error.to_string()),
            None => Err("too many strangers".to_owned()),
        };
        if let Err(error) = send().or_else(|_| send()) {
            debug!(peer = to.id.0, error, "answer dropped");
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
        let links = self.lock();
        let of_peer: Vec<Arc<Link>> =
            links.iter().filter(|((peer, _), _)| *peer == id).map(|(_, link)| link.clone()).collect();
        drop(links);
        of_peer.iter().for_each(|link| link.poke());
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::peers::message::RequestVoteResult;
    use crate::types::Term;
    use crate::types::tasks::InlinePool;

    /// Addresses with an `x` refuse, all others never answer.
    struct Silent;

    impl Dial for Silent {
        fn dial(&self, address: Vec<u8>) -> BoxFuture<'static, io::Result<Stream>> {
            if address.contains(&b'x') {
                return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
            }
            Box::pin(std::future::pending())
        }
    }

    fn links() -> Links {
        Links::new(LinksParts {
            hello: Bytes::new(),
            dial: Arc::new(Silent),
            spawn: Arc::new(|future| drop(tokio::spawn(future))),
            pool: Arc::new(InlinePool),
            stop: CancellationToken::new(),
        })
    }

    fn answer(links: &Links, id: u64, address: &'static str, is_member: bool) {
        let result = RequestVoteResult { term: Term(1), granted: true, is_pre_vote: Some(false) };
        let to = Sender { id: NodeId(id), address: Bytes::from_static(address.as_bytes()) };
        links.answer(&to, &Message::RequestVoteResult(result), || is_member);
    }

    fn ids(links: &Links) -> Vec<u64> {
        links.lock().iter().filter(|(_, link)| !link.has_ended()).map(|((id, _), _)| id.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_take_no_place_of_a_member() {
        let links = links();
        for id in 1000..1300 {
            answer(&links, id, "stranger", false);
        }
        assert_eq!(ids(&links).len(), STRANGER_LINKS_MAX);

        answer(&links, 2, "member", true);
        let _link = links.link(NodeId(3), &Bytes::from_static(b"member"));
        assert_eq!(ids(&links)[..2], [2, 3]);

        // A stranger that becomes a member leaves its place to another.
        answer(&links, 1000, "stranger", true);
        answer(&links, 2000, "stranger", false);
        assert_eq!(ids(&links).len(), STRANGER_LINKS_MAX + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_that_cannot_be_reached_is_given_up_and_a_member_is_not() {
        let links = links();
        for id in 1000..1000 + STRANGER_LINKS_MAX as u64 {
            answer(&links, id, "x", false);
        }
        answer(&links, 2, "x", true);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;

        assert_eq!(ids(&links), [2]);
        answer(&links, 3000, "stranger", false);
        assert_eq!(ids(&links), [2, 3000]);
        assert_eq!(links.lock().len(), 2, "what has ended is forgotten");
    }
}
