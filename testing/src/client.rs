//! A blocking client of the client protocol. spec: client-protocol.

use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dqlite::protocol::codec::CodecError;
use dqlite::protocol::decode::{self, File, Member};
use dqlite::protocol::request::{Parameters, Request, Value};
use dqlite::protocol::response::{self, Kind};
use dqlite::protocol::rows::Marker;
use socket2::SockRef;

/// Version word of the protocol.
const PROTOCOL: u64 = 1;
/// Longest answer that is read, in bytes.
const BODY_MAX_BYTES: usize = 3 << 30;
/// Bytes read at once: memory follows what arrives.
const CHUNK_BYTES: usize = 1 << 20;
/// Longest answer of a node that is asked who leads.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two looks for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
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
    /// The answer does not decode.
    #[error("answer: {0}")]
    Codec(#[from] CodecError),
    /// Another answer than the request has.
    #[error("answer of type {0}")]
    Unexpected(u8),
    /// An answer that is too long, or a request that does not encode.
    #[error("message of {0} bytes")]
    TooLong(usize),
    /// No node leads in time.
    #[error("no leader among {0:?}")]
    NoLeader(Vec<String>),
}

impl ClientError {
    /// Code of the FAILURE, if it is one.
    #[must_use]
    pub fn code(&self) -> Option<u64> {
        match self {
            ClientError::Failure { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Result of a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Column names.
    pub columns: Vec<String>,
    /// Values, row by row.
    pub rows: Vec<Vec<Value>>,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    address: String,
}

impl Client {
    /// Connects, within `timeout`, which also bounds every later read and write.
    ///
    /// # Errors
    /// `address` is no numeric address with a port, or nobody listens.
    pub fn connect(address: &str, timeout: Duration) -> Result<Client, ClientError> {
        let socket: SocketAddr = address
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("address '{address}'")))?;
        let mut stream = TcpStream::connect_timeout(&socket, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(&PROTOCOL.to_le_bytes())?;
        Ok(Client { stream, address: address.to_owned() })
    }

    /// Opens a database on a node that is the only voter, until it leads or `timeout` is over.
    ///
    /// # Errors
    /// Nobody listens, or OPEN still fails.
    pub fn of_sole_voter(address: &str, database: &str, timeout: Duration) -> Result<Client, ClientError> {
        let end = Instant::now() + timeout;
        loop {
            let mut client = Client::connect(address, timeout)?;
            match client.open(database) {
                Ok(()) => return Ok(client),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// Connects to the node that leads, asking all of `addresses` until one does or `timeout` is over.
    ///
    /// # Errors
    /// `NoLeader`.
    pub fn connect_to_leader(addresses: &[String], timeout: Duration) -> Result<Client, ClientError> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(client) = Client::look_for_leader(addresses, timeout.min(LOOK_TIMEOUT)) {
                return Ok(client);
            }
            if Instant::now() >= end {
                return Err(ClientError::NoLeader(addresses.to_vec()));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Asks each of `addresses` once who leads, and connects to the first node that says it does itself.
    #[must_use]
    pub fn look_for_leader(addresses: &[String], timeout: Duration) -> Option<Client> {
        let leads = |address: &str| {
            let mut client = Client::connect(address, timeout).ok()?;
            let (_, leader) = client.leader().ok()?;
            Some((client, leader))
        };
        for address in addresses {
            match leads(address) {
                Some((client, leader)) if leader == *address => return Some(client),
                Some((_, leader)) if !leader.is_empty() => {
                    if let Some((client, found)) = leads(&leader)
                        && found == leader
                    {
                        return Some(client);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// The node's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Bounds every later read and write.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), ClientError> {
        self.stream.set_read_timeout(Some(timeout))?;
        Ok(self.stream.set_write_timeout(Some(timeout))?)
    }

    /// Bounds the bytes that wait unread on this side, so that a client which does not read holds up the node.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_receive_buffer(&self, bytes: usize) -> Result<(), ClientError> {
        Ok(SockRef::from(&self.stream).set_recv_buffer_size(bytes)?)
    }

    /// The bytes of the connection, for a client that reads its answers in its own way.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Ends the connection at once: the node learns that nobody is left to read an answer.
    ///
    /// # Errors
    /// The operating system's.
    pub fn reset(self) -> Result<(), ClientError> {
        Ok(SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?)
    }

    /// Sends without waiting for the answer.
    ///
    /// # Errors
    /// The connection; a request that is too long.
    pub fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let message = request.encode().ok_or(ClientError::TooLong(0))?;
        Ok(self.stream.write_all(&message)?)
    }

    /// The next answer: its type and its body.
    ///
    /// # Errors
    /// The connection; an answer that is too long; a FAILURE.
    pub fn receive(&mut self) -> Result<(u8, Bytes), ClientError> {
        let mut header = [0; 8];
        self.stream.read_exact(&mut header)?;
        let [a, b, c, d, kind, ..] = header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize * 8;
        if length > BODY_MAX_BYTES {
            return Err(ClientError::TooLong(length));
        }
        let mut body = Vec::new();
        while body.len() < length {
            let at = body.len();
            body.resize(length.min(at + CHUNK_BYTES), 0);
            self.stream.read_exact(&mut body[at..])?;
        }
        let body = Bytes::from(body);
        if kind == Kind::Failure as u8 {
            let (code, message) = response::decode_failure(&body)?;
            return Err(ClientError::Failure {
                code,
                message: String::from_utf8_lossy(&message).into_owned(),
            });
        }
        Ok((kind, body))
    }

    fn call(&mut self, request: &Request, kind: Kind) -> Result<Bytes, ClientError> {
        self.send(request)?;
        match self.receive()? {
            (found, body) if found == kind as u8 => Ok(body),
            (found, _) => Err(ClientError::Unexpected(found)),
        }
    }

    /// Id and address of the leader; 0 and nothing if there is none.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn leader(&mut self) -> Result<(u64, String), ClientError> {
        let body = self.call(&Request::Leader, Kind::Server)?;
        let (id, address) = response::decode_server(&body)?;
        Ok((id, String::from_utf8_lossy(&address).into_owned()))
    }

    /// Opens the one database of this connection.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn open(&mut self, name: &str) -> Result<(), ClientError> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.call(&Request::Open { name, flags: 0, vfs: Bytes::new() }, Kind::Db)?;
        Ok(())
    }

    /// Runs statements: last insert id and changed rows.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn exec(&mut self, sql: &str, values: &[Value]) -> Result<(u64, u64), ClientError> {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        let request = Request::ExecSql { db: 0, sql, parameters: Parameters::encode(values) };
        let body = self.call(&request, Kind::Result)?;
        let [id, changed] = response::decode_words(&body)?;
        Ok((id, changed))
    }

    /// Prepares a statement: its id.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn prepare(&mut self, sql: &str) -> Result<u32, ClientError> {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        let body = self.call(&Request::Prepare { schema: 0, db: 0, sql }, Kind::Stmt)?;
        let [ids, _] = response::decode_words(&body)?;
        Ok((ids >> 32) as u32)
    }

    /// Runs a prepared statement: last insert id and changed rows.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn exec_prepared(&mut self, stmt: u32, values: &[Value]) -> Result<(u64, u64), ClientError> {
        let request = Request::Exec { db: 0, stmt, parameters: Parameters::encode(values) };
        let body = self.call(&request, Kind::Result)?;
        let [id, changed] = response::decode_words(&body)?;
        Ok((id, changed))
    }

    /// Frees a prepared statement.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn finalize(&mut self, stmt: u32) -> Result<(), ClientError> {
        self.call(&Request::Finalize { db: 0, stmt }, Kind::Empty).map(drop)
    }

    /// Runs a query to its end.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn query(&mut self, sql: &str, values: &[Value]) -> Result<Table, ClientError> {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        self.send(&Request::QuerySql { db: 0, sql, parameters: Parameters::encode(values) })?;
        self.rows()
    }

    /// Runs a prepared query to its end.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn query_prepared(&mut self, stmt: u32, values: &[Value]) -> Result<Table, ClientError> {
        self.send(&Request::Query { db: 0, stmt, parameters: Parameters::encode(values) })?;
        self.rows()
    }

