//! Connections, messages, requests about the cluster, and databases, in bytes. spec: client-protocol 2, 3, 5, 11, 12.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::core::Core;
use super::core_testing::{Client, err, exec_sql, failure, message, open, query_sql, start, word};
use crate::peers::link::connect_bytes;
use crate::peers::message::{AppendEntries, Message};
use crate::protocol::decode;
use crate::protocol::request::{Request, Value};
use crate::raft::testing::TestDisk;
use crate::types::{LogIndex, NodeId, Term};

/// Id and address in a SERVER message. spec: client-protocol 6.
const SERVER: &[u8] = b"\x01\0\0\0\0\0\0\x00127.0.0.1:9001\0\0";

/// A connection without a handshake.
async fn raw(core: &Core, bytes: &[u8]) -> Client {
    let (client, server) = tokio::io::duplex(1 << 20);
    core.serve(tokio::io::split(server));
    let mut client = Client(client);
    client.0.write_all(bytes).await.unwrap();
    client
}

async fn send(client: &mut Client, bytes: &[u8]) -> (u8, Vec<u8>) {
    client.0.write_all(bytes).await.unwrap();
    client.receive().await
}

fn leader() -> Vec<u8> {
    Request::Leader.encode().unwrap()
}

// conformance: client-protocol H1, H2, H3, H4
#[tokio::test(start_paused = true)]
async fn the_first_word_is_the_version_of_the_protocol() {
    let core = start(&TestDisk::bootstrapped(), 1).await;

    let mut current = raw(&core, &[&1u64.to_le_bytes()[..], &leader()].concat()).await;
    assert_eq!(current.receive().await, (1, SERVER.to_vec()));
    let mut old = raw(&core, &[&0x8610_4dd7_6043_3fe5_u64.to_le_bytes()[..], &leader()].concat()).await;
    assert_eq!(old.receive().await, (1, SERVER[8..].to_vec()));
    let mut unknown = raw(&core, &2u64.to_le_bytes()).await;
    assert!(unknown.is_closed().await);
    core.stop().await;
}

