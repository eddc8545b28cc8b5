//! One client: requests that were encoded before, and no more of the answers than a measurement needs.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use dqlite::protocol::header::{HEADER_BYTES, MessageHeader};
use dqlite::protocol::request::{Parameters, Request};
use dqlite::protocol::response::{self, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Version word of the protocol.
const PROTOCOL: u64 = 1;
/// Last byte of a ROWS body that another follows.
const PART: u8 = 0xee;
/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The connection.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The node says no.
    #[error("{message} ({code})")]
    Failure {
        /// Code of the FAILURE.
        code: u64,
        /// Its text.
        message: String,
    },
    /// Not an answer to what was asked, or none in time.
    #[error("{0}")]
    Answer(&'static str),
}

impl LoadError {
    /// SQLITE_BUSY in any of its forms: to be tried again.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, LoadError::Failure { code, .. } if code & 0xff == 5)
    }
}

/// A connection with an open database.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    received: BytesMut,
}

impl Connection {
    /// Connects and opens a database.
    ///
    /// # Errors
    /// See `LoadError`.
    pub async fn open(address: &str, database: &str) -> Result<Connection, LoadError> {
        let socket: SocketAddr = address.parse().map_err(|_| LoadError::Answer("not an address"))?;
        let stream = TcpStream::connect(socket).await?;
        stream.set_nodelay(true)?;
        let mut connection = Connection { stream, received: BytesMut::new() };
        connection.stream.write_all(&PROTOCOL.to_le_bytes()).await?;
        let name = Bytes::copy_from_slice(database.as_bytes());
        connection.call(&encoded(&Request::Open { name, flags: 0, vfs: Bytes::new() })?, Kind::Db).await?;
        Ok(connection)
    }

    /// Runs statements without parameters.
    ///
    /// # Errors
    /// See `LoadError`.
    pub async fn exec_sql(&mut self, sql: &str) -> Result<(), LoadError> {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        let request = Request::ExecSql { db: 0, sql, parameters: Parameters::default() };
        self.call(&encoded(&request)?, Kind::Result).await.map(drop)
    }

    /// Prepares a statement: its id.
    ///
    /// # Errors
    /// See `LoadError`.
    pub async fn prepare(&mut self, sql: &str) -> Result<u32, LoadError> {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        let body = self.call(&encoded(&Request::Prepare { schema: 0, db: 0, sql })?, Kind::Stmt).await?;
        let [ids, _] = response::decode_words(&body).map_err(|_| LoadError::Answer("a STMT that is cut"))?;
        Ok((ids >> 32) as u32)
    }

    /// Sends an encoded request that has one answer, of this kind.
    ///
    /// # Errors
    /// See `LoadError`.
    pub async fn call(&mut self, request: &[u8], kind: Kind) -> Result<Bytes, LoadError> {
        self.stream.write_all(request).await?;
        let (found, body) = self.answer().await?;
        if found == kind as u8 { Ok(body) } else { Err(LoadError::Answer("an answer of another type")) }
    }

    /// Sends an encoded query and takes all its rows: bytes of the answer.
    ///
    /// # Errors
    /// See `LoadError`.
    pub async fn query(&mut self, request: &[u8]) -> Result<usize, LoadError> {
        self.stream.write_all(request).await?;
        let mut bytes = 0;
        loop {
            let (kind, body) = self.answer().await?;
            if kind != Kind::Rows as u8 {
                return Err(LoadError::Answer("an answer of another type than ROWS"));
            }
            bytes += body.len();
            if body.last() != Some(&PART) {
                return Ok(bytes);
            }
        }
    }

    async fn answer(&mut self) -> Result<(u8, Bytes), LoadError> {
        self.fill(HEADER_BYTES).await?;
        let header = MessageHeader::read(&self.received[..HEADER_BYTES]);
        let length = usize::try_from(header.body_bytes()).map_err(|_| LoadError::Answer("a long answer"))?;
        self.fill(HEADER_BYTES + length).await?;
        self.received.advance(HEADER_BYTES);
        let body = self.received.split_to(length).freeze();
        if header.kind == Kind::Failure as u8 {
            let (code, message) =
                response::decode_failure(&body).map_err(|_| LoadError::Answer("a FAILURE that is cut"))?;
            return Err(LoadError::Failure { code, message: String::from_utf8_lossy(&message).into_owned() });
        }
        Ok((header.kind, body))
    }

    async fn fill(&mut self, length: usize) -> Result<(), LoadError> {
        while self.received.len() < length {
            self.received.reserve(16 * 1024);
            let read = timeout(ANSWER_TIMEOUT, self.stream.read_buf(&mut self.received)).await;
            if read.map_err(|_| LoadError::Answer("no answer in time"))?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(())
    }
}

/// The bytes of a request.
///
/// # Errors
/// It is too long.
pub(super) fn encoded(request: &Request) -> Result<Vec<u8>, LoadError> {
    request.encode().ok_or(LoadError::Answer("a request that is too long"))
}
