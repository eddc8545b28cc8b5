//! Why a request to another node brought nothing.

use std::io;
use std::time::Duration;

use crate::protocol::codec::CodecError;

/// What went wrong, with whom, at which request.
#[derive(Debug, thiserror::Error)]
#[error("{request} to {address}: {problem}")]
pub struct ClientError {
    /// Address of the other node; bytes that are no text are replaced.
    pub address: String,
    /// Name of the request.
    pub request: &'static str,
    /// What happened.
    pub problem: Problem,
}

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no connection.
    #[error("no connection: {0}")]
    Dial(#[source] io::Error),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The deadline went by.
    #[error("nothing within {0:?}")]
    Deadline(Duration),
    /// The other side closed the connection before the whole answer was there.
    #[error("connection closed {have} bytes into an answer of {need}")]
    Closed {
        /// Bytes received.
        have: u64,
        /// Bytes that the answer has, as far as known.
        need: u64,
    },
    /// A request failed on this connection, so what follows on it cannot be told apart.
    #[error("connection given up after an earlier failure")]
    GivenUp,
    /// The request has more words than a header can tell.
    #[error("request is too long")]
    RequestTooLarge,
    /// The answer announces more than is taken.
    #[error("answer of type {kind} announces {bytes} bytes, at most {max} are taken")]
    AnswerTooLarge {
        /// Type of the answer.
        kind: u8,
        /// Bytes announced.
        bytes: u64,
        /// Bytes taken at most.
        max: u64,
    },
    /// An answer to something else.
    #[error("answer of type {found}, expected {expected}")]
    Kind {
        /// Type of the answer.
        found: u8,
        /// Type that answers the request.
        expected: u8,
    },
    /// The answer does not decode.
    #[error("answer of type {kind}: {error}")]
    Malformed {
        /// Type of the answer.
        kind: u8,
        /// What is wrong with it.
        error: CodecError,
    },
    /// The other node refused. spec: client-protocol 14.
    #[error("refused with {code}: {message}")]
    Failure {
        /// Code of the FAILURE.
        code: u64,
        /// Its text, cut at a bound.
        message: String,
    },
}

impl ClientError {
    /// The code of a FAILURE; None if the other node did not answer with one.
    #[must_use]
    pub fn failure_code(&self) -> Option<u64> {
        match self.problem {
            Problem::Failure { code, .. } => Some(code),
            _ => None,
        }
    }
}