// conformance: client-protocol H5, K1, K2
#[tokio::test(start_paused = true)]
async fn a_slow_client_is_waited_for() {
    let core = start(&TestDisk::bootstrapped(), 1).await;

    let mut client = raw(&core, &[1, 0, 0, 0]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.0.write_all(&[0; 4]).await.unwrap();
    for byte in leader() {
        client.0.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(client.receive().await, (1, SERVER.to_vec()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(client.call(Request::Leader).await, (1, SERVER.to_vec()));
    core.stop().await;
}

// conformance: client-protocol M1, M2, M3, M4
#[tokio::test(start_paused = true)]
async fn unknown_types_and_schemas_are_refused_and_the_connection_goes_on() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    let mut refused = async |kind: u8, schema: u8| {
        let (answer, body) = send(&mut client, &message(kind, schema, &[0; 16])).await;
        failure(answer, &body)
    };

    for unknown in [2, 20, 99, 255] {
        assert_eq!(refused(unknown, 0).await, (1005, "unrecognized request type".into()), "{unknown}");
    }
    for kind in [0, 1, 3, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19] {
        assert_eq!(refused(kind, 1).await, (1005, "unrecognized schema version".into()), "{kind}");
    }
    for kind in [4, 5, 6, 8, 9] {
        assert_eq!(refused(kind, 2).await, (1, "unrecognized schema version".into()), "{kind}");
    }
    assert_eq!(client.number("SELECT 5 AS n").await, 5);
    core.stop().await;
}

// conformance: client-protocol M5, M6
// conformance: client-protocol X1 (better: upstream aborts or never reads again)
#[tokio::test(start_paused = true)]
async fn what_does_not_decode_closes_the_connection() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    for bytes in [
        message(3, 0, b"test\0\0\0\0"),
        message(12, 0, &[1, 0, 0, 0, 0, 0, 0, 0]),
        message(8, 0, b"\0\0\0\0\0\0\0\0SELECT 1"),
        message(15, 0, b"eightchr"),
        message(11, 0, &[1, 0, 0, 0, 0, 0, 0, 0]),
        message(0, 0, &[]),
    ] {
        let mut client = Client::connect(&core).await;
        client.0.write_all(&bytes).await.unwrap();
        assert!(client.is_closed().await, "{bytes:?}");
    }
    let mut other = Client::connect(&core).await;
    assert_eq!(other.call(Request::Leader).await.0, 1);
    core.stop().await;
}

// conformance: client-protocol M7, M8, M9
#[tokio::test(start_paused = true)]
async fn what_nobody_needs_is_ignored_and_never_sent() {
    use tokio::io::AsyncReadExt;
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;

    let mut extra = leader();
    extra[6..8].copy_from_slice(&[0xef, 0xbe]);
    assert_eq!(send(&mut client, &extra).await, (1, SERVER.to_vec()));
    assert_eq!(send(&mut client, &message(0, 0, &[7; 24])).await, (1, SERVER.to_vec()));
    for request in [
        Request::Leader,
        Request::Client { id: 1 },
        Request::Cluster { format: 1 },
        Request::Describe { format: 0 },
        Request::Interrupt { db: 0 },
        exec_sql("CREATE TABLE t(n)"),
        exec_sql("CREATE TABLE t(n)"),
        query_sql("SELECT 1"),
        Request::Prepare { schema: 0, db: 0, sql: Bytes::from_static(b"SELECT 1") },
        Request::Dump { name: Bytes::from_static(b"test") },
    ] {
        client.send(request.clone()).await;
        let mut header = [0; 8];
        client.0.read_exact(&mut header).await.unwrap();
        assert_eq!(header[5..], [0, 0, 0], "{request:?}");
        let words = u32::from_le_bytes(header[..4].try_into().unwrap());
        client.0.read_exact(&mut vec![0; words as usize * 8]).await.unwrap();
    }
    core.stop().await;
}

// conformance: client-protocol X17 (better: upstream makes room for it, or spins for ever)
#[tokio::test(start_paused = true)]
async fn a_header_that_announces_gigabytes_holds_up_nobody() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    for words in [0x0fff_ffff_u32, 0x1000_0000, 0x1000_0001, 0x2000_0001, u32::MAX] {
        let mut greedy = Client::connect(&core).await;
        greedy.0.write_all(&[&words.to_le_bytes()[..], &[8, 0, 0, 0]].concat()).await.unwrap();
        let mut other = Client::connect(&core).await;
        assert_eq!(other.call(Request::Leader).await.0, 1, "{words:#x}");
        assert!(greedy.is_closed().await, "{words:#x}");
    }
    core.stop().await;
}

// conformance: client-protocol X15
#[tokio::test(start_paused = true)]
async fn a_client_that_sends_no_more_still_gets_its_answers() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    client.send(exec_sql("CREATE TABLE t(n); INSERT INTO t VALUES(1)")).await;
    client.send(query_sql("SELECT n FROM t")).await;
    client.0.shutdown().await.unwrap();

    assert_eq!(client.receive().await.0, 6);
    assert_eq!(client.receive().await.0, 7);
    assert!(client.is_closed().await);
    core.stop().await;
}

// conformance: client-protocol L1
#[tokio::test(start_paused = true)]
async fn a_blob_and_a_text_of_a_mebibyte_come_back() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    client.exec("CREATE TABLE t(b, s)").await.unwrap();
    let blob: Vec<u8> = (0..1 << 20).map(|at| (at * 7 % 251) as u8).collect();
    let values = [Value::Blob(blob.into()), Value::Text("x".repeat(1 << 20).into())];

    client.exec_with("INSERT INTO t VALUES(?, ?)", &values).await.unwrap();

    let bodies = client.query("SELECT b, s FROM t").await.unwrap();
    let rows: Vec<Vec<Value>> =
        bodies.into_iter().flat_map(|body| decode::rows(&body.into()).unwrap().rows).collect();
    assert!(rows == [values]);
    core.stop().await;
}

