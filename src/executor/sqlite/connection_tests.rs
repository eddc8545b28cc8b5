use std::ffi::c_int;
use std::sync::Arc;

use libsqlite3_sys as sqlite;

use super::Connection;
use crate::executor::sqlite::testing::{vfs_of, writer};
use crate::executor::sqlite::{Inside, Step, Value};
use crate::pages::PageStore;
use crate::types::config::PAGE_SIZE;
use crate::vfs::Vfs;

const ROWS: i64 = 2000;

fn opened() -> (Arc<PageStore>, Arc<Vfs>, Connection) {
    let store = PageStore::new();
    let vfs = vfs_of(Arc::clone(&store));
    let connection = writer(&vfs);
    connection
        .execute(&mut Inside::alone(), b"create table t(a integer primary key, b); create table u(a, b)")
        .unwrap();
    let fill = format!(
        "with n(i) as (select 1 union all select i + 1 from n where i < {ROWS})
         insert into t select i, zeroblob(1000) from n"
    );
    connection.execute(&mut Inside::alone(), fill.as_bytes()).unwrap();
    (store, vfs, connection)
}

fn cached_bytes(connection: &Connection) -> usize {
    let (mut now, mut most): (c_int, c_int) = (0, 0);
    // SAFETY: an open connection, two places for numbers.
    let code = unsafe {
        let raw = connection.handle.raw();
        sqlite::sqlite3_db_status(raw, sqlite::SQLITE_DBSTATUS_CACHE_USED, &raw mut now, &raw mut most, 0)
    };
    assert_eq!(code, sqlite::SQLITE_OK);
    usize::try_from(now).unwrap()
}

fn integer(connection: &Connection, sql: &str) -> i64 {
    let mut statement = connection.prepare(&mut Inside::alone(), sql.as_bytes()).unwrap().0.unwrap();
    assert_eq!(statement.step(&mut Inside::alone()).unwrap(), Step::Row);
    let Value::Integer(number) = statement.value(&Inside::alone(), 0) else { panic!("{sql}") };
    statement.finalize(&mut Inside::alone());
    number
}

#[test]
fn a_reader_makes_no_copies_of_the_pages_it_reads() {
    let (store, vfs, _writer) = opened();
    let pages = store.get(b"test").unwrap().head().root.page_count() as usize;
    let reader = writer(&vfs);

    assert_eq!(integer(&reader, "select sum(length(b)) from t"), ROWS * 1000);
    let read_once = cached_bytes(&reader);
    reader.execute(&mut Inside::alone(), b"begin immediate").unwrap();
    assert_eq!(integer(&reader, "select sum(length(b)) from t"), ROWS * 1000);
    let read_by_a_writer = cached_bytes(&reader);
    reader.execute(&mut Inside::alone(), b"rollback").unwrap();

    // A few lie where SQLite may look at what is not ours.
    assert!(read_once < pages * PAGE_SIZE / 4, "{read_once} bytes cached of {pages} pages");
    assert!(read_by_a_writer > pages * PAGE_SIZE / 2, "{read_by_a_writer} bytes: nothing was measured");
}

#[test]
fn pages_that_a_statement_stands_on_outlive_the_commits_that_replace_them() {
    let (_store, _vfs, connection) = opened();
    let mut reading = connection
        .prepare(&mut Inside::alone(), b"select a, length(b) from t order by a")
        .unwrap()
        .0
        .unwrap();
    let mut seen = 0;
    while reading.step(&mut Inside::alone()).unwrap() == Step::Row {
        seen += 1;
        assert_eq!(reading.value(&Inside::alone(), 0), Value::Integer(seen));
        if seen % 100 == 0 {
            // Behind the statement, where it stands, and in another table.
            let change = format!(
                "update t set b = zeroblob(1001) where a <= {seen};
                 insert into u select a, b from t where a between {seen} and {seen} + 50;
                 delete from u where a < {seen}"
            );
            connection.execute(&mut Inside::alone(), change.as_bytes()).unwrap();
        }
    }

    assert_eq!(seen, ROWS);
    assert_eq!(integer(&connection, "select sum(length(b)) from t"), ROWS * 1001);
    assert_eq!(integer(&connection, "select count(*) from u"), 1);
}

