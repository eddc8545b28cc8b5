//! A client against scripted answers.

use std::sync::Mutex;

use futures_util::future::BoxFuture;
use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::protocol::response;

/// Gives out one prepared stream.
struct One(Mutex<Option<DuplexStream>>);

impl Dial for One {
    fn dial(&self, _address: Vec<u8>) -> BoxFuture<'static, std::io::Result<Stream>> {
        let stream = self.0.lock().unwrap().take();
        Box::pin(async move {
            let (read, write) = tokio::io::split(stream.ok_or(std::io::ErrorKind::ConnectionRefused)?);
            Ok(Stream { read: Box::new(read), write: Box::new(write) })
        })
    }
}

async fn connected() -> (Client, DuplexStream) {
    let (ours, theirs) = duplex(1 << 16);
    let dial = One(Mutex::new(Some(ours)));
    (Client::connect(&dial, b"there", Duration::from_secs(5)).await.unwrap(), theirs)
}

#[tokio::test(start_paused = true)]
async fn requests_have_the_bytes_of_the_protocol_and_answers_are_read() {
    let (mut client, mut node) = connected().await;
    node.write_all(&response::server(2, b"127.0.0.1:9002")).await.unwrap();
    node.write_all(&response::metadata(7, 9)).await.unwrap();
    node.write_all(&response::empty()).await.unwrap();

    let leader = client.leader().await.unwrap();
    let description = client.describe().await.unwrap();
    client.assign(NodeId(3), Role::Spare).await.unwrap();

    assert_eq!(leader, Some((NodeId(2), Bytes::from_static(b"127.0.0.1:9002"))));
    assert_eq!(description, Description { failure_domain: 7, weight: 9 });
    #[rustfmt::skip]
    let golden = [
        1, 0, 0, 0, 0, 0, 0, 0, // version
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // LEADER
        1, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // DESCRIBE
        2, 0, 0, 0, 13, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, // ASSIGN 3 spare
    ];
    let mut sent = vec![0; golden.len()];
    node.read_exact(&mut sent).await.unwrap();
    assert_eq!(sent, golden);
}

#[tokio::test(start_paused = true)]
async fn failures_silence_and_lengths_are_errors() {
    let (mut client, mut node) = connected().await;
    node.write_all(&response::failure(5, b"a configuration change is already in progress")).await.unwrap();
    node.write_all(&[0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0]).await.unwrap();

    let failure = client.describe().await.unwrap_err();
    let huge = client.cluster().await.unwrap_err();
    let silent = client.leader().await.unwrap_err();

    assert!(matches!(failure, ClientError::Failure { code: 5, .. }), "{failure}");
    assert!(matches!(huge, ClientError::Unexpected { kind: 3, .. }), "{huge}");
    assert!(matches!(silent, ClientError::Timeout { .. }), "{silent}");
    let refused = Client::connect(&One(Mutex::new(None)), b"there", Duration::from_secs(1)).await;
    assert!(refused.unwrap_err().to_string().contains("there"));
}

proptest! {
    #[test]
    fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..12) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (mut client, mut node) = connected().await;
            let mut body = bytes.clone();
            body.resize(body.len().next_multiple_of(8), 0);
            let header = [&(body.len() as u32 / 8).to_le_bytes()[..], &[kind, 0, 0, 0]].concat();
            for _ in 0..3 {
                node.write_all(&header).await.unwrap();
                node.write_all(&body).await.unwrap();
            }
            let _ = client.leader().await;
            let _ = client.cluster().await;
            let _ = client.describe().await;
        });
    }
}
