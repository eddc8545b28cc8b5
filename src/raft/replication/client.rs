//! What openraft's ways to one peer have in common, and what openraft is told of failures.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::{AnyError, Vote};

use crate::peers::Peers;
use crate::peers::replicator::{LeaderLog, ReplicationError, Replicator, Target};
use crate::raft::log::LogView;
use crate::raft::snapshot::Snapshots;
use crate::raft::types::{LeaderId, Node, TypeConfig};
use crate::types::{LogIndex, NodeId, Term};

/// What the clients of all peers share.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Peers,
    pub(crate) log: LogView,
    pub(crate) snapshots: Snapshots,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

/// One of openraft's ways to one peer.
pub(crate) struct PeerClient {
    pub(super) network: Network,
    pub(super) target: Target,
    pub(super) is_heartbeat: bool,
    replicator: Option<Replicator>,
}

impl Network {
    /// One of openraft's ways to a peer.
    pub(super) fn client(&self, target: u64, node: &Node, is_heartbeat: bool) -> PeerClient {
        let address = Bytes::copy_from_slice(&node.address);
        let target = Target::new(&self.peers, NodeId(target), address);
        PeerClient { network: self.clone(), target, is_heartbeat, replicator: None }
    }
}

impl PeerClient {
    /// The replicator of a term; a new one for a new term.
    pub(super) fn replicator(&mut self, term: Term) -> &mut Replicator {
        let usable = self.replicator.take().filter(|replicator| replicator.term() == term);
        self.replicator.insert(usable.unwrap_or_else(|| {
            let log = Arc::new(self.network.log.clone());
            Replicator::new(self.target.clone(), term, log, self.network.patience)
        }))
    }

    /// The peer.
    pub(super) fn id(&self) -> NodeId {
        self.target.id
    }

    /// The replicator in use.
    pub(super) fn current(&mut self) -> Option<&mut Replicator> {
        self.replicator.as_mut()
    }
}

impl LeaderLog for LogView {
    fn last_index(&self) -> LogIndex {
        LogView::last_index(self)
    }

    fn stored_term(&self, index: LogIndex) -> Option<Term> {
        self.terms_at(index).map(|(stored, _)| stored)
    }
}

/// What openraft is told of a failure.
pub(super) fn rpc_error(error: &ReplicationError) -> RPCError<TypeConfig> {
    let text = AnyError::error(error.to_string());
    match error {
        ReplicationError::Unreachable(..) => RPCError::Unreachable(Unreachable::new(&text)),
        ReplicationError::Rejected(..) | ReplicationError::HigherTerm(_) => {
            RPCError::Network(NetworkError::new(&text))
        }
    }
}

/// A term that somebody else is in, learned without a vote.
pub(crate) fn term_only(term: Term) -> Vote<LeaderId> {
    Vote::new(term.0, 0)
}
