//! SQL that SQLite recurses over, at its own limits and ours: the threads of a node have the stack for it.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::time::Duration;

use dqlite_testing::bed;
use dqlite_testing::client::Client;
use dqlite_testing::process::NodeProcess;

const TIMEOUT: Duration = Duration::from_secs(60);

fn started() -> (tempfile::TempDir, NodeProcess, Client) {
    let folder = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&bed::options(folder.path())).unwrap();
    let mut client = Client::connect(&node.address, TIMEOUT).unwrap();
    client.open("test.db").unwrap();
    (folder, node, client)
}

#[test]
fn the_longest_patterns_are_answered() {
    let (_folder, mut node, mut client) = started();
    for (operator, sign) in [("LIKE", '%'), ("GLOB", '*')] {
        let text = "replace(hex(zeroblob(12600)), '0', 'a')";
        let pattern = format!("replace(hex(zeroblob(12500)), '0', '{sign}a')");
        assert_eq!(client.number(&format!("SELECT {text} {operator} {pattern} AS n")).unwrap(), 1);
    }
    assert!(node.stop().unwrap().success(), "{}", node.error_text());
}

#[test]
fn nested_views_are_answered_and_what_nests_too_deep_is_refused() {
    let (_folder, mut node, mut client) = started();
    client.exec("CREATE TABLE v0(a); INSERT INTO v0 VALUES(7)", &[]).unwrap();
    let deep = "||1".repeat(900);
    let mut refused = None;
    for first in (1..1000).step_by(50) {
        let mut sql = String::new();
        for number in first..first + 50 {
            write!(sql, "CREATE VIEW v{number} AS SELECT a FROM v{};", number - 1).unwrap();
        }
        client.exec(&sql, &[]).unwrap();
        assert_eq!(client.number(&format!("SELECT a FROM v{}", first + 49)).unwrap(), 7);
    }
    client.exec("CREATE VIEW d0 AS SELECT a FROM v0", &[]).unwrap();
    for number in 1..1000 {
        let below = number - 1;
        let sql = format!("CREATE VIEW d{number} AS SELECT (SELECT a FROM d{below}){deep} AS a");
        if let Err(error) = client.exec(&sql, &[]) {
            refused = Some((number, error));
            break;
        }
        // An answer, whatever it is.
        drop(client.query(&format!("SELECT a FROM d{number}"), &[]));
    }
    let (number, error) = refused.unwrap();
    assert!(number > 50 && error.code() == Some(1), "{number}: {error}");
    assert!(error.to_string().contains("too deep: "), "{error}");
    assert_eq!(client.number("SELECT count(*) AS n FROM v0").unwrap(), 1);
    assert!(node.stop().unwrap().success(), "{}", node.error_text());
}
