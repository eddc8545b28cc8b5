//! Queries and DUMP, in bytes. spec: client-protocol 4.5, 7.3, 8.4, 8.5, 13.

use bytes::Bytes;

use super::core_testing::{Client, err, exec_sql, failure, query_sql, start};
use crate::protocol::decode;
use crate::protocol::request::{Request, Value};
use crate::protocol::rows::Marker;
use crate::raft::testing::TestDisk;

/// A query of the numbers from 1 to `last`.
fn numbers(last: u64) -> String {
    format!(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {last}) SELECT n FROM c"
    )
}

/// The rows of a query in any number of messages: all but the last say that more comes, and none is without rows but an only one.
async fn rows(client: &mut Client, sql: &str) -> (Vec<Bytes>, Vec<Vec<Value>>, usize) {
    let bodies = client.query(sql).await.unwrap();
    let count = bodies.len();
    let (mut names, mut rows) = (Vec::new(), Vec::new());
    for (at, body) in bodies.into_iter().enumerate() {
        let part = decode::rows(&body.into()).unwrap();
        assert_eq!(part.marker, if at + 1 < count { Marker::Part } else { Marker::Done }, "{at} of {count}");
        assert!(at == 0 || part.columns == names, "{:?}", part.columns);
        assert!(at + 1 == count || !part.rows.is_empty(), "{at} of {count} is without rows");
        names = part.columns;
        rows.extend(part.rows);
    }
    (names, rows, count)
}

// conformance: client-protocol Q2, Q2b (better: later messages have 64 KiB)
#[tokio::test(start_paused = true)]
async fn rows_come_whole_and_in_order_in_any_number_of_messages() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    for last in [1, 253, 254, 255, 256, 10_000, 100_000] {
        let (names, rows, count) = rows(&mut client, &numbers(last)).await;

        assert_eq!(names, ["n"]);
        assert_eq!(rows.len() as u64, last);
        assert!(rows.iter().zip(1..).all(|(row, number)| *row == [Value::Integer(number)]));
        assert!(last < 10_000 || count > 1, "{count} messages for {last} rows");
    }
    core.stop().await;
}

// conformance: client-protocol X6 (better: upstream sends messages without rows for ever)
#[tokio::test(start_paused = true)]
async fn names_longer_than_a_page_do_not_stop_the_rows() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    for length in [4096, 100_000] {
        let name = "x".repeat(length);
        let sql = format!("SELECT n AS \"{name}\" FROM ({})", numbers(3));
        let (names, rows, _) = rows(&mut client, &sql).await;
        assert_eq!((names[0].len(), rows.len()), (length, 3));
    }
    core.stop().await;
}

// conformance: client-protocol Q3, Q4
#[tokio::test(start_paused = true)]
async fn a_query_without_rows_is_one_message_and_seventeen_columns_have_two_words_of_types() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;

    let empty = client.query("SELECT 1 AS a, 2 AS b WHERE 0").await.unwrap();
    assert_eq!(
        empty,
        [[&[2, 0, 0, 0, 0, 0, 0, 0][..], b"a\0\0\0\0\0\0\0b\0\0\0\0\0\0\0", &[255; 8]].concat()]
    );
    let columns: Vec<String> = (1..=17).map(|n| n.to_string()).collect();
    let body = client.query(&format!("SELECT {}", columns.join(", "))).await.unwrap().remove(0);
    // Column count and names, then the types: sixteen codes in a word, one in the next.
    let types = 8 + 17 * 8;
    assert_eq!(body[types..types + 16], [[0x11; 8], [1, 0, 0, 0, 0, 0, 0, 0]].concat());
    let row = decode::rows(&body.into()).unwrap().rows.remove(0);
    assert_eq!(row, (1..=17).map(Value::Integer).collect::<Vec<_>>());
    core.stop().await;
}

// conformance: client-protocol Q1
// conformance: client-protocol X5 (better: upstream aborts)
#[tokio::test(start_paused = true)]
async fn columns_of_dates_and_booleans_have_their_own_types() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    client.exec("CREATE TABLE t(d DATETIME, b BOOLEAN)").await.unwrap();
    for (date, boolean, types) in [
        ("1600000000", "1", 0xb9),
        ("'2020-09-13'", "0", 0xba),
        ("NULL", "NULL", 0xba),
        ("0.5", "0.5", 0x22),
        ("x'00'", "'text'", 0x34),
        ("x'00'", "x'00'", 0x44),
    ] {
        client.exec(&format!("DELETE FROM t; INSERT INTO t VALUES({date}, {boolean})")).await.unwrap();
        let body = client.query("SELECT d, b FROM t").await.unwrap().remove(0);
        assert_eq!(body[24], types, "{date} {boolean}: {:#x}", body[24]);
    }
    let expressions =
        client.query("SELECT d || '', CAST(b AS BOOLEAN), max(d) FROM t").await.unwrap().remove(0);
    let row = decode::rows(&expressions.into()).unwrap().rows.remove(0);
    assert!(matches!(row[2], Value::Blob(_)), "{row:?}");
    core.stop().await;
}