// conformance: client-protocol C1, C2, C3, C4
#[tokio::test(start_paused = true)]
async fn a_node_describes_itself_and_its_cluster() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::connect(&core).await;

    assert_eq!(client.call(Request::Client { id: 9 }).await, (2, 15000u64.to_le_bytes().to_vec()));
    let one = 1u64.to_le_bytes();
    let without_role = [&one[..], SERVER].concat();
    assert_eq!(client.call(Request::Cluster { format: 0 }).await, (3, without_role.clone()));
    let with_role = [&without_role[..], &[0; 8]].concat();
    assert_eq!(client.call(Request::Cluster { format: 1 }).await, (3, with_role));
    let format = client.refusal(Request::Cluster { format: 2 }).await;
    assert_eq!(format, (1005, "unrecognized cluster format".into()));
    assert_eq!(client.call(Request::Weight { weight: 7 }).await, (8, vec![0; 8]));
    let mut other = Client::connect(&core).await;
    assert_eq!(word(&other.call(Request::Describe { format: 0 }).await.1, 1), 7);
    core.stop().await;
}

// conformance: client-protocol C5, C6, C7, K4
// conformance: client-protocol X7 (better: upstream aborts behind the failure)
// conformance: client-protocol X8 (better: upstream aborts)
#[tokio::test(start_paused = true)]
async fn changes_of_the_cluster_that_make_no_sense_are_refused() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::connect(&core).await;
    let add = |id, address| Request::Add { id, address: Bytes::from_static(address) };
    let one = |text: &str| (1, text.to_owned());

    for (request, refusal) in [
        (add(1, b"127.0.0.1:9002"), one("server ID already in use")),
        (add(2, b"127.0.0.1:9001"), one("server address already in use")),
        (add(0, b"127.0.0.1:9002"), one("server ID is not valid")),
        (Request::Assign { id: 99, role: 0 }, one("Resource not found")),
        (Request::Promote { id: 99 }, one("Resource not found")),
        (Request::Assign { id: 1, role: 0 }, one("server role is not valid")),
        (Request::Promote { id: 1 }, one("server role is not valid")),
        (Request::Remove { id: 99 }, one("server ID is not valid")),
        (Request::Transfer { id: 99 }, one("server ID is not valid")),
        (Request::Transfer { id: 1 }, one("server ID is not valid")),
        (Request::Transfer { id: 0 }, one("Resource not found")),
        (Request::Describe { format: 1 }, (15, "bad format version".into())),
    ] {
        assert_eq!(client.refusal(request.clone()).await, refusal, "{request:?}");
        assert_eq!(client.call(Request::Leader).await, (1, SERVER.to_vec()), "{request:?}");
    }
    core.stop().await;
}

// conformance: client-protocol K7, K8
#[tokio::test(start_paused = true)]
async fn a_node_that_was_never_added_knows_nobody() {
    let core = start(&TestDisk::default(), 1).await;
    let mut client = Client::connect(&core).await;

    assert_eq!(client.call(Request::Leader).await, (1, vec![0; 16]));
    assert_eq!(client.call(Request::Cluster { format: 1 }).await, (3, vec![0; 8]));
    assert_eq!(client.refusal(open("test")).await, (10250, "not leader".into()));
    core.stop().await;
}

