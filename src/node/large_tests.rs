//! What is deleted costs next to nothing in the log, and what stays in the pages of others is zeros.

use super::core_testing::{Client, start};
use crate::raft::testing::TestDisk;
use crate::types::PageNumber;
use crate::types::config::PAGE_SIZE;

/// So many rows of 1000 bytes that say what they are.
fn rows(table: &str, count: u32) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count})
         INSERT INTO {table} SELECT i, 'secret' || i || hex(zeroblob(490)) FROM n"
    )
}

/// Pages of the last entry.
fn pages_of_last(disk: &TestDisk) -> usize {
    disk.lock().entries.last().unwrap().data.len() / PAGE_SIZE
}

#[tokio::test(start_paused = true)]
async fn freed_pages_do_not_go_through_the_log() {
    let disk = TestDisk::bootstrapped();
    let core = start(&disk, 1).await;
    let mut client = Client::open(&core, "test").await;
    client
        .exec("CREATE TABLE t(i INTEGER PRIMARY KEY, b); CREATE TABLE u(i INTEGER PRIMARY KEY, b)")
        .await
        .unwrap();
    client.exec("CREATE TABLE v(i INTEGER PRIMARY KEY, b); CREATE INDEX w ON v(i)").await.unwrap();
    for table in ["t", "u", "v"] {
        client.exec(&rows(table, 4000)).await.unwrap();
        assert!(pages_of_last(&disk) > 1000);
    }

    for sql in ["DELETE FROM t", "DROP TABLE u", "DELETE FROM v WHERE i > 1"] {
        client.exec(sql).await.unwrap();
        let pages = pages_of_last(&disk);
        assert!(pages < 30, "{sql}: {pages} pages");
    }

    assert_eq!(client.number("SELECT count(*) AS n FROM v").await, 1);
    assert!(client.number("SELECT freelist_count AS n FROM pragma_freelist_count()").await > 3000);
    client.query("PRAGMA integrity_check").await.unwrap();
    client.exec("VACUUM").await.unwrap();
    assert!(client.number("SELECT page_count AS n FROM pragma_page_count()").await < 20);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_row_is_zeros_in_a_page_that_stays_and_a_client_may_have_more() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let store = core.executor().store().clone();
    let holds = |text: &[u8]| {
        let root = store.get(b"test").unwrap().committed().root;
        (1..=root.page_count()).any(|number| {
            let page = root.get(PageNumber(number)).unwrap();
            page.with(|bytes| bytes.windows(text.len()).any(|part| part == text)).unwrap()
        })
    };
    let mut client = Client::open(&core, "test").await;
    client.exec("CREATE TABLE t(i INTEGER PRIMARY KEY, b)").await.unwrap();
    client.exec(&rows("t", 40)).await.unwrap();
    assert!(holds(b"secret7") && holds(b"secret8"));

    client.exec("DELETE FROM t WHERE i = 7").await.unwrap();
    assert!(!holds(b"secret7") && holds(b"secret8"));
    client.exec("DROP TABLE t").await.unwrap();
    assert!(holds(b"secret8"), "freed pages are left as they are");

    client.exec("CREATE TABLE t(i INTEGER PRIMARY KEY, b)").await.unwrap();
    client.exec(&rows("t", 80)).await.unwrap();
    client.query("PRAGMA secure_delete = ON").await.unwrap();
    client.exec("DROP TABLE t").await.unwrap();
    assert!(!holds(b"secret8"));
    core.stop().await;
}