// conformance: client-protocol Q5, Q6
#[tokio::test(start_paused = true)]
async fn one_interrupt_gets_one_answer_and_leaves_the_connection_as_it_was() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut idle = Client::connect(&core).await;
    assert_eq!(idle.call(Request::Interrupt { db: 0 }).await, (8, vec![0; 8]));

    let mut client = Client::open(&core, "test").await;
    for last in [2_000, u64::MAX / 4] {
        client.send(query_sql(&numbers(last))).await;
        let (kind, body) = client.receive().await;
        assert_eq!((kind, body.last()), (7, Some(&0xee)));
        client.send(Request::Interrupt { db: 0 }).await;
        loop {
            match client.receive().await {
                (7, _) => {}
                (kind, body) => break assert_eq!((kind, body), (8, vec![0; 8])),
            }
        }
        assert_eq!(client.call(Request::Client { id: 1 }).await.0, 2);
        assert_eq!(client.number("SELECT 5 AS n").await, 5);
    }
    core.stop().await;
}

// conformance: client-protocol Q8, Q9
// conformance: state-machine 18
#[tokio::test(start_paused = true)]
async fn whatever_writes_may_be_sent_as_a_query() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    let mut other = Client::open(&core, "test").await;
    let nothing = [[&[0; 8][..], &[255; 8]].concat()];
    for sql in [
        "CREATE TABLE t(n)",
        "INSERT INTO t VALUES(1)",
        "BEGIN",
        "UPDATE t SET n = 2",
        "COMMIT",
        "PRAGMA user_version = 3",
    ] {
        assert_eq!(client.query(sql).await.unwrap(), nothing, "{sql}");
    }
    assert_eq!(other.number("SELECT n FROM t").await, 2);
    assert_eq!(other.number("SELECT user_version AS n FROM pragma_user_version()").await, 3);

    let (_, returned, _) = rows(&mut client, &format!("INSERT INTO t {} RETURNING n", numbers(5_000))).await;
    assert_eq!(returned.len(), 5_000);
    assert_eq!(other.number("SELECT count(*) AS n FROM t").await, 5_001);
    core.stop().await;
}

// conformance: client-protocol X2, X3, K17 (better: upstream's failure begins with the rows before it)
#[tokio::test(start_paused = true)]
async fn a_failure_among_rows_begins_with_its_code() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    let fails_at = |row: u64| {
        format!(
            "SELECT CASE WHEN n = {row} THEN abs(-9223372036854775807 - 1) ELSE n END AS foo FROM ({})",
            numbers(1_000_000)
        )
    };
    for (row, frames) in [(1, 0), (2, 0), (200, 0), (300, 1), (100_000, 2)] {
        client.send(query_sql(&fails_at(row))).await;
        let mut before = 0;
        let refusal = loop {
            match client.receive().await {
                (7, body) => before += usize::from(body.last() == Some(&0xee)),
                (kind, body) => break failure(kind, &body),
            }
        };
        assert_eq!(refusal, (1, "integer overflow".into()), "row {row}");
        assert!(
            if frames < 2 { before == frames } else { before > 1 },
            "row {row}: {before} messages of rows"
        );
    }
    client.exec("CREATE TABLE t(n UNIQUE); INSERT INTO t VALUES(1)").await.unwrap();
    assert_eq!(client.query("INSERT INTO t VALUES(1)").await, err(2067, "UNIQUE constraint failed: t.n"));
    core.stop().await;
}

// conformance: client-protocol D2, K22
#[tokio::test(start_paused = true)]
async fn a_dump_is_the_committed_state_whatever_is_open() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut writer = Client::open(&core, "test").await;
    let mut other = Client::connect(&core).await;
    let dump = |name: &'static str| Request::Dump { name: Bytes::from_static(name.as_bytes()) };
    writer.exec("CREATE TABLE t(n)").await.unwrap();
    let (kind, committed) = other.call(dump("test")).await;
    assert_eq!(kind, 9);

    writer.exec("BEGIN; INSERT INTO t VALUES(1); CREATE TABLE u(n)").await.unwrap();
    assert!(other.call(dump("test")).await == (9, committed.clone()));
    writer.send(exec_sql("COMMIT")).await;
    assert_eq!(writer.receive().await.0, 6);

    let (_, after) = other.call(dump("test")).await;
    let files = decode::files(&after.clone().into()).unwrap();
    assert_eq!((&files[0].name[..], files[0].content.len()), (&b"test"[..], 3 * 4096));
    assert_eq!((&files[1].name[..], files[1].content.len()), (&b"test-wal"[..], 0));
    assert!(after != committed);
    assert_eq!(other.refusal(dump("nothing")).await, (1002, "database does not exists".into()));
    core.stop().await;
}
