//! PREPARE, EXEC, EXEC_SQL, transactions and settings, in bytes. spec: client-protocol 7.1, 8, 9, 11.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::core::LiveSettings;
use super::core_testing::{Client, err, exec_sql, query_sql, start, start_with, word};
use crate::protocol::decode;
use crate::protocol::request::{Parameters, Request, Value};
use crate::raft::testing::TestDisk;

fn prepare(schema: u8, sql: &str) -> Request {
    Request::Prepare { schema, db: 0, sql: Bytes::copy_from_slice(sql.as_bytes()) }
}

fn exec(stmt: u32, values: &[Value]) -> Request {
    Request::Exec { db: 0, stmt, parameters: Parameters::encode(values) }
}

fn query(stmt: u32, values: &[Value]) -> Request {
    Request::Query { db: 0, stmt, parameters: Parameters::encode(values) }
}

fn finalize(stmt: u32) -> Request {
    Request::Finalize { db: 0, stmt }
}

/// The rows of a query whose answer is one message.
async fn rows(client: &mut Client, request: Request) -> Vec<Vec<Value>> {
    let (kind, body) = client.call(request).await;
    assert_eq!(kind, 7, "{}", String::from_utf8_lossy(&body));
    decode::rows(&body.into()).unwrap().rows
}

/// Prepares a statement, which gets this id.
async fn prepared(client: &mut Client, sql: &str, id: u32) {
    let (kind, body) = client.call(prepare(0, sql)).await;
    assert_eq!((kind, word(&body, 0)), (5, u64::from(id) << 32), "{}", String::from_utf8_lossy(&body));
}

fn one(text: &str) -> (u64, String) {
    (1, text.to_owned())
}

fn no_statement() -> (u64, String) {
    (12, "no statement with the given id".to_owned())
}

// conformance: client-protocol P1, P3, P4
#[tokio::test(start_paused = true)]
async fn prepare_counts_parameters_and_says_where_the_rest_begins() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;

    let (kind, body) = client.call(prepare(0, "SELECT :a, :b, :a, ?5 -- five")).await;
    assert_eq!((kind, body.len(), word(&body, 1)), (5, 16, 5));
    for (sql, tail) in
        [("SELECT 1", 8), ("SELECT 1;", 9), ("SELECT 1; SELECT 2", 9), (" SELECT 1 ; SELECT 2", 11)]
    {
        let (kind, body) = client.call(prepare(1, sql)).await;
        assert_eq!((kind, body.len(), word(&body, 1), word(&body, 2)), (5, 24, 0, tail), "{sql}");
    }
    for sql in ["", "  ", ";", "-- nothing", "/* nothing */"] {
        assert_eq!(client.refusal(prepare(0, sql)).await, (0, "empty statement".into()), "{sql}");
        assert_eq!(client.refusal(prepare(1, sql)).await, (0, "empty statement".into()), "{sql}");
    }
    for sql in ["SELECT 1; SELECT 2", "SELECT 1; no SQL"] {
        assert_eq!(client.refusal(prepare(0, sql)).await, one("nonempty statement tail"), "{sql}");
    }
    assert_eq!(client.call(prepare(0, "SELECT 1; /* and */ -- comments")).await.0, 5);
    core.stop().await;
}

// conformance: client-protocol P2, P6
// conformance: client-protocol X16 (better: upstream dies)
#[tokio::test(start_paused = true)]
async fn ids_of_statements_are_given_again_and_unknown_ones_are_refused() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    for id in 0..3 {
        prepared(&mut client, &format!("SELECT {id}"), id).await;
    }
    assert_eq!(client.refusal(prepare(0, "no SQL")).await.0, 1);
    prepared(&mut client, "SELECT 3", 3).await;

    assert_eq!(client.call(finalize(1)).await, (8, vec![0; 8]));
    for request in [exec(1, &[]), query(1, &[]), finalize(1), exec(4, &[]), query(4, &[]), finalize(4)] {
        assert_eq!(client.refusal(request.clone()).await, no_statement(), "{request:?}");
    }
    prepared(&mut client, "SELECT 10", 1).await;
    prepared(&mut client, "SELECT 4", 4).await;
    client.call(finalize(4)).await;
    assert_eq!(client.refusal(query(4, &[])).await, no_statement());
    assert_eq!(rows(&mut client, query(1, &[])).await, [[Value::Integer(10)]]);
    core.stop().await;
}

