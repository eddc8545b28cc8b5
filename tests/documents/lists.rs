//! Tables of the documentation that list what the source has: bounds, failures, log messages.

use std::collections::BTreeSet;

use dqlite::protocol::{request, response};

use crate::blocks::text_of;
use crate::source::{bounds, failures, log_messages, sources};

/// The cells of the tables in a part of a document.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    let cells = |line: &str| line[1..].split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    lines.map(cells).collect()
}

/// The first table of a section of a document, its head in front.
fn section(document: &str, heading: &str) -> Vec<Vec<String>> {
    let text = text_of(document);
    let (_, rest) =
        text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("{document}: {heading}"));
    let lines =
        rest.lines().skip_while(|line| !line.starts_with("| ")).take_while(|line| line.starts_with('|'));
    rows(&lines.collect::<Vec<_>>().join("\n"))
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
fn the_table_of_failures_has_what_the_source_has() {
    let table = section("docs/protocol.md", "Failures");
    let mut listed = BTreeSet::new();
    for row in table.iter().skip(1) {
        for code in row[0].split(',').map(|code| code.trim().parse::<u64>().unwrap()) {
            listed.extend(quoted(&row[1]).into_iter().map(|text| (code, text)));
        }
    }
    let found = failures();
    let is_listed = |(code, text): &(Option<u64>, String)| {
        listed.iter().any(|(other, same)| same == text && code.is_none_or(|code| code == *other))
    };
    let is_found = |(code, text): &(u64, String)| {
        found.contains(&(Some(*code), text.clone())) || found.contains(&(None, text.clone()))
    };

    let missing: Vec<_> = found.iter().filter(|failure| !is_listed(failure)).collect();
    let gone: Vec<_> = listed.iter().filter(|failure| !is_found(failure)).collect();
    assert!(missing.is_empty(), "not in docs/protocol.md: {missing:#?}");
    assert!(gone.is_empty(), "in docs/protocol.md and not in the source: {gone:#?}");
    assert!(found.len() >= 25, "{found:?}");
}

#[test]
fn the_table_of_error_texts_has_every_beginning_that_a_node_gives() {
    let table = section("docs/operations.md", "What `dqlite_node_errmsg` says");
    let listed: Vec<String> = table.iter().skip(1).flat_map(|row| quoted(&row[0])).collect();
    let all: String = sources().into_iter().map(|(_, text)| text).collect();
    for text in table.iter().skip(1).flat_map(|row| [quoted(&row[0]), quoted(&row[1])].concat()) {
        let is_text = text.contains(' ');
        assert!(!is_text || all.contains(&text), "in docs/operations.md and not in the source: {text}");
    }
    let mut count = 0;
    let begins = [
        "StartError(",
        "error.set(",
        "Refusal::error(",
        "Refusal::misuse(",
        "Verdict::Error(",
        "Verdict::Misuse(",
        "report(",
        "report(&format!(",
    ];
    let files = [
        "handle",
        "life",
        "log_thread",
        "opening",
        "own_threads",
        "running",
        "start",
        "supervision",
        "threads",
        "writers",
    ];
    for begin in begins {
        for path in files.map(|name| format!("src/node/{name}.rs")) {
            let path = &path;
            for text in text_of(path).split(begin).skip(1) {
                let (before, literal) = text.split_once('"').unwrap_or((text, ""));
                // Otherwise the text is made elsewhere.
                if matches!(before, "" | "format!(" | "&format!(") {
                    let beginning = literal.split(['"', '{']).next().unwrap();
                    assert!(
                        beginning.is_empty() || listed.iter().any(|text| text == beginning),
                        "not in docs/operations.md: {beginning}"
                    );
                    count += 1;
                }
            }
        }
    }
    assert!(count >= 15, "{count} texts");
}

#[test]
fn the_tables_of_requests_and_answers_have_the_numbers_of_the_source() {
    // EXEC_SQL for ExecSql.
    let name = |kind: &dyn std::fmt::Debug| {
        let mut name = String::new();
        for letter in format!("{kind:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name
    };
    let listed = |heading| -> Vec<(u8, String)> {
        let rows = section("docs/protocol.md", heading);
        rows.iter().skip(1).map(|row| (row[0].parse().unwrap(), row[1].clone())).collect()
    };
    let requests =
        (0..=u8::MAX).filter_map(|number| Some((number, name(&request::Kind::from_number(number)?))));
    use response::Kind::*;
    let answers = [Failure, Server, Welcome, Servers, Db, Stmt, Result, Rows, Empty, Files, Metadata];

    assert_eq!(listed("Requests"), requests.collect::<Vec<_>>());
    assert_eq!(listed("Answers"), answers.map(|kind| (kind as u8, name(&kind))));
}

#[test]
fn the_table_of_bounds_has_every_bound_with_its_value() {
    let table = section("docs/limits.md", "By name");
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
