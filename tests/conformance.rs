//! Each line of the project's specifications is a test that names it. Here the names are collected: docs/conformance.md is made
//! of them. `UPDATE_CONFORMANCE=1` writes it. A marker is a comment directly above a test:
//! `conformance: SPECIFICATION LINE, LINE (better: why)`; without `better` this library does what upstream does. The lines are in
//! testdata/conformance/*.txt; `open.txt` there holds those that have no test, with the reason.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The specifications, in the order of the document, with what each is about.
const SPECIFICATIONS: [(&str, &str); 5] = [
    ("c-api", "The C interface"),
    ("client-protocol", "The client protocol"),
    ("raft-wire", "Messages between nodes"),
    ("disk-format", "The data directory"),
    ("state-machine", "What is replicated, and how SQLite runs"),
];
/// Where tests are.
const FOLDERS: [&str; 7] = ["src", "tests", "testing", "sim", "tests-c", "fuzz", "scripts"];
/// What every marker has behind the sign of its comment.
const SIGN: &str = "conformance: ";

/// A line of a specification.
struct Line {
    id: String,
    text: String,
}

/// Lines under one heading.
struct Part {
    heading: String,
    lines: Vec<Line>,
}

/// A marker and the test below it.
#[derive(Debug)]
struct Marker {
    specification: String,
    ids: Vec<String>,
    better: Option<String>,
    /// Path from the root of the repository and name of the test.
    test: String,
}

/// A specification and one of its lines.
type Key = (String, String);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn data(name: &str) -> String {
    let path = root().join("testdata/conformance").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parts(specification: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for row in data(&format!("{specification}.txt")).lines() {
        if let Some(heading) = row.strip_prefix("## ") {
            parts.push(Part { heading: heading.to_owned(), lines: Vec::new() });
            continue;
        }
        let (id, text) = row.split_once(' ').unwrap_or_else(|| panic!("{specification}: row `{row}`"));
        let part = parts.last_mut().unwrap_or_else(|| panic!("{specification}: no heading above `{row}`"));
        part.lines.push(Line { id: id.to_owned(), text: text.to_owned() });
    }
    parts
}

/// Lines without a test, and why.
fn open() -> BTreeMap<Key, String> {
    let text = data("open.txt");
    let rows = text.lines().filter(|row| !row.starts_with('#')).map(|row| {
        let (line, reason) = row.split_once(": ").unwrap_or_else(|| panic!("open.txt: row `{row}`"));
        let (specification, id) = line.split_once(' ').unwrap_or_else(|| panic!("open.txt: row `{row}`"));
        ((specification.to_owned(), id.to_owned()), reason.to_owned())
    });
    rows.collect()
}

fn known() -> BTreeSet<Key> {
    let mut known = BTreeSet::new();
    for (specification, _) in SPECIFICATIONS {
        for line in parts(specification).into_iter().flat_map(|part| part.lines) {
            assert!(
                known.insert((specification.to_owned(), line.id.clone())),
                "{specification} {} twice",
                line.id
            );
        }
    }
    known
}

/// All markers, in the order of paths and rows, and what is wrong with the others.
fn markers() -> (Vec<Marker>, Vec<String>) {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut files);
    }
    files.sort();
    let (mut markers, mut wrong) = (Vec::new(), Vec::new());
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
        let rows: Vec<&str> = text.lines().collect();
        for (at, row) in rows.iter().enumerate() {
            let Some(marker) = marker_text(row) else { continue };
            match marker_of(name, marker, &rows[at + 1..]) {
                Ok(marker) => markers.push(marker),
                Err(error) => wrong.push(format!("{name}:{}: {error}", at + 1)),
            }
        }
    }
    (markers, wrong)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("__pycache__") {
                collect(&path, files);
            }
        } else {
            files.push(path);
        }
    }
}

/// What stands behind the sign of a marker, if the row is one.
fn marker_text(row: &str) -> Option<&str> {
    let row = row.trim_start();
    let behind = ["// ", "/* ", "# "].iter().find_map(|sign| row.strip_prefix(sign))?;
    Some(behind.strip_prefix(SIGN)?.trim_end_matches("*/").trim_end())
}

