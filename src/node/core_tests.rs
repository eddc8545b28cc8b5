//! SQL over a whole node in memory. spec: client-protocol 8, 9.

use std::time::Duration;

use bytes::Bytes;

use super::core_testing::{Client, err, failure, start};
use crate::protocol::request::{Parameters, Request, Value};
use crate::raft::testing::TestDisk;

// conformance: client-protocol E1, E3
#[tokio::test(start_paused = true)]
async fn sql_is_written_and_read_and_survives_a_restart() {
    let disk = TestDisk::bootstrapped();
    let core = start(&disk, 1).await;
    let mut client = Client::open(&core, "test.db").await;

    assert_eq!(client.exec("").await, Ok((0, 0)));
    assert_eq!(client.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, s TEXT UNIQUE)").await, Ok((0, 0)));
    assert_eq!(client.exec("INSERT INTO t(s) VALUES('a'),('b')").await, Ok((2, 2)));
    assert_eq!(client.exec("UPDATE t SET s = s || 'x'").await, Ok((2, 2)));
    assert_eq!(client.exec("DELETE FROM t WHERE id = 1").await, Ok((2, 1)));
    assert_eq!(
        client.exec("INSERT INTO t(s) VALUES('bx')").await,
        err(2067, "UNIQUE constraint failed: t.s")
    );
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 1);

    core.stop().await;
    let core = start(&disk, 2).await;
    let mut client = Client::open(&core, "test.db").await;
    assert_eq!(client.number("SELECT id AS n FROM t").await, 2);
    core.stop().await;
}

// conformance: client-protocol E8, X11
#[tokio::test(start_paused = true)]
async fn parameters_run_on_from_statement_to_statement() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test.db").await;
    client.exec("CREATE TABLE t(a, b)").await.unwrap();
    let numbers: Vec<Value> = (1..=3).map(Value::Integer).collect();

    assert!(
        client.exec_with("INSERT INTO t VALUES(?, ?); INSERT INTO t VALUES(?, ?)", &numbers).await.is_ok()
    );
    assert_eq!(client.number("SELECT sum(a) AS n FROM t").await, 4);
    assert_eq!(client.number("SELECT count(*) AS n FROM t WHERE b IS NULL").await, 1);
    assert_eq!(client.exec_with("DELETE FROM t WHERE a = ?", &numbers).await, err(1, "bind parameters"));
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 2);
    core.stop().await;
}

// conformance: client-protocol T1, T2, T3, T4, T5
// conformance: state-machine 19
#[tokio::test(start_paused = true)]
async fn transactions_exclude_each_other_and_end_with_their_connection() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut one = Client::open(&core, "test.db").await;
    let mut two = Client::open(&core, "test.db").await;
    one.exec("CREATE TABLE t(n)").await.unwrap();

    one.exec("BEGIN").await.unwrap();
    assert_eq!(one.exec("BEGIN").await, err(1, "cannot start a transaction within a transaction"));
    one.exec("INSERT INTO t VALUES(1)").await.unwrap();
    assert_eq!(one.number("SELECT count(*) AS n FROM t").await, 1);
    assert_eq!(two.number("SELECT count(*) AS n FROM t").await, 0);
    assert_eq!(two.exec("INSERT INTO t VALUES(2)").await, err(5, "database is locked"));
    one.exec("COMMIT").await.unwrap();
    assert_eq!(one.exec("COMMIT").await, err(1, "cannot commit - no transaction is active"));
    assert_eq!(one.exec("ROLLBACK").await, err(1, "cannot rollback - no transaction is active"));
    assert_eq!(two.number("SELECT count(*) AS n FROM t").await, 1);

    two.exec("BEGIN").await.unwrap();
    two.number("SELECT count(*) AS n FROM t").await;
    one.exec("INSERT INTO t VALUES(3)").await.unwrap();
    assert_eq!(two.exec("INSERT INTO t VALUES(4)").await, err(517, "database is locked"));
    two.exec("ROLLBACK").await.unwrap();

    one.exec("BEGIN IMMEDIATE").await.unwrap();
    one.exec("INSERT INTO t VALUES(5)").await.unwrap();
    drop(one);
    tokio::time::sleep(Duration::from_millis(10)).await;
    two.exec("INSERT INTO t VALUES(6)").await.unwrap();
    assert_eq!(two.number("SELECT sum(n) AS n FROM t").await, 10);
    core.stop().await;
}