// conformance: client-protocol P7
#[tokio::test(start_paused = true)]
async fn errors_of_syntax_have_the_text_of_sqlite() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    for (sql, text) in [("FOO", "near \"FOO\": syntax error"), ("SELECT * FROM nope", "no such table: nope")]
    {
        for request in [prepare(0, sql), prepare(1, sql), exec_sql(sql), query_sql(sql)] {
            assert_eq!(client.refusal(request.clone()).await, one(text), "{request:?}");
        }
    }
    core.stop().await;
}

// conformance: client-protocol E2
// conformance: state-machine 19
#[tokio::test(start_paused = true)]
async fn the_last_of_several_statements_gives_the_result() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;

    let sql = "CREATE TABLE t(n); INSERT INTO t VALUES(1); INSERT INTO t VALUES(2),(3),(4) ;  -- blanks\n ";
    assert_eq!(client.exec(sql).await, Ok((4, 3)));
    assert_eq!(
        client.exec("INSERT INTO t VALUES(5); INSERT INTO nope VALUES(6)").await,
        err(1, "no such table: nope")
    );
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 5);
    core.stop().await;
}

// conformance: client-protocol E4, E8, Q7
#[tokio::test(start_paused = true)]
async fn every_type_of_parameter_arrives_and_none_stays() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    client.exec("CREATE TABLE t(a, b, c, d, e, f, g)").await.unwrap();
    prepared(&mut client, "INSERT INTO t VALUES(?, ?, ?, ?, ?, ?, ?)", 0).await;
    // INTEGER, FLOAT, TEXT, BLOB, NULL, ISO8601, BOOLEAN. spec: client-protocol 4.3
    let mut bytes = vec![7, 1, 2, 3, 4, 5, 10, 11];
    bytes.extend((-5i64).to_le_bytes());
    bytes.extend(0.5f64.to_bits().to_le_bytes());
    bytes.extend(b"text\0\0\0\0");
    bytes.extend([&2u64.to_le_bytes()[..], &[0, 255, 0, 0, 0, 0, 0, 0]].concat());
    bytes.extend([9; 8]);
    bytes.extend(b"2020-09-13\0\0\0\0\0\0");
    bytes.extend(5u64.to_le_bytes());
    let parameters = Parameters { schema: 0, bytes: bytes.into() };

    assert_eq!(client.call(Request::Exec { db: 0, stmt: 0, parameters }).await.0, 6);
    assert_eq!(client.call(exec(0, &[Value::Integer(1), Value::Blob(Bytes::new())])).await.0, 6);
    assert_eq!(client.call(exec(0, &[])).await.0, 6);

    let [all, two, none] = rows(&mut client, query_sql("SELECT * FROM t")).await.try_into().unwrap();
    let values = [
        Value::Integer(-5),
        Value::Float(0.5),
        Value::Text("text".into()),
        Value::Blob(Bytes::from_static(&[0, 255])),
        Value::Null,
        Value::Text("2020-09-13".into()),
        Value::Integer(1),
    ];
    assert_eq!(all, values);
    assert_eq!(two[..3], [Value::Integer(1), Value::Blob(Bytes::new()), Value::Null]);
    assert!(none.iter().all(|value| *value == Value::Null));
    core.stop().await;
}

// conformance: client-protocol E5
#[tokio::test(start_paused = true)]
async fn three_hundred_parameters_go_through_all_four_requests() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    client.exec("CREATE TABLE t(n)").await.unwrap();
    let marks = ["(?)"; 300].join(", ");
    let insert = format!("INSERT INTO t VALUES {marks}");
    let select = format!("SELECT sum(column1) FROM (VALUES {marks})");
    let values: Vec<Value> = (1..=300).map(Value::Integer).collect();
    let parameters = || Parameters::encode(&values);
    assert_eq!(parameters().schema, 1);
    prepared(&mut client, &insert, 0).await;
    prepared(&mut client, &select, 1).await;

    let sql = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    for request in [exec(0, &values), Request::ExecSql { db: 0, sql: sql(&insert), parameters: parameters() }]
    {
        let (kind, body) = client.call(request).await;
        assert_eq!((kind, word(&body, 1)), (6, 300));
    }
    for request in
        [query(1, &values), Request::QuerySql { db: 0, sql: sql(&select), parameters: parameters() }]
    {
        assert_eq!(rows(&mut client, request).await, [[Value::Integer(45150)]]);
    }
    assert_eq!(client.number("SELECT sum(n) AS n FROM t").await, 90300);
    core.stop().await;
}

