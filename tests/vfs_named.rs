//! What the executor relies on, one fact each: commits, epochs, refusals.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dqlite::executor::sqlite::{Connection, Inside, Step, Value, empty_page};
use dqlite::pages::{Attached, Database, PageStore};
use dqlite::vfs::{DeletionPermit, DeletionRefused, Members, SQLITE_IOERR_STALE, Vfs, VfsOptions};

struct World {
    store: Arc<PageStore>,
    database: Arc<Database>,
    /// Another connection of it, which does nothing.
    _attached: Attached,
    vfs: Arc<Vfs>,
}

fn world(entry_max_bytes: u64) -> World {
    world_with(VfsOptions { entry_max_bytes, ..VfsOptions::default() })
}

fn world_with(options: VfsOptions) -> World {
    let store = PageStore::new();
    let attached = store.attach(b"test", &empty_page()).unwrap();
    let database = Arc::clone(attached.database());
    let vfs = Vfs::register(Arc::clone(&store), options, Box::new(|text| panic!("{text}"))).unwrap();
    World { store, database, _attached: attached, vfs }
}

impl World {
    fn writer(&self) -> Connection {
        let connection = Connection::open(&mut Inside::alone(), &self.vfs, b"test").unwrap();
        connection.view().set_use_head(true);
        connection.view().set_turn(true);
        connection
    }
}

fn code(connection: &Connection, sql: &str) -> i32 {
    connection.execute(&mut Inside::alone(), sql.as_bytes()).err().map_or(0, |error| error.code)
}

fn number(connection: &Connection, sql: &str) -> i64 {
    let mut statement = connection.prepare(&mut Inside::alone(), sql.as_bytes()).unwrap().0.unwrap();
    assert_eq!(statement.step(&mut Inside::alone()).unwrap(), Step::Row);
    let number = match statement.value(&Inside::alone(), 0) {
        Value::Integer(number) => number,
        other => panic!("{sql}: {other:?}"),
    };
    statement.finalize(&mut Inside::alone());
    number
}

/// Takes what was committed as if it were proposed; whether each changed pages.
fn proposed(writer: &Connection) -> Vec<bool> {
    let mut changed = Vec::new();
    for commit in writer.view().take_commits() {
        commit.propose(|commit| {
            changed.push(!commit.pages.is_empty());
            true
        });
    }
    changed
}

#[test]
fn after_a_commit_that_changes_no_page_another_writer_is_seen() {
    let world = world(1 << 30);
    let (first, second) = (world.writer(), world.writer());
    first
        .execute(&mut Inside::alone(), b"create table t(a); insert into t values(1); pragma user_version=5")
        .unwrap();
    proposed(&first);

    first.execute(&mut Inside::alone(), b"pragma user_version=5").unwrap();
    let commits = proposed(&first);
    second.execute(&mut Inside::alone(), b"update t set a=2").unwrap();

    assert_eq!(commits, [false]);
    assert_eq!(number(&first, "select a from t"), 2);
}

#[test]
fn a_commit_after_the_end_of_the_epoch_is_10250_and_rolled_back() {
    let world = world(1 << 30);
    let writer = world.writer();
    writer.execute(&mut Inside::alone(), b"create table t(a); begin; insert into t values(1)").unwrap();
    world.store.end_epoch(None);

    assert_eq!(SQLITE_IOERR_STALE, 10250);
    assert_eq!(code(&writer, "commit"), 10250);
    assert!(writer.autocommit(&Inside::alone()));
    assert_eq!(world.database.head().root.page_count(), 1);
}

#[test]
fn a_snapshot_that_is_no_longer_the_head_is_517_and_no_turn_is_5() {
    let world = world(1 << 30);
    let (first, second) = (world.writer(), world.writer());
    first.execute(&mut Inside::alone(), b"create table t(a)").unwrap();
    second.execute(&mut Inside::alone(), b"begin; select * from t").unwrap();
    first.execute(&mut Inside::alone(), b"insert into t values(1)").unwrap();
    assert_eq!(code(&second, "insert into t values(2)"), 517);

    second.execute(&mut Inside::alone(), b"rollback").unwrap();
    second.view().take_wanted_turn();
    second.view().set_turn(false);
    assert_eq!(code(&second, "insert into t values(2)"), 5);
    assert!(second.view().take_wanted_turn());
    second.view().set_turn(true);
    assert_eq!(code(&second, "insert into t values(2)"), 0);
}

#[test]
fn a_returning_statement_is_given_up_by_refusing_its_commit() {
    let world = world(1 << 30);
    let writer = world.writer();
    writer.execute(&mut Inside::alone(), b"create table t(a)").unwrap();
    let mut statement =
        writer.prepare(&mut Inside::alone(), b"insert into t values(1) returning a").unwrap().0.unwrap();
    assert_eq!(statement.step(&mut Inside::alone()).unwrap(), Step::Row);
    proposed(&writer);

    writer.view().set_refuse_commit(true);
    let reset = statement.reset(&mut Inside::alone());
    writer.view().set_refuse_commit(false);

    assert!(reset.is_err());
    assert!(proposed(&writer).is_empty());
    assert_eq!(number(&writer, "select count(*) from t"), 0);
    assert_eq!(code(&writer, "insert into t values(2)"), 0);
}

/// Other members come and go.
#[derive(Debug, Default)]
struct Others(AtomicBool);

