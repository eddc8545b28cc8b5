//! The members of which something is awaited. Strangers are not kept: what they answer, nobody has asked them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::peer::{Peer, SharedPeer};
use crate::types::NodeId;
use crate::types::random::RandomSource;

/// What is awaited from each.
pub(super) struct Known {
    peers: Mutex<BTreeMap<NodeId, SharedPeer>>,
    random: Arc<RandomSource>,
}

impl Known {
    pub(super) fn new(random: Arc<RandomSource>) -> Known {
        Known { peers: Mutex::default(), random }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, SharedPeer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member of which something is to be awaited. Those that are members no more go, but for those that somebody waits for.
    pub(super) fn member(&self, id: NodeId, is_member: impl Fn(NodeId) -> bool) -> SharedPeer {
        let mut peers = self.lock();
        if !peers.contains_key(&id) {
            peers.retain(|id, peer| Arc::strong_count(peer) > 1 || is_member(*id));
        }
        peers.entry(id).or_insert_with(|| Arc::new(Peer::new(self.random.clone()))).clone()
    }

    /// A peer of which something was ever awaited.
    pub(super) fn get(&self, id: NodeId) -> Option<SharedPeer> {
        self.lock().get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_kept_and_others_while_somebody_waits_for_them() {
        let known = Known::new(Arc::new(RandomSource::from_seed(1)));
        let is_member = |id: NodeId| id.0 < 4;
        let waited_for = known.member(NodeId(7), is_member);
        for id in (1..4).chain(100..1000) {
            let _peer = known.member(NodeId(id), is_member);
        }

        let kept = || (1..1000).filter(|id| known.get(NodeId(*id)).is_some()).collect::<Vec<_>>();
        assert_eq!(kept(), [1, 2, 3, 7, 999]);
        drop(waited_for);
        let _peer = known.member(NodeId(8), is_member);
        assert_eq!(kept(), [1, 2, 3, 8]);
    }
}
