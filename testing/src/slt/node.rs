//! The node's side of a connection: each record by the requests that were drawn for it, sent ahead where that is possible.

use std::time::Duration;

use bytes::Bytes;
use dqlite::protocol::codec::Writer;
use dqlite::protocol::decode;
use dqlite::protocol::request::{Parameters, Request};
use dqlite::protocol::response::{self, Kind};
use dqlite::protocol::rows::Marker;

use super::answer::{Answer, Cell, Outcome};
use super::plain::READ_SCHEMA;
use crate::client::{Client, ClientError};

/// Statements that a connection keeps prepared over records.
const KEPT_MAX: usize = 6;
/// What tells the state of a connection.
const COUNTERS: &str = "SELECT last_insert_rowid(), changes()";
/// It fails if and only if a transaction is open, and leaves that as it is.
const PROBE: &str = "BEGIN; COMMIT";
/// What it says then.
const IS_OPEN: &str = "cannot start a transaction within a transaction";

/// The requests that a record is asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// EXEC_SQL.
    ExecSql,
    /// PREPARE, EXEC, FINALIZE.
    PrepareExec,
    /// QUERY_SQL.
    QuerySql,
    /// PREPARE, QUERY, FINALIZE.
    PrepareQuery,
    /// EXEC of a statement that stays prepared.
    KeptExec,
    /// QUERY of a statement that stays prepared.
    KeptQuery,
}

/// All of them.
pub const WAYS: [Way; 6] =
    [Way::ExecSql, Way::PrepareExec, Way::QuerySql, Way::PrepareQuery, Way::KeptExec, Way::KeptQuery];

impl Way {
    /// Whether it is answered by RESULT.
    #[must_use]
    pub fn executes(self) -> bool {
        matches!(self, Way::ExecSql | Way::PrepareExec | Way::KeptExec)
    }
}

/// How a record is asked.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The requests.
    pub way: Way,
    /// Schema of the parameters.
    pub schema: u8,
    /// Whether one looks for an open transaction behind it.
    pub probes: bool,
}

/// One connection.
#[derive(Debug)]
pub struct NodeConnection {
    client: Client,
    /// Texts and ids, the newest last.
    kept: Vec<(String, u32)>,
}

impl NodeConnection {
    /// Connects and opens a database.
    ///
    /// # Errors
    /// The client's.
    pub fn open(address: &str, database: &str, timeout: Duration) -> Result<NodeConnection, ClientError> {
        let mut client = Client::connect(address, timeout)?;
        client.open(database)?;
        Ok(NodeConnection { client, kept: Vec::new() })
    }

    /// Sends a record; what it gives back is handed to `receive`.
    pub fn send(&mut self, sql: &str, values: &[Cell], manner: Manner) -> Result<Sent, Answer> {
        let text = Bytes::copy_from_slice(sql.as_bytes());
        let parameters = encode(values, manner.schema);
        let (request, finalize) = match manner.way {
            Way::ExecSql => (Request::ExecSql { db: 0, sql: text, parameters }, None),
            Way::QuerySql => (Request::QuerySql { db: 0, sql: text, parameters }, None),
            way => {
                let keeps = matches!(way, Way::KeptExec | Way::KeptQuery);
                let stmt = self.prepared(sql, keeps)?;
                let request = match way.executes() {
                    true => Request::Exec { db: 0, stmt, parameters },
                    false => Request::Query { db: 0, stmt, parameters },
                };
                (request, (!keeps).then_some(stmt))
            }
        };
        let stmt = finalize.map(|stmt| Request::Finalize { db: 0, stmt });
        let probe = Request::ExecSql { db: 0, sql: PROBE.into(), parameters: Parameters::default() };
        let probe = manner.probes.then_some(probe);
        let counters = Request::QuerySql { db: 0, sql: COUNTERS.into(), parameters: Parameters::default() };
        // At most four: as many as a node takes ahead.
        for request in [Some(request), Some(counters), probe, stmt].iter().flatten() {
            self.client.send(request).map_err(|error| broken(&error))?;
        }
        Ok(Sent { manner, finalizes: finalize.is_some() })
    }

    /// What a record got.
    ///
    /// # Errors
    /// Answers that say nothing of the connection's state.
    pub fn receive(&mut self, sent: &Sent) -> Result<Outcome, String> {
        let answer = self.answer();
        if let Answer::Broken(text) = answer {
            return Err(text);
        }
        let counters = self.counters()?;
        let open = match sent.manner.probes.then(|| self.answer()) {
            None => None,
            Some(Answer::Done { .. }) => Some(false),
            Some(Answer::Failure { code: 1, text }) if text == IS_OPEN => Some(true),
            Some(other) => return Err(format!("{PROBE} after {answer:?}: {other:?}")),
        };
        if sent.finalizes {
            match self.client.receive() {
                Ok((kind, _)) if kind == Kind::Empty as u8 => {}
                other => return Err(format!("FINALIZE: {other:?}")),
            }
        }
        Ok(Outcome { answer, counters, open })
    }