// conformance: client-protocol E6, E7
// conformance: client-protocol X10 (better: upstream ignores it)
// conformance: client-protocol X12 (better: upstream takes it for some blob)
#[tokio::test(start_paused = true)]
async fn parameters_that_do_not_fit_are_refused_and_nothing_runs() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    client.exec("CREATE TABLE t(n)").await.unwrap();
    prepared(&mut client, "INSERT INTO t VALUES(?)", 0).await;
    let sql = Bytes::from_static(b"INSERT INTO t VALUES(?)");
    let unix_time = [&[1, 9, 0, 0, 0, 0, 0, 0][..], &[1; 8]].concat();
    let endless = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &[255; 8]].concat();
    let cut = [&[1, 1, 0, 0, 0, 0, 0, 0][..]].concat();
    let one_too_many = Parameters::encode(&[Value::Integer(1), Value::Integer(2)]).bytes.to_vec();

    for bytes in [unix_time, endless, cut, one_too_many] {
        let parameters = Parameters { schema: 0, bytes: bytes.into() };
        for request in [
            Request::Exec { db: 0, stmt: 0, parameters: parameters.clone() },
            Request::Query { db: 0, stmt: 0, parameters: parameters.clone() },
            Request::ExecSql { db: 0, sql: sql.clone(), parameters: parameters.clone() },
            Request::QuerySql { db: 0, sql: sql.clone(), parameters: parameters.clone() },
        ] {
            assert_eq!(client.refusal(request.clone()).await, one("bind parameters"), "{request:?}");
        }
    }
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 0);
    core.stop().await;
}

// conformance: client-protocol E9
#[tokio::test(start_paused = true)]
async fn exec_takes_a_query_without_rows_and_refuses_rows() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    prepared(&mut client, "SELECT 1 WHERE ?", 0).await;
    let rows = one("rows yielded when none expected for EXEC request");

    assert_eq!(client.refusal(exec_sql("SELECT 1")).await, rows);
    assert_eq!(client.refusal(exec(0, &[Value::Integer(1)])).await, rows);
    assert_eq!(client.call(exec_sql("SELECT 1 WHERE 0")).await.0, 6);
    assert_eq!(client.call(exec(0, &[Value::Integer(0)])).await.0, 6);
    core.stop().await;
}

// conformance: client-protocol E10, E11
// conformance: state-machine 19
#[tokio::test(start_paused = true)]
async fn constraints_have_their_extended_code_and_text() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    client
        .exec(
            "CREATE TABLE t(n UNIQUE, m NOT NULL); CREATE TABLE c(id REFERENCES p(id)); CREATE TABLE p(id PRIMARY KEY);
             CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.n = 9 BEGIN SELECT RAISE(ABORT, 'not nine'); END;
             INSERT INTO t VALUES(1, 1)",
        )
        .await
        .unwrap();
    for (sql, code, text) in [
        ("INSERT INTO t VALUES(1, 1)", 2067, "UNIQUE constraint failed: t.n"),
        ("INSERT INTO p VALUES(1), (1)", 1555, "UNIQUE constraint failed: p.id"),
        ("INSERT INTO t VALUES(2, NULL)", 1299, "NOT NULL constraint failed: t.m"),
        ("INSERT INTO c VALUES(7)", 787, "FOREIGN KEY constraint failed"),
        ("INSERT INTO t VALUES(9, 9)", 1811, "not nine"),
    ] {
        for request in [exec_sql(sql), query_sql(sql)] {
            assert_eq!(client.refusal(request.clone()).await, (code, text.into()), "{request:?}");
        }
    }
    core.stop().await;
}

// conformance: client-protocol T3
// conformance: client-protocol X4 (better: upstream answers 1 `nonempty statement tail`)
#[tokio::test(start_paused = true)]
async fn whoever_writes_while_a_transaction_is_open_gets_5() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut holder = Client::open(&core, "test").await;
    let mut other = Client::open(&core, "test").await;
    holder.exec("CREATE TABLE t(n)").await.unwrap();
    prepared(&mut other, "INSERT INTO t VALUES(2)", 0).await;
    holder.exec("BEGIN; INSERT INTO t VALUES(1)").await.unwrap();

    for request in [
        exec_sql("INSERT INTO t VALUES(2)"),
        query_sql("INSERT INTO t VALUES(2)"),
        exec_sql("BEGIN IMMEDIATE"),
        exec_sql("BEGIN EXCLUSIVE"),
        exec(0, &[]),
        query(0, &[]),
    ] {
        assert_eq!(other.refusal(request.clone()).await, (5, "database is locked".into()), "{request:?}");
    }
    assert!(other.exec("BEGIN").await.is_ok());
    assert_eq!(other.number("SELECT count(*) AS n FROM t").await, 0);
    holder.exec("COMMIT").await.unwrap();
    core.stop().await;
}

