//! The client against scripted nodes, with the bytes of spec: client-protocol 18.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::testing::{Reply, ScriptedNodes, pipe};
use super::{Client, ClientError, Description, Problem};
use crate::protocol::request::Request;
use crate::protocol::response;
use crate::types::{Configuration, NodeId, Role, Server, config};

const ADDRESS: &[u8] = b"127.0.0.1:29300";

fn golden(example: u32, direction: &str) -> Vec<u8> {
    let start = format!("{example} {direction} ");
    let line = include_str!("../protocol/golden.txt").lines().find(|line| line.starts_with(&start)).unwrap();
    let hex = line.split(' ').nth(2).unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A client whose first request must be that of the example, and which is answered as there.
fn example(number: u32) -> Client {
    let (stream, mut other) = pipe();
    tokio::spawn(async move {
        let wanted = [vec![1, 0, 0, 0, 0, 0, 0, 0], golden(number, "request")].concat();
        let mut asked = vec![0; wanted.len()];
        other.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, wanted, "example {number}");
        other.write_all(&golden(number, "response")).await.unwrap();
        // The connection stays open: the client must not wait for its end.
        other.read_u8().await.unwrap_err();
    });
    Client::over(stream, ADDRESS)
}

fn failure<T>(result: Result<T, ClientError>) -> (u64, String) {
    match result.err().map(|error| error.problem) {
        Some(Problem::Failure { code, message }) => (code, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn requests_and_answers_have_the_specified_bytes() {
    let server = Server { id: NodeId(1), address: ADDRESS.to_vec(), role: Role::Voter };

    assert_eq!(example(1).leader().await.unwrap(), Some((NodeId(1), ADDRESS.to_vec())));
    assert_eq!(example(16).cluster().await.unwrap(), [server]);
    assert_eq!(example(18).describe().await.unwrap(), Description { failure_domain: 42, weight: 0 });
    example(19).weight(5).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refusals_come_with_code_and_text() {
    let in_use = failure(example(21).add(NodeId(1), b"127.0.0.1:1").await);
    assert_eq!(in_use, (1, "server ID already in use".to_owned()));
    let role = failure(example(22).assign(NodeId(1), Role::Voter).await);
    assert_eq!(role, (1, "server role is not valid".to_owned()));
    let unknown = (1, "server ID is not valid".to_owned());
    assert_eq!(failure(example(24).remove(NodeId(99)).await), unknown);
    assert_eq!(failure(example(25).transfer(Some(NodeId(99))).await), unknown);
}

#[tokio::test(start_paused = true)]
async fn one_connection_serves_many_requests_also_after_a_refusal() {
    let nodes = ScriptedNodes::default();
    nodes.answer("a", |request| {
        Reply::Bytes(match request {
            Request::Transfer { id: 0 } => response::failure(10250, b"not leader"),
            Request::Leader => response::server(0, b""),
            Request::Describe { format: 0 } => response::metadata(1, 2),
            Request::Cluster { format: 1 } => response::servers(&Configuration::default(), 1),
            Request::Assign { id: 3, role: 2 } => response::empty(),
            other => panic!("{other:?}"),
        })
    });
    let mut client = Client::connect(&nodes, b"a").await.unwrap();

    let refused = client.transfer(None).await.unwrap_err();
    assert_eq!(refused.failure_code(), Some(10250));
    assert_eq!(refused.to_string(), "TRANSFER to a: refused with 10250: not leader");
    assert_eq!(client.leader().await.unwrap(), None);
    assert_eq!(client.describe().await.unwrap(), Description { failure_domain: 1, weight: 2 });
    assert_eq!(client.cluster().await.unwrap(), []);
    client.assign(NodeId(3), Role::Spare).await.unwrap();
    assert_eq!(nodes.dialled(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn every_wait_has_an_end() {
    let nodes = ScriptedNodes::default();
    nodes.hang("hangs");
    nodes.answer("silent", |_| Reply::Silence);
    nodes.answer("stops", |_| Reply::Bytes(response::metadata(1, 2)[..20].to_vec()));

    let start = Instant::now();
    let error = Client::connect(&nodes, b"hangs").await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), start.elapsed()),
        ("connect to hangs: nothing within 10s", config::CLIENT_DIAL_TIMEOUT)
    );
    for address in [&b"silent"[..], b"stops"] {
        let start = Instant::now();
        let mut client = Client::connect(&nodes, address).await.unwrap();
        assert!(matches!(client.describe().await.unwrap_err().problem, Problem::Deadline(_)));
        assert_eq!(start.elapsed(), config::CLIENT_REQUEST_TIMEOUT);
        assert!(matches!(client.describe().await.unwrap_err().problem, Problem::GivenUp));
    }
    let start = Instant::now();
    let client = Client::connect(&nodes, b"silent").await.unwrap();
    client.with_timeout(Duration::from_millis(7)).leader().await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_millis(7));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_says_so() {
    let error = Client::connect(&ScriptedNodes::default(), b"b:1").await.unwrap_err();

    assert_eq!(error.to_string(), "connect to b:1: no connection: connection refused");
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_none_are_told_apart_and_end_the_connection() {
    let cut = response::server(1, b"127.0.0.1:29300")[..20].to_vec();
    for (reply, text) in [
        (Reply::Last(cut), "connection closed 12 bytes into an answer of 24"),
        (Reply::Last(vec![]), "connection closed 0 bytes into an answer of 8"),
        (Reply::Bytes(response::empty()), "answer of type 8, expected 1"),
        (
            Reply::Bytes(vec![0, 0, 0, 0, 1, 0, 0, 0]),
            "answer of type 1: truncated id: need 8 bytes at offset 0, have 0",
        ),
        (
            Reply::Bytes(vec![0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]),
            "answer of type 1 announces 34359738360 bytes, at most 4194304 are taken",
        ),
    ] {
        let nodes = ScriptedNodes::default();
        let reply = std::sync::Mutex::new(Some(reply));
        nodes.answer("a", move |_| reply.lock().unwrap().take().unwrap());
        let mut client = Client::connect(&nodes, b"a").await.unwrap();

        assert_eq!(client.leader().await.unwrap_err().to_string(), format!("LEADER to a: {text}"));
        assert!(matches!(client.leader().await.unwrap_err().problem, Problem::GivenUp));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_takes_the_connection_with_it() {
    let nodes = ScriptedNodes::default();
    nodes.answer("a", |_| Reply::Silence);
    let mut client = Client::connect(&nodes, b"a").await.unwrap();

    tokio::time::timeout(Duration::from_millis(1), client.leader()).await.unwrap_err();

    assert!(matches!(client.leader().await.unwrap_err().problem, Problem::GivenUp));
}

#[tokio::test(start_paused = true)]
async fn a_long_text_of_a_refusal_is_cut() {
    let nodes = ScriptedNodes::default();
    nodes.answer("a", |_| Reply::Bytes(response::failure(1, &[b'x'; 5000])));
    let mut client = Client::connect(&nodes, b"a").await.unwrap();

    let (_, text) = failure(client.leader().await);

    assert_eq!(text.len(), config::CLIENT_FAILURE_TEXT_MAX_BYTES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_bytes_in_return_are_a_value_or_an_error(words in prop_oneof![0..9u8, any::<u8>()], kind in 0..12u8, rest in prop::collection::vec(any::<u8>(), 0..90)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let bytes = [vec![words, 0, 0, 0, kind, 0, 0, 0], rest].concat();
            for request in 0..4 {
                let nodes = ScriptedNodes::default();
                let bytes = bytes.clone();
                nodes.answer("a", move |_| Reply::Last(bytes.clone()));
                let mut client = Client::connect(&nodes, b"a").await.unwrap();
                let text = match request {
                    0 => format!("{:?}", client.leader().await),
                    1 => format!("{:?}", client.cluster().await),
                    2 => format!("{:?}", client.describe().await),
                    _ => format!("{:?}", client.remove(NodeId(1)).await),
                };
                assert!(!text.is_empty());
            }
        });
    }
}
