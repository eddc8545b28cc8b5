//! The C programs of `tests-c/` on upstream's real libraries: they print what they print on this one, but for the lines of
//! `tests-c/differences.txt`. A difference that is not listed fails, and so does a listed one that does not occur.
//! `make check-upstream` fetches the versions and sets `UPSTREAM` to their folder.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dqlite_testing::process::Library;
use dqlite_testing::{bed, upstream};

const PROGRAMS: [&str; 6] = ["abi", "recover", "connect", "host", "clock", "databases"];
/// Those that `differences.txt` lists. The last one comes from Debian unstable: it may be missing, or newer by now.
const RELEASES: [&str; 3] = ["1.11.1", "1.18.1", "1.18.7"];

/// Program and section.
type Place = (String, String);

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests-c").join(name)
}

fn compile(name: &str, library: &Path, output: &Path) {
    let include = source("../include");
    let made = Command::new("cc")
        .args(["-std=c11", "-rdynamic", "-I"])
        .arg(include)
        .arg(source(&format!("{name}.c")))
        .arg("-o")
        .arg(output)
        .arg("-L")
        .arg(library)
        .args(["-ldqlite", "-lsqlite3", "-ldl", "-lpthread", "-Wl,--allow-shlib-undefined"])
        .status();
    assert!(made.unwrap().success(), "{name}");
}

/// Upstream leaves what follows a configuration in its segment as it finds it in memory: not compared, nor the checksum of it.
fn without_padding(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let is_segment = line.starts_with("  0") && words.get(2).is_some_and(|name| name.contains('-'));
    if !is_segment || words.len() < 9 || !words.get(11).is_some_and(|kind| kind.starts_with("03")) {
        return line.to_owned();
    }
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    words[6].truncate(8);
    words.pop();
    words.join(" ")
}

/// The lines of each section.
fn by_section(program: &str, text: &str) -> BTreeMap<Place, Vec<String>> {
    let mut found: BTreeMap<Place, Vec<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        match line.strip_prefix("== ") {
            Some(name) => name.clone_into(&mut section),
            None => {
                let lines = found.entry((program.to_owned(), section.clone())).or_default();
                lines.push(without_padding(line));
            }
        }
    }
    found
}

