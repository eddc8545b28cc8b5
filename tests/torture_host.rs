//! The short form of `make torture-host`: system calls of a node's life fail, one in each life. docs/testing.md.

#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used)]

mod library;

use std::process::Command;

use library::{compile, run};

/// Lives; each has one call that fails, returns less, or is interrupted.
const FAILURES: usize = 200;
/// How many must have met their call: the rest make it less often than the life that was counted.
const BROKEN_MIN: usize = 180;

/// The number behind a word of the last line.
fn number(line: &str, word: &str) -> usize {
    let (_, behind) = line.split_once(word).unwrap_or_else(|| panic!("no '{word}' in '{line}'"));
    let end = behind.find(',').unwrap_or(behind.len());
    behind[..end].trim().parse().unwrap()
}

#[test]
fn whatever_system_call_fails_a_node_answers_refuses_or_stops_and_loses_nothing() {
    let (folder, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = compile("torture-host.c", folder.path(), &["-std=gnu11", "-rdynamic"]);

    let seen = run(Command::new(program).arg(work.path()).args(["--failures", &FAILURES.to_string()]));

    let last = seen.lines().last().unwrap();
    assert_eq!(number(last, "lives:"), FAILURES, "{seen}");
    assert!(number(last, "calls broken:") >= BROKEN_MIN, "{seen}");
    assert!(number(last, "refused with a text:") >= 10, "{seen}");
    assert!(last.ends_with("hangs: 0, hosts ended: 0, wrong: 0, touched others: 0"), "{seen}");
}
