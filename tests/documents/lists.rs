//! Tables of the documentation that list what the source has: bounds, failures, log messages.

use std::collections::BTreeSet;

use crate::blocks::text_of;
use crate::source::{bounds, failure_texts, log_messages};

/// The cells of the tables in a part of a document.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    let cells = |line: &str| line[1..].split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    lines.map(cells).collect()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_table_of_log_messages_has_what_the_source_has() {
    let document = text_of("docs/operations.md");
    let mut listed = BTreeSet::new();
    for section in document.split("\n### ").skip(1) {
        let (level, table) = section.split_once('\n').unwrap();
        for row in rows(table).iter().skip(1) {
            let messages = quoted(&row[0]);
            assert!(!messages.is_empty(), "{row:?}");
            for message in messages {
                assert!(listed.insert((level.to_owned(), message)), "twice: {row:?}");
            }
        }
    }
    let found = log_messages();
    let missing: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:#?}");
    assert!(gone.is_empty(), "in docs/operations.md and not in the source: {gone:#?}");
    assert!(found.len() >= 60, "{} messages", found.len());
}

#[test]
fn the_table_of_failures_has_every_text_of_the_source() {
    let document = text_of("docs/protocol.md");
    let section = document.split("\n## Failures").nth(1).unwrap().split("\n## ").next().unwrap();
    let listed: BTreeSet<String> =
        rows(section).iter().filter(|row| row.len() == 5).flat_map(|row| quoted(&row[1])).collect();
    let found = failure_texts();

    assert_eq!(
        found.difference(&listed).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "not in docs/protocol.md"
    );
    assert_eq!(listed.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the source");
    assert!(found.len() >= 25, "{found:?}");
}

#[test]
fn the_table_of_bounds_has_every_bound_with_its_value() {
    let document = text_of("docs/limits.md");
    let table = rows(document.split("\n## By name").nth(1).unwrap());
    let listed: Vec<(String, String)> =
        table.iter().skip(1).map(|row| (quoted(&row[0]).concat(), row[1].clone())).collect();
    let found = bounds();

    for bound in &found {
        let row = listed.iter().find(|(name, _)| *name == bound.name);
        let (_, value) = row.unwrap_or_else(|| panic!("docs/limits.md does not list {bound:?}"));
        assert_eq!(*value, bound.value, "docs/limits.md: {}", bound.name);
    }
    for (name, _) in &listed {
        assert!(
            found.iter().any(|bound| bound.name == *name),
            "docs/limits.md lists {name}, which is not there"
        );
    }
    assert!(
        found.len() >= 90 && listed.len() == found.len(),
        "{} bounds, {} rows",
        found.len(),
        listed.len()
    );
}