// conformance: client-protocol E9, Q8, Q9
// conformance: state-machine 18
// conformance: client-protocol X9 (better: upstream aborts, or the database stays locked)
#[tokio::test(start_paused = true)]
async fn rows_where_none_are_expected_take_their_statement_back() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test.db").await;
    let mut other = Client::open(&core, "test.db").await;
    let rows = "rows yielded when none expected for EXEC request";
    assert_eq!(client.query("CREATE TABLE t(n)").await.unwrap()[0].len(), 16);

    assert_eq!(client.exec("SELECT 1").await, err(1, rows));
    assert_eq!(client.exec("INSERT INTO t VALUES(1) RETURNING n").await, err(1, rows));
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 0);
    client.exec("BEGIN; INSERT INTO t VALUES(2)").await.unwrap();
    assert_eq!(client.exec("INSERT INTO t VALUES(3) RETURNING n").await, err(1, rows));
    client.exec("COMMIT").await.unwrap();
    assert_eq!(client.number("INSERT INTO t VALUES(4) RETURNING n").await, 4);

    assert_eq!(other.number("SELECT sum(n) AS n FROM t").await, 6);
    core.stop().await;
}

// conformance: client-protocol P3, P5, S1, S2
// conformance: client-protocol X2, X3 (better: upstream's failure begins with the columns)
#[tokio::test(start_paused = true)]
async fn failures_carry_their_own_code_and_text() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test.db").await;
    client.exec("CREATE TABLE t(n UNIQUE); INSERT INTO t VALUES(1)").await.unwrap();

    assert_eq!(client.query("SELECT abs(-9223372036854775807 - 1) AS foo").await, err(1, "integer overflow"));
    assert_eq!(client.query("INSERT INTO t VALUES(1)").await, err(2067, "UNIQUE constraint failed: t.n"));
    assert_eq!(client.query("-- nothing").await, err(0, "empty statement"));
    assert_eq!(client.query("SELECT 1; SELECT 2").await, err(1, "nonempty statement tail"));
    assert_eq!(client.exec("FOO").await, err(1, "near \"FOO\": syntax error"));
    assert_eq!(client.exec("ATTACH 'x' AS x").await.unwrap_err().0, 23);
    assert_eq!(client.exec("PRAGMA wal_checkpoint").await.unwrap_err().0, 23);
    assert_eq!(client.exec("PRAGMA journal_mode=delete").await.unwrap_err().0, 23);
    assert_eq!(client.exec("INSERT INTO t VALUES(2)").await, Ok((2, 1)));
    core.stop().await;
}

// conformance: client-protocol X14
// conformance: client-protocol X7 (better: upstream aborts behind the failure)
#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test.db").await;
    for request in [
        Request::Leader,
        Request::Describe { format: 1 },
        Request::Weight { weight: 7 },
        Request::Describe { format: 0 },
        Request::Interrupt { db: 0 },
    ] {
        client.send(request).await;
    }
    let mut kinds = Vec::new();
    for _ in 0..5 {
        kinds.push(client.receive().await.0);
    }
    assert_eq!(kinds, [1, 0, 8, 10, 8]);
    core.stop().await;
}