impl Members for Others {
    fn are_there_others(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn check_deletion(&self) -> Result<(), DeletionRefused> {
        Ok(())
    }

    fn permit_deletion(&self) -> Result<DeletionPermit, DeletionRefused> {
        Ok(Box::new(()))
    }
}

#[test]
fn a_transaction_too_large_for_other_members_is_13_and_only_while_there_are_some() {
    let world = world_with(VfsOptions { entry_to_members_max_bytes: 1 << 20, ..VfsOptions::default() });
    let writer = world.writer();
    let others = Arc::new(Others::default());
    writer.view().set_members(Arc::<Others>::clone(&others));
    assert_eq!(code(&writer, "create table t(a)"), 0);
    let large = "insert into t values(zeroblob(2000000))";
    let there = |there: bool| others.0.store(there, Ordering::Relaxed);

    assert_eq!(code(&writer, large), 0);
    there(true);
    assert_eq!(code(&writer, large), 13);
    assert_eq!(code(&writer, "insert into t values(zeroblob(900000))"), 0);
    // They come while a transaction is open that they cannot take.
    there(false);
    assert_eq!(code(&writer, &format!("begin; {large}")), 0);
    there(true);
    assert_eq!(code(&writer, "commit"), 13);
    assert_eq!(code(&writer, "insert into t values(1)"), 0);

    assert_eq!(number(&writer, "select count(*) from t"), 3);
}

// conformance: state-machine 4
#[test]
fn a_transaction_too_large_for_an_entry_is_13_and_rolled_back() {
    let world = world(64 * 4096);
    let writer = world.writer();
    writer.execute(&mut Inside::alone(), b"create table t(a); pragma cache_size=5; begin").unwrap();

    assert_eq!(code(&writer, "insert into t values(zeroblob(1000000))"), 13);

    assert_eq!(number(&writer, "select count(*) from t"), 0);
}

// conformance: state-machine 15
#[test]
fn refused_and_allowed_statements_are_those_of_upstream() {
    let world = world(1 << 30);
    let writer = world.writer();
    for sql in [
        "pragma journal_mode=wal",
        "pragma page_size=4096",
        "pragma synchronous=1",
        "pragma wal_checkpoint",
        "pragma busy_timeout",
        "attach 'x' as y",
        "vacuum into 'x'",
    ] {
        assert_eq!(code(&writer, sql), 23, "{sql}");
    }
    for sql in
        ["attach '' as y", "vacuum", "pragma optimize", "create temp table z(a)", "pragma journal_mode"]
    {
        assert_eq!(code(&writer, sql), 0, "{sql}");
    }
    let mut mode = writer.prepare(&mut Inside::alone(), b"pragma journal_mode").unwrap().0.unwrap();
    assert_eq!(mode.step(&mut Inside::alone()).unwrap(), Step::Row);
    assert_eq!(mode.value(&Inside::alone(), 0), Value::Text(b"wal"));
    assert_eq!(number(&writer, "pragma page_size"), 4096);
    assert_eq!(number(&writer, "pragma foreign_keys"), 1);
}

// conformance: state-machine 9
#[test]
fn delete_database_leaves_one_page_and_then_no_database() {
    let world = world(1 << 30);
    let writer = world.writer();
    writer.execute(&mut Inside::alone(), b"create table t(a)").unwrap();
    assert_eq!(code(&writer, "pragma delete_database"), 1);

    writer.execute(&mut Inside::alone(), b"begin immediate; pragma delete_database; commit").unwrap();

    assert_eq!(number(&writer, "select count(*) from sqlite_schema"), 0);
    assert_eq!(world.database.head().root.page_count(), 1);
}

// conformance: state-machine 13, 20
#[test]
fn a_row_on_every_side_of_the_pending_byte_is_read_back() {
    let world = world(1 << 30);
    let mut page = empty_page().with(|page| *page).unwrap();
    page[28..32].copy_from_slice(&262_144_u32.to_be_bytes());
    let page = dqlite::pages::PageRef::new(&page);
    world.database.apply_pages(vec![(dqlite::types::PageNumber(1), page)]).unwrap();
    let writer = world.writer();

    writer
        .execute(&mut Inside::alone(), b"create table t(a); insert into t values(zeroblob(20000))")
        .unwrap();

    assert_eq!(number(&writer, "select length(a) from t"), 20000);
    let root = world.database.head().root;
    assert!(root.page_count() > 262_145);
    assert!(root.get(dqlite::types::PageNumber(262_145)).is_none());
}

// conformance: state-machine 20
#[test]
fn encodings_triggers_views_and_keys_work() {
    let world = world(1 << 30);
    let writer = world.writer();
    writer
        .execute(&mut Inside::alone(),
            b"pragma encoding='UTF-16le'; create table p(a integer primary key autoincrement, b unique);
              create table c(a references p on delete cascade);
              create trigger g after insert on p begin insert into c values(new.a); end;
              create view v as select p.b from p join c using(a);
              insert into p(b) values('x'),('y'); insert into p(b) values('x') on conflict(b) do update set b='z';
              delete from p where b='y'",
        )
        .unwrap();

    assert_eq!(number(&writer, "select count(*) from v"), 1);
    assert_eq!(number(&writer, "with q as (select * from c) select count(*) from q"), 1);
    assert_eq!(code(&writer, "insert into c values(99)"), 787);
}
