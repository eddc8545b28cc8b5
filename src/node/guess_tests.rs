//! What is known of a statement before it runs is a guess, and must not change what it does.

use super::core_testing::{Client, start};
use crate::raft::testing::TestDisk;

/// SQLite declares the table of a function as if the schema were written.
#[tokio::test(start_paused = true)]
async fn a_statement_that_uses_a_table_of_a_function_first_is_no_change_of_the_schema() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    Client::open(&core, "test").await.exec("CREATE TABLE t(a UNIQUE)").await.unwrap();

    let mut fresh = Client::open(&core, "test").await;
    let returning = "INSERT INTO t SELECT value FROM json_each('[1,2]') RETURNING a";
    fresh.query(returning).await.unwrap();
    assert_eq!(fresh.number("SELECT count(*) AS n FROM t").await, 2);

    let mut fresh = Client::open(&core, "test").await;
    let failing = "INSERT OR FAIL INTO t SELECT value FROM json_each('[3,4,3,5]')";
    assert_eq!(fresh.exec(failing).await.unwrap_err().0, 2067);
    assert_eq!(fresh.number("SELECT count(*) AS n FROM t").await, 4, "what came before the failure stays");
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_write_the_database_is_done_beside_a_client_that_holds_the_turn() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut holder = Client::open(&core, "test").await;
    holder.exec("CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1)").await.unwrap();

    let mut other = Client::open(&core, "test").await;
    for sql in [
        "CREATE TABLE IF NOT EXISTS t(a)",
        "DROP TABLE IF EXISTS absent",
        "CREATE TEMP TABLE u AS SELECT value FROM json_each('[1,2]')",
        "INSERT INTO u VALUES(3)",
        "PRAGMA temp.user_version = 1",
    ] {
        other.exec(sql).await.unwrap_or_else(|refused| panic!("{sql}: {refused:?}"));
    }
    assert!(!other.query("EXPLAIN INSERT INTO t VALUES(2)").await.unwrap().is_empty());
    for sql in ["INSERT INTO t VALUES(2)", "CREATE TABLE v(a)", "BEGIN IMMEDIATE"] {
        assert_eq!(other.exec(sql).await.unwrap_err(), (5, "database is locked".to_owned()), "{sql}");
    }

    holder.exec("COMMIT").await.unwrap();
    other.exec("INSERT INTO t VALUES(2)").await.unwrap();
    assert_eq!(other.number("SELECT count(*) AS n FROM t").await, 2);
    core.stop().await;
}