// conformance: client-protocol K19 (better: without a busy timeout, too)
#[tokio::test(start_paused = true)]
async fn writers_share_syncs_and_never_collide() {
    let disk = TestDisk::bootstrapped();
    let core = start(&disk, 1).await;
    let mut first = Client::open(&core, "test.db").await;
    first.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, who, n)").await.unwrap();
    let mut tasks = Vec::new();
    for who in 0..8 {
        let mut client = Client::open(&core, "test.db").await;
        tasks.push(tokio::spawn(async move {
            for n in 0..30 {
                client.exec(&format!("INSERT INTO t(who, n) VALUES({who}, {n})")).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }

    assert_eq!(first.number("SELECT count(*) AS n FROM (SELECT DISTINCT who, n FROM t)").await, 240);
    core.stop().await;
    let core = start(&disk, 9).await;
    let mut again = Client::open(&core, "test.db").await;
    assert_eq!(again.number("SELECT count(*) AS n FROM (SELECT DISTINCT who, n FROM t)").await, 240);
    core.stop().await;
}

/// The text that begins here in a body.
fn text(body: &[u8], offset: usize) -> String {
    let end = body[offset..].iter().position(|byte| *byte == 0).unwrap();
    String::from_utf8(body[offset..offset + end].to_vec()).unwrap()
}

// conformance: state-machine 15
#[tokio::test(start_paused = true)]
async fn the_journal_mode_is_wal_under_its_own_name() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test.db").await;
    for sql in ["PRAGMA journal_mode", " pragma main.Journal_Mode;"] {
        let rows = client.query(sql).await.unwrap();
        assert_eq!(text(&rows[0], 8), "journal_mode", "{sql}");
        // Name of 13 bytes in two words, types, value.
        assert_eq!(text(&rows[0], 32), "wal", "{sql}");
    }
    for sql in ["SELECT 1 AS wal", "SELECT 'journal_mode' AS wal", "SELECT 'journal_mode' AS wal, 2 AS b"] {
        assert_eq!(text(&client.query(sql).await.unwrap()[0], 8), "wal", "{sql}");
    }
    assert_eq!(text(&client.query("PRAGMA user_version").await.unwrap()[0], 8), "user_version");
    core.stop().await;
}

// Issue 2: PRAGMA optimize with the turn wanted by another: it is a write that SQLite calls read-only.
#[tokio::test(start_paused = true)]
async fn pragma_optimize_takes_the_turn_and_lets_others_write_after_it() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut one = Client::open(&core, "test.db").await;
    let mut two = Client::open(&core, "test.db").await;
    one.exec("CREATE TABLE t(n)").await.unwrap();
    one.exec("CREATE INDEX i ON t(n)").await.unwrap();
    one.exec("ANALYZE").await.unwrap();
    one.exec("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 3000) INSERT INTO t SELECT x FROM c")
        .await
        .unwrap();
    assert_eq!(one.number("SELECT count(*) AS n FROM t WHERE n > 10").await, 2990);

    let optimize = Request::ExecSql {
        db: 0,
        sql: Bytes::from_static(b"PRAGMA optimize(0xffffffff)"),
        parameters: Parameters::default(),
    };
    one.send(optimize).await;
    two.exec("INSERT INTO t VALUES(-1)").await.unwrap();
    let (kind, body) = one.receive().await;
    assert!(kind == 6 || kind == 0, "{kind} {body:?}");
    two.exec("INSERT INTO t VALUES(-2)").await.unwrap();
    assert_eq!(one.number("SELECT count(*) AS n FROM t WHERE n < 0").await, 2);
    assert_eq!(
        two.number("SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check = 'ok'").await,
        1
    );
    core.stop().await;
}

// Issue 2: RETURNING given up half-way, outside and inside a transaction.
#[tokio::test(start_paused = true)]
async fn a_returning_that_is_given_up_leaves_its_transaction_as_it_was() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test.db").await;
    client.exec("CREATE TABLE t(n)").await.unwrap();
    let given_up = "INSERT INTO t VALUES(2),(3) RETURNING n";

    assert_eq!(client.exec(given_up).await.unwrap_err().0, 1);
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 0);

    client.exec("BEGIN").await.unwrap();
    client.exec("INSERT INTO t VALUES(1)").await.unwrap();
    assert_eq!(client.exec(given_up).await.unwrap_err().0, 1);
    assert_eq!(client.number("SELECT sum(n) AS n FROM t").await, 1);
    client.exec("INSERT INTO t VALUES(10)").await.unwrap();
    client.exec("COMMIT").await.unwrap();
    assert_eq!(client.number("SELECT sum(n) AS n FROM t").await, 11);
    core.stop().await;
}