fn marker_of(path: &str, text: &str, below: &[&str]) -> Result<Marker, String> {
    let (text, better) = match text.split_once(" (") {
        None => (text, None),
        Some((text, remark)) => {
            let reason = remark.strip_prefix("better: ").and_then(|reason| reason.strip_suffix(')'));
            (text, Some(reason.ok_or_else(|| format!("remark `({remark}`"))?.to_owned()))
        }
    };
    let (specification, ids) = text.split_once(' ').ok_or_else(|| format!("marker `{text}`"))?;
    let ids: Vec<String> = ids.split(", ").map(str::to_owned).collect();
    let test = test_below(path, below).ok_or("no test stands below the marker")?;
    Ok(Marker { specification: specification.to_owned(), ids, better, test })
}

/// The test that begins below a marker: other comments and attributes may stand between.
fn test_below(path: &str, below: &[&str]) -> Option<String> {
    let is_comment =
        |row: &&&str| ["//", "/*", "*", "#!"].iter().any(|sign| row.trim_start().starts_with(sign));
    if path.ends_with(".rs") {
        let rows: Vec<&str> = below.iter().take_while(|row| !row.trim().is_empty()).copied().collect();
        let (name, at) = rows.iter().enumerate().find_map(|(at, row)| Some((rust_name(row)?, at)))?;
        let above: Vec<&&str> = rows[..at].iter().filter(|row| !is_comment(row)).collect();
        let only_attributes = above.iter().all(|row| row.trim_start().starts_with("#["));
        let is_test = above.iter().any(|row| row.contains("test")) || name == FUZZED;
        return (only_attributes && is_test).then(|| format!("`{path}` {name}"));
    }
    if path.ends_with(".c") || path.ends_with(".cc") || path.ends_with(".h") {
        let row = below.iter().find(|row| !is_comment(row))?;
        if row.starts_with("_Static_assert") {
            return Some(format!("`{path}`"));
        }
        let name = row.split('(').next()?.split(' ').next_back()?.trim_start_matches('*');
        return (row.contains('(') && !row.ends_with(';') && !name.is_empty())
            .then(|| format!("`{path}` {name}"));
    }
    // A script: the function, or the command, below.
    let row =
        below.iter().find(|row| !row.trim_start().starts_with('#')).filter(|row| !row.trim().is_empty())?;
    let function = row.trim_start().strip_prefix("def ").unwrap_or(row).split('(').next()?;
    let is_name = function.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    Some(if is_name { format!("`{path}` {function}") } else { format!("`{path}`") })
}

/// What a fuzz target is called in the document.
const FUZZED: &str = "any bytes";

fn rust_name(row: &str) -> Option<&str> {
    if row.starts_with("fuzz_target!(") {
        return Some(FUZZED);
    }
    let row = row.trim_start();
    let row = row.strip_prefix("async ").unwrap_or(row);
    row.strip_prefix("fn ")?.split('(').next()
}

/// One cell: what tests have it, and whether this library differs.
fn cells(marked: &[&Marker], open: Option<&String>) -> (String, String) {
    if let Some(reason) = open {
        return (String::new(), format!("open: {reason}"));
    }
    let tests: Vec<&str> = marked.iter().map(|marker| marker.test.as_str()).collect();
    let mut reasons: Vec<&str> = Vec::new();
    for reason in marked.iter().filter_map(|marker| marker.better.as_deref()) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    let same = if reasons.is_empty() { "same".to_owned() } else { format!("better: {}", reasons.join("; ")) };
    (tests.join("<br>"), same)
}

