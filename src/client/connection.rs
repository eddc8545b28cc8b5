//! A connection to another node's client port: one request at a time, each with a deadline. A connection on which a
//! request did not end in an answer is given up: a late answer would be taken for the next one.
//! spec: client-protocol 2, 3, 5, 12.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::answer::{self, Description};
use super::error::{ClientError, Problem};
use crate::protocol::header::{HEADER_BYTES, MessageHeader};
use crate::protocol::request::Request;
use crate::protocol::response::Kind;
use crate::transport::dial::{Dial, Stream};
use crate::types::{NodeId, Role, Server, config};

/// First word of a connection. spec: client-protocol 2.
const HANDSHAKE: [u8; 8] = 1u64.to_le_bytes();

/// A connection to another node.
pub struct Client {
    address: Vec<u8>,
    /// None while a request is under way and after one that brought no answer.
    stream: Option<Stream>,
    /// What goes out with the next request: the handshake, then nothing.
    greeting: &'static [u8],
    timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &shown(&self.address)).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the node at `address`; each request has `CLIENT_REQUEST_TIMEOUT` from its first byte on.
    ///
    /// # Errors
    /// There is no connection within `CLIENT_DIAL_TIMEOUT`.
    pub async fn connect(dial: &dyn Dial, address: &[u8]) -> Result<Client, ClientError> {
        let problem = match timeout(config::CLIENT_DIAL_TIMEOUT, dial.dial(address.to_vec())).await {
            Ok(Ok(stream)) => return Ok(Client::over(stream, address)),
            Ok(Err(error)) => Problem::Dial(error),
            Err(_) => Problem::Deadline(config::CLIENT_DIAL_TIMEOUT),
        };
        Err(ClientError { address: shown(address), request: "connect", problem })
    }

    /// A client on a fresh connection to `address`. The handshake goes out with the first request.
    #[must_use]
    pub fn over(stream: Stream, address: &[u8]) -> Client {
        Client {
            address: address.to_vec(),
            stream: Some(stream),
            greeting: &HANDSHAKE,
            timeout: config::CLIENT_REQUEST_TIMEOUT,
        }
    }

    /// The same with another deadline for each request.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Client {
        self.timeout = timeout;
        self
    }

    /// Who leads, if the node knows; only voters tell. spec: client-protocol 5 "LEADER".
    ///
    /// # Errors
    /// No answer, or not that of LEADER.
    pub async fn leader(&mut self) -> Result<Option<(NodeId, Vec<u8>)>, ClientError> {
        self.ask("LEADER", &Request::Leader, Kind::Server, answer::leader).await
    }

    /// Failure domain and weight of the node.
    ///
    /// # Errors
    /// No answer, or not that of DESCRIBE.
    pub async fn describe(&mut self) -> Result<Description, ClientError> {
        let request = Request::Describe { format: 0 };
        self.ask("DESCRIBE", &request, Kind::Metadata, answer::description).await
    }

    /// The members as the node knows them, in order of joining; none if it was never added.
    ///
    /// # Errors
    /// No answer, or not that of CLUSTER.
    pub async fn cluster(&mut self) -> Result<Vec<Server>, ClientError> {
        let request = Request::Cluster { format: answer::WITH_ROLES };
        self.ask("CLUSTER", &request, Kind::Servers, answer::servers).await
    }

    /// Adds a node as spare. The answer waits for the commit.
    ///
    /// # Errors
    /// No answer, or a FAILURE of spec client-protocol 12.
    pub async fn add(&mut self, id: NodeId, address: &[u8]) -> Result<(), ClientError> {
        let request = Request::Add { id: id.0, address: Bytes::copy_from_slice(address) };
        self.order("ADD", &request).await
    }

    /// Changes a role. The answer waits for the commit, to voter also for the log to reach the node.
    ///
    /// # Errors
    /// No answer, or a FAILURE of spec client-protocol 12.
    pub async fn assign(&mut self, id: NodeId, role: Role) -> Result<(), ClientError> {
        self.order("ASSIGN", &Request::Assign { id: id.0, role: role.client_number() }).await
    }

    /// Removes a node. The answer waits for the commit.
    ///
    /// # Errors
    /// No answer, or a FAILURE of spec client-protocol 12.
    pub async fn remove(&mut self, id: NodeId) -> Result<(), ClientError> {
        self.order("REMOVE", &Request::Remove { id: id.0 }).await
    }

    /// Moves leadership to a voter, `None` to any. Answered when the node does not lead any more.
    ///
    /// # Errors
    /// No answer, or a FAILURE of spec client-protocol 12.
    pub async fn transfer(&mut self, target: Option<NodeId>) -> Result<(), ClientError> {
        let id = target.map_or(0, |id| id.0);
        self.order("TRANSFER", &Request::Transfer { id }).await
    }

    /// Sets the weight of the node.
    ///
    /// # Errors
    /// No answer, or not that of WEIGHT.
    pub async fn weight(&mut self, weight: u64) -> Result<(), ClientError> {
        self.order("WEIGHT", &Request::Weight { weight }).await
    }

    async fn order(&mut self, name: &'static str, request: &Request) -> Result<(), ClientError> {
        self.ask(name, request, Kind::Empty, answer::empty).await
    }

    async fn ask<T>(
        &mut self,
        name: &'static str,
        request: &Request,
        expected: Kind,
        decode: impl Fn(&Bytes) -> Result<T, Problem>,
    ) -> Result<T, ClientError> {
        let answered = self.exchange(request).await;
        let result = answered.and_then(|(header, body)| decode(&answer::expect(header, body, expected)?));
        if !matches!(result, Ok(_) | Err(Problem::Failure { .. })) {
            self.stream = None;
        }
        result.map_err(|problem| ClientError { address: shown(&self.address), request: name, problem })
    }

    async fn exchange(&mut self, request: &Request) -> Result<(MessageHeader, Bytes), Problem> {
        let message = request.encode().ok_or(Problem::RequestTooLarge)?;
        // Whoever drops this future drops the connection with it.
        let mut stream = self.stream.take().ok_or(Problem::GivenUp)?;
        let bytes = [self.greeting, &message].concat();
        let answered = timeout(self.timeout, converse(&mut stream, &bytes)).await;
        let answered = answered.map_err(|_| Problem::Deadline(self.timeout))??;
        self.greeting = &[];
        self.stream = Some(stream);
        Ok(answered)
    }
}

/// Sends bytes and takes one message.
async fn converse(stream: &mut Stream, bytes: &[u8]) -> Result<(MessageHeader, Bytes), Problem> {
    stream.write.write_all(bytes).await?;
    stream.write.flush().await?;
    let header = receive(stream, HEADER_BYTES as u64).await?;
    let header = MessageHeader::read(&header);
    let (bytes, max) = (header.body_bytes(), config::CLIENT_ANSWER_MAX_BYTES);
    if bytes > max {
        return Err(Problem::AnswerTooLarge { kind: header.kind, bytes, max });
    }
    Ok((header, receive(stream, bytes).await?))
}

/// The next `need` bytes. Memory follows what was received.
async fn receive(stream: &mut Stream, need: u64) -> Result<Bytes, Problem> {
    let mut received = Vec::new();
    (&mut stream.read).take(need).read_to_end(&mut received).await?;
    let have = received.len() as u64;
    if have < need { Err(Problem::Closed { have, need }) } else { Ok(received.into()) }
}

fn shown(address: &[u8]) -> String {
    String::from_utf8_lossy(address).into_owned()
}
