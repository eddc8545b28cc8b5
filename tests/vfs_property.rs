//! Random SQL on two writers and a reader of our VFS beside a stock in-memory SQLite: the same result codes and
//! contents, with commits that lag behind and heads that are discarded.

#![allow(unsafe_code, clippy::unwrap_used)]

use std::ffi::CString;
use std::ptr;
use std::sync::Arc;

use dqlite::executor::sqlite::{Connection, Inside, Step, Value, empty_page};
use dqlite::pages::{Database, PageSpace, PageStore};
use dqlite::state_machine::databases::Databases;
use dqlite::state_machine::frames;
use dqlite::storage::directory::Directory;
use dqlite::storage::file_disk::FileDisk;
use dqlite::storage::scratch::UnnamedFiles;
use dqlite::types::{Entry, EntryData, EntryKind, LogIndex, PageNumber, ProposalRange, ProposalToken, Term};
use dqlite::vfs::{Vfs, VfsOptions};
use libsqlite3_sys as sqlite;

const SEEDS: u64 = 100;
const STATEMENTS: usize = 250;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// A stock in-memory database.
struct Reference(*mut sqlite::sqlite3);

impl Reference {
    fn open() -> Reference {
        let mut raw = ptr::null_mut();
        // SAFETY: a C string and a place for the connection.
        assert_eq!(unsafe { sqlite::sqlite3_open(c":memory:".as_ptr(), &raw mut raw) }, 0);
        // SAFETY: an open connection.
        unsafe { sqlite::sqlite3_extended_result_codes(raw, 1) };
        let reference = Reference(raw);
        assert_eq!(reference.execute("pragma foreign_keys=on"), 0);
        reference
    }

    fn execute(&self, sql: &str) -> i32 {
        let sql = CString::new(sql).unwrap();
        // SAFETY: an open connection and a C string; no callback.
        unsafe { sqlite::sqlite3_exec(self.0, sql.as_ptr(), None, ptr::null_mut(), ptr::null_mut()) }
    }

    fn autocommit(&self) -> bool {
        // SAFETY: an open connection.
        unsafe { sqlite::sqlite3_get_autocommit(self.0) != 0 }
    }

    fn copy(&self) -> Reference {
        let copy = Reference::open();
        // SAFETY: two open connections that are not used meanwhile.
        unsafe {
            let backup = sqlite::sqlite3_backup_init(copy.0, c"main".as_ptr(), self.0, c"main".as_ptr());
            assert!(!backup.is_null());
            assert_eq!(sqlite::sqlite3_backup_step(backup, -1), sqlite::SQLITE_DONE);
            sqlite::sqlite3_backup_finish(backup);
        }
        copy
    }

    fn query(&self, sql: &str) -> Vec<String> {
        let text = CString::new(sql).unwrap();
        let mut statement = ptr::null_mut();
        let mut rows = Vec::new();
        // SAFETY: an open connection; the statement is used here only and finalised.
        unsafe {
            let code =
                sqlite::sqlite3_prepare_v2(self.0, text.as_ptr(), -1, &raw mut statement, ptr::null_mut());
            assert_eq!(code, 0, "{sql}");
            while sqlite::sqlite3_step(statement) == sqlite::SQLITE_ROW {
                let text = sqlite::sqlite3_column_text(statement, 0);
                rows.push(if text.is_null() {
                    String::new()
                } else {
                    std::ffi::CStr::from_ptr(text.cast()).to_string_lossy().into_owned()
                });
            }
            sqlite::sqlite3_finalize(statement);
        }
        rows
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: open, without statements.
        unsafe { sqlite::sqlite3_close(self.0) };
    }
}

fn query(connection: &Connection, sql: &str) -> Vec<String> {
    let (statement, _) = connection
        .prepare(&mut Inside::alone(), sql.as_bytes())
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut statement = statement.unwrap();
    let mut rows = Vec::new();
    while statement.step(&mut Inside::alone()).unwrap() == Step::Row {
        rows.push(match statement.value(&Inside::alone(), 0) {
            Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Value::Integer(number) => number.to_string(),
            Value::Null => String::new(),
            other => format!("{other:?}"),
        });
    }
    statement.finalize(&mut Inside::alone());
    rows
}

fn dump(run: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let mut all = run("select name||':'||coalesce(sql,'') from sqlite_schema order by name");
    for table in run("select name from sqlite_schema where type='table' and name like 't_' order by name") {
        all.extend(run(&format!(
            "select count(*)||','||coalesce(sum(a),'')||','||coalesce(sum(length(b)),'')||','||\
             coalesce(min(c),'')||','||coalesce(max(c),'')||','||coalesce(sum(a*length(b)),'') from {table}"
        )));
    }
    all
}