fn document(markers: &[Marker], open: &BTreeMap<Key, String>) -> String {
    let mut text = String::from(
        "# Conformance\n\n\
         What the project's descriptions of upstream's interfaces demand, line by line, and the tests that show it. Made by\n\
         `UPDATE_CONFORMANCE=1 cargo test --test conformance` from the comments above the tests; not to be edited.\n\n\
         \"same\": as upstream does it, in the version that [compat.md](compat.md) names. \"better\": different on purpose.\n",
    );
    let total = known().len();
    let _ = writeln!(text, "\n{total} lines, {} of them without a test.", open.len());
    for (specification, about) in SPECIFICATIONS {
        let _ = writeln!(text, "\n## {about} ({specification})");
        for part in parts(specification) {
            let _ = write!(
                text,
                "\n### {}\n\n| line | what | tests | upstream |\n|---|---|---|---|\n",
                part.heading
            );
            for Line { id, text: what } in part.lines {
                let has =
                    |marker: &&Marker| marker.specification == specification && marker.ids.contains(&id);
                let marked: Vec<&Marker> = markers.iter().filter(has).collect();
                let (tests, same) = cells(&marked, open.get(&(specification.to_owned(), id.clone())));
                let _ = writeln!(text, "| {id} | {what} | {tests} | {same} |");
            }
        }
    }
    text
}

#[test]
fn every_line_of_the_specifications_has_a_test_and_the_document_names_it() {
    let (markers, mut wrong) = markers();
    let (known, open) = (known(), open());
    let mut marked = BTreeSet::new();
    for marker in &markers {
        for id in &marker.ids {
            let key = (marker.specification.clone(), id.clone());
            if !known.contains(&key) {
                wrong.push(format!("{}: there is no line {} {id}", marker.test, marker.specification));
            }
            marked.insert(key);
        }
    }
    for (specification, id) in known.iter().filter(|key| !marked.contains(key) && !open.contains_key(key)) {
        wrong.push(format!("{specification} {id} has no test and is not in open.txt"));
    }
    for (specification, id) in open.keys().filter(|key| marked.contains(key) || !known.contains(key)) {
        wrong.push(format!("open.txt: {specification} {id} has a test or is no line"));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));

    let path = root().join("docs/conformance.md");
    let text = document(&markers, &open);
    if std::env::var_os("UPDATE_CONFORMANCE").is_some() {
        fs::write(&path, text).unwrap();
    } else {
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "docs/conformance.md is not up to date: run with UPDATE_CONFORMANCE=1");
    }
}

#[test]
fn a_marker_needs_a_test_below_it() {
    let good = |path: &str, text: &str, below: &[&str]| marker_of(path, text, below).unwrap();
    let attribute = "#[tokio::test(start_paused = true)]";

    let marker = good("a.rs", "c-api 1, 2 (better: why)", &["// more", attribute, "async fn f() {"]);
    assert_eq!((marker.ids.join(" "), marker.better.unwrap()), ("1 2".to_owned(), "why".to_owned()));
    assert_eq!(marker.test, "`a.rs` f");
    assert_eq!(
        good("a.c", "c-api 1", &["/* more */", "static void section_a(void)"]).test,
        "`a.c` section_a"
    );
    assert_eq!(good("a.sh", "c-api 1", &["# more", "check() {"]).test, "`a.sh` check");
    assert_eq!(good("a.sh", "c-api 1", &["go test ./..."]).test, "`a.sh`");
    assert_eq!(good("a.rs", "c-api 1", &["fuzz_target!(|bytes: &[u8]| {"]).test, "`a.rs` any bytes");

    for (path, below) in [
        ("a.rs", &["fn helper() {"][..]),
        ("a.rs", &["", "#[test]", "fn f() {"]),
        ("a.rs", &["let x = 1;", "#[test]", "fn f() {"]),
        ("a.c", &["}", ""]),
        ("a.c", &["int x;"]),
        ("a.sh", &["# more"]),
    ] {
        assert!(marker_of(path, "c-api 1", below).is_err(), "{path} {below:?}");
    }
    assert!(marker_of("a.rs", "c-api 1 (worse: why)", &["#[test]", "fn f() {"]).is_err());
    assert!(
        marker_text("    // conformance: c-api 1").is_some()
            && marker_text("let x; // conformance: c-api 1").is_none()
    );
}