#[test]
fn a_connection_closes_with_statements_that_were_dropped_and_with_those_of_full_text_tables() {
    let (_store, vfs, first) = opened();
    first.close(&mut Inside::alone()).unwrap();
    let connection = writer(&vfs);
    for module in ["fts4", "fts5"] {
        let sql =
            format!("create virtual table {module} using {module}(x); insert into {module} values('word')");
        if connection.execute(&mut Inside::alone(), sql.as_bytes()).is_err() {
            println!("this SQLite has no {module}");
            continue;
        }
        let query = format!("select x from {module} where {module} match 'word'");
        let (statement, _) = connection.prepare(&mut Inside::alone(), query.as_bytes()).unwrap();
        let mut statement = statement.unwrap();
        assert_eq!(statement.step(&mut Inside::alone()).unwrap(), Step::Row);
        // In the middle of its rows, and nobody says so to SQLite.
        drop(statement);
    }

    connection.close(&mut Inside::alone()).unwrap();
}

// spec: client-protocol 8.3
#[test]
fn a_value_that_is_too_large_is_18_and_leaves_nothing_bound() {
    let (_store, _vfs, connection) = opened();
    // SAFETY: an open connection.
    unsafe { sqlite::sqlite3_limit(connection.handle.raw(), sqlite::SQLITE_LIMIT_LENGTH, 1000) };
    let mut statement = connection
        .prepare(&mut Inside::alone(), b"select coalesce(?, 0) + coalesce(?, 0)")
        .unwrap()
        .0
        .unwrap();

    statement.bind(&mut Inside::alone(), 1, Value::Integer(5)).unwrap();
    for large in [Value::Blob(&[7; 1001]), Value::Text(&[b'x'; 1001])] {
        let refused = statement.bind(&mut Inside::alone(), 2, large).unwrap_err();
        assert_eq!((refused.code, &refused.message[..]), (18, &b"string or blob too big"[..]));
    }
    assert_eq!(statement.bind(&mut Inside::alone(), 3, Value::Null).unwrap_err().code, 25);

    assert_eq!(statement.step(&mut Inside::alone()).unwrap(), Step::Row);
    assert_eq!(statement.value(&Inside::alone(), 0), Value::Integer(0));
}

#[test]
fn a_connection_of_an_ended_epoch_gets_no_snapshot_of_the_next_one() {
    let (store, vfs, first) = opened();
    let connection = writer(&vfs);
    connection.view().set_epoch(store.epoch());
    assert_eq!(integer(&connection, "select count(*) from u"), 0);
    // Nothing is pending: no version tells the two epochs from each other.
    store.end_epoch(None);

    let inside = &mut Inside::alone();
    let refused = connection.execute(inside, b"insert into u values(1, 2)").unwrap_err();

    assert_eq!(refused.code, 10250);
    connection.close(inside).unwrap();
    first.close(inside).unwrap();
}

// A function or an extension of the host may keep one.
#[test]
fn a_connection_with_a_statement_that_is_not_of_this_library_says_that_it_stays_open() {
    let vfs = vfs_of(PageStore::new());
    let inside = &mut Inside::alone();
    let connection = Connection::open(inside, &vfs, b"test").unwrap();
    let mut statement = std::ptr::null_mut();
    let raw = connection.handle.raw();
    // SAFETY: an open connection, a C string, a place for the statement.
    let code = unsafe {
        sqlite::sqlite3_prepare_v2(raw, c"SELECT 1".as_ptr(), -1, &raw mut statement, std::ptr::null_mut())
    };
    assert_eq!(code, sqlite::SQLITE_OK);

    assert_eq!(connection.close(inside).unwrap_err().code, sqlite::SQLITE_BUSY);

    // SAFETY: a statement of a connection that is still open.
    unsafe { sqlite::sqlite3_finalize(statement) };
    // SAFETY: nobody else knows of it any more.
    assert_eq!(unsafe { sqlite::sqlite3_close(raw) }, sqlite::SQLITE_OK);
}
