//! Entries of the log, and what goes into one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::{fmt, io};

use openraft::entry::{RaftEntry, RaftPayload};
use openraft::{Membership, StoredMembership};

use super::position::{RaftLogId, position, raft_index};
use crate::types::{
    self, Configuration, ConfigurationError, EntryData, EntryKind, LogIndex, ProposalRange, Role, Server,
    Term,
};

/// openraft's membership.
pub type RaftMembership = Membership<u64, Node>;
/// openraft's membership with its log id.
pub type RaftStoredMembership = StoredMembership<u64, u64, Node>;

/// A member as openraft knows it. Its role is not part of it: openraft refuses a change of a known id's `Node`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What other nodes dial.
    pub address: Vec<u8>,
}

/// What a proposer hands to openraft.
#[derive(Clone, Debug, Default)]
pub struct Proposal {
    /// Payload of the COMMAND entry.
    pub data: EntryData,
    /// Its places in the epoch.
    pub proposals: Option<ProposalRange>,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.data.len())
    }
}

/// Members of a CHANGE entry in both shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// All servers, spares included.
    pub configuration: Arc<Configuration>,
    /// What openraft knows of them: voters, and stand-bys as learners.
    pub membership: RaftMembership,
}

/// Why an entry of the disk or of a peer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Its configuration cannot be decoded.
    #[error("CHANGE entry {index}: {error}")]
    Configuration {
        /// Index.
        index: LogIndex,
        /// Why.
        error: ConfigurationError,
    },
    /// Its configuration has no voter.
    #[error("CHANGE entry {index}: no voter among {servers} servers")]
    NoVoter {
        /// Index.
        index: LogIndex,
        /// Servers in it.
        servers: usize,
    },
    /// Its payload is not in memory and cannot be read.
    #[error("CHANGE entry {index}: {error}")]
    Unreadable {
        /// Index.
        index: LogIndex,
        /// Why.
        error: String,
    },
    /// Index 0.
    #[error("entry with index 0")]
    ZeroIndex,
}

/// Voters and stand-bys of a configuration as openraft knows them; none if nobody votes.
#[must_use]
pub fn membership_of(configuration: &Configuration) -> Option<RaftMembership> {
    let voters: BTreeSet<u64> = configuration.voters().map(|server| server.id.0).collect();
    let nodes: BTreeMap<u64, Node> = configuration
        .servers()
        .iter()
        .filter(|server| server.role != Role::Spare)
        .map(|server| (server.id.0, Node { address: server.address.clone() }))
        .collect();
    if voters.is_empty() {
        return None;
    }
    Membership::new(vec![voters], nodes).ok()
}

/// A configuration with these members and no spares.
fn configuration_of(membership: &RaftMembership) -> Result<Configuration, ConfigurationError> {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let servers = membership.nodes().map(|(id, node)| Server {
        id: types::NodeId(*id),
        // A node without an address stands under its number; only openraft's own tests make such.
        address: if node.address.is_empty() { id.to_string().into_bytes() } else { node.address.clone() },
        role: if voters.contains(id) { Role::Voter } else { Role::StandBy },
    });
    Configuration::new(servers.collect())
}

/// Content of an entry before it has a place in the log.
#[derive(Clone, Debug)]
pub struct Payload {
    kind: EntryKind,
    data: EntryData,
    proposals: Option<ProposalRange>,
    change: Option<Members>,
}

impl Payload {
    /// A complete new configuration; none if nobody votes in it.
    #[must_use]
    pub fn change(configuration: Arc<Configuration>) -> Option<Payload> {
        let membership = membership_of(&configuration)?;
        Some(Payload {
            kind: EntryKind::Change,
            data: EntryData::from_bytes(configuration.encode()),
            proposals: None,
            change: Some(Members { configuration, membership }),
        })
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes", self.kind, self.data.len())
    }
}

impl RaftPayload for Payload {
    type D = Proposal;
    type NodeId = u64;
    type Node = Node;

    fn blank() -> Payload {
        let barrier = types::Entry::barrier(Term(0));
        Payload { kind: barrier.kind, data: barrier.data, proposals: None, change: None }
    }

