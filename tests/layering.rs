//! The order of the layers, read from the table of docs/architecture.md, and who may name openraft, libsqlite3-sys and `unsafe`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

#[path = "sources/code.rs"]
mod code;
mod sources;

use code::code_of;

/// Where openraft and its companion crates may be named.
const OPENRAFT: &[&str] = &["src/raft/"];
/// Where SQLite's functions may be called.
const SQLITE: &[&str] = &["src/executor/sqlite/", "src/vfs/"];
/// Where `unsafe` may be written.
const UNSAFE: &[&str] = &["src/executor/sqlite/", "src/ffi/", "src/vfs/"];

struct Source {
    /// Path from the root of the repository.
    path: String,
    /// Lines with comments and string literals blanked.
    lines: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The layers, top first.
fn layers() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("/` |"));
    rows.map(|(name, _)| name.to_owned()).collect()
}

fn sources() -> Vec<Source> {
    let lines = |text: &str| code_of(text).lines().map(str::to_owned).collect();
    sources::sources().into_iter().map(|(path, text)| Source { path, lines: lines(&text) }).collect()
}

/// Whole words of a line.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|character: char| !character.is_alphanumeric() && character != '_')
}

/// Modules that follow `crate::` in the file, groups included.
fn imported(source: &Source) -> BTreeSet<String> {
    let code = source.lines.join("\n");
    let mut found = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        let names = match part.strip_prefix('{').and_then(|group| group.split_once("};")) {
            Some((group, _)) => first_of_each(group),
            None => words(part).take(1).map(str::to_owned).collect(),
        };
        found.extend(names);
    }
    found
}

/// The first word of each member of a group at its outermost level.
fn first_of_each(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut name) = (0_usize, String::new());
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => names.push(std::mem::take(&mut name)),
            _ if depth == 0 => name.push(character),
            _ => {}
        }
    }
    names.push(name);
    let first = |name: String| words(name.trim()).next().unwrap_or_default().to_owned();
    names.into_iter().map(first).filter(|name| !name.is_empty()).collect()
}

fn complain(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Every line with one of these words outside the folders.
fn named_outside(folders: &[&str], forbidden: impl Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources() {
        if folders.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        for (number, line) in source.lines.iter().enumerate() {
            if words(line).any(&forbidden) {
                complaints.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    complaints
}

#[test]
fn every_module_of_the_library_is_a_layer_of_the_map() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ").or(line.strip_prefix("mod ")))
        .map(|name| name.trim_end_matches(';').to_owned())
        .collect();

    assert_eq!(modules, layers().into_iter().collect());
}

#[test]
fn a_layer_imports_only_layers_below_it() {
    let layers = layers();
    let depth = |name: &str| layers.iter().position(|layer| layer == name);
    let mut complaints = Vec::new();

    for source in sources() {
        let Some(own) = source.path.strip_prefix("src/").and_then(|path| depth(path.split('/').next()?))
        else {
            continue;
        };
        for name in imported(&source) {
            if depth(&name).is_some_and(|other| other < own) {
                complaints.push(format!("{}: crate::{name} is above it", source.path));
            }
        }
    }

    complain(&complaints);
}

#[test]
fn openraft_is_named_only_in_raft() {
    complain(&named_outside(OPENRAFT, |word| word.starts_with("openraft")));
}

#[test]
fn sqlite_is_called_only_by_the_executor_and_the_vfs() {
    complain(&named_outside(SQLITE, |word| word == "libsqlite3_sys"));
}

#[test]
fn unsafe_is_written_only_where_a_foreign_interface_needs_it() {
    complain(&named_outside(UNSAFE, |word| word == "unsafe"));
}

#[test]
fn the_reader_of_sources_sees_code_and_not_comments_or_texts() {
    let text = "use crate::{a::{B, C}, d};\n// crate::e\nlet f = \"crate::g \\\" unsafe\"; crate::h::I;";
    let source = Source { path: String::new(), lines: code_of(text).lines().map(str::to_owned).collect() };

    let names = imported(&source);

    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "d", "h"]);
    assert!(!source.lines.iter().any(|line| words(line).any(|word| word == "unsafe")));
}
