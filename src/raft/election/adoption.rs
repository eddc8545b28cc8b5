//! How a later term is adopted without a vote in it: learned from others, or taken to leave one's own. spec: openraft-mapping 2.2.

use openraft::raft::VoteRequest;

use crate::peers::FENCE_BASE;
use crate::raft::apply::Consensus;
use crate::raft::log::LogView;
use crate::raft::replication::term_only;
use crate::raft::types::{RaftLogId, log_id};
use crate::types::{LogIndex, Term};

/// A log id that openraft cannot refuse: logs are compared elsewhere, and a term that was taken up is always adopted, whatever is
/// appended meanwhile.
pub(super) fn unbeatable(log: &LogView, term: Term) -> Option<RaftLogId> {
    let (index, _, rank) = log.last();
    log_id(rank.max(term), LogIndex(index.0.max(1) | FENCE_BASE))
}

/// Takes up a term at once, for all that speaks and serves, and has openraft adopt it, as soon as the disk takes it. A stopped
/// openraft is in no term, which is the error.
pub(super) fn adopt(
    raft: &Consensus,
    log: &LogView,
    term: Term,
) -> impl Future<Output = Result<(), String>> + Send + 'static {
    log.take_up(term);
    let (raft, log) = (raft.clone(), log.clone());
    async move {
        let vote = term_only(term);
        let request = VoteRequest { vote, last_log_id: unbeatable(&log, term), leadership_transfer: true };
        raft.vote(request).await.map(drop).map_err(|error| error.to_string())
    }
}
