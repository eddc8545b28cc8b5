//! openraft, and what it is asked for.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use super::state_machine::StateMachine;
use crate::raft::types::{TypeConfig, log_index, position};
use crate::types::{LogIndex, NodeId, Term};

/// openraft with the types of this library.
pub(crate) type Consensus = openraft::Raft<TypeConfig, StateMachine>;

/// The term that `own`, this node, leads in as far as openraft says, serving or not.
pub(crate) fn leading_term(raft: &Consensus, own: NodeId) -> Option<Term> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let leads = metrics.state == ServerState::Leader && metrics.current_leader == Some(own.0);
    leads.then_some(Term(metrics.current_term))
}

/// Index up to which this node knows the log to be committed, as far as openraft says.
pub(crate) fn committed(raft: &Consensus) -> LogIndex {
    raft.metrics().borrow_watched().local_committed.map_or(LogIndex::NONE, |id| log_index(id.index))
}

/// Index up to which a follower is known to have the log.
pub(crate) fn matched(raft: &Consensus, id: NodeId) -> LogIndex {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let matched = metrics.replication.as_ref().and_then(|all| all.get(&id.0)).and_then(Option::as_ref);
    position(matched).1
}
