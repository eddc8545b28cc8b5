//! What clients are told of single statements: what SQLite says of them and of their transaction, and nothing of the library's own.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use dqlite::protocol::request::Request;
use dqlite::protocol::response::Kind;
use dqlite_testing::alone::{ANSWER_MAX, Alone, DONE, outcome, query_sql};
use dqlite_testing::client::{Client, ClientError};
use dqlite_testing::slt::content;

const LONG_ANSWER_MAX: Duration = Duration::from_secs(60);

#[test]
fn returning_through_exec_tells_why_it_failed() {
    let alone = Alone::start(&[]);
    let mut client = alone.client(ANSWER_MAX);
    let schema = "CREATE TABLE orders(id INTEGER PRIMARY KEY, name UNIQUE); INSERT INTO orders VALUES(1, 'a'); CREATE TABLE stock(n); \
                  CREATE TRIGGER few BEFORE INSERT ON stock WHEN new.n < 0 BEGIN SELECT RAISE(ROLLBACK, 'not negative'); END";
    client.exec(schema, &[]).unwrap();
    let statements = [
        ("INSERT OR ROLLBACK INTO orders VALUES(1, 'b')", "1555 UNIQUE constraint failed: orders.id"),
        ("INSERT OR ROLLBACK INTO orders VALUES(2, 'a')", "2067 UNIQUE constraint failed: orders.name"),
        ("INSERT INTO orders VALUES(2, 'a')", "2067 UNIQUE constraint failed: orders.name"),
        ("INSERT INTO stock VALUES(-1)", "1811 not negative"),
    ];

    for (sql, right) in statements {
        for sql in [sql.to_owned(), format!("{sql} RETURNING 1")] {
            for begin in ["", "BEGIN", "BEGIN IMMEDIATE"] {
                for prepared in [false, true] {
                    client.exec(begin, &[]).unwrap();
                    let answer = if prepared {
                        let statement = client.prepare(&sql).unwrap();
                        let answer = outcome(client.exec_prepared(statement, &[]));
                        client.finalize(statement).unwrap();
                        answer
                    } else {
                        outcome(client.exec(&sql, &[]))
                    };
                    // There may be no transaction any more.
                    let _ = client.exec("ROLLBACK", &[]);
                    assert_eq!(answer, right, "{sql} after '{begin}', prepared: {prepared}");
                }
            }
        }
    }
    assert_eq!(alone.outcome_of("INSERT INTO stock VALUES(1)", ANSWER_MAX), DONE);
}

#[test]
fn a_write_whose_rows_are_read_in_part_is_kept_or_not_however_many_they_are() {
    const ROWS: [i64; 2] = [10_000, 17_000];
    let alone = Alone::start(&[]);
    let kept = ROWS.map(|rows| {
        let mut client = alone.client_of(&format!("{rows}.db"), LONG_ANSWER_MAX);
        client.exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", &[]).unwrap();
        client
            .send(&query_sql(&format!(
                "WITH RECURSIVE x(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM x WHERE i < {rows}) \
                 INSERT INTO t(b) SELECT randomblob(1000) FROM x RETURNING a, b"
            )))
            .unwrap();
        assert_eq!(client.receive().unwrap().0, Kind::Rows as u8, "of {rows} rows");
        client.send(&Request::Interrupt { db: 0 }).unwrap();
        while client.receive().unwrap().0 != Kind::Empty as u8 {}
        client.number("SELECT count(*) FROM t").unwrap()
    });

    let all = ROWS.iter().zip(kept).all(|(rows, kept)| *rows == kept);
    let none = kept.iter().all(|kept| *kept == 0);
    assert!(all || none, "of {ROWS:?} rows {kept:?} are kept");
}

