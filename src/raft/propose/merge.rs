//! Proposals, and which of them become one entry. Pure.

use std::collections::VecDeque;

use crate::state_machine::frames;
use crate::types::{EntryData, ProposalRange};

/// What is proposed.
#[derive(Clone, Debug)]
pub struct Proposed {
    /// The command.
    pub data: EntryData,
    /// Whether it is a transaction that may share an entry with others of its database.
    pub merges: bool,
}

/// Proposals on their way to openraft: one, or several in one entry.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) proposals: ProposalRange,
    pub(super) proposed: Proposed,
}

/// Neighbours of one database become one entry, with the last image of each page: less to sync, to send and to apply. Each
/// keeps its version and its waiter, and is in the log with the others or not at all.
pub(super) fn merged(batch: &[Waiting]) -> VecDeque<Waiting> {
    let database =
        |waiting: &Waiting| waiting.proposed.merges.then(|| frames::frames_name(&waiting.proposed.data))?;
    let mut out = VecDeque::with_capacity(batch.len());
    for run in batch.chunk_by(|last, next| database(last).is_some_and(|name| database(next) == Some(name))) {
        let shared = match run {
            [first, .., last] => {
                let proposals = ProposalRange { last: last.proposals.last, ..first.proposals };
                let data = frames::merge_frames(run.iter().map(|waiting| &waiting.proposed.data));
                data.map(|data| Waiting { proposals, proposed: Proposed { data, merges: true } })
            }
            _ => None,
        };
        match shared {
            Some(shared) => out.push_back(shared),
            None => out.extend(run.iter().cloned()),
        }
    }
    out
}
