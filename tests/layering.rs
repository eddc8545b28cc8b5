//! The order of the layers, and of the folders inside a layer, read from the tables of docs/architecture.md; files that import each
//! other in a circle; and who may name openraft, libsqlite3-sys and `unsafe`.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
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
const UNSAFE: &[&str] = &["src/executor/sqlite/", "src/ffi/", "src/host/", "src/memory/", "src/vfs/"];
/// Where runtimes are made and tasks are started: whoever else starts some asks `types::tasks::Tasks`, which tells of their panics.
const TASKS: &[&str] = &[
    "src/node/opened.rs",
    "src/node/pool.rs",
    "src/node/sql_runtime.rs",
    "src/node/threads.rs",
    "src/raft/types/runtime.rs",
    "src/types/tasks.rs",
];
/// What starts tasks and threads, or gives what can.
const STARTERS: &[&str] = &[
    "tokio::spawn",
    "task::spawn",
    "thread::spawn",
    "thread::Builder",
    "spawn_local",
    "spawn_blocking",
    "JoinSet",
    "LocalSet",
    "tokio::runtime",
    "Handle::current",
    "TokioRuntime",
];
/// Where the files of a folder import each other in one direction only.
const NO_CIRCLES: &[&str] = &[
    "src/raft/",
    "src/peers/",
    "src/pages/",
    "src/storage/",
    "src/vfs/",
    "src/executor/",
    "src/executor/sqlite/",
    "src/gateway/",
];
/// Folder of a layer that stands beside its order: it is made for tests alone, and knows all of it.
const TESTING: &str = "testing";

struct Source {
    /// Path from the root of the repository.
    path: String,
    /// Lines with comments and string literals blanked.
    lines: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The names in front of the rows of the map's tables, in their order: a layer, or a layer and a folder of it.
fn rows() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("/` |"));
    rows.map(|(name, _)| name.to_owned()).collect()
}

/// The layers, top first.
fn layers() -> Vec<String> {
    rows().into_iter().filter(|name| !name.contains('/')).collect()
}

/// The folders of each layer that has an order of its own, top first.
fn folders() -> BTreeMap<String, Vec<String>> {
    let mut folders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows() {
        if let Some((layer, folder)) = row.split_once('/') {
            folders.entry(layer.to_owned()).or_default().push(folder.to_owned());
        }
    }
    folders
}

fn sources() -> Vec<Source> {
    let lines = |text: &str| code_of(text).lines().map(str::to_owned).collect();
    sources::sources().into_iter().map(|(path, text)| Source { path, lines: lines(&text) }).collect()
}

/// Whole words of a line.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|character: char| !character.is_alphanumeric() && character != '_')
}

/// Modules that follow this path in the file, groups included.
fn imported(source: &Source, path: &str) -> BTreeSet<String> {
    let code = source.lines.join("\n");
    let mut found = BTreeSet::new();
    for part in code.split(path).skip(1) {
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
        for name in imported(&source, "crate::") {
            if depth(&name).is_some_and(|other| other < own) {
                complaints.push(format!("{}: crate::{name} is above it", source.path));
            }
        }
    }

    complain(&complaints);
}

#[test]
fn the_folders_of_a_layer_are_those_of_the_map() {
    for (layer, folders) in folders() {
        let entries = fs::read_dir(root().join("src").join(&layer)).unwrap().map(Result::unwrap);
        let found = entries.filter(|entry| entry.path().is_dir());
        let found: BTreeSet<String> = found.map(|entry| entry.file_name().into_string().unwrap()).collect();

        let mut known: BTreeSet<String> = folders.into_iter().collect();
        known.insert(TESTING.to_owned());
        assert_eq!(found, known, "{layer}");
    }
}

#[test]
fn a_folder_imports_only_folders_of_its_layer_below_it() {
    let layers = folders();
    assert!(layers.contains_key("raft"));
    let mut complaints = Vec::new();

    for source in sources() {
        let mut path = source.path.strip_prefix("src/").unwrap().split('/');
        let (layer, folder) = (path.next().unwrap(), path.next().unwrap_or_default());
        let Some(folders) = layers.get(layer) else { continue };
        let depth = |name: &str| folders.iter().position(|other| other == name);
        let Some(own) = depth(folder) else { continue };
        let from_the_root = imported(&source, &format!("crate::{layer}::"));
        let by_way_of_the_layer =
            imported(&source, "super::").into_iter().filter(|name| depth(name).is_some());
        for name in from_the_root.into_iter().chain(by_way_of_the_layer) {
            match depth(&name) {
                Some(other) if other < own => complaints.push(format!("{}: {name} is above it", source.path)),
                None if name != TESTING => {
                    complaints.push(format!("{}: {layer}::{name} is no folder", source.path));
                }
                _ => {}
            }
        }
    }

    complain(&complaints);
}

#[test]
fn files_of_a_folder_import_each_other_in_one_direction() {
    let mut complaints = Vec::new();
    let mut folders: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for source in sources() {
        let (folder, file) = source.path.rsplit_once('/').unwrap();
        let is_watched = NO_CIRCLES.iter().any(|watched| format!("{folder}/").starts_with(watched));
        if is_watched && file != "mod.rs" {
            let name = file.trim_end_matches(".rs").to_owned();
            folders.entry(folder.to_owned()).or_default().insert(name, imported(&source, "super::"));
        }
    }
    for (folder, mut files) in folders {
        // What imports no other file that is left can be taken away, unless there is a circle.
        while let Some(lowest) = files
            .iter()
            .find(|(_, imports)| !imports.iter().any(|name| files.contains_key(name)))
            .map(|(name, _)| name.clone())
        {
            files.remove(&lowest);
        }
        if !files.is_empty() {
            let files: Vec<String> = files.into_keys().collect();
            complaints.push(format!("{folder}: a circle among {}", files.join(", ")));
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

/// The lines of a file before its own tests; none of a file of tests.
fn lines_that_ship(source: &Source) -> &[String] {
    let name = source.path.rsplit('/').next().unwrap();
    let is_test = name.ends_with("tests.rs")
        || ["testing", "testing.rs", "core_testing.rs"]
            .iter()
            .any(|part| source.path.split('/').any(|name| name == *part));
    let tests = source.lines.iter().position(|line| line.starts_with("mod tests {"));
    &source.lines[..if is_test { 0 } else { tests.unwrap_or(source.lines.len()) }]
}

#[test]
fn a_task_is_started_only_where_its_panic_is_told() {
    let mut complaints = Vec::new();
    for source in sources() {
        if TASKS.contains(&source.path.as_str()) || source.path == "src/host/threads.rs" {
            continue;
        }
        for (number, line) in lines_that_ship(&source).iter().enumerate() {
            if STARTERS.iter().any(|starter| line.contains(starter)) {
                complaints.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn the_reader_of_sources_sees_code_and_not_comments_or_texts() {
    let text = "use crate::{a::{B, C}, d};\n// crate::e\nlet f = \"crate::g \\\" unsafe\"; crate::h::I;";
    let source = Source { path: String::new(), lines: code_of(text).lines().map(str::to_owned).collect() };

    let names = imported(&source, "crate::");

    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "d", "h"]);
    assert!(!source.lines.iter().any(|line| words(line).any(|word| word == "unsafe")));
}
