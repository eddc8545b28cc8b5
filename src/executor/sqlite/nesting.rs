//! How deep SQLite may recurse over what clients write. Its own limits bound expressions, patterns and triggers that run, but not
//! how deep views, common table expressions, triggers and cascades of foreign keys nest while a statement is compiled. Each level
//! of any of these takes a `SELECT`, a parenthesis, a trigger or a foreign key, and its expressions take text. So the stack that
//! they can need is bounded by weighing the text of a statement before it is compiled, and the schema before it is committed.
//! `config::SQL_STACK_BYTES` has the measurements.

use libsqlite3_sys as sqlite;

use super::SqliteError;
use crate::types::config::{
    NESTING_LEVEL_BYTES, NESTING_PLAIN_LEVEL_BYTES, NESTING_TEXT_BYTE_BYTES, NESTING_TEXT_MAX_BYTES,
    SCHEMA_NESTING_MAX_BYTES, STATEMENT_NESTING_MAX_BYTES,
};

/// Parentheses of functions and lists that every statement has.
const PARENTHESES_FREE: u64 = 2;

/// What nests in a text, or may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Measure {
    selects: u64,
    /// Depth of parentheses.
    deepest: u64,
    references: u64,
    /// Whether another view may be named behind IN, or it is a trigger: each nests without parentheses.
    has_in: bool,
    is_trigger: bool,
    /// Bytes without literals and comments.
    bytes: u64,
}

impl Measure {
    fn levels(self) -> u64 {
        self.selects + self.deepest.saturating_sub(PARENTHESES_FREE)
    }

    fn weight(self, levels: u64) -> u64 {
        let plain = self.deepest == 0 && !self.has_in && !self.is_trigger;
        let level_bytes = if plain { NESTING_PLAIN_LEVEL_BYTES } else { NESTING_LEVEL_BYTES };
        let text = (self.bytes * NESTING_TEXT_BYTE_BYTES).min(levels * NESTING_TEXT_MAX_BYTES);
        levels * level_bytes + text
    }
}

/// What an object of the schema adds to its weight: views and triggers a level or more, tables one for each foreign key.
pub(super) fn object_weight(kind: &[u8], sql: &[u8]) -> u64 {
    let measure = measured(sql);
    match kind {
        b"view" | b"trigger" => measure.weight(measure.levels().max(1)),
        b"table" => measure.references * NESTING_LEVEL_BYTES,
        _ => 0,
    }
}

/// What a statement that makes an object adds to the weight of the schema, at most.
pub(super) fn creation_weight(sql: &[u8]) -> u64 {
    let measure = measured(sql);
    measure.weight(measure.levels().max(1)) + measure.references * NESTING_LEVEL_BYTES
}

/// Shortest text that can weigh too much: nothing but parentheses.
const TEXT_CHECKED_MIN_BYTES: usize =
    (STATEMENT_NESTING_MAX_BYTES / (NESTING_LEVEL_BYTES + NESTING_TEXT_BYTE_BYTES)) as usize;

/// Checks the first statement of a text.
///
/// # Errors
/// It could nest too deep.
pub(super) fn check_statement(sql: &[u8]) -> Result<(), SqliteError> {
    if sql.len() < TEXT_CHECKED_MIN_BYTES {
        return Ok(());
    }
    let measure = measured(sql);
    refuse_beyond(measure.weight(measure.levels()), STATEMENT_NESTING_MAX_BYTES, "the statement nests")
}

/// Checks the weight of a schema.
///
/// # Errors
/// The schema could nest too deep.
pub(super) fn check_schema(weight: u64) -> Result<(), SqliteError> {
    refuse_beyond(weight, SCHEMA_NESTING_MAX_BYTES, "views, triggers and foreign keys of the schema nest")
}

fn refuse_beyond(weight: u64, max: u64, what: &str) -> Result<(), SqliteError> {
    if weight <= max {
        return Ok(());
    }
    let message =
        format!("{what} too deep: {weight} bytes of stack may be needed, at most {max} are allowed");
    Err(SqliteError { code: sqlite::SQLITE_ERROR, message: message.into_bytes() })
}

/// Measures the first statement of a text.
fn measured(sql: &[u8]) -> Measure {
    let mut measure = Measure::default();
    let mut open = 0_u64;
    let mut rest = sql;
    while let Some((first, behind)) = rest.split_first() {
        let length = match first {
            0 | b';' => break,
            b'\'' | b'"' | b'`' => quoted(behind, *first),
            b'[' => quoted(behind, b']'),
            b'-' if behind.first() == Some(&b'-') => until(rest, b"\n"),
            b'/' if behind.first() == Some(&b'*') => 2 + until(&rest[2..], b"*/"),
            b'(' => {
                open += 1;
                measure.deepest = measure.deepest.max(open);
                1
            }
            b')' => {
                open = open.saturating_sub(1);
                1
            }
            _ if is_word(*first) => rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len()),
            _ => 1,
        };
        let (token, tail) = rest.split_at(length.min(rest.len()));
        measure.selects += u64::from(token.eq_ignore_ascii_case(b"select"));
        measure.has_in |= token.eq_ignore_ascii_case(b"in");
        measure.is_trigger |= token.eq_ignore_ascii_case(b"trigger");
        measure.references += u64::from(token.eq_ignore_ascii_case(b"references"));
        // A literal or a comment nests nothing, however long it is.
        measure.bytes += if is_word(*first) { token.len() as u64 } else { 1 };
        rest = tail;
    }
    measure
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Length of what is quoted, from its first sign on; two signs in it begin another.
fn quoted(behind: &[u8], end: u8) -> usize {
    1 + until(behind, &[end])
}

/// Bytes up to this sign and with it; all if there is none.
fn until(text: &[u8], sign: &[u8]) -> usize {
    text.windows(sign.len()).position(|part| part == sign).map_or(text.len(), |at| at + sign.len())
}

#[cfg(test)]
#[path = "nesting_tests.rs"]
mod tests;