/// Columns are named: a wrong number of columns in a schema that another connection has changed is an error that SQLite
/// does not check again, unlike an unknown name.
fn statement(random: &mut Random, in_transaction: bool) -> String {
    let table = random.below(3);
    let (a, b, c) = (random.below(1000), random.below(300), random.below(2500));
    match random.below(24) {
        0 => format!("create table if not exists t{table}(a integer primary key,b blob,c text unique)"),
        1 if b < 75 => format!("drop table if exists t{}", 1 + table % 2),
        1 => format!("create index if not exists i{table} on t{table}(length(b),c)"),
        2 => format!("drop index if exists i{table}"),
        3..=6 => format!(
            "with recursive x(n) as (select {a} union all select n+1 from x where n<{}) insert into t{table}(a,b,c) \
             select n,zeroblob(n%{}),'k'||(n%{}) from x",
            a + b / 4,
            1 + c,
            50 + random.below(5000)
        ),
        7 | 8 => format!("insert or replace into t{table}(a,b,c) values({a},zeroblob({}),'r{b}')", c * 6),
        9 => format!("update t{table} set b=zeroblob({c}),c=c||'u' where a%{}=0", 2 + b % 9),
        10 => format!("update t{table} set a=a+1 where a>{a}"),
        11 => format!("delete from t{table} where a%{}=0", 1 + b % 5),
        12 => format!("delete from t{table} where a>{a}"),
        13 if !in_transaction => (if b % 2 == 0 { "begin" } else { "begin immediate" }).to_owned(),
        14 if in_transaction => "commit".to_owned(),
        15 if in_transaction && b % 2 == 0 => "rollback".to_owned(),
        16 if in_transaction => format!("savepoint s{table}"),
        17 if in_transaction => format!("rollback to s{table}"),
        18 if in_transaction => format!("release s{table}"),
        19 if !in_transaction && b % 3 == 0 => "vacuum".to_owned(),
        20 => "pragma incremental_vacuum(3)".to_owned(),
        21 if b % 5 == 0 => format!("alter table t{table} add column d{c} default 7"),
        22 => "pragma user_version=1".to_owned(),
        _ => String::new(),
    }
}

fn writer(vfs: &Arc<Vfs>) -> Connection {
    let connection = Connection::open(&mut Inside::alone(), vfs, b"test").unwrap();
    connection.view().set_use_head(true);
    connection.view().set_turn(true);
    connection
}

#[derive(Default)]
struct Counts {
    statements: u64,
    failed: u64,
    commits: u64,
    discards: u64,
    merged: u64,
}

/// What is to be an entry.
struct Proposal {
    range: ProposalRange,
    data: EntryData,
    merges: bool,
}

/// Neighbours that may share an entry do so at random.
fn merged_at_random(random: &mut Random, proposals: Vec<Proposal>) -> Vec<Proposal> {
    let mut out: Vec<Proposal> = Vec::new();
    for next in proposals {
        match out.last_mut() {
            Some(last) if last.merges && next.merges && random.below(3) > 0 => {
                last.data = frames::merge_frames([&last.data, &next.data].into_iter()).unwrap();
                last.range.last = next.range.last;
            }
            _ => out.push(next),
        }
    }
    out
}

/// The pages of the node that executed and of the one that got the entries are the same.
fn assert_same_pages(database: &Database, followed: &PageStore, what: &str) {
    let ours = database.committed().root;
    let Some(theirs) = followed.get(b"test").map(|database| database.committed().root) else {
        return assert_eq!(ours.page_count(), 1, "{what}");
    };
    assert_eq!(ours.page_count(), theirs.page_count(), "{what}");
    for number in (1..=ours.page_count()).map(PageNumber) {
        assert!(ours.get(number) == theirs.get(number), "page {} of {what}", number.0);
    }
}

