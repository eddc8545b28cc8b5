//! What a record is answered, in a form that both sides have.

use std::fmt;

use bytes::Bytes;
use dqlite::protocol::request::Value;

/// Bytes of a text or blob that a report shows.
const SHOWN_BYTES: usize = 60;
/// Rows that a report shows.
const SHOWN_ROWS: usize = 8;

/// A value, equal to another only if every bit is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// NULL.
    Null,
    /// 64-bit integer.
    Integer(i64),
    /// The bits of a float.
    Real(u64),
    /// Text of any bytes.
    Text(Vec<u8>),
    /// Blob.
    Blob(Vec<u8>),
}

impl From<&Value> for Cell {
    fn from(value: &Value) -> Cell {
        match value {
            Value::Null => Cell::Null,
            Value::Integer(number) => Cell::Integer(*number),
            Value::Float(number) => Cell::Real(number.to_bits()),
            Value::Text(text) => Cell::Text(text.to_vec()),
            Value::Blob(blob) => Cell::Blob(blob.to_vec()),
        }
    }
}

impl Cell {
    /// The parameter with this value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Integer(number) => Value::Integer(*number),
            Cell::Real(bits) => Value::Float(f64::from_bits(*bits)),
            Cell::Text(text) => Value::Text(Bytes::copy_from_slice(text)),
            Cell::Blob(blob) => Value::Blob(Bytes::copy_from_slice(blob)),
        }
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bytes: &[u8]| bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii().to_string();
        match self {
            Cell::Null => write!(f, "NULL"),
            Cell::Integer(number) => write!(f, "{number}"),
            Cell::Real(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Cell::Text(text) => write!(f, "'{}' ({} bytes)", shown(text), text.len()),
            Cell::Blob(blob) => write!(f, "x'{}' ({} bytes)", shown(blob), blob.len()),
        }
    }
}

/// What a request got.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// EXEC was carried out.
    Done {
        /// Last insert id.
        last_insert_id: i64,
        /// Changed rows.
        changes: u64,
    },
    /// QUERY was.
    Rows {
        /// Names.
        columns: Vec<Vec<u8>>,
        /// Values.
        rows: Vec<Vec<Cell>>,
    },
    /// A refusal.
    Failure {
        /// Extended code.
        code: u64,
        /// Text.
        text: String,
    },
    /// No answer at all.
    Broken(String),
}

impl Answer {
    /// A refusal.
    #[must_use]
    pub fn failure(code: u64, text: &str) -> Answer {
        Answer::Failure { code, text: text.to_owned() }
    }

    /// The refusal as an expectation of a script sees it: code and text.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self {
            Answer::Failure { code, text } => Some(format!("{code} {text}")),
            Answer::Broken(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// The same with its rows in an order of their own.
    #[must_use]
    pub fn sorted(mut self) -> Answer {
        if let Answer::Rows { rows, .. } = &mut self {
            rows.sort();
        }
        self
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done { last_insert_id, changes } => {
                write!(f, "done, last insert id {last_insert_id}, {changes} changed")
            }
            Answer::Rows { columns, rows } => {
                let names: Vec<_> = columns.iter().map(|name| String::from_utf8_lossy(name)).collect();
                write!(f, "{} rows of {names:?}", rows.len())?;
                for row in rows.iter().take(SHOWN_ROWS) {
                    write!(f, "\n      {row:?}")?;
                }
                Ok(())
            }
            Answer::Failure { code, text } => write!(f, "FAILURE {code} {text:?}"),
            Answer::Broken(text) => write!(f, "no answer: {text}"),
        }
    }
}

/// Everything that is seen of a record: its answer and the state of the connection behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The answer.
    pub answer: Answer,
    /// `last_insert_rowid()` and `changes()`.
    pub counters: (i64, i64),
    /// Whether a transaction is open. None if nobody looked.
    pub open: Option<bool>,
}
