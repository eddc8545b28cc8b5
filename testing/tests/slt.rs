//! Records of SQLite's sqllogictest format on a node, beside plain SQLite: the project's own scripts in `testing/slt`, each in several
//! ways, and generated ones. `make torture-slt` runs ten times as many. A difference names its script and line; `slt --print SEED`
//! shows a generated script, and the same seed runs it again.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use dqlite_testing::bed;
use dqlite_testing::process::NodeProcess;
use dqlite_testing::slt::documented::Documented;
use dqlite_testing::slt::generate;
use dqlite_testing::slt::node::WAYS;
use dqlite_testing::slt::run::{Place, Report, run_all};
use dqlite_testing::slt::script::{GENERATED, Script};

/// Records of one run at least.
const RECORDS_MIN: u64 = 20_000;
/// Records of a generated script.
const SCRIPT_RECORDS: usize = 400;
/// How often each file is run, in other ways each time.
const FILE_RUNS: u64 = 4;
/// Scripts at once.
const WORKERS: usize = 6;
/// The first seed.
const SEED: u64 = 1;

fn scripts_of_files() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut scripts = Vec::new();
    for file in files {
        let (name, text) =
            (file.file_name().unwrap().to_str().unwrap(), std::fs::read_to_string(&file).unwrap());
        scripts.extend((0..FILE_RUNS).map(|run| Script::parse(name, &text, SEED + run).unwrap()));
    }
    scripts
}

/// Runs scripts on a node of this build.
fn run(next: &(dyn Fn(usize) -> Option<Script> + Sync)) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let mut node = NodeProcess::start(&options).unwrap();
    let plain = folder.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let place = Place { address: &node.address.clone(), folder: &plain, looks_always: false };
    let report = run_all(place, WORKERS, next).unwrap();
    println!("{}", report.summary());
    let stopped = node.stop().unwrap();
    assert!(stopped.success(), "{stopped}: {}", node.error_text());
    report
}

#[test]
fn every_record_of_the_projects_scripts_is_answered_as_plain_sqlite_does() {
    let scripts = scripts_of_files();
    let records: usize = scripts.iter().map(|script| script.steps.len()).sum();

    let report = run(&|number| scripts.get(number).cloned());

    assert!(report.differences.is_empty(), "{} differences, see above", report.differences.len());
    let excused = report.tally.of(Documented::NothingToDo) + report.tally.of(Documented::RowidByChance);
    assert_eq!(report.records + excused, records as u64);
}

#[test]
fn twenty_thousand_generated_records_are_answered_as_plain_sqlite_does() {
    let given = AtomicU64::new(0);
    let next = |number: usize| {
        // Scripts that end early because of a rowid by chance are made up for.
        if given.fetch_add(SCRIPT_RECORDS as u64, Ordering::Relaxed) >= RECORDS_MIN + RECORDS_MIN / 4 {
            return None;
        }
        let seed = SEED + number as u64;
        let text = generate::script(seed, SCRIPT_RECORDS);
        Some(Script::parse(&format!("seed {seed}"), &text, seed).unwrap())
    };

    let report = run(&next);

    assert!(report.differences.is_empty(), "{} differences, see above", report.differences.len());
    assert!(report.records >= RECORDS_MIN, "{} records of {RECORDS_MIN}", report.records);
    for (way, count) in WAYS.iter().zip(report.by_way) {
        assert!(count >= RECORDS_MIN / 100, "{count} records by {way:?}");
    }
    assert!(report.bound >= RECORDS_MIN / 10, "{} records with bound literals", report.bound);
    // Scripts of nothing but refusals would prove little.
    assert!(report.refused < report.records * 2 / 5, "{} of {} are refused", report.refused, report.records);
}

/// True in plain SQLite, whose file has a path, and false on a node.
const IS_PLAIN: &str = "(SELECT file LIKE '/%' FROM pragma_database_list WHERE name = 'main')";

/// Scripts whose last record differs in one respect.
fn differing_scripts() -> Vec<Script> {
    let begin = "statement ok\nCREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); INSERT INTO t VALUES(1, 1), (2, 2)\n\n";
    let open = "statement ok\nBEGIN; INSERT INTO t VALUES(9, 9)\n\n";
    let records = [
        ("a value", format!("query T\nSELECT {IS_PLAIN}")),
        ("a type", format!("query T\nSELECT CASE {IS_PLAIN} WHEN 1 THEN 1 ELSE 1.0 END")),
        ("bytes", format!("query T\nSELECT CASE {IS_PLAIN} WHEN 1 THEN x'00ff' ELSE x'00fe' END")),
        (
            "the last bit of a float",
            format!("query T\nSELECT CASE {IS_PLAIN} WHEN 1 THEN 0.1 + 0.2 ELSE 0.3 END"),
        ),
        ("a number of rows", format!("query T\nSELECT id FROM t WHERE id = 1 OR {IS_PLAIN}")),
        (
            "an order",
            format!("query T\nSELECT id FROM t ORDER BY CASE {IS_PLAIN} WHEN 1 THEN id ELSE -id END"),
        ),
        (
            "a code",
            format!(
                "statement ok\nINSERT OR FAIL INTO t VALUES(3, CASE {IS_PLAIN} WHEN 1 THEN 1 ELSE 3 END)"
            ),
        ),
        ("changes", format!("statement ok\nUPDATE t SET a = a + 10 WHERE {IS_PLAIN}")),
        ("a row id", format!("statement ok\nINSERT INTO t(id) SELECT 5 + {IS_PLAIN}")),
        ("what is stored", format!("statement ok\nUPDATE t SET a = a + 10 * {IS_PLAIN}")),
    ];
    let mut texts: Vec<_> = records.map(|(name, record)| (name, format!("{begin}{record}\n"))).into();
    let conflict = format!("INSERT OR ROLLBACK INTO t SELECT 7, CASE {IS_PLAIN} WHEN 1 THEN 1 ELSE 7 END");
    texts.push(("an open transaction", format!("{begin}{open}statement ok\n{conflict}\n")));
    texts
        .iter()
        .map(|(name, text)| Script::parse(name, &format!("{GENERATED}\n{text}"), SEED).unwrap())
        .collect()
}

#[test]
fn every_kind_of_difference_is_found() {
    let scripts = differing_scripts();

    let report = run(&|number| scripts.get(number).cloned());

    assert_eq!(report.differences.len(), scripts.len());
    for script in &scripts {
        let found =
            report.differences.iter().filter(|text| text.starts_with(&format!("{}, ", script.name))).count();
        assert_eq!(found, 1, "{}", script.name);
    }
}
