//! Nodes that answer as a test says, reached over memory instead of sockets.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::protocol::header::MessageHeader;
use crate::protocol::request::Request;
use crate::transport::dial::{Dial, Stream};

/// Bytes that a connection holds in one direction.
const PIPE_BYTES: usize = 64;

/// What a scripted node does with a request.
pub(crate) enum Reply {
    /// Sends these bytes.
    Bytes(Vec<u8>),
    /// Sends them and closes.
    Last(Vec<u8>),
    /// Never answers.
    Silence,
}

type Script = Arc<dyn Fn(Request) -> Reply + Send + Sync>;

enum Node {
    Answers(Script),
    /// No connection ever, no refusal either.
    Hangs,
}

/// Nodes by address; others refuse connections.
#[derive(Default)]
pub(crate) struct ScriptedNodes {
    nodes: Mutex<HashMap<Vec<u8>, Node>>,
    dialled: Mutex<Vec<Vec<u8>>>,
}

impl ScriptedNodes {
    /// The node at `address` answers with `script`.
    pub(crate) fn answer(&self, address: &str, script: impl Fn(Request) -> Reply + Send + Sync + 'static) {
        self.nodes.lock().unwrap().insert(address.into(), Node::Answers(Arc::new(script)));
    }

    /// Connections to `address` are neither made nor refused.
    pub(crate) fn hang(&self, address: &str) {
        self.nodes.lock().unwrap().insert(address.into(), Node::Hangs);
    }

    /// Connections to `address` are refused.
    pub(crate) fn refuse(&self, address: &str) {
        self.nodes.lock().unwrap().remove(address.as_bytes());
    }

    /// Connections asked for so far.
    pub(crate) fn dialled(&self) -> Vec<String> {
        let dialled = self.dialled.lock().unwrap();
        dialled.iter().map(|address| String::from_utf8(address.clone()).unwrap()).collect()
    }
}

impl Dial for ScriptedNodes {
    fn dial(&self, address: Vec<u8>) -> BoxFuture<'static, io::Result<Stream>> {
        self.dialled.lock().unwrap().push(address.clone());
        match self.nodes.lock().unwrap().get(&address) {
            None => Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) }),
            Some(Node::Hangs) => Box::pin(std::future::pending()),
            Some(Node::Answers(script)) => {
                let script = Arc::clone(script);
                Box::pin(async move {
                    let (stream, other) = pipe();
                    tokio::spawn(serve(other, script));
                    Ok(stream)
                })
            }
        }
    }
}

/// A connection and its other end.
pub(crate) fn pipe() -> (Stream, DuplexStream) {
    let (own, other) = tokio::io::duplex(PIPE_BYTES);
    let (read, write) = tokio::io::split(own);
    (Stream { read: Box::new(read), write: Box::new(write) }, other)
}

/// Takes the handshake, then requests until the other side closes.
async fn serve(mut stream: DuplexStream, script: Script) {
    let Ok(handshake) = stream.read_u64_le().await else { return };
    assert_eq!(handshake, 1);
    let mut header = [0; 8];
    while stream.read_exact(&mut header).await.is_ok() {
        let header = MessageHeader::read(&header);
        let mut body = vec![0; usize::try_from(header.body_bytes()).unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        match script(Request::decode(header.kind, header.schema, &Bytes::from(body)).unwrap()) {
            // The client may have given up.
            Reply::Bytes(bytes) => drop(stream.write_all(&bytes).await),
            Reply::Last(bytes) => return drop(stream.write_all(&bytes).await),
            Reply::Silence => {}
        }
    }
}
