//! What a request gets instead of a result: a code and a text. spec: client-protocol 14.

use bytes::Bytes;

use crate::pages::Appended;
use crate::protocol::codec::CodecError;

use super::sqlite::{OpenError, SqliteError};

/// Not the leader, and nothing was proposed. spec: client-protocol 10.1.
pub const NOT_LEADER: u64 = 10250;
/// The outcome is unknown. spec: client-protocol 10.2.
pub const LEADERSHIP_LOST: u64 = 10506;
/// SQLITE_ERROR.
pub const ERROR: u64 = 1;
/// SQLITE_BUSY.
pub const BUSY: u64 = 5;
/// SQLITE_BUSY_SNAPSHOT.
pub const BUSY_SNAPSHOT: u64 = 517;
/// SQLITE_NOMEM.
pub const NO_MEMORY: u64 = 7;
/// SQLITE_INTERRUPT.
pub const INTERRUPT: u64 = 9;
/// SQLITE_NOTFOUND.
pub const NOT_FOUND: u64 = 12;
/// SQLITE_CANTOPEN.
pub const CANNOT_OPEN: u64 = 14;
/// SQLITE_TOOBIG.
pub const TOO_BIG: i32 = 18;

/// A refusal that a client sees.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {}", String::from_utf8_lossy(message))]
pub struct Failure {
    /// SQLite's extended code or one of the protocol's own.
    pub code: u64,
    /// Text without NUL; not necessarily UTF-8.
    pub message: Bytes,
}

impl Failure {
    /// A failure with a text of ours.
    #[must_use]
    pub const fn new(code: u64, message: &'static str) -> Failure {
        Failure { code, message: Bytes::from_static(message.as_bytes()) }
    }

    /// The node is not the leader; nothing of the request is in the log.
    #[must_use]
    pub const fn not_leader() -> Failure {
        Failure::new(NOT_LEADER, "not leader")
    }

    /// Something of the request may be in the log.
    #[must_use]
    pub const fn leadership_lost() -> Failure {
        Failure::new(LEADERSHIP_LOST, "leadership lost")
    }

    /// The connection has no database, or lost it with the leadership.
    #[must_use]
    pub const fn no_database() -> Failure {
        Failure::new(NOT_FOUND, "no database opened")
    }

    /// The statement id was never given, or was finalized.
    #[must_use]
    pub const fn no_statement() -> Failure {
        Failure::new(NOT_FOUND, "no statement with the given id")
    }

    /// Too many parameters, or parameters that do not decode.
    #[must_use]
    pub const fn bind() -> Failure {
        Failure::new(ERROR, "bind parameters")
    }

    /// What a parameter tuple that does not decode gets.
    #[must_use]
    pub const fn undecoded(error: &CodecError) -> Failure {
        match error {
            CodecError::NoMemory { .. } => Failure::no_memory(),
            _ => Failure::bind(),
        }
    }

    /// The database cannot be opened.
    #[must_use]
    pub const fn cannot_open() -> Failure {
        Failure::new(CANNOT_OPEN, "unable to open database file")
    }

    /// The client asked to stop, or SQLite was told to.
    #[must_use]
    pub const fn interrupted() -> Failure {
        Failure::new(INTERRUPT, "interrupted")
    }

    /// There is no memory for what the client wants.
    #[must_use]
    pub const fn no_memory() -> Failure {
        Failure::new(NO_MEMORY, "out of memory")
    }

    /// Whether leadership was the reason.
    #[must_use]
    pub const fn is_leadership(&self) -> bool {
        matches!(self.code, NOT_LEADER | LEADERSHIP_LOST)
    }

    /// What the fate of a discarded version means to its client.
    #[must_use]
    pub const fn discarded(appended: Appended) -> Failure {
        match appended {
            Appended::No => Failure::not_leader(),
            Appended::Maybe => Failure::leadership_lost(),
        }
    }
}

impl From<SqliteError> for Failure {
    fn from(error: SqliteError) -> Failure {
        // SQLite's codes are positive.
        match u64::try_from(error.code) {
            // The commit of a version whose epoch has ended was refused before anything was proposed.
            Ok(NOT_LEADER) => Failure::not_leader(),
            Ok(code) => Failure { code, message: error.message.into() },
            Err(_) => Failure { code: ERROR, message: error.message.into() },
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        match error {
            OpenError::Name(_) => Failure::cannot_open(),
            OpenError::Sqlite(error) => Failure::from(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_for_which_there_is_no_memory_are_no_fault_of_the_client() {
        let no_memory = CodecError::NoMemory { field: "value", count: 1 };
        assert_eq!(Failure::undecoded(&no_memory).code, NO_MEMORY);
        assert_eq!(Failure::undecoded(&CodecError::Unterminated { field: "value", offset: 0 }).code, ERROR);
    }
}