    fn with_normal(self, proposal: Proposal) -> Payload {
        Payload { kind: EntryKind::Command, data: proposal.data, proposals: proposal.proposals, change: None }
    }

    fn with_membership(self, membership: RaftMembership) -> Payload {
        // The caller's configuration carries the spares, which openraft does not know.
        if self.change.as_ref().is_some_and(|change| change.membership == membership) {
            return self;
        }
        assert_eq!(
            membership.get_joint_config().len(),
            1,
            "a joint membership is never proposed: {membership}"
        );
        let configuration = Arc::new(
            configuration_of(&membership).expect("members proposed here have distinct ids and addresses"),
        );
        Payload {
            kind: EntryKind::Change,
            data: EntryData::from_bytes(configuration.encode()),
            proposals: None,
            change: Some(Members { configuration, membership }),
        }
    }

    fn get_membership(&self) -> Option<RaftMembership> {
        self.change.as_ref().map(|change| change.membership.clone())
    }
}

/// A log entry with its place; cheap to clone.
///
/// `dqlite_node_recover` writes an entry of term 1 behind entries of later terms, and openraft's log ids never fall: it is
/// told the highest term so far, the `rank`, while the disk and the peers keep the stored term. spec: disk-format 9.
#[derive(Clone, Debug)]
pub struct Entry {
    index: LogIndex,
    rank: Term,
    stored: Arc<types::Entry>,
    change: Option<Members>,
}

impl Entry {
    /// Takes an entry that was read or received; the entries before it rank up to `floor`.
    ///
    /// # Errors
    /// A CHANGE without a readable configuration or without voters; index 0.
    pub fn from_stored(index: LogIndex, stored: types::Entry, floor: Term) -> Result<Entry, EntryError> {
        if index == LogIndex::NONE {
            return Err(EntryError::ZeroIndex);
        }
        let change = if stored.kind == EntryKind::Change {
            let unreadable = |error: io::Error| EntryError::Unreadable { index, error: error.to_string() };
            let configuration = Configuration::decode(&stored.data.contiguous().map_err(unreadable)?)
                .map_err(|error| EntryError::Configuration { index, error })?;
            let membership = membership_of(&configuration)
                .ok_or(EntryError::NoVoter { index, servers: configuration.servers().len() })?;
            Some(Members { configuration: Arc::new(configuration), membership })
        } else {
            None
        };
        Ok(Entry { index, rank: stored.term.max(floor), stored: Arc::new(stored), change })
    }

    /// Where it stands.
    #[must_use]
    pub fn log_index(&self) -> LogIndex {
        self.index
    }

    /// The highest term up to here: what openraft takes for its term.
    #[must_use]
    pub fn rank(&self) -> Term {
        self.rank
    }

    /// The entry as all layers carry it.
    #[must_use]
    pub fn stored(&self) -> &Arc<types::Entry> {
        &self.stored
    }

    /// The members, if it is a CHANGE.
    #[must_use]
    pub fn change(&self) -> Option<&Members> {
        self.change.as_ref()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} of term {}", self.stored.kind, self.index, self.stored.term)
    }
}

impl RaftEntry for Entry {
    type CommittedLeaderId = u64;
    type Payload = Payload;

    fn new(log_id: RaftLogId, payload: Payload) -> Entry {
        let (term, index) = position(Some(&log_id));
        let stored =
            types::Entry { term, kind: payload.kind, data: payload.data, proposals: payload.proposals };
        Entry { index, rank: term, stored: Arc::new(stored), change: payload.change }
    }

    fn log_id_parts(&self) -> (&u64, u64) {
        let index = raft_index(self.index).expect("an entry never stands at index 0");
        (&self.rank.0, index)
    }

    fn set_log_id(&mut self, log_id: RaftLogId) {
        let (term, index) = position(Some(&log_id));
        self.index = index;
        self.rank = term;
        Arc::make_mut(&mut self.stored).term = term;
    }

    fn get_membership(&self) -> Option<RaftMembership> {
        self.change.as_ref().map(|change| change.membership.clone())
    }
}
