//! How much of this node peers may take, members and strangers apart. Pure.
//!
//! A stranger is whoever says an id that no member has, and there may be any number of them. None of what is counted here is
//! taken from a member by a stranger, and what members take is bounded by how many they are.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::time::Instant;

use crate::peers::inbound::{Caller, Sender};
use crate::types::config::{
    LEADER_UNFINISHED_MAX_BYTES, MEMBER_DIALS_MAX, MEMBER_PLACES, STRANGER_DIALS_MAX, STRANGER_LINKS_MAX,
    STRANGER_PLACES, UNFINISHED_MAX_BYTES,
};

/// A connection that somebody made.
#[derive(Debug)]
struct Place {
    from: Sender,
    used: Instant,
}

/// The connections that peers made: so many for each member, so many for all strangers together. The idlest goes.
#[derive(Debug, Default)]
pub struct Places {
    taken: BTreeMap<u64, Place>,
    /// On which the leader that is followed was heard last.
    leader: Option<u64>,
}

impl Places {
    /// A connection comes. Which others have to go: never one that speaks for its peer, nor that of the leader.
    pub fn enter(
        &mut self,
        number: u64,
        from: Sender,
        now: Instant,
        caller: impl Fn(&Sender) -> Caller,
        speaks: impl Fn(u64, &Sender) -> bool,
    ) -> Vec<u64> {
        let (id, newcomer) = (from.id, caller(&from));
        self.taken.insert(number, Place { from, used: now });
        let is_stranger = newcomer == Caller::Stranger;
        let most = if is_stranger { STRANGER_PLACES } else { MEMBER_PLACES };
        let mut rivals: Vec<(bool, Instant, u64)> = Vec::new();
        let mut count = 0;
        for (other, place) in &self.taken {
            let judged = caller(&place.from);
            let is_rival = if is_stranger { judged == Caller::Stranger } else { place.from.id == id };
            count += usize::from(is_rival);
            let stays = *other == number || self.leader == Some(*other) || speaks(*other, &place.from);
            if is_rival && !stays {
                // Of a member's, those that name its address stay longest.
                rivals.push((judged == Caller::Member { has_address: true }, place.used, *other));
            }
        }
        rivals.sort_unstable();
        let gone: Vec<u64> =
            rivals.into_iter().take(count.saturating_sub(most)).map(|(_, _, other)| other).collect();
        gone.iter().for_each(|other| self.leave(*other));
        gone
    }

    /// A message came.
    pub fn used(&mut self, number: u64, now: Instant) {
        if let Some(place) = self.taken.get_mut(&number) {
            place.used = now;
        }
    }

    /// The leader that is followed was heard.
    pub fn leads(&mut self, number: u64) {
        if self.taken.contains_key(&number) {
            self.leader = Some(number);
        }
    }

    /// The connection has ended.
    pub fn leave(&mut self, number: u64) {
        self.taken.remove(&number);
        self.leader = self.leader.filter(|leader| *leader != number);
    }
}

/// Whom a link is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A member, at the address of the configuration.
    Member,
    /// A member by its id, at another address.
    MemberElsewhere,
    /// Nobody of the configuration.
    Stranger,
}

/// What a new link to whoever made a connection is; none if there are too many. Of a member's other addresses one gets a link,
/// the rest count as strangers.
#[must_use]
pub fn link_kind(caller: Caller, elsewhere: usize, strangers: usize) -> Option<LinkKind> {
    match caller {
        Caller::Member { has_address: true } => Some(LinkKind::Member),
        Caller::Member { has_address: false } if elsewhere == 0 => Some(LinkKind::MemberElsewhere),
        Caller::Member { .. } | Caller::Stranger => {
            (strangers < STRANGER_LINKS_MAX).then_some(LinkKind::Stranger)
        }
    }
}

/// Dials under way, each of which may hold a thread for seconds: one for an address, so many for members and for strangers.
#[derive(Debug, Default)]
pub struct Dials {
    addresses: BTreeSet<Bytes>,
    members: usize,
    strangers: usize,
}

impl Dials {
    /// Whether an address may be dialled now; if so, it is until `end`.
    pub fn begin(&mut self, address: &Bytes, kind: LinkKind) -> bool {
        let (count, most) = match kind {
            LinkKind::Stranger => (&mut self.strangers, STRANGER_DIALS_MAX),
            LinkKind::Member | LinkKind::MemberElsewhere => (&mut self.members, MEMBER_DIALS_MAX),
        };
        let may = *count < most && !self.addresses.contains(address);
        if may {
            *count += 1;
            self.addresses.insert(address.clone());
        }
        may
    }

    /// The dial has ended, however.
    pub fn end(&mut self, address: &Bytes, kind: LinkKind) {
        self.addresses.remove(address);
        match kind {
            LinkKind::Stranger => self.strangers -= 1,
            LinkKind::Member | LinkKind::MemberElsewhere => self.members -= 1,
        }
    }
}

/// Whose message a connection is receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiving {
    /// Entries of the leader that is followed.
    FromLeader,
    /// Anything else.
    FromOther,
}

/// Bytes of messages that are not here whole. An entry may have 2 GiB; only the leader that is followed has a use for one.
#[derive(Debug, Default)]
pub struct Unfinished {
    held: BTreeMap<u64, (Receiving, usize)>,
    /// The one message that may go beyond the leader's bound.
    large: Option<u64>,
}

impl Unfinished {
    fn sum(&self, receiving: Receiving, without: u64) -> usize {
        let others = self.held.iter().filter(|(number, held)| **number != without && held.0 == receiving);
        others.map(|(_, (_, bytes))| bytes).sum()
    }

    /// Whether a connection may hold so many bytes in all; if so, it does.
    pub fn may_hold(&mut self, number: u64, receiving: Receiving, bytes: usize) -> bool {
        let sum = self.sum(receiving, number).saturating_add(bytes);
        let may = match receiving {
            Receiving::FromOther => sum <= UNFINISHED_MAX_BYTES,
            Receiving::FromLeader if sum <= LEADER_UNFINISHED_MAX_BYTES => true,
            Receiving::FromLeader => *self.large.get_or_insert(number) == number,
        };
        if may {
            self.held.insert(number, (receiving, bytes));
        }
        may
    }

    /// The message is whole, or is given up.
    pub fn release(&mut self, number: u64) {
        self.held.remove(&number);
        self.large = self.large.filter(|large| *large != number);
    }
}

#[cfg(test)]
#[path = "budgets_tests.rs"]
mod tests;