#[test]
fn a_temporary_table_is_written_in_an_old_snapshot_and_beside_another_writer() {
    let alone = Alone::start(&[]);
    let (mut client, mut other) = (alone.client(ANSWER_MAX), alone.client(ANSWER_MAX));
    client.exec("CREATE TABLE t(n)", &[]).unwrap();
    client.exec("CREATE TEMP TABLE tt(a)", &[]).unwrap();

    client.exec("BEGIN", &[]).unwrap();
    client.query("SELECT * FROM t", &[]).unwrap();
    other.exec("INSERT INTO t VALUES(1)", &[]).unwrap();
    let old = outcome(client.exec("INSERT INTO tt SELECT count(*) FROM t", &[]));
    client.exec("COMMIT", &[]).unwrap();
    other.exec("BEGIN IMMEDIATE", &[]).unwrap();
    let beside = outcome(client.exec("INSERT INTO tt VALUES(7)", &[]));
    let made = outcome(client.exec("CREATE TEMP TABLE more AS SELECT * FROM t", &[]));
    other.exec("COMMIT", &[]).unwrap();

    assert_eq!(old, DONE, "in a read transaction, after another's commit");
    assert_eq!([&beside[..], &made[..]], [DONE; 2], "beside another's transaction");
    assert_eq!(client.number("SELECT group_concat(a, '') + 0 FROM tt").unwrap(), 7, "0, then 7");
}

#[test]
fn a_snapshot_that_a_full_text_index_leaves_behind_keeps_nobody_from_writing() {
    let alone = Alone::start(&[]);
    let (mut client, mut other) = (alone.client(ANSWER_MAX), alone.client(ANSWER_MAX));
    let schema = "CREATE TABLE t(n UNIQUE); CREATE VIRTUAL TABLE ft USING fts5(x); INSERT INTO t VALUES(1); INSERT INTO ft VALUES('one two')";
    client.exec(schema, &[]).unwrap();
    client.exec("BEGIN; INSERT INTO ft VALUES('three')", &[]).unwrap();

    assert!(
        client
            .exec("INSERT OR ROLLBACK INTO t VALUES(1)", &[])
            .is_err_and(|error| error.code() == Some(2067))
    );
    other.exec("INSERT INTO t VALUES(2)", &[]).unwrap();

    assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), 2, "a read of what was acknowledged");
    for number in 10..14 {
        let sql = format!("INSERT INTO t VALUES({number})");
        assert_eq!(outcome(client.exec(&sql, &[])), DONE, "{sql}, outside of a transaction");
    }
}

// FTS5 keeps statements and a snapshot of its own; outside of a transaction none of that may show.
#[test]
fn full_text_writes_outside_of_a_transaction_never_get_517() {
    const ROUNDS: usize = 60;
    let alone = Alone::start(&[]);
    let mut clients = [alone.client(ANSWER_MAX), alone.client(ANSWER_MAX)];
    let schema = "CREATE TABLE t(n UNIQUE); INSERT INTO t VALUES(0); CREATE VIRTUAL TABLE f5 USING fts5(x); CREATE VIRTUAL TABLE f4 USING fts4(x)";
    clients[0].exec(schema, &[]).unwrap();
    let failing = [
        "INSERT INTO t VALUES(0)",
        "INSERT OR ROLLBACK INTO t VALUES(0)",
        "INSERT INTO f5(rowid, x) VALUES('wrong', 'x')",
        "SELECT * FROM f5 WHERE f5 MATCH 'AND'",
        "BEGIN; INSERT INTO f5 VALUES('lost'); INSERT OR ROLLBACK INTO t VALUES(0)",
        "BEGIN; INSERT INTO f4 VALUES('lost'); DELETE FROM f5; INSERT OR ROLLBACK INTO t VALUES(0)",
        "BEGIN; SAVEPOINT s; INSERT INTO f5 VALUES('lost'); ROLLBACK TO s; INSERT OR ROLLBACK INTO t VALUES(0)",
    ];

    for round in 0..ROUNDS {
        let client = &mut clients[round % 2];
        let failed = outcome(client.exec(failing[round % failing.len()], &[]));
        assert_ne!(failed, DONE, "{}", failing[round % failing.len()]);
        assert!(!failed.starts_with("517"), "{failed}");
        // There may be no transaction any more.
        let _ = client.exec("ROLLBACK", &[]);
        clients[(round + 1) % 2].exec("INSERT INTO f5 VALUES('of the other')", &[]).unwrap();
        for sql in ["INSERT INTO f5 VALUES('kept')", "INSERT INTO f4 VALUES('kept')", "UPDATE t SET n = n"] {
            let answer = outcome(clients[round % 2].exec(sql, &[]));
            assert_eq!(
                answer,
                DONE,
                "{sql} in round {round}, after {}: {failed}",
                failing[round % failing.len()]
            );
        }
    }
    let kept = clients[0].number("SELECT count(*) FROM f5 WHERE f5 MATCH 'kept'").unwrap();
    assert_eq!(kept as usize, ROUNDS);
}