/// What is only here (`- `) and only there (`+ `), by a longest common subsequence.
fn difference(here: &[String], there: &[String]) -> Vec<String> {
    let mut common = vec![vec![0; there.len() + 1]; here.len() + 1];
    for (row, own) in here.iter().enumerate().rev() {
        for (column, other) in there.iter().enumerate().rev() {
            common[row][column] = if own == other {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut found = Vec::new();
    while row < here.len() || column < there.len() {
        if row < here.len() && column < there.len() && here[row] == there[column] {
            (row, column) = (row + 1, column + 1);
        } else if column == there.len()
            || (row < here.len() && common[row + 1][column] >= common[row][column + 1])
        {
            found.push(format!("- {}", here[row]));
            row += 1;
        } else {
            found.push(format!("+ {}", there[column]));
            column += 1;
        }
    }
    found
}

/// One entry of the list: where, in which releases, why, and the lines.
struct Listed {
    place: Place,
    releases: Vec<String>,
    lines: Vec<String>,
}

/// Entries begin with `PROGRAM SECTION RELEASE...: reason`.
fn listed() -> Vec<Listed> {
    let text = std::fs::read_to_string(source("differences.txt")).unwrap();
    let mut found: Vec<Listed> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with("- ") || line.starts_with("+ ") {
            found
                .last_mut()
                .expect("an entry begins with its place")
                .lines
                .push(without_padding_of_listed(line));
            continue;
        }
        let (head, reason) = line.split_once(": ").unwrap_or_else(|| panic!("no reason: {line}"));
        assert!(reason.len() > 10, "a reason says more: {line}");
        let mut words = head.split(' ').map(str::to_owned);
        let place = (words.next().unwrap(), words.next().unwrap());
        let releases: Vec<String> = words.collect();
        assert!(!releases.is_empty() && releases.iter().all(|name| RELEASES.contains(&&**name)), "{line}");
        found.push(Listed { place, releases, lines: Vec::new() });
    }
    found
}

fn without_padding_of_listed(line: &str) -> String {
    format!("{}{}", &line[..2], without_padding(&line[2..]))
}

/// Both run at once: their names are their own. An error if one of them does not live through it.
fn run_both(program: &Path, release: &str, ours: &Library, theirs: &Library) -> Result<[String; 2], String> {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let running = [ours, theirs].map(|library| library.command(program));
    let running = running.into_iter().zip(&folders).map(|(mut command, folder)| {
        command.args(["--for", release]).current_dir(folder.path()).env_remove("LIBDQLITE_TRACE");
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    });
    let running: Vec<_> = running.collect();
    let outputs = running.into_iter().map(|child| child.wait_with_output().unwrap());
    let outputs: Vec<_> = outputs.collect();
    for folder in &folders {
        // A section makes a folder that nobody may write to.
        let _ = Command::new("chmod").arg("-R").arg("u+w").arg(folder.path()).status();
    }
    let texts = outputs.into_iter().zip(["this library", release]).map(|(output, whose)| {
        let text = String::from_utf8(output.stdout).unwrap();
        match output.status.success() {
            true => Ok(text),
            false => Err(format!("{} on {whose}: {}\n{text}", program.display(), output.status)),
        }
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.try_into().unwrap())
}

/// How much was compared: sections, lines of this library, and lines that differ as they are listed.
type Counts = [usize; 3];

/// Runs a program on both; how much was compared, or what differs otherwise than it is listed.
fn compare(
    program: &Path,
    release: &str,
    [ours, theirs]: [&Library; 2],
    listed: &[Listed],
) -> Result<Counts, String> {
    let name = program.file_name().unwrap().to_str().unwrap();
    let texts = run_both(program, release, ours, theirs)?;
    let [here, there] = texts.map(|text| by_section(name, &text));
    let (mut counts, mut wrong) = ([0; 3], String::new());
    for (place, here) in &here {
        let there = there.get(place).map_or(&[][..], Vec::as_slice);
        let found = difference(here, there);
        counts = [counts[0] + 1, counts[1] + here.len(), counts[2] + found.len()];
        let entries = listed
            .iter()
            .filter(|entry| entry.place == *place && entry.releases.iter().any(|listed| listed == release));
        let mut expected: Vec<&str> =
            entries.flat_map(|entry| entry.lines.iter().map(String::as_str)).collect();
        let mut sorted: Vec<&str> = found.iter().map(String::as_str).collect();
        expected.sort_unstable();
        sorted.sort_unstable();
        if sorted != expected {
            wrong += &format!("{} {} {release}: REASON\n{}\n\n", place.0, place.1, found.join("\n"));
        }
    }
    for entry in listed.iter().filter(|entry| entry.place.0 == name) {
        let is_run =
            here.contains_key(&entry.place) || !entry.releases.iter().any(|listed| listed == release);
        assert!(is_run, "differences.txt: {:?} is not run on {release}", entry.place);
    }
    if wrong.is_empty() { Ok(counts) } else { Err(wrong) }
}

/// How often a program is run until both see the same: upstream's own runs differ now and then on a busy machine. What this library
/// prints is compared with what is written down in `tests/c_programs.rs`, once.
const TRIES: usize = 3;

#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn the_c_programs_see_the_same_but_for_what_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let ours = bed::options(folder.path()).library;
    let listed = listed();
    let mut wrong = String::new();
    let roots = upstream::roots();
    if roots.len() < RELEASES.len() {
        println!("Debian unstable's version could not be had");
    }
    for (root, release) in roots.iter().zip(RELEASES) {
        let version = upstream::version_of(root);
        if version != release {
            println!("{version} runs as {release}, of which differences.txt tells");
        }
        let theirs = Library::of_root(root);
        let mut all = [0; 3];
        for name in PROGRAMS {
            let program = folder.path().join(name);
            if !program.exists() {
                compile(name, &ours.folders[0], &program);
            }
            let mut tries = (1..=TRIES).map(|number| {
                let compared = compare(&program, release, [&ours, &theirs], &listed);
                compared.inspect_err(|wrong| println!("{name} on {version}, run {number}:\n{wrong}"))
            });
            let first_good = tries.find(Result::is_ok);
            match first_good {
                Some(Ok(counts)) => all.iter_mut().zip(counts).for_each(|(all, count)| *all += count),
                _ => wrong += &format!("{name} on {version}\n"),
            }
        }
        let [sections, lines, differences] = all;
        println!("{version}: {sections} sections, {lines} lines here, {differences} listed lines differ");
    }
    assert!(wrong.is_empty(), "not as tests-c/differences.txt says (see above):\n{wrong}");
}

#[test]
fn the_difference_of_two_texts_is_what_only_one_of_them_has() {
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(difference(&lines("a b c"), &lines("a c d")), ["- b", "+ d"]);
    assert!(difference(&lines("a b"), &lines("a b")).is_empty());
}

#[test]
fn every_listed_difference_names_a_section_of_a_program() {
    for entry in listed() {
        let text = std::fs::read_to_string(source(&format!("{}.c", entry.place.0))).unwrap();
        assert!(text.contains(&format!("{{\"{}\", ", entry.place.1)), "{:?}", entry.place);
        assert!(!entry.lines.is_empty(), "{:?}", entry.place);
    }
}
