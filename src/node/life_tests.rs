//! The table of calls and states, as a text file and as the page of the C interface has it.

use std::fs;
use std::path::Path;

use super::*;
use crate::types::data_driven;

const STATES: [(&str, State); 6] = [
    ("created", State::Created),
    ("starting", State::Starting),
    ("running", State::Running),
    ("stopping", State::Stopping),
    ("stopped", State::Stopped),
    ("failed", State::Failed),
];
const CALLS: [(&str, Call); 9] = [
    ("fixed setting", Call::Set),
    ("setting", Call::SetAnyTime),
    ("errmsg, getter", Call::Ask),
    ("start", Call::Start),
    ("handover", Call::Handover),
    ("stop", Call::Stop),
    ("recover", Call::Recover),
    ("describe", Call::Describe),
    ("destroy", Call::Destroy),
];
const CALLERS: [(&str, Caller); 3] =
    [("host", Caller::Host), ("callback", Caller::Callback), ("forked child", Caller::Child)];

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> T {
    let found = table.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("'{name}' is not known")).1
}

fn name_of(state: State) -> &'static str {
    STATES.iter().find(|(_, known)| *known == state).unwrap().0
}

/// What comes of a call, in one word of the page.
fn word(verdict: Verdict) -> String {
    match verdict {
        Verdict::Do => "done".to_owned(),
        Verdict::Enter(state) => format!("done, {}", name_of(state)),
        Verdict::GiveUpStart => "ends the start".to_owned(),
        Verdict::AwaitStop => "awaits the stop".to_owned(),
        Verdict::Leave => "nothing".to_owned(),
        Verdict::Misuse(_) => "2".to_owned(),
        Verdict::Error(_) => "1".to_owned(),
    }
}

fn answer(asked: &str) -> String {
    let mut words = asked.split(", by ");
    let (state, caller) = (words.next().unwrap(), words.next().unwrap());
    let (of, state) = state.split_once(' ').unwrap();
    let decide = if of == "server" { server_verdict } else { verdict };
    let (state, caller) = (named(&STATES, state), named(&CALLERS, caller));
    let lines = CALLS.iter().map(|(name, call)| match decide(state, *call, caller) {
        Verdict::Misuse(text) | Verdict::Error(text) => {
            format!("{name}: {} {text}\n", word(decide(state, *call, caller)))
        }
        other => format!("{name}: {}\n", word(other)),
    });
    lines.collect()
}

#[test]
fn every_call_in_every_state_by_every_caller_has_its_answer() {
    data_driven::run("node/life.txt", answer);
}

#[test]
fn the_page_of_the_interface_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/c-api.md");
    let page = fs::read_to_string(path).unwrap();
    for (caller_name, caller) in CALLERS {
        let heading = format!("### Called by: {caller_name}");
        let (_, part) = page.split_once(&heading).unwrap_or_else(|| panic!("no '{heading}'"));
        let rows: Vec<Vec<&str>> = part
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let (head, rows) = (&rows[0], &rows[2..]);
        assert_eq!(head[1..], STATES.map(|(name, _)| name), "{heading}");
        assert_eq!(rows.len(), CALLS.len(), "{heading}");
        for (row, (name, call)) in rows.iter().zip(CALLS) {
            assert_eq!(row[0], name, "{heading}");
            for (cell, (state_name, state)) in row[1..].iter().zip(STATES) {
                assert_eq!(*cell, word(verdict(state, call, caller)), "{heading}: {name} when {state_name}");
            }
        }
    }
}

#[test]
fn whatever_the_state_getters_answer_and_nobody_but_a_thread_of_the_host_waits() {
    for (_, state) in STATES {
        for (_, caller) in CALLERS {
            assert_eq!(verdict(state, Call::Ask, caller), Verdict::Do);
            assert_eq!(server_verdict(state, Call::Ask, caller), Verdict::Do);
        }
        for caller in [Caller::Callback, Caller::Child] {
            for call in [Call::Start, Call::Handover, Call::Stop, Call::Recover, Call::Destroy] {
                let waits = |verdict| !matches!(verdict, Verdict::Misuse(_) | Verdict::Leave);
                assert!(!waits(verdict(state, call, caller)), "{state:?} {call:?} {caller:?}");
                assert!(!waits(server_verdict(state, call, caller)), "{state:?} {call:?} {caller:?}");
            }
        }
    }
}