fn run(seed: u64, space: PageSpace, counts: &mut Counts) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
    let store = PageStore::in_space(space.clone());
    let attached = store.attach(b"test", &empty_page()).unwrap();
    let database = attached.database();
    let vfs =
        Vfs::register(Arc::clone(&store), VfsOptions::default(), Box::new(|text| panic!("{text}"))).unwrap();
    let mut writers = [writer(&vfs), writer(&vfs)];
    let reader = Connection::open(&mut Inside::alone(), &vfs, b"test").unwrap();
    let mut reference = Reference::open();
    let mut applied = reference.copy();
    let mut proposals = Vec::new();
    // Another node, which gets the entries.
    let followed = PageStore::in_space(space.clone());
    let follower = Databases::new(Arc::clone(&followed), empty_page());
    let (mut sequence, mut active) = (0, 0);
    let vacuum_mode = format!("pragma auto_vacuum={}", random.below(3));
    let first = "create table t0(a integer primary key,b blob,c text unique)";
    for sql in [&vacuum_mode, first] {
        reference.execute(sql);
        writers[0].execute(&mut Inside::alone(), sql.as_bytes()).unwrap();
    }

    for step in 0..STATEMENTS {
        counts.statements += 1;
        let in_transaction = !reference.autocommit();
        if !in_transaction {
            active = random.below(2) as usize;
        }
        let connection = &writers[active];
        if random.below(10) == 0 {
            let sql = format!("pragma cache_size={}", if random.below(2) == 0 { 3 } else { 200 });
            connection.execute(&mut Inside::alone(), sql.as_bytes()).unwrap();
        }
        let sql = statement(&mut random, in_transaction);
        let error = connection.execute(&mut Inside::alone(), sql.as_bytes()).err();
        let ours = error.as_ref().map_or(0, |error| error.code);
        let theirs = reference.execute(&sql);
        assert_eq!(ours, theirs, "seed {seed} step {step} {sql}: {error:?}");
        assert_eq!(
            connection.autocommit(&Inside::alone()),
            reference.autocommit(),
            "seed {seed} step {step} {sql}"
        );
        counts.failed += u64::from(ours != 0);
        for commit in writers.iter().flat_map(|writer| writer.view().take_commits()) {
            if commit.pages.is_empty() {
                continue;
            }
            sequence += 1;
            let token = ProposalToken { epoch: store.epoch(), sequence };
            commit.propose(|commit| {
                let data = frames::encode_frames(b"test", &commit.pages);
                proposals.push(Proposal { range: ProposalRange::of(token), data, merges: !commit.shrinks });
                database.assign(commit.version, token)
            });
        }
        if random.below(4) == 0 {
            let ours = dump(|sql| query(&writers[active], sql));
            assert_eq!(ours, dump(|sql| reference.query(sql)), "seed {seed} step {step} {sql}");
            let read = dump(|sql| query(&reader, sql));
            assert_eq!(read, dump(|sql| applied.query(sql)), "reader, seed {seed} step {step} {sql}");
        }
        if reference.autocommit() && random.below(6) == 0 {
            for Proposal { range, data, .. } in merged_at_random(&mut random, std::mem::take(&mut proposals))
            {
                assert!(database.apply_own(range), "seed {seed} step {step}");
                counts.merged += range.last - range.first;
                let entry = Entry { kind: EntryKind::Command, data, ..Entry::barrier(Term(1)) };
                follower.apply(LogIndex(range.last), &entry).unwrap();
            }
            assert_same_pages(database, &followed, &format!("seed {seed} step {step}"));
            counts.commits += 1;
            applied = reference.copy();
            assert_eq!(query(&reader, "pragma integrity_check"), ["ok"], "seed {seed} step {step}");
            let pages = query(&reader, "pragma page_count");
            assert_eq!(pages, [database.committed().root.page_count().to_string()]);
        } else if random.below(25) == 0 {
            if !reference.autocommit() {
                writers[active].execute(&mut Inside::alone(), b"rollback").unwrap();
            }
            counts.discards += u64::from(!proposals.is_empty());
            proposals.clear();
            store.end_epoch(None);
            for old in std::mem::replace(&mut writers, [writer(&vfs), writer(&vfs)]) {
                old.close(&mut Inside::alone()).unwrap();
            }
            reference = applied.copy();
        }
    }
    for connection in writers.into_iter().chain([reader]) {
        connection.close(&mut Inside::alone()).unwrap();
    }
}

// conformance: state-machine 16, 17
#[test]
fn random_sql_does_what_a_stock_sqlite_does() {
    let mut counts = Counts::default();
    for seed in 1..=SEEDS {
        run(seed, PageSpace::memory(), &mut counts);
    }
    println!(
        "statements {} failed {} applies {} discards {} merged {}",
        counts.statements, counts.failed, counts.commits, counts.discards, counts.merged
    );
    assert!(counts.discards > 0 && counts.merged > 0);
}

#[test]
fn random_sql_does_the_same_with_pages_in_a_file_and_leaves_no_slot_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut counts = Counts::default();
    for seed in 1..=SEEDS {
        let scratch = Arc::new(UnnamedFiles::new(&Directory::open(&FileDisk, folder.path()).unwrap()));
        // A cache that holds next to nothing: pages are read from the file.
        let space = PageSpace::on_disk(scratch, 0).unwrap();
        run(seed, space.clone(), &mut counts);
        let (used, _) = space.file().unwrap().slots();
        assert_eq!(used, 0, "seed {seed}");
    }
    assert_ne!(counts.discards, 0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