    /// The state of the connection after a PREPARE that was refused.
    ///
    /// # Errors
    /// As `receive`.
    pub fn after_refusal(&mut self, answer: Answer, probes: bool) -> Result<Outcome, String> {
        if let Answer::Broken(text) = answer {
            return Err(text);
        }
        let sql = Bytes::from_static(COUNTERS.as_bytes());
        let request = Request::QuerySql { db: 0, sql, parameters: Parameters::default() };
        self.client.send(&request).map_err(|error| error.to_string())?;
        let counters = self.counters()?;
        let open = match probes.then(|| self.client.exec(PROBE, &[])) {
            None => None,
            Some(Ok(_)) => Some(false),
            Some(Err(ClientError::Failure { code: 1, message })) if message == IS_OPEN => Some(true),
            Some(Err(error)) => return Err(format!("{PROBE}: {error}")),
        };
        Ok(Outcome { answer, counters, open })
    }

    /// Reads the schema anew, if it has changed.
    pub fn read_schema(&mut self) {
        // A schema that cannot be read shows in the next answer.
        let _ = self.client.query(READ_SCHEMA, &[]);
    }

    /// The id of a statement, one that was kept or a new one.
    fn prepared(&mut self, sql: &str, keeps: bool) -> Result<u32, Answer> {
        if keeps && let Some(position) = self.kept.iter().position(|(kept, _)| kept == sql) {
            let kept = self.kept.remove(position);
            let stmt = kept.1;
            self.kept.push(kept);
            return Ok(stmt);
        }
        let stmt = self.client.prepare(sql).map_err(|error| failure_of(&error))?;
        if keeps {
            self.kept.push((sql.to_owned(), stmt));
            if self.kept.len() > KEPT_MAX {
                let (_, oldest) = self.kept.remove(0);
                self.client.finalize(oldest).map_err(|error| broken(&error))?;
            }
        }
        Ok(stmt)
    }

    fn counters(&mut self) -> Result<(i64, i64), String> {
        match self.answer() {
            Answer::Rows { rows, .. } => match rows.as_slice() {
                [row] => match row.as_slice() {
                    [Cell::Integer(id), Cell::Integer(changes)] => Ok((*id, *changes)),
                    other => Err(format!("{COUNTERS}: {other:?}")),
                },
                other => Err(format!("{COUNTERS}: {other:?}")),
            },
            other => Err(format!("{COUNTERS}: {other:?}")),
        }
    }

    /// The next answer, of as many messages as it has.
    fn answer(&mut self) -> Answer {
        let mut all = Vec::new();
        loop {
            match self.client.receive() {
                Ok((kind, body)) if kind == Kind::Result as u8 => {
                    return match response::decode_words(&body) {
                        Ok([id, changes]) => Answer::Done { last_insert_id: id.cast_signed(), changes },
                        Err(error) => Answer::Broken(error.to_string()),
                    };
                }
                Ok((kind, body)) if kind == Kind::Rows as u8 => match decode::rows(&body) {
                    Ok(part) => {
                        all.extend(part.rows.iter().map(|row| row.iter().map(Cell::from).collect()));
                        if part.marker == Marker::Done {
                            let columns = part.columns.iter().map(|name| name.to_vec()).collect();
                            return Answer::Rows { columns, rows: all };
                        }
                    }
                    Err(error) => return Answer::Broken(error.to_string()),
                },
                Ok((kind, _)) => return Answer::Broken(format!("an answer of type {kind}")),
                Err(error) => return failure_of(&error),
            }
        }
    }
}

/// A record that was sent.
#[derive(Debug)]
pub struct Sent {
    manner: Manner,
    finalizes: bool,
}

fn failure_of(error: &ClientError) -> Answer {
    match error {
        ClientError::Failure { code, message } => Answer::failure(*code, message),
        other => broken(other),
    }
}

fn broken(error: &ClientError) -> Answer {
    Answer::Broken(error.to_string())
}

/// The parameters in this schema.
fn encode(values: &[Cell], schema: u8) -> Parameters {
    let values: Vec<_> = values.iter().map(Cell::to_value).collect();
    let short = Parameters::encode(&values);
    if schema == 0 || short.schema == 1 || values.is_empty() {
        return short;
    }
    // The same values behind a count of four bytes.
    let codes = &short.bytes[1..=values.len()];
    let content = &short.bytes[(1 + values.len()).next_multiple_of(8)..];
    let mut writer = Writer::default();
    writer.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
    writer.bytes(codes);
    writer.pad_to_word();
    writer.bytes(content);
    Parameters { schema: 1, bytes: writer.into_bytes() }
}
