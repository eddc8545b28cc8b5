//! Changes of roles and of the leader. spec: raft-wire 8.

use std::time::Duration;

use dqlite::peers::message::{Message, TimeoutNow};
use dqlite::types::{Configuration, Entry, EntryData, EntryKind, LogIndex, NodeId, Role};
use rand::Rng;
use tokio::time::Instant;

use super::{CNode, ELECTION};

/// Longest round of catching up.
const ROUND: Duration = Duration::from_secs(50);
/// Fewest voters that are left: a single one would lead without an election.
const VOTERS_MIN: usize = 2;

/// A member that becomes a voter when it has the log.
pub(super) struct Promotion {
    pub(super) id: NodeId,
    began: Instant,
    /// What ends the round.
    index: u64,
}

/// Leadership on its way to another node.
pub(super) struct Transfer {
    target: NodeId,
    began: Instant,
    asked: bool,
}

impl CNode {
    /// The configuration of an entry is in force.
    pub(super) fn apply_change(&mut self, index: u64, data: &EntryData) {
        let Some(Ok(configuration)) = data.contiguous().ok().map(|bytes| Configuration::decode(&bytes))
        else {
            return self.fail(format!("configuration entry {index} does not decode"));
        };
        self.in_force = (configuration, index);
        if index > self.committed.1 {
            self.committed = self.in_force.clone();
        }
        if self.uncommitted == Some(index) {
            self.uncommitted = None;
        }
        let votes = self.in_force.0.get(self.me.id).is_some_and(|server| server.role == Role::Voter);
        if self.leads() && !votes {
            self.follow(None);
        }
    }

    /// A client asks for another role; nothing happens if it cannot be now.
    pub(super) fn assign(&mut self, id: NodeId, role: Role) {
        let last = self.log.last();
        let Some(old) = self.configuration.get(id).map(|server| server.role) else { return };
        let matched = self.matched(id);
        let (uncommitted, voters) = (self.uncommitted.is_some(), self.configuration.voters().count());
        let Some(leading) = self.leading() else { return };
        let busy = uncommitted || leading.promotion.is_some() || leading.transfer.is_some();
        if busy || old == role || old == Role::Voter && voters <= VOTERS_MIN {
            return;
        }
        if role == Role::Voter && matched != last {
            leading.promotion = Some(Promotion { id, began: Instant::now(), index: last });
        } else {
            self.set_role(id, role);
        }
    }

    fn set_role(&mut self, id: NodeId, role: Role) {
        let mut servers = self.configuration.servers().to_vec();
        servers.iter_mut().filter(|server| server.id == id).for_each(|server| server.role = role);
        match Configuration::new(servers) {
            Ok(configuration) => {
                self.observed().changes_by_c += 1;
                let data = EntryData::from_bytes(configuration.encode());
                self.propose(vec![Entry {
                    term: self.term(),
                    kind: EntryKind::Change,
                    data,
                    proposals: None,
                }]);
            }
            Err(error) => self.fail(format!("its own configuration: {error}")),
        }
    }

    /// A member has more of the log.
    pub(super) fn look_at_promotion(&mut self, id: NodeId) {
        let (last, matched) = (self.log.last(), self.matched(id));
        let Some(leading) = self.leading() else { return };
        let Some(promotion) = leading.promotion.as_mut().filter(|one| one.id == id && matched >= one.index)
        else {
            return;
        };
        if promotion.began.elapsed() >= ELECTION && matched < last {
            *promotion = Promotion { id, began: Instant::now(), index: last };
        } else {
            leading.promotion = None;
            self.set_role(id, Role::Voter);
        }
    }

    /// Asks the target of a transfer when it has the log.
    pub(super) fn look_at_transfer(&mut self) {
        let (term, last, last_term) = (self.term(), self.log.last(), self.log.last_term());
        let Some(target) = self.leading().and_then(|leading| leading.transfer.as_ref()).map(|one| one.target)
        else {
            return;
        };
        let has_all = self.matched(target) == last;
        let targets = self.others(|role| role == Role::Voter);
        let Some(transfer) = self.leading().and_then(|leading| leading.transfer.as_mut()) else { return };
        if let Some(target) =
            targets.iter().find(|one| one.id == target).filter(|_| has_all && !transfer.asked)
        {
            transfer.asked = true;
            self.observed().transfers_by_c += 1;
            let now = TimeoutNow { term, last_index: LogIndex(last), last_term };
            self.send(target, &Message::TimeoutNow(now), &[]);
        }
    }

    /// Gives up what took too long.
    pub(super) fn look_at_time(&mut self) {
        let Some(leading) = self.leading() else { return };
        leading.transfer.take_if(|transfer| transfer.began.elapsed() >= ELECTION);
        leading.promotion.take_if(|promotion| promotion.began.elapsed() >= ROUND);
    }

    /// After a while a node of this library shall lead, so that clients find one.
    pub(super) fn hand_over(&mut self) {
        let heirs = self.options.heirs.clone();
        let Some(leading) = self.leading() else { return };
        if leading.until > Instant::now() || leading.transfer.is_some() {
            return;
        }
        let voters: Vec<NodeId> = heirs
            .iter()
            .copied()
            .filter(|heir| self.others(|role| role == Role::Voter).iter().any(|one| one.id == *heir))
            .collect();
        let pick = self.random.random_range(0..heirs.len().max(1));
        match voters.get(pick % voters.len().max(1)) {
            Some(target) => {
                let transfer = Transfer { target: *target, began: Instant::now(), asked: false };
                if let Some(leading) = self.leading() {
                    leading.transfer = Some(transfer);
                }
                self.look_at_transfer();
            }
            None => {
                if let Some(heir) = heirs.get(pick) {
                    self.assign(*heir, Role::Voter);
                }
            }
        }
    }
}