// conformance: client-protocol O1, O2, O3, O4
#[tokio::test(start_paused = true)]
async fn a_connection_has_one_database() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::connect(&core).await;
    let none = (12, "no database opened".to_owned());
    let prepare = |db| Request::Prepare { schema: 0, db, sql: Bytes::from_static(b"SELECT 1") };
    let exec = |db| Request::Exec { db, stmt: 0, parameters: Default::default() };

    for request in [exec_sql("SELECT 1"), query_sql("SELECT 1"), prepare(0), exec(0)] {
        assert_eq!(client.refusal(request).await, none);
    }
    assert_eq!(client.call(open("one")).await, (4, vec![0; 8]));
    let second = (5, "a database for this connection is already open".to_owned());
    assert_eq!(client.refusal(open("two")).await, second);
    for request in [prepare(1), prepare(1 << 32), exec(1), Request::Finalize { db: 1, stmt: 0 }] {
        assert_eq!(client.refusal(request).await, none);
    }
    client.exec("CREATE TABLE t(n)").await.unwrap();

    let mut other = Client::open(&core, "two").await;
    assert_eq!(other.exec("INSERT INTO t VALUES(1)").await, err(1, "no such table: t"));
    other.exec("BEGIN IMMEDIATE").await.unwrap();
    client.exec("INSERT INTO t VALUES(1)").await.unwrap();
    core.stop().await;
}

// conformance: client-protocol O5
#[tokio::test(start_paused = true)]
async fn a_database_has_the_settings_that_clients_expect() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    for (pragma, value) in [
        ("page_size", Value::Integer(4096)),
        ("journal_mode", Value::Text("wal".into())),
        ("synchronous", Value::Integer(0)),
        ("foreign_keys", Value::Integer(1)),
    ] {
        let body = client.query(&format!("PRAGMA {pragma}")).await.unwrap().remove(0);
        assert_eq!(decode::rows(&body.into()).unwrap().rows, [[value]], "{pragma}");
    }
    core.stop().await;
}

// conformance: client-protocol K16
// conformance: client-protocol X13 (better: upstream dies at the first statement, or closes the connection)
#[tokio::test(start_paused = true)]
async fn names_of_databases_are_bytes_and_those_that_mean_more_are_refused() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let long = vec![b'n'; 504];
    let names: [&[u8]; 7] = [b"a/b.db", b"/abs.db", b"a b", b"\xff\xfe.db", b"a.db", b"A.db", &long];
    for name in names {
        let mut client = Client::connect(&core).await;
        assert_eq!(client.call(open(name)).await.0, 4, "{name:?}");
        client.exec("CREATE TABLE t(n)").await.unwrap();
    }
    let longer = vec![b'n'; 505];
    for name in [&b""[..], b":memory:", &longer] {
        let mut client = Client::connect(&core).await;
        assert_eq!(client.refusal(open(name)).await, (14, "unable to open database file".into()), "{name:?}");
        assert_eq!(client.call(Request::Leader).await.0, 1);
    }
    assert_eq!(core.engine().id(), NodeId(1));
    core.stop().await;
}

// conformance: raft-wire 2, 3, 4
#[tokio::test(start_paused = true)]
async fn a_raft_connection_begins_behind_either_handshake_and_with_the_next_byte() {
    use tokio::io::AsyncReadExt;
    // Its term is taken up whoever sends it; a vote of a stranger is refused.
    let request = AppendEntries {
        term: Term(7),
        previous_index: LogIndex(9),
        previous_term: Term(6),
        commit: LogIndex::NONE,
        entries: Vec::new(),
    };
    let connect = connect_bytes(NodeId(77), b"elsewhere");
    let message = Message::AppendEntries(request).encode();
    for version in [1, 0x8610_4dd7_6043_3fe5_u64] {
        let core = start(&TestDisk::bootstrapped(), 1).await;
        let one = [&version.to_le_bytes()[..], &connect[8..], &message].concat();

        let mut peer = raw(&core, &one).await;

        let noticed = async {
            while core.engine().current_term() < Term(7) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), noticed).await.expect("the message is read");
        let written = tokio::time::timeout(Duration::from_secs(60), peer.0.read_u8()).await;
        assert!(written.is_err(), "nothing is written back, and the connection stays: {written:?}");
        core.stop().await;
    }
}
