//! Requests to other nodes over their client port, as role management, handover and `dqlite_server_*` need them.
//! spec: client-protocol 2, 6, 12, 15.3.

use std::future::Future;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::protocol::codec::{CodecError, Reader};
use crate::protocol::decode::{Member, members};
use crate::protocol::header::{HEADER_BYTES, MessageHeader};
use crate::protocol::request::Request;
use crate::protocol::response::Kind;
use crate::transport::dial::{Dial, Stream};
use crate::types::config::{CLIENT_ANSWER_MAX_BYTES, READ_CHUNK_BYTES};
use crate::types::{NodeId, Role};

/// What DESCRIBE tells of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Failure domain.
    pub failure_domain: u64,
    /// Weight.
    pub weight: u64,
}

/// Why another node did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached, or the connection broke.
    #[error("node at {address}: {error}")]
    Io {
        /// Where it was dialled.
        address: String,
        /// What happened.
        error: std::io::Error,
    },
    /// It did not answer in time.
    #[error("node at {address} did not answer within {after:?}")]
    Timeout {
        /// Where it was dialled.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// It refused.
    #[error("node at {address} answered failure {code}: {message}")]
    Failure {
        /// Where it was dialled.
        address: String,
        /// Code of the FAILURE message.
        code: u64,
        /// Its text.
        message: String,
    },
    /// It answered something else than what was asked for.
    #[error("node at {address} answered with message type {kind} of {bytes} bytes")]
    Unexpected {
        /// Where it was dialled.
        address: String,
        /// Type of the answer.
        kind: u8,
        /// Length of its body.
        bytes: u64,
    },
    /// Its answer does not decode.
    #[error("answer of the node at {address}: {error}")]
    Decode {
        /// Where it was dialled.
        address: String,
        /// Why.
        error: CodecError,
    },
}

/// A connection to another node.
pub struct Client {
    stream: Stream,
    address: String,
    received: BytesMut,
    patience: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects; this and every later request may take as long as `patience`.
    ///
    /// # Errors
    /// The node cannot be reached in time.
    pub async fn connect(dial: &dyn Dial, address: &[u8], patience: Duration) -> Result<Client, ClientError> {
        let text = String::from_utf8_lossy(address).into_owned();
        let stream = within(&text, patience, async {
            let mut stream = dial.dial(address.to_vec()).await?;
            stream.write.write_all(&1u64.to_le_bytes()).await?;
            Ok(stream)
        });
        Ok(Client { stream: stream.await?, address: text, received: BytesMut::new(), patience })
    }

    /// Who leads as far as the node knows.
    ///
    /// # Errors
    /// `ClientError`.
    pub async fn leader(&mut self) -> Result<Option<(NodeId, Bytes)>, ClientError> {
        let body = self.call(&Request::Leader, Kind::Server).await?;
        let mut reader = Reader::new(&body);
        let read = reader.u64("leader id").and_then(|id| Ok((NodeId(id), reader.text("leader address")?)));
        let (id, address) = read.map_err(|error| self.undecodable(error))?;
        Ok((id.0 != 0).then_some((id, address)))
    }

    /// Failure domain and weight of the node.
    ///
    /// # Errors
    /// `ClientError`.
    pub async fn describe(&mut self) -> Result<Description, ClientError> {
        let body = self.call(&Request::Describe { format: 0 }, Kind::Metadata).await?;
        let mut reader = Reader::new(&body);
        let read = reader
            .u64("failure domain")
            .and_then(|failure_domain| Ok(Description { failure_domain, weight: reader.u64("weight")? }));
        read.map_err(|error| self.undecodable(error))
    }

    /// The members with their roles.
    ///
    /// # Errors
    /// `ClientError`.
    pub async fn cluster(&mut self) -> Result<Vec<Member>, ClientError> {
        let body = self.call(&Request::Cluster { format: 1 }, Kind::Servers).await?;
        members(&body, 1).map_err(|error| self.undecodable(error))
    }

    /// Gives a member a role; to the leader.
    ///
    /// # Errors
    /// `ClientError`.
    pub async fn assign(&mut self, id: NodeId, role: Role) -> Result<(), ClientError> {
        let request = Request::Assign { id: id.0, role: role.client_number() };
        self.call(&request, Kind::Empty).await.map(drop)
    }

    /// Adds a member as a spare; to the leader.
    ///
    /// # Errors
    /// `ClientError`.
    pub async fn add(&mut self, id: NodeId, address: &[u8]) -> Result<(), ClientError> {
        let request = Request::Add { id: id.0, address: Bytes::copy_from_slice(address) };
        self.call(&request, Kind::Empty).await.map(drop)
    }

    fn undecodable(&self, error: CodecError) -> ClientError {
        ClientError::Decode { address: self.address.clone(), error }
    }

    async fn call(&mut self, request: &Request, expected: Kind) -> Result<Bytes, ClientError> {
        let message = request.encode().unwrap_or_default();
        let (stream, received) = (&mut self.stream, &mut self.received);
        let answer = within(&self.address, self.patience, async {
            stream.write.write_all(&message).await?;
            fill(stream, received, HEADER_BYTES as u64).await?;
            let header = MessageHeader::read(&received.split_to(HEADER_BYTES));
            let bytes = header.body_bytes();
            if bytes > CLIENT_ANSWER_MAX_BYTES {
                return Ok((header, Bytes::new()));
            }
            fill(stream, received, bytes).await?;
            Ok((header, received.split_to(bytes as usize).freeze()))
        });
        let (header, body) = answer.await?;
        let address = self.address.clone();
        if header.body_bytes() != body.len() as u64 {
            return Err(ClientError::Unexpected { address, kind: header.kind, bytes: header.body_bytes() });
        }
        if header.kind == Kind::Failure as u8 {
            let mut reader = Reader::new(&body);
            let read = reader.u64("failure code").and_then(|code| Ok((code, reader.text("failure text")?)));
            let (code, message) = read.map_err(|error| self.undecodable(error))?;
            let message = String::from_utf8_lossy(&message).into_owned();
            return Err(ClientError::Failure { address, code, message });
        }
        if header.kind != expected as u8 {
            return Err(ClientError::Unexpected { address, kind: header.kind, bytes: header.body_bytes() });
        }
        Ok(body)
    }
}

async fn within<T>(
    address: &str,
    patience: Duration,
    work: impl Future<Output = std::io::Result<T>>,
) -> Result<T, ClientError> {
    match timeout(patience, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(ClientError::Io { address: address.to_owned(), error }),
        Err(_) => Err(ClientError::Timeout { address: address.to_owned(), after: patience }),
    }
}

/// Waits until `length` bytes are buffered.
async fn fill(stream: &mut Stream, received: &mut BytesMut, length: u64) -> std::io::Result<()> {
    while (received.remaining() as u64) < length {
        received.reserve(READ_CHUNK_BYTES.min(length as usize));
        if stream.read.read_buf(received).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