/// A connection that opens a database, without waiting for a leader.
fn opened(alone: &Alone, database: &str) -> Result<Client, ClientError> {
    let mut client = Client::connect(&alone.node.address, ANSWER_MAX)?;
    client.open(database)?;
    Ok(client)
}

/// Dumps a database again and again, each time whole: how often it was there, and how often it was not.
fn dump_until(alone: &Alone, name: &str, is_over: &dyn Fn() -> bool) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut client = Client::connect(&alone.node.address, ANSWER_MAX).unwrap();
    let (mut dumps, mut absent) = (0, 0);
    while !is_over() {
        match client.dump(name) {
            Ok(files) => {
                let wrong = content::unsound(&files[0].content, folder.path()).unwrap();
                assert_eq!(wrong, None, "a dump of {} bytes", files[0].content.len());
                dumps += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), Some(1002), "{error}");
                absent += 1;
            }
        }
    }
    (dumps, absent)
}

#[test]
fn a_database_is_opened_and_dumped_beside_its_deletion() {
    const ROUNDS: usize = 60;
    const NAME: &str = "deleted.db";
    let alone = Alone::start(&[]);
    let end = Instant::now() + LONG_ANSWER_MAX;
    let over = std::sync::atomic::AtomicBool::new(false);
    let is_over = || over.load(std::sync::atomic::Ordering::Relaxed) || Instant::now() >= end;

    let (made, opens, dumps) = std::thread::scope(|scope| {
        let opener = scope.spawn(|| {
            let mut opens = 0_u64;
            while !is_over() {
                let mut client =
                    opened(&alone, NAME).unwrap_or_else(|error| panic!("OPEN beside a deletion: {error}"));
                let read = client.number("SELECT count(*) FROM sqlite_schema");
                assert!(matches!(read, Ok(0..=2)), "a read beside a deletion: {read:?}");
                // One that is written to meanwhile lives on.
                if opens.is_multiple_of(3) {
                    let write = outcome(client.exec("CREATE TABLE IF NOT EXISTS u(n)", &[]));
                    assert!(
                        write == DONE || write == "5 database is locked",
                        "a write beside a deletion: {write}"
                    );
                }
                opens += 1;
                drop(client);
                // So that the database has no connection now and then, and is gone.
                std::thread::sleep(Duration::from_millis(opens % 8));
            }
            opens
        });
        let dumper = scope.spawn(|| dump_until(&alone, NAME, &is_over));
        let mut made = 0;
        while made < ROUNDS && !is_over() && !opener.is_finished() && !dumper.is_finished() {
            let mut client = opened(&alone, NAME).unwrap();
            let sql = "CREATE TABLE t(b); INSERT INTO t VALUES(zeroblob(100000))";
            assert_eq!(outcome(client.exec(sql, &[])), DONE, "round {made}");
            let sql = "BEGIN IMMEDIATE; PRAGMA delete_database; COMMIT";
            assert_eq!(outcome(client.exec(sql, &[])), DONE, "round {made}");
            assert!(
                matches!(client.number("SELECT count(*) FROM sqlite_schema"), Ok(0 | 1)),
                "what is left of it"
            );
            made += 1;
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        (made, opener.join().unwrap(), dumper.join().unwrap())
    });

    println!("{made} deletions, {opens} opens, {} dumps, {} of nothing", dumps.0, dumps.1);
    assert_eq!(made, ROUNDS, "deletions within {LONG_ANSWER_MAX:?}");
    assert!(opens > 0 && dumps.0 + dumps.1 > 0);
}
