//! The table of elections, explored: every order in which three voters, one of them upstream's, and a stand-by can stand, vote,
//! lead, write, hand over, crash and start again while messages are late or lost. A crash forgets what is not durable.
//!
//! Time is left out: a leader may be taken for gone, and whoever waits may have waited long enough, at any moment. So what
//! holds here rests on no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::table::{Ballot, Facts, Leader, Stand, Verdict, stand, vote};

/// Nodes 0 to 2 vote, node 3 is a stand-by.
const VOTERS: usize = 3;
const NODES: usize = 4;
const MAJORITY: usize = 2;
/// First term of the first leader, and the last one that anybody stands in.
const TERMS: u8 = 5;

type Id = u8;

/// An entry: its term, and a tag that differs for whoever makes one, and after each crash.
type Entry = (u8, u8);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Belief {
    Unknown,
    Follows(Id),
    Gone(Id),
    /// Who voted for it.
    Stands(BTreeSet<Id>),
    /// What each node has acknowledged.
    Leads([u8; NODES]),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    term: u8,
    voted_for: Option<Id>,
    log: Vec<Entry>,
    /// Entries that a crash does not take.
    durable: u8,
    commit: u8,
    belief: Belief,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    RequestVote {
        term: u8,
        last: Entry,
        length: u8,
        disrupts: bool,
    },
    Vote {
        term: u8,
        granted: bool,
    },
    /// The whole log: where logs part is found out elsewhere.
    Append {
        term: u8,
        log: Vec<Entry>,
        commit: u8,
    },
    Acknowledged {
        term: u8,
        length: u8,
    },
    TimeoutNow {
        term: u8,
        length: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    nodes: Vec<Node>,
    /// From, to, what. What is never delivered was lost.
    network: BTreeSet<(Id, Id, Message)>,
    /// Who has led in each term.
    leaders: BTreeMap<u8, BTreeSet<Id>>,
    committed: Vec<Entry>,
    /// An entry that was committed is not in the log of a later leader, or another is committed at its index.
    is_lost: bool,
    crashes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    /// The leader is silent and does not answer, or its connections end.
    LosesLeader(Id),
    Stands(Id),
    Proposes(Id),
    Flushes(Id),
    Replicates(Id, Id),
    HandsOver(Id, Id),
    StepsDown(Id),
    Crashes(Id),
    /// The message of this place in the network.
    Delivers(usize),
}

/// What is explored: how large the histories may grow.
#[derive(Clone)]
struct Elections {
    terms: u8,
    entries: usize,
    crashes: u8,
    in_flight: usize,
    /// This voter is one of upstream's.
    upstream: Option<Id>,
    /// An old defect that the exploration has to find.
    plant: Option<Plant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plant {
    /// A vote is given although another was given in the term.
    VotesTwice,
    /// A log that is behind gets a vote.
    IgnoresLogs,
    /// Whoever starts again leads on in its term.
    LeadsOnAfterAStart,
}

impl Node {
    fn last(&self) -> (u8, u8) {
        (self.log.last().map_or(0, |entry| entry.0), self.log.len() as u8)
    }

    fn facts(&self, id: Id) -> Facts {
        let long = Duration::from_secs(10);
        let leader = match self.belief {
            Belief::Unknown => Leader::Unknown { past: long, wait: long },
            Belief::Follows(_) => Leader::Follows { silent: Duration::ZERO, fresh: long, silence: long },
            Belief::Gone(_) => Leader::Gone,
            Belief::Stands(_) => Leader::Stands,
            Belief::Leads(_) => Leader::Leads { in_contact: true },
        };
        Facts { is_voter: usize::from(id) < VOTERS, ..Facts::of_voter(leader) }
    }

    fn take_up(&mut self, term: u8) {
        if term > self.term {
            (self.term, self.voted_for, self.belief) = (term, None, Belief::Unknown);
        }
    }
}

impl State {
    fn send(&mut self, model: &Elections, from: Id, to: Id, message: Message) {
        if from != to && self.network.len() < model.in_flight {
            self.network.insert((from, to, message));
        }
    }

    fn node(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[usize::from(id)]
    }

    fn tag(&self, id: Id) -> u8 {
        1 + id + self.crashes * NODES as u8
    }

    fn stand(&mut self, model: &Elections, id: Id, disrupts: bool) {
        let node = self.node(id);
        node.term += 1;
        node.voted_for = Some(id);
        // A vote is written behind the entries before it.
        node.durable = node.log.len() as u8;
        node.belief = Belief::Stands(BTreeSet::from([id]));
        let (term, (last_term, length)) = (node.term, node.last());
        for to in 0..VOTERS as Id {
            let last = (last_term, 0);
            self.send(model, id, to, Message::RequestVote { term, last, length, disrupts });
        }
    }

    fn lead(&mut self, id: Id) {
        let tag = self.tag(id);
        let node = self.node(id);
        let term = node.term;
        let mut acknowledged = [0; NODES];
        acknowledged[usize::from(id)] = node.durable;
        node.belief = Belief::Leads(acknowledged);
        node.log.push((term, tag));
        self.is_lost |= !self.nodes[usize::from(id)].log.starts_with(&self.committed);
        self.leaders.entry(term).or_default().insert(id);
    }

    /// What a majority has is committed, if it is of the leader's own term.
    fn commit(&mut self, id: Id) {
        let node = &mut self.nodes[usize::from(id)];
        let Belief::Leads(acknowledged) = &node.belief else { return };
        let mut voters: Vec<u8> = acknowledged[..VOTERS].to_vec();
        voters.sort_unstable();
        let index = voters[VOTERS - MAJORITY];
        if index > node.commit && node.log[usize::from(index) - 1].0 == node.term {
            node.commit = index;
            let committed = &node.log[..usize::from(index)];
            if committed.len() > self.committed.len() {
                self.is_lost |= !committed.starts_with(&self.committed);
                self.committed = committed.to_vec();
            } else {
                self.is_lost |= !self.committed.starts_with(committed);
            }
        }
    }

    /// A vote of this node for `from`, by the table; upstream's by its own rules. spec: raft-wire 6.2.
    fn votes(
        &mut self,
        model: &Elections,
        from: Id,
        to: Id,
        term: u8,
        log: (u8, u8),
        disrupts: bool,
    ) -> bool {
        let node = self.node(to);
        let log_is_behind = log < node.last();
        let gives = if model.upstream == Some(to) {
            let has_leader = matches!(node.belief, Belief::Follows(_) | Belief::Gone(_) | Belief::Leads(_));
            if has_leader && !disrupts {
                return false;
            }
            node.take_up(term);
            term == node.term && !log_is_behind
        } else {
            let ballot = Ballot {
                is_pre_vote: false,
                disrupts_leader: disrupts,
                is_past: term < node.term,
                log_is_behind: log_is_behind && model.plant != Some(Plant::IgnoresLogs),
                own_comes_first: false,
            };
            vote(&node.facts(to), &ballot) == Verdict::Grant
        };
        if !gives {
            return false;
        }
        // What openraft and upstream keep: one vote in a term.
        node.take_up(term);
        let is_free =
            node.voted_for.is_none_or(|voted| voted == from) || model.plant == Some(Plant::VotesTwice);
        let grants = is_free && !matches!(node.belief, Belief::Leads(_));
        if grants {
            node.voted_for = Some(from);
        }
        grants
    }

    fn deliver(&mut self, model: &Elections, from: Id, to: Id, message: Message) {
        match message {
            Message::RequestVote { term, last, length, disrupts } => {
                let granted = self.votes(model, from, to, term, (last.0, length), disrupts);
                let term = self.node(to).term;
                self.send(model, to, from, Message::Vote { term, granted });
            }
            Message::Vote { term, granted } => {
                let node = self.node(to);
                node.take_up(term);
                let is_own = node.term == term;
                if let Belief::Stands(votes) = &mut node.belief
                    && granted
                    && is_own
                {
                    votes.insert(from);
                    if votes.len() >= MAJORITY {
                        self.lead(to);
                    }
                }
            }
            Message::Append { term, log, commit } => {
                let node = self.node(to);
                if term < node.term {
                    return;
                }
                node.take_up(term);
                if matches!(node.belief, Belief::Leads(_)) {
                    return;
                }
                node.belief = Belief::Follows(from);
                let same = node.log.iter().zip(&log).take_while(|(own, theirs)| own == theirs).count();
                if same < log.len() {
                    node.log.truncate(same);
                    node.log.extend_from_slice(&log[same..]);
                }
                node.durable = node.log.len() as u8;
                node.commit = node.commit.max(commit.min(log.len() as u8));
                let length = log.len() as u8;
                self.send(model, to, from, Message::Acknowledged { term, length });
            }
            Message::Acknowledged { term, length } => {
                let node = self.node(to);
                if let Belief::Leads(acknowledged) = &mut node.belief
                    && node.term == term
                {
                    let reached = &mut acknowledged[usize::from(from)];
                    *reached = length.max(*reached);
                    self.commit(to);
                }
            }
            Message::TimeoutNow { term, length } => {
                let node = self.node(to);
                let takes_over = node.term == term
                    && term < model.terms
                    && usize::from(to) < VOTERS
                    && matches!(node.belief, Belief::Follows(leader) | Belief::Gone(leader) if leader == from)
                    && node.log.len() as u8 == length;
                if takes_over {
                    self.stand(model, to, true);
                }
            }
        }
    }

    /// If from here on every message came and nobody crashed, somebody would lead: voters that lose their leader, ask each
    /// other and stand, in any order that time could bring.
    fn finds_a_leader(&self, model: &Elections) -> bool {
        let mut state = self.clone();
        state.network.clear();
        // Elections after this point may take terms of their own.
        let model = Elections { terms: u8::MAX, in_flight: usize::MAX, ..model.clone() };
        for id in 0..NODES as Id {
            let node = state.node(id);
            if !matches!(node.belief, Belief::Leads(_)) {
                node.belief = Belief::Unknown;
            }
        }
        for round in 0..8 {
            let newest = state.nodes.iter().map(|node| node.term).max();
            let leads = |node: &&Node| matches!(node.belief, Belief::Leads(_)) && Some(node.term) == newest;
            if state.nodes.iter().any(|node| leads(&node)) {
                return true;
            }
            // Who led in an earlier term hears of the later one.
            for id in 0..NODES as Id {
                state.node(id).take_up(newest.unwrap_or(0));
                if matches!(state.node(id).belief, Belief::Stands(_)) {
                    state.node(id).belief = Belief::Unknown;
                }
            }
            let id = (round % VOTERS) as Id;
            if stand(&state.node(id).facts(id)) == Stand::Now {
                state.stand(&model, id, false);
            }
            while let Some((from, to, message)) = state.network.pop_first() {
                state.deliver(&model, from, to, message);
            }
        }
        false
    }
}

impl Model for Elections {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        let node = Node {
            term: 1,
            voted_for: None,
            log: vec![(1, 0)],
            durable: 1,
            commit: 1,
            belief: Belief::Unknown,
        };
        vec![State {
            nodes: vec![node; NODES],
            network: BTreeSet::new(),
            leaders: BTreeMap::new(),
            committed: vec![(1, 0)],
            is_lost: false,
            crashes: 0,
        }]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        events.extend((0..state.network.len()).map(Event::Delivers));
        for (id, node) in (0..NODES as Id).zip(&state.nodes) {
            match &node.belief {
                Belief::Follows(_) => events.push(Event::LosesLeader(id)),
                Belief::Leads(_) => {
                    if node.log.len() < self.entries {
                        events.push(Event::Proposes(id));
                    }
                    if usize::from(node.durable) < node.log.len() {
                        events.push(Event::Flushes(id));
                    }
                    let others = (0..NODES as Id).filter(|other| *other != id);
                    events.extend(others.clone().map(|other| Event::Replicates(id, other)));
                    events.extend(others.map(|other| Event::HandsOver(id, other)));
                    events.extend((node.term < self.terms).then_some(Event::StepsDown(id)));
                }
                Belief::Unknown | Belief::Gone(_) | Belief::Stands(_) => {}
            }
            if node.term < self.terms && stand(&node.facts(id)) == Stand::Now {
                events.push(Event::Stands(id));
            }
            if state.crashes < self.crashes {
                events.push(Event::Crashes(id));
            }
        }
    }

    fn next_state(&self, last: &State, event: Event) -> Option<State> {
        let mut state = last.clone();
        match event {
            Event::LosesLeader(id) => {
                let node = state.node(id);
                if let Belief::Follows(leader) = node.belief {
                    // Upstream's forgets it with its own timeout.
                    node.belief =
                        if self.upstream == Some(id) { Belief::Unknown } else { Belief::Gone(leader) };
                }
            }
            Event::Stands(id) => state.stand(self, id, false),
            Event::Proposes(id) => {
                let tag = state.tag(id);
                let node = state.node(id);
                node.log.push((node.term, tag));
            }
            Event::Flushes(id) => {
                let node = state.node(id);
                node.durable = node.log.len() as u8;
                if let Belief::Leads(acknowledged) = &mut node.belief {
                    acknowledged[usize::from(id)] = node.durable;
                }
                state.commit(id);
            }
            Event::Replicates(id, to) => {
                let node = state.node(id);
                let append = Message::Append { term: node.term, log: node.log.clone(), commit: node.commit };
                state.send(self, id, to, append);
            }
            Event::HandsOver(id, to) => {
                let node = state.node(id);
                let now = Message::TimeoutNow { term: node.term, length: node.log.len() as u8 };
                state.send(self, id, to, now);
            }
            Event::StepsDown(id) => {
                let term = state.node(id).term + 1;
                state.node(id).take_up(term);
            }
            Event::Crashes(id) => {
                state.crashes += 1;
                let led = matches!(state.node(id).belief, Belief::Leads(_));
                let node = state.node(id);
                node.log.truncate(usize::from(node.durable));
                node.commit = 0;
                node.belief = Belief::Unknown;
                if led && self.plant == Some(Plant::LeadsOnAfterAStart) {
                    state.lead(id);
                }
            }
            Event::Delivers(place) => {
                let (from, to, message) = state.network.iter().nth(place)?.clone();
                state.network.remove(&(from, to, message.clone()));
                state.deliver(self, from, to, message);
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Elections>> {
        vec![
            Property::always("one leader in a term", |_, state: &State| {
                state.leaders.values().all(|leaders| leaders.len() <= 1)
            }),
            Property::always("what is committed stays", |_, state: &State| !state.is_lost),
            Property::always("no two entries at one index and term", |_, state: &State| {
                let mut entries = BTreeMap::new();
                state
                    .nodes
                    .iter()
                    .flat_map(|node| node.log.iter().enumerate())
                    .all(|(index, entry)| *entries.entry((index, entry.0)).or_insert(entry.1) == entry.1)
            }),
            Property::always("a leader is found when all can talk", |model: &Elections, state: &State| {
                state.finds_a_leader(model)
            }),
            Property::sometimes("the last term is led in", |model: &Elections, state: &State| {
                state.leaders.contains_key(&model.terms)
            }),
        ]
    }
}

fn explored(model: Elections, states: usize) -> impl Checker<Elections> {
    model
        .checker()
        .threads(2)
        .target_state_count(states)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join()
}

/// How many states a run explores; all of them if there are fewer.
fn states() -> usize {
    std::env::var("DQLITE_MODEL_STATES").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000)
}

#[test]
fn no_order_of_events_makes_two_leaders_or_loses_an_entry() {
    for upstream in [None, Some(2)] {
        let model = Elections { terms: TERMS, entries: 4, crashes: 2, in_flight: 3, upstream, plant: None };
        let checker = explored(model, states());
        checker.assert_no_discovery("one leader in a term");
        checker.assert_no_discovery("what is committed stays");
        checker.assert_no_discovery("no two entries at one index and term");
        checker.assert_no_discovery("a leader is found when all can talk");
        eprintln!("upstream {upstream:?}: {} states", checker.unique_state_count());
    }
}

#[test]
fn old_defects_are_found() {
    for (plant, crashes, property) in [
        (Plant::VotesTwice, 0, "one leader in a term"),
        (Plant::IgnoresLogs, 0, "what is committed stays"),
        (Plant::LeadsOnAfterAStart, 1, "no two entries at one index and term"),
    ] {
        let model =
            Elections { terms: 3, entries: 2, crashes, in_flight: 2, upstream: None, plant: Some(plant) };
        let checker = explored(model, 3_000_000);
        let found = checker.discovery(property);
        assert!(found.is_some(), "{property}: {} states", checker.unique_state_count());
    }
}