// conformance: state-machine 17
// Issue 2: a statement that spills its cache, a savepoint rolled back after it, and the commit.
#[tokio::test(start_paused = true)]
async fn a_spill_then_a_savepoint_rolled_back_then_a_commit_keeps_what_was_before() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test.db").await;
    client.exec("CREATE TABLE t(n, b)").await.unwrap();
    client.exec("PRAGMA cache_size = 5").await.unwrap();
    let rows = |count, number| {
        format!(
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT {count}) \
             INSERT INTO t SELECT {number}, randomblob(3000) FROM c"
        )
    };
    client.exec("BEGIN").await.unwrap();
    client.exec(&rows(50, 1)).await.unwrap();
    client.exec("SAVEPOINT s").await.unwrap();
    client.exec(&rows(100, 100)).await.unwrap();
    client.exec("UPDATE t SET b = randomblob(2000)").await.unwrap();
    client.exec("ROLLBACK TO s").await.unwrap();
    client.exec(&rows(1, 1000)).await.unwrap();
    client.exec("COMMIT").await.unwrap();

    let mut other = Client::open(&core, "test.db").await;
    assert_eq!(other.number("SELECT sum(n) AS n FROM t").await, 1050);
    assert_eq!(other.number("SELECT sum(length(b)) AS n FROM t").await, 51 * 3000);
    assert_eq!(
        other.number("SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check = 'ok'").await,
        1
    );
    core.stop().await;
}

// conformance: state-machine 20
// Issue 2: the three auto_vacuum modes; they shrink the database as SQLite says.
#[tokio::test(start_paused = true)]
async fn each_auto_vacuum_mode_shrinks_as_it_should() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    for (mode, name, free_after_delete) in
        [(0, "none.db", true), (1, "full.db", false), (2, "incremental.db", true)]
    {
        let mut client = Client::open(&core, name).await;
        client.exec(&format!("PRAGMA auto_vacuum = {mode}")).await.unwrap();
        client.exec("VACUUM").await.unwrap();
        assert_eq!(client.number("SELECT auto_vacuum AS n FROM pragma_auto_vacuum").await, mode, "{name}");
        client.exec("CREATE TABLE t(b)").await.unwrap();
        client
            .exec("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 100) INSERT INTO t SELECT zeroblob(4000) FROM c")
            .await
            .unwrap();
        client.exec("DELETE FROM t").await.unwrap();
        let free = client.number("SELECT freelist_count AS n FROM pragma_freelist_count").await;
        assert_eq!(free > 0, free_after_delete, "{name}: {free}");
        // SQLite yields a row for each page that it frees.
        client.query(if mode == 2 { "PRAGMA incremental_vacuum" } else { "VACUUM" }).await.unwrap();
        assert_eq!(client.number("SELECT freelist_count AS n FROM pragma_freelist_count").await, 0, "{name}");
        assert_eq!(
            client
                .number("SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check = 'ok'")
                .await,
            1
        );
    }
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_text_whose_first_statement_may_be_in_the_log_is_not_told_that_nothing_took_place() {
    for second in ["INSERT INTO t VALUES(2)", "PRAGMA user_version=0"] {
        let disk = TestDisk::bootstrapped();
        let core = start(&disk, 1).await;
        let mut client = Client::open(&core, "test.db").await;
        client.exec("CREATE TABLE t(n)").await.unwrap();
        let database = core.executor().store().get(b"test.db").unwrap();
        disk.lock().held = true;
        let handed_on = disk.lock().entries.len() + 1;
        let sql = format!("INSERT INTO t VALUES(1); {second}").into();
        client.send(Request::ExecSql { db: 0, sql, parameters: Parameters::default() }).await;
        // The log is writing the first commit; the second waits behind it, or has no pages to be written.
        while disk.lock().entries.len() < handed_on || database.in_flight_transactions() < 2 {
            tokio::task::yield_now().await;
        }

        core.engine().step_down().await;
        let (kind, body) = client.receive().await;

        assert_eq!(failure(kind, &body), (10506, "leadership lost".to_owned()), "{second}");
        disk.lock().held = false;
        disk.flush();
        core.stop().await;
    }
}