// conformance: client-protocol K18
#[tokio::test(start_paused = true)]
async fn writers_wait_for_an_open_transaction_as_long_as_the_busy_timeout_says() {
    let live = LiveSettings::default();
    live.busy_timeout_ms.store(700, Ordering::Relaxed);
    let core = start_with(&TestDisk::bootstrapped(), 1, live).await;
    let mut holder = Client::open(&core, "test").await;
    holder.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, n)").await.unwrap();
    let mut waiting = Vec::new();
    holder.exec("BEGIN IMMEDIATE").await.unwrap();
    for n in 0..5 {
        let mut client = Client::open(&core, "test").await;
        let since = tokio::time::Instant::now();
        client.send(exec_sql(&format!("INSERT INTO t(n) VALUES({n})"))).await;
        // In the order of their numbers.
        tokio::time::sleep(Duration::from_millis(1)).await;
        waiting.push((client, since));
    }

    tokio::time::sleep(Duration::from_millis(300)).await;
    holder.exec("COMMIT").await.unwrap();
    for (client, since) in &mut waiting {
        assert_eq!(client.receive().await.0, 6);
        assert!(since.elapsed() < Duration::from_millis(400), "{:?}", since.elapsed());
    }
    let order = rows(&mut holder, query_sql("SELECT n FROM t ORDER BY id")).await;
    assert_eq!(order, (0..5).map(|n| vec![Value::Integer(n)]).collect::<Vec<_>>());

    holder.exec("BEGIN IMMEDIATE").await.unwrap();
    let since = tokio::time::Instant::now();
    let locked = waiting[0].0.refusal(exec_sql("INSERT INTO t(n) VALUES(9)")).await;
    assert_eq!(locked, (5, "database is locked".into()));
    let waited = since.elapsed().as_millis();
    assert!((700..750).contains(&waited), "{waited}");
    core.stop().await;
}

// conformance: client-protocol S1, S2, S3, S4
// conformance: state-machine 15
#[tokio::test(start_paused = true)]
async fn settings_that_would_harm_are_refused_and_those_of_hosts_are_not() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    let mut other = Client::open(&core, "test").await;
    for sql in [
        "ATTACH 'x' AS x",
        "PRAGMA journal_mode = delete",
        "PRAGMA journal_mode = wal",
        "PRAGMA wal_checkpoint",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ] {
        assert_eq!(client.exec(sql).await, err(23, "not authorized"), "{sql}");
    }
    assert_eq!(rows(&mut client, query_sql("PRAGMA journal_mode")).await, [[Value::Text("wal".into())]]);

    for sql in [
        "PRAGMA cache_size=-50000",
        "PRAGMA cache_spill=0",
        "PRAGMA cache_spill=1",
        "PRAGMA ignore_check_constraints=on",
        "PRAGMA ignore_check_constraints=off",
        "PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON; CREATE TABLE t(n); PRAGMA foreign_keys = ON; \
         PRAGMA legacy_alter_table = OFF",
    ] {
        assert!(client.exec(sql).await.is_ok(), "{sql}");
    }

    client.exec("CREATE TEMP TABLE own(n); INSERT INTO own VALUES(1)").await.unwrap();
    assert_eq!(client.number("SELECT n FROM own").await, 1);
    assert_eq!(other.exec("INSERT INTO own VALUES(2)").await, err(1, "no such table: own"));
    core.stop().await;
}

// conformance: client-protocol K20, K21
#[tokio::test(start_paused = true)]
async fn a_database_is_vacuumed_and_deleted_but_never_written_elsewhere() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    let mut other = Client::open(&core, "test").await;
    client.exec("CREATE TABLE t(b); INSERT INTO t VALUES(zeroblob(100000)); DELETE FROM t").await.unwrap();
    client.exec("VACUUM").await.unwrap();
    assert_eq!(client.number("SELECT page_count AS n FROM pragma_page_count()").await, 2);
    assert_eq!(client.exec("VACUUM INTO 'copy'").await.unwrap_err().0, 23);

    let outside =
        "PRAGMA delete_database must be run in a write transaction. Use BEGIN IMMEDIATE to start one.";
    assert_eq!(client.exec("PRAGMA delete_database").await, err(1, outside));
    client.exec("BEGIN IMMEDIATE").await.unwrap();
    client.exec("PRAGMA delete_database").await.unwrap();
    client.exec("COMMIT").await.unwrap();

    assert_eq!(other.exec("INSERT INTO t VALUES(1)").await, err(1, "no such table: t"));
    assert_eq!(other.number("SELECT page_count AS n FROM pragma_page_count()").await, 1);
    drop((client, other));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut last = Client::connect(&core).await;
    let dump = last.refusal(Request::Dump { name: Bytes::from_static(b"test") }).await;
    assert_eq!(dump, (1002, "database does not exists".into()));
    core.stop().await;
}
