//! A node alone, as most tests of SQL need one, and what became of a request in words. Every wait for an answer has a bound, so that a
//! hang is a failure with a text. For tests: everything panics when something is missing.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use dqlite::protocol::request::{Parameters, Request};
use tempfile::TempDir;

use crate::bed;
use crate::client::{Client, ClientError};
use crate::process::{NodeOptions, NodeProcess};

/// The database of tests that need one.
pub const DATABASE: &str = "test.db";
/// Longest wait for an answer that should come at once, on a busy machine.
pub const ANSWER_MAX: Duration = Duration::from_secs(20);
/// A query that does not end and yields nothing.
pub const ENDLESS: &str =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";

/// A node that is the only voter.
#[derive(Debug)]
pub struct Alone {
    /// How it was started.
    pub options: NodeOptions,
    /// The process; killed at the end.
    pub node: NodeProcess,
    _folder: TempDir,
}

impl Alone {
    /// Starts it with more arguments of the program, and waits until it leads.
    ///
    /// # Panics
    /// It does not.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Alone {
        let folder = tempfile::tempdir().unwrap();
        let mut options = bed::options(folder.path());
        options.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let node = NodeProcess::start(&options).unwrap();
        let alone = Alone { options, node, _folder: folder };
        Client::of_sole_voter(&alone.node.address, DATABASE, ANSWER_MAX).unwrap();
        alone
    }

    /// A connection to its database; each answer comes within `timeout`.
    ///
    /// # Panics
    /// It is not to be had.
    #[must_use]
    pub fn client(&self, timeout: Duration) -> Client {
        self.client_of(DATABASE, timeout)
    }

    /// The same to another database.
    ///
    /// # Panics
    /// As `client`.
    #[must_use]
    pub fn client_of(&self, database: &str, timeout: Duration) -> Client {
        Client::of_sole_voter(&self.node.address, database, timeout).unwrap()
    }

    /// What becomes of a statement of a new connection within `timeout`.
    #[must_use]
    pub fn outcome_of(&self, sql: &str, timeout: Duration) -> String {
        let run = || {
            let mut client = Client::connect(&self.node.address, timeout)?;
            client.open(DATABASE)?;
            client.exec(sql, &[])
        };
        outcome(run())
    }
}

/// The words for a request that was carried out.
pub const DONE: &str = "done";

/// What became of a request: `done`, code and text of a failure, `no answer`, or why the connection is gone.
pub fn outcome<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => DONE.to_owned(),
        Err(ClientError::Failure { code, message }) => format!("{code} {message}"),
        Err(ClientError::Io(error))
            if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
        {
            "no answer".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// EXEC_SQL without parameters.
#[must_use]
pub fn exec_sql(sql: &str) -> Request {
    let sql = Bytes::copy_from_slice(sql.as_bytes());
    Request::ExecSql { db: 0, sql, parameters: Parameters::default() }
}

/// QUERY_SQL without parameters.
#[must_use]
pub fn query_sql(sql: &str) -> Request {
    let sql = Bytes::copy_from_slice(sql.as_bytes());
    Request::QuerySql { db: 0, sql, parameters: Parameters::default() }
}
