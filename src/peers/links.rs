//! The links to all peers: made when there is a message, bounded in number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::dialler::{Dialler, Spawn};
use super::inbound::{Caller, Sender};
use super::limits::LinkKind;
use super::limits::budgets::link_kind;
use super::link::{Link, LinkFull, Outgoing};
use super::message::Message;
use crate::transport::dial::Stream;
use crate::types::config::STRANGER_LINKS_MAX;
use crate::types::fault::{self, Fault};
use crate::types::tasks::BlockingPool;
use crate::types::{Chunk, NodeId};

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
    pub(super) dialler: Dialler,
    /// Where links run.
    pub(super) spawn: Spawn,
    /// Where they read files.
    pub(super) pool: Arc<dyn BlockingPool>,
    /// How long a message may wait for a connection.
    pub(super) patience: Duration,
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
        let link = link.unwrap_or_else(|| self.make(&mut links, key, LinkKind::Member));
        link.set_kind(LinkKind::Member);
        link
    }

    /// The link to whoever made a connection, made if need be. None if there are too many to strangers, whom nobody knows and
    /// whose addresses may be anything: members never have to make room for them.
    fn link_back(&self, to: &Sender, caller: impl FnOnce() -> Caller) -> Option<Arc<Link>> {
        let mut links = self.lock();
        let key = (to.id, to.address.clone());
        if let Some(link) = links.get(&key).filter(|link| !link.has_ended()) {
            if link.kind() != LinkKind::Member && caller() == (Caller::Member { has_address: true }) {
                link.set_kind(LinkKind::Member);
            }
            return Some(link.clone());
        }
        let open = || links.iter().filter(|(_, link)| !link.has_ended());
        let elsewhere =
            open().filter(|((id, _), link)| *id == to.id && link.kind() == LinkKind::MemberElsewhere).count();
        let strangers = open().filter(|(_, link)| link.kind() == LinkKind::Stranger).count();
        if fault::is_planted(Fault::SharedLinks) {
            let has_room = open().count() < STRANGER_LINKS_MAX;
            return has_room.then(|| self.make(&mut links, key, LinkKind::Member));
        }
        let kind = link_kind(caller(), elsewhere, strangers)?;
        Some(self.make(&mut links, key, kind))
    }

    fn lock(&self) -> MutexGuard<'_, ByPeer> {
        self.inner.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, links: &mut ByPeer, key: (NodeId, Bytes), kind: LinkKind) -> Arc<Link> {
        links.retain(|_, link| !link.has_ended());
        let (id, address) = key.clone();
        let parts = &self.inner.parts;
        let link = Arc::new(Link::new(kind, parts.patience));
        links.insert(key, link.clone());
        let running = link.clone().run(
            id,
            address,
            parts.hello.clone(),
            parts.dialler.clone(),
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
    pub(super) fn answer(&self, to: &Sender, message: &Message, caller: impl Fn() -> Caller) {
        let message = Outgoing { chunks: vec![message.encode().into()] };
        let send = || match self.link_back(to, &caller) {
            Some(link) => link.send(message.clone()).map_err(|error| error.to_string()),
            None => Err("too many strangers".to_owned()),
        };
        if let Err(error) = send().or_else(|_| send()) {
            debug!(peer = to.id.0, error, "answer dropped");
        }
    }

    /// Connects to a member beside the link, for a snapshot.
    pub fn dial(&self, address: &Bytes) -> BoxFuture<'static, std::io::Result<Stream>> {
        let (dialler, address) = (self.inner.parts.dialler.clone(), address.clone());
        Box::pin(async move { dialler.dial(&address, LinkKind::Member).await })
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
    use crate::transport::dial::Dial;
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
        let spawn: Spawn = Arc::new(|future| drop(tokio::spawn(future)));
        let stop = CancellationToken::new();
        Links::new(LinksParts {
            hello: Bytes::new(),
            dialler: Dialler::new(Arc::new(Silent), spawn.clone(), stop.clone()),
            spawn,
            pool: Arc::new(InlinePool),
            patience: Duration::from_secs(3),
            stop,
        })
    }

    fn answer(links: &Links, id: u64, address: &'static str, is_member: bool) {
        let result = RequestVoteResult { term: Term(1), granted: true, is_pre_vote: Some(false) };
        let to = Sender { id: NodeId(id), address: Bytes::from_static(address.as_bytes()) };
        let caller = if is_member { Caller::Member { has_address: true } } else { Caller::Stranger };
        links.answer(&to, &Message::RequestVoteResult(result), || caller);
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
    async fn a_stranger_that_cannot_be_reached_is_given_up_and_a_member_is_tried_again() {
        let links = links();
        for id in 1000..1000 + STRANGER_LINKS_MAX as u64 {
            answer(&links, id, "x", false);
        }
        answer(&links, 2, "x", true);
        tokio::time::sleep(Duration::from_millis(1)).await;

        assert_eq!(ids(&links), [2]);
        answer(&links, 3000, "stranger", false);
        assert_eq!(ids(&links), [2, 3000]);
        assert_eq!(links.lock().len(), 2, "what has ended is forgotten");
    }

    // A machine without power neither takes a connection nor refuses it.
    #[tokio::test(start_paused = true)]
    async fn a_link_to_an_address_that_does_not_answer_empties_and_ends() {
        let links = links();
        for id in 1000..1000 + STRANGER_LINKS_MAX as u64 {
            answer(&links, id, "stranger", false);
        }
        answer(&links, 2, "member", true);
        answer(&links, 1, "member", true);
        tokio::time::sleep(Duration::from_secs(2)).await;
        answer(&links, 1, "member", true);
        assert_eq!(ids(&links).len(), STRANGER_LINKS_MAX + 2);

        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(ids(&links), [1], "something is still wanted there");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(ids(&links).is_empty());
    }
}
