//! What each request gets. spec: client-protocol 5, 6, 8, 12, 13.

use std::io;
use std::sync::atomic::Ordering;

use crate::executor::session::{Executed, Tail};
use crate::executor::sqlite::Heeds;
use crate::executor::{Failure, Rows};
use crate::pages::Root;
use crate::protocol::failure::{DATABASE_NOT_FOUND, PARSE, UNRECOGNIZED_CLUSTER_FORMAT};
use crate::protocol::request::{DecodeError, Parameters, Request, Value};
use crate::protocol::response;
use crate::transport::client_stream::{ClientRead, ClientWrite};
use crate::types::config::{DUMP_CHUNK_PAGES, PAGE_SIZE};

use super::connection::{Connection, Dumped, Next, Version};
use super::reader::Frame;

/// Milliseconds in WELCOME. spec: client-protocol 6.
const HEARTBEAT_TIMEOUT_MS: u64 = 15000;

type Reply = Result<Vec<u8>, Failure>;

impl<R: ClientRead, W: ClientWrite> Connection<R, W> {
    /// Answers one request.
    pub(super) async fn answer(&mut self, frame: Frame) -> io::Result<Next> {
        let request = match Request::decode(frame.header.kind, frame.header.schema, &frame.body) {
            Ok(request) => request,
            Err(DecodeError::Close(..)) => return Ok(Next::Close),
            Err(DecodeError::Failure { code, message }) => {
                self.send(&response::failure(code, message.as_bytes())).await?;
                return Ok(Next::Request);
            }
        };
        drop(frame);
        if needs_leader(&request) && self.session.serving().is_none() {
            let settled = self.session.ended().race(Heeds::All, self.gateway.engine.settled());
            // Whoever serves the request looks at what has ended.
            let _ = settled.await;
        }
        let reply = match request {
            Request::Query { db, stmt, parameters } => {
                return self.query(db.into(), Text::Prepared(stmt), parameters).await;
            }
            Request::QuerySql { db, sql, parameters } => {
                return self.query(db, Text::Sql(sql), parameters).await;
            }
            Request::Dump { name } => return self.dump(&name).await,
            Request::Connect { .. } => return Ok(Next::Close),
            request => self.simple(request).await,
        };
        let message = reply.unwrap_or_else(|failure| response::failure(failure.code, &failure.message));
        self.send(&message).await?;
        Ok(Next::Request)
    }

    async fn simple(&mut self, request: Request) -> Reply {
        match request {
            Request::Leader => Ok(self.leader()),
            Request::Client { .. } => Ok(response::welcome(HEARTBEAT_TIMEOUT_MS)),
            Request::Interrupt { .. } => Ok(response::empty()),
            Request::Open { name, .. } => {
                self.session.open(&name).await?;
                Ok(response::db(0))
            }
            Request::Prepare { db, sql, schema } => {
                self.session.check(db)?;
                let tail = if schema == 0 { Tail::Refuse } else { Tail::Report };
                let prepared = self.session.prepare(&sql, tail).await?;
                Ok(response::stmt(schema, prepared.id, prepared.parameters, prepared.tail_offset))
            }
            Request::Exec { db, stmt, parameters } => {
                self.session.check(u64::from(db))?;
                let values = values(&parameters)?;
                Ok(result(self.session.exec(stmt, values).await?))
            }
            Request::ExecSql { db, sql, parameters } => {
                self.session.check(db)?;
                let values = values(&parameters)?;
                drop(parameters);
                Ok(result(self.session.exec_sql(sql, values).await?))
            }
            Request::Finalize { db, stmt } => {
                if db != 0 {
                    return Err(Failure::no_database());
                }
                self.session.finalize(stmt)?;
                Ok(response::empty())
            }
            Request::Cluster { format } => self.cluster(format),
            Request::Describe { format: 0 } => Ok(response::metadata(
                self.gateway.failure_domain.load(Ordering::Relaxed),
                self.gateway.weight.load(Ordering::Relaxed),
            )),
            Request::Describe { .. } => Err(Failure::new(15, "bad format version")),
            Request::Weight { weight } => {
                self.gateway.weight.store(weight, Ordering::Relaxed);
                Ok(response::empty())
            }
            Request::Add { .. }
            | Request::Assign { .. }
            | Request::Promote { .. }
            | Request::Remove { .. }
            | Request::Transfer { .. } => {
                // A change that was begun goes on without whoever asked for it.
                let answer = super::membership::answer(&self.gateway.engine, &request);
                let answered = self.session.ended().race_to(Heeds::AllButInterrupt, answer).await;
                answered.unwrap_or(Err(Failure::leadership_lost()))
            }
            Request::Query { .. }
            | Request::QuerySql { .. }
            | Request::Dump { .. }
            | Request::Connect { .. } => Err(Failure::new(PARSE, "unrecognized request type")),
        }
    }
}

/// Whether only a leader does what is asked for.
fn needs_leader(request: &Request) -> bool {
    !matches!(
        request,
        Request::Leader
            | Request::Client { .. }
            | Request::Interrupt { .. }
            | Request::Finalize { .. }
            | Request::Connect { .. }
            | Request::Dump { .. }
            | Request::Cluster { .. }
            | Request::Describe { .. }
            | Request::Weight { .. }
    )
}

/// The statement of a query.
enum Text {
    Prepared(u32),
    Sql(bytes::Bytes),
}