// conformance: state-machine 16, 20
#[tokio::test(start_paused = true)]
async fn a_large_transaction_is_seen_by_nobody_before_its_commit_and_leaves_no_trace_without_it() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut writer = Client::open(&core, "test.db").await;
    let mut other = Client::open(&core, "test.db").await;
    let dump = || Request::Dump { name: Bytes::from_static(b"test.db") };
    writer
        .exec("CREATE TABLE t(n INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(0, zeroblob(9000))")
        .await
        .unwrap();
    let before = other.call(dump()).await;
    // More pages than the cache has, and than a region of a WAL index of upstream.
    let fill = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 2000) \
                INSERT INTO t SELECT x, randomblob(9000) FROM c";

    writer.exec("PRAGMA cache_size = 50; BEGIN").await.unwrap();
    writer.exec(fill).await.unwrap();
    assert_eq!(writer.number("SELECT count(*) AS n FROM t").await, 2001);
    assert_eq!(other.number("SELECT count(*) AS n FROM t").await, 1);
    assert!(other.call(dump()).await == before);
    writer.exec("ROLLBACK").await.unwrap();
    assert!(other.call(dump()).await == before);

    writer.exec("BEGIN").await.unwrap();
    writer.exec(fill).await.unwrap();
    writer.exec("COMMIT").await.unwrap();
    assert_eq!(other.number("SELECT sum(length(b)) AS n FROM t").await, 2001 * 9000);
    assert!(other.number("SELECT page_count AS n FROM pragma_page_count()").await > 4200);
    let sound = "SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check = 'ok'";
    assert_eq!(other.number(sound).await, 1);
    core.stop().await;
}

// conformance: state-machine 17
#[tokio::test(start_paused = true)]
async fn a_spill_then_a_failed_statement_then_a_commit_keeps_what_did_not_fail() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test.db").await;
    client.exec("CREATE TABLE t(n UNIQUE, b); PRAGMA cache_size = 5; BEGIN").await.unwrap();
    let rows = |from, to| {
        format!(
            "WITH RECURSIVE c(x) AS (SELECT {from} UNION ALL SELECT x+1 FROM c WHERE x < {to}) \
             INSERT INTO t SELECT x % 1000, randomblob(3000) FROM c"
        )
    };
    client.exec(&rows(1, 100)).await.unwrap();
    assert_eq!(client.exec(&rows(500, 1001)).await, err(2067, "UNIQUE constraint failed: t.n"));
    client.exec(&rows(200, 210)).await.unwrap();
    client.exec("COMMIT").await.unwrap();

    let mut other = Client::open(&core, "test.db").await;
    assert_eq!(other.number("SELECT count(*) AS n FROM t").await, 111);
    assert_eq!(other.number("SELECT max(n) AS n FROM t").await, 210);
    let sound = "SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check = 'ok'";
    assert_eq!(other.number(sound).await, 1);
    core.stop().await;
}

// conformance: state-machine 13
#[tokio::test(start_paused = true)]
async fn snapshots_hold_shrunk_and_never_written_databases() {
    let disk = TestDisk::bootstrapped();
    let core = start(&disk, 1).await;
    let mut client = Client::open(&core, "test.db").await;
    Client::open(&core, "never.db").await;
    client.exec("CREATE TABLE t(b); INSERT INTO t VALUES(zeroblob(400000))").await.unwrap();
    client.exec("DELETE FROM t").await.unwrap();
    client.exec("VACUUM").await.unwrap();
    for _ in 0..80 {
        client.exec("INSERT INTO t VALUES(1)").await.unwrap();
    }
    core.stop().await;
    assert!(disk.lock().snapshot.is_some());

    let core = start(&disk, 2).await;
    let mut client = Client::open(&core, "test.db").await;
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 80);
    assert!(client.number("SELECT page_count AS n FROM pragma_page_count()").await < 5);
    let sound = "SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check = 'ok'";
    assert_eq!(client.number(sound).await, 1);
    core.stop().await;
}
