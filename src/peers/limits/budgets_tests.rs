use std::time::Duration;

use super::*;
use crate::types::{NodeId, data_driven};

const MIB: usize = 1024 * 1024;

/// Members are 1 to 3, each at the address `nN`; everybody else is a stranger.
fn caller(from: &Sender) -> Caller {
    let has_address = from.address == format!("n{}", from.id);
    if (1..=3).contains(&from.id.0) { Caller::Member { has_address } } else { Caller::Stranger }
}

struct Played {
    begin: Instant,
    places: Places,
    /// Connections so far, and which of them speaks.
    connections: u64,
    speaker: Option<u64>,
    /// Open links of strangers, and of members at other addresses.
    links: Vec<(NodeId, LinkKind)>,
    dials: Dials,
    unfinished: Unfinished,
}

fn shown(numbers: &[u64]) -> String {
    let names: Vec<String> = numbers.iter().map(|number| format!("c{number}")).collect();
    if names.is_empty() { "nobody goes".to_owned() } else { format!("{} goes", names.join(", ")) }
}

fn number(name: &str) -> u64 {
    name.trim_start_matches(|letter: char| letter.is_alphabetic()).parse().expect("a number")
}

impl Played {
    fn new() -> Played {
        Played {
            begin: Instant::now(),
            places: Places::default(),
            connections: 0,
            speaker: None,
            links: Vec::new(),
            dials: Dials::default(),
            unfinished: Unfinished::default(),
        }
    }

    fn connects(&mut self, id: &str, address: &str, at: &str) -> Vec<u64> {
        self.connections += 1;
        let from = Sender { id: NodeId(number(id)), address: address.to_owned().into() };
        let now = self.begin + Duration::from_secs(number(at));
        let speaker = self.speaker;
        self.places.enter(self.connections, from, now, caller, |other, _| speaker == Some(other))
    }

    fn happens(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [id, "at", address, "connects", "after", at] => shown(&self.connects(id, address, at)),
            [count, "strangers", "connect", "after", at] => {
                let gone: Vec<u64> = (0..number(count))
                    .flat_map(|id| self.connects(&(100 + id).to_string(), "x", at))
                    .collect();
                shown(&gone)
            }
            [connection, "is", "used", "after", at] => {
                self.places.used(number(connection), self.begin + Duration::from_secs(number(at)));
                "used".to_owned()
            }
            [connection, "speaks"] => {
                self.speaker = Some(number(connection));
                "noted".to_owned()
            }
            [connection, "leads"] => {
                self.places.leads(number(connection));
                "noted".to_owned()
            }
            ["link", "to", id, "at", address] => self.link(id, address),
            [count, "links", "to", "strangers"] => {
                let made = (0..number(count)).map(|id| self.link(&(100 + id).to_string(), "x")).last();
                format!("the last: {}", made.unwrap_or_default())
            }
            ["dial", address, "of", kind] => {
                let may = self.dials.begin(&address.to_owned().into(), kind_of(kind));
                if may { "dialled" } else { "waits" }.to_owned()
            }
            [count, "dials", "of", kind] => {
                let begun = (0..number(count))
                    .filter(|place| self.dials.begin(&format!("{kind}-{place}").into(), kind_of(kind)));
                format!("{} dialled", begun.count())
            }
            ["dial", address, "of", kind, "ends"] => {
                self.dials.end(&address.to_owned().into(), kind_of(kind));
                "ended".to_owned()
            }
            [connection, "has", mib, "MiB", "of", whom] => {
                let receiving = match whom {
                    "the-leader" => Receiving::FromLeader,
                    "others" => Receiving::FromOther,
                    _ => panic!("{line}"),
                };
                let may = self.unfinished.may_hold(number(connection), receiving, number(mib) as usize * MIB);
                if may { "is read" } else { "waits" }.to_owned()
            }
            [connection, "is", "done"] => {
                self.unfinished.release(number(connection));
                "released".to_owned()
            }
            _ => panic!("{line}"),
        }
    }

    fn link(&mut self, id: &str, address: &str) -> String {
        let id = NodeId(number(id));
        let from = Sender { id, address: address.to_owned().into() };
        let elsewhere =
            self.links.iter().filter(|(other, kind)| *other == id && *kind == LinkKind::MemberElsewhere);
        let strangers = self.links.iter().filter(|(_, kind)| *kind == LinkKind::Stranger).count();
        match link_kind(caller(&from), elsewhere.count(), strangers) {
            Some(kind) => {
                self.links.push((id, kind));
                format!("made, {kind:?}")
            }
            None => "not made".to_owned(),
        }
    }
}

fn kind_of(text: &str) -> LinkKind {
    match text {
        "member" => LinkKind::Member,
        "stranger" => LinkKind::Stranger,
        _ => panic!("{text}"),
    }
}

#[test]
fn strangers_take_nothing_from_members() {
    data_driven::run("raft/budgets.txt", |asked| {
        let mut played = Played::new();
        asked.lines().map(|line| played.happens(line) + "\n").collect()
    });
}
