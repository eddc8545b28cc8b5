//! When each follower was surely still this leader's: the sending time of the latest message that it has answered.
//!
//! Times of sending, never of receiving: an answer may have been on its way for any time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::types::{Configuration, LogIndex, NodeId, Term};

/// What the followers of one leader have answered.
#[derive(Clone, Debug)]
pub(crate) struct Contact {
    term: Term,
    /// The last configuration that was seen.
    configured: LogIndex,
    /// Who was just elected, or has members that it did not have before, has been answered by few.
    since: Instant,
    reached: BTreeMap<NodeId, Instant>,
}

impl Contact {
    /// Of a leader that was elected in this term just now.
    pub(crate) fn new(term: Term, configured: LogIndex, now: Instant) -> Contact {
        Contact { term, configured, since: now, reached: BTreeMap::new() }
    }

    /// A follower has answered, in this term, a message that was sent at `sent`.
    pub(crate) fn answered(&mut self, id: NodeId, term: Term, sent: Instant) {
        if term == self.term {
            let reached = self.reached.entry(id).or_insert(sent);
            *reached = sent.max(*reached);
        }
    }

    /// When it was reached last.
    pub(crate) fn of(&self, id: NodeId) -> Option<Instant> {
        self.reached.get(&id).copied()
    }

    /// The latest time that a majority of the voters has reached, this node counted with `now`.
    pub(crate) fn quorum(&self, configuration: &Configuration, own: NodeId, now: Instant) -> Option<Instant> {
        let reached = |id| if id == own { Some(now) } else { self.of(id) };
        let mut reached: Vec<_> = configuration.voters().map(|server| reached(server.id)).collect();
        reached.sort_unstable_by_key(|reached| Reverse(*reached));
        reached.get(reached.len() / 2).copied().flatten()
    }

    /// Until when this leader surely had a majority, or was not to have one yet: it had just been elected, or got this
    /// configuration.
    pub(crate) fn held(
        &mut self,
        configuration: &Configuration,
        index: LogIndex,
        own: NodeId,
        now: Instant,
    ) -> Instant {
        if std::mem::replace(&mut self.configured, index) != index {
            self.since = now;
        }
        self.quorum(configuration, own, now).map_or(self.since, |quorum| quorum.max(self.since))
    }
}

/// The same, shared by the tasks that hear answers and those that judge them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Contacts {
    contact: Arc<Mutex<Contact>>,
}

impl Contacts {
    /// Of a node that does not lead.
    pub(crate) fn new() -> Contacts {
        let contact = Contact::new(Term(0), LogIndex::NONE, Instant::now());
        Contacts { contact: Arc::new(Mutex::new(contact)) }
    }

    fn lock(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node was elected in this term, with the configuration at this index.
    pub(super) fn begin(&self, term: Term, configured: LogIndex) {
        *self.lock() = Contact::new(term, configured, Instant::now());
    }

    /// A follower has answered, in this term, a message that was sent at `sent`.
    pub(crate) fn answered(&self, id: NodeId, term: Term, sent: Instant) {
        self.lock().answered(id, term, sent);
    }

    /// When a follower was reached last in the term of this leader.
    pub(super) fn of(&self, id: NodeId) -> Option<Instant> {
        self.lock().of(id)
    }

    /// The latest time that a majority of the voters has reached, this node counted with now.
    pub(super) fn quorum(&self, configuration: &Configuration, own: NodeId) -> Option<Instant> {
        self.lock().quorum(configuration, own, Instant::now())
    }

    /// Until when this leader, by the last configuration and its index, surely had a majority, or was not to have one yet.
    pub(crate) fn held(
        &self,
        (configuration, index): &(Arc<Configuration>, LogIndex),
        own: NodeId,
    ) -> Instant {
        self.lock().held(configuration, *index, own, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::{Role, Server, data_driven};

    fn configuration(voters: &str) -> Configuration {
        let server = |id: &str| {
            let (id, role) = id.strip_suffix('s').map_or((id, Role::Voter), |id| (id, Role::StandBy));
            Server { id: NodeId(id.parse().unwrap()), address: id.as_bytes().to_vec(), role }
        };
        Configuration::new(voters.split(' ').map(server).collect()).unwrap()
    }

    /// First the servers, node 1 leads in term 5 since 0; then events; `quorum at N` and `held at N` are questions, the latter
    /// of the configuration at an index, 1 at first.
    fn told(asked: &str) -> String {
        let begin = Instant::now();
        let at = |number: &str| begin + Duration::from_millis(number.parse().unwrap());
        let mut lines = asked.lines();
        let configuration = configuration(lines.next().unwrap().strip_prefix("servers ").unwrap());
        let (mut contact, mut index) = (Contact::new(Term(5), LogIndex(1), begin), LogIndex(1));
        let mut text = String::new();
        for line in lines {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["answered", id, "sent", sent] | ["answered", id, "sent", sent, "in", "term", "5"] => {
                    contact.answered(NodeId(id.parse().unwrap()), Term(5), at(sent));
                }
                ["answered", id, "sent", sent, "in", "term", term] => {
                    contact.answered(NodeId(id.parse().unwrap()), Term(term.parse().unwrap()), at(sent));
                }
                ["quorum", "at", now] => {
                    let quorum = contact.quorum(&configuration, NodeId(1), at(now));
                    text += &quorum.map_or("never\n".to_owned(), |quorum| {
                        format!("{} ms\n", (quorum - begin).as_millis())
                    });
                }
                ["configuration", at] => index = LogIndex(at.parse().unwrap()),
                ["held", "at", now] => {
                    let held = contact.held(&configuration, index, NodeId(1), at(now));
                    text += &format!("{} ms\n", (held - begin).as_millis());
                }
                _ => panic!("{line}"),
            }
        }
        text
    }

    #[test]
    fn a_quorum_is_as_old_as_what_its_slowest_has_answered() {
        data_driven::run("raft/contact.txt", told);
    }
}