    /// The rows of a query that was sent, to their end.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn rows(&mut self) -> Result<Table, ClientError> {
        let mut rows = Vec::new();
        loop {
            let (kind, body) = self.receive()?;
            if kind != Kind::Rows as u8 {
                return Err(ClientError::Unexpected(kind));
            }
            let part = decode::rows(&body)?;
            rows.extend(part.rows);
            if part.marker == Marker::Done {
                let text = |name: &Bytes| String::from_utf8_lossy(name).into_owned();
                return Ok(Table { columns: part.columns.iter().map(text).collect(), rows });
            }
        }
    }

    /// The one integer of a query with one column and one row.
    ///
    /// # Errors
    /// See `ClientError`; `Unexpected` if there is no such integer.
    pub fn number(&mut self, sql: &str) -> Result<i64, ClientError> {
        match self.query(sql, &[])?.rows.first().and_then(|row| row.first()) {
            Some(Value::Integer(number)) => Ok(*number),
            _ => Err(ClientError::Unexpected(Kind::Rows as u8)),
        }
    }

    /// The members of the cluster with their roles.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn cluster(&mut self) -> Result<Vec<Member>, ClientError> {
        let body = self.call(&Request::Cluster { format: 1 }, Kind::Servers)?;
        Ok(decode::members(&body, 1)?)
    }

    /// The files of a database.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn dump(&mut self, name: &str) -> Result<Vec<File>, ClientError> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let body = self.call(&Request::Dump { name }, Kind::Files)?;
        Ok(decode::files(&body)?)
    }

    /// Length in bytes and digest of the main file of a database, of any size: nothing of it is kept.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn dump_digest(&mut self, name: &str) -> Result<(u64, u64), ClientError> {
        let padded = (name.len() + 1).next_multiple_of(8);
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.send(&Request::Dump { name })?;
        // Header, number of files, name, length.
        let mut head = vec![0; 8 + 8 + padded + 8];
        self.stream.read_exact(&mut head)?;
        if head[4] != Kind::Files as u8 {
            return Err(ClientError::Unexpected(head[4]));
        }
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let body_bytes = (word(0) & 0xffff_ffff) * 8;
        let length = word(16 + padded);
        let mut hasher = DefaultHasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = length;
        while left > 0 {
            let part = &mut chunk[..usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES)];
            self.stream.read_exact(part)?;
            hasher.write(part);
            left -= part.len() as u64;
        }
        // The empty WAL.
        let mut rest = vec![0; (body_bytes - 16 - padded as u64 - length) as usize];
        self.stream.read_exact(&mut rest)?;
        Ok((length, hasher.finish()))
    }

    /// Failure domain and weight.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn describe(&mut self) -> Result<(u64, u64), ClientError> {
        let body = self.call(&Request::Describe { format: 0 }, Kind::Metadata)?;
        let [domain, weight] = response::decode_words(&body)?;
        Ok((domain, weight))
    }

    /// Sets the weight.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn weight(&mut self, weight: u64) -> Result<(), ClientError> {
        self.call(&Request::Weight { weight }, Kind::Empty).map(drop)
    }

    /// Adds a member, a spare at first.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn add(&mut self, id: u64, address: &str) -> Result<(), ClientError> {
        let address = Bytes::copy_from_slice(address.as_bytes());
        self.call(&Request::Add { id, address }, Kind::Empty).map(drop)
    }

    /// Gives a member a role: 0 voter, 1 stand-by, 2 spare.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn assign(&mut self, id: u64, role: u64) -> Result<(), ClientError> {
        self.call(&Request::Assign { id, role }, Kind::Empty).map(drop)
    }

    /// Removes a member.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn remove(&mut self, id: u64) -> Result<(), ClientError> {
        self.call(&Request::Remove { id }, Kind::Empty).map(drop)
    }

    /// Makes a member the leader.
    ///
    /// # Errors
    /// See `ClientError`.
    pub fn transfer(&mut self, id: u64) -> Result<(), ClientError> {
        self.call(&Request::Transfer { id }, Kind::Empty).map(drop)
    }
}