impl<R: ClientRead, W: ClientWrite> Connection<R, W> {
    /// Sends a query's rows frame by frame. After an INTERRUPT nothing more is sent: its own EMPTY follows.
    async fn query(&mut self, db: u64, text: Text, parameters: Parameters) -> io::Result<Next> {
        let failure = match self.rows(db, text, parameters).await {
            Ok(()) => return Ok(Next::Request),
            Err(Stopped::Socket(error)) => return Err(error),
            Err(Stopped::Failure(_)) if self.inbox.is_interrupted() => return Ok(Next::Request),
            Err(Stopped::Failure(failure)) => failure,
        };
        self.send(&response::failure(failure.code, &failure.message)).await?;
        Ok(Next::Request)
    }

    async fn rows(&mut self, db: u64, text: Text, parameters: Parameters) -> Result<(), Stopped> {
        self.session.check(db)?;
        let values = values(&parameters)?;
        drop(parameters);
        let mut rows = match text {
            Text::Prepared(id) => self.session.query(id, values)?,
            Text::Sql(sql) => self.session.query_sql(sql, values)?,
        };
        let sent = self.send_rows(&mut rows).await;
        let ended = self.session.end_query(&mut rows).await;
        sent.and(ended.map_err(Stopped::Failure))
    }

    async fn send_rows(&mut self, rows: &mut Rows) -> Result<(), Stopped> {
        while let Some(frame) = self.session.next_frame(rows).await? {
            if self.inbox.is_interrupted() {
                return Ok(());
            }
            self.send(&frame.message).await?;
            self.session.frame_sent(frame);
        }
        Ok(())
    }

    fn leader(&self) -> Vec<u8> {
        let status = self.gateway.engine.status();
        let status = status.borrow();
        let engine = &self.gateway.engine;
        let is_voter = engine.configuration().configuration.is_voter(engine.id());
        let known = if is_voter || self.version == Version::Legacy { status.leader.clone() } else { None };
        let (id, address) = known.map_or((0, Vec::new()), |(id, address)| (id.0, address));
        match self.version {
            Version::One => response::server(id, &address),
            Version::Legacy => response::server_legacy(&address),
        }
    }

    fn cluster(&self, format: u64) -> Reply {
        if format > 1 {
            return Err(Failure::new(PARSE, UNRECOGNIZED_CLUSTER_FORMAT));
        }
        let configuration = self.gateway.engine.configuration().configuration;
        Ok(response::servers(&configuration, format))
    }

    /// The database and an empty WAL; pages go out as they are, one frame header before them. spec: client-protocol 13.
    async fn dump(&mut self, name: &[u8]) -> io::Result<Next> {
        let Some(database) = self.gateway.executor.store().get(name) else {
            self.send(&response::failure(DATABASE_NOT_FOUND, b"database does not exists")).await?;
            return Ok(Next::Request);
        };
        let root = database.committed().root;
        self.dumped = Some(Dumped { database, root: root.clone() });
        let dumped = self.send_pages(name, &root).await;
        self.dumped = None;
        dumped
    }

    async fn send_pages(&mut self, name: &[u8], root: &Root) -> io::Result<Next> {
        let size = u64::from(root.page_count()) * PAGE_SIZE as u64;
        let wal_name = [name, b"-wal"].concat();
        let Some(parts) = response::files(name, size, &wal_name) else {
            self.send(&response::failure(1, b"data is too big")).await?;
            return Ok(Next::Request);
        };
        self.send(&parts.before).await?;
        let mut chunk = Vec::with_capacity(DUMP_CHUNK_PAGES * PAGE_SIZE);
        let mut next = 1;
        while next <= root.page_count() {
            let end = root.page_count().min(next + DUMP_CHUNK_PAGES as u32 - 1);
            // The length of the answer has been told: who cannot read a page can only close the connection.
            let append = |bytes: &[u8; PAGE_SIZE]| {
                chunk.extend_from_slice(bytes);
                Ok(())
            };
            self.gateway.executor.read_pages(|| root.scan(next..=end, append))?;
            next = end + 1;
            if chunk.len() >= DUMP_CHUNK_PAGES * PAGE_SIZE {
                self.send(&chunk).await?;
                chunk.clear();
            }
        }
        chunk.extend_from_slice(&parts.after);
        self.send(&chunk).await?;
        Ok(Next::Request)
    }
}

/// Why rows stopped.
enum Stopped {
    Socket(io::Error),
    Failure(Failure),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Stopped {
        Stopped::Socket(error)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Stopped {
        Stopped::Failure(failure)
    }
}

fn values(parameters: &Parameters) -> Result<Vec<Value>, Failure> {
    parameters.decode().map_err(|error| Failure::undecoded(&error))
}

fn result(executed: Executed) -> Vec<u8> {
    response::result(executed.last_insert_id, executed.rows_affected)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_every_node_can_say_waits_for_no_election() {
        let (sql, name) = (Bytes::new(), Bytes::new());
        let parameters = Parameters::default();
        for (request, needs) in [
            (Request::Leader, false),
            (Request::Client { id: 1 }, false),
            (Request::Interrupt { db: 0 }, false),
            (Request::Finalize { db: 0, stmt: 0 }, false),
            (Request::Dump { name: name.clone() }, false),
            (Request::Cluster { format: 0 }, false),
            (Request::Describe { format: 0 }, false),
            (Request::Weight { weight: 0 }, false),
            (Request::Open { name, flags: 0, vfs: Bytes::new() }, true),
            (Request::Prepare { db: 0, sql: sql.clone(), schema: 0 }, true),
            (Request::Exec { db: 0, stmt: 0, parameters: parameters.clone() }, true),
            (Request::QuerySql { db: 0, sql, parameters }, true),
            (Request::Promote { id: 1 }, true),
            (Request::Transfer { id: 1 }, true),
        ] {
            assert_eq!(needs_leader(&request), needs, "{request:?}");
        }
    }
}
