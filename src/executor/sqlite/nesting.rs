//! How deep SQLite may recurse over what clients write. Its own limits bound expressions, patterns and triggers that run, but not
//! how deep views, common table expressions, triggers and cascades of foreign keys nest while a statement is compiled. Each level
//! of any of these takes a `SELECT`, a parenthesis, a trigger or a foreign key, and its expressions take text. So the stack that
//! they can need is bounded by weighing the text of a statement before it is compiled, and the schema before it is committed.
//! `config::SQL_STACK_BYTES` has the measurements.

use libsqlite3_sys as sqlite;

use super::SqliteError;
use crate::types::config::{
    NESTING_LEVEL_BYTES, NESTING_PLAIN_LEVEL_BYTES, NESTING_TEXT_BYTE_BYTES, NESTING_TEXT_MAX_BYTES,
    NESTING_VIRTUAL_LEVEL_BYTES, SCHEMA_NESTING_MAX_BYTES, STATEMENT_NESTING_MAX_BYTES,
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
    /// Whether another view may be named behind IN: it nests without parentheses, as a trigger does.
    has_in: bool,
    /// Whether it names an option of full-text tables that takes rows from another table, for which SQLite compiles a statement when
    /// the first statement of a connection names this one.
    has_content: bool,
    makes: Makes,
    /// Bytes without literals and comments.
    bytes: u64,
}

/// What a statement makes, by its own words: a row of a schema that was written by hand may call it something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Makes {
    View,
    Trigger,
    Table,
    Virtual,
    /// Nothing that nests.
    #[default]
    Other,
}

impl Measure {
    fn levels(self) -> u64 {
        self.selects + self.deepest.saturating_sub(PARENTHESES_FREE)
    }

    fn weight(self, levels: u64) -> u64 {
        let plain = self.deepest == 0 && !self.has_in && self.makes != Makes::Trigger;
        let level_bytes = if plain { NESTING_PLAIN_LEVEL_BYTES } else { NESTING_LEVEL_BYTES };
        let text = (self.bytes * NESTING_TEXT_BYTE_BYTES).min(levels * NESTING_TEXT_MAX_BYTES);
        levels * level_bytes + text
    }

    fn virtual_weight(self) -> u64 {
        if self.makes == Makes::Virtual && self.has_content { NESTING_VIRTUAL_LEVEL_BYTES } else { 0 }
    }
}

/// What an object of the schema adds to its weight: views and triggers a level or more, tables one for each foreign key.
pub(super) fn object_weight(sql: &[u8]) -> u64 {
    let measure = measured(sql);
    match measure.makes {
        Makes::View | Makes::Trigger => measure.weight(measure.levels().max(1)),
        Makes::Table => measure.references * NESTING_LEVEL_BYTES,
        Makes::Virtual => measure.virtual_weight(),
        Makes::Other => 0,
    }
}

/// What a statement that makes an object adds to the weight of the schema, at most.
pub(super) fn creation_weight(sql: &[u8]) -> u64 {
    let measure = measured(sql);
    measure.weight(measure.levels().max(1))
        + measure.references * NESTING_LEVEL_BYTES
        + measure.virtual_weight()
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
    refuse_beyond(
        weight,
        SCHEMA_NESTING_MAX_BYTES,
        "views, triggers, foreign keys and full-text tables of the schema nest",
    )
}

fn refuse_beyond(weight: u64, max: u64, what: &str) -> Result<(), SqliteError> {
    if weight <= max {
        return Ok(());
    }
    let message =
        format!("{what} too deep: {weight} bytes of stack may be needed, at most {max} are allowed");
    Err(SqliteError { code: sqlite::SQLITE_ERROR, message: message.into_bytes() })
}

/// Where a text is in the first of its statements. Between its BEGIN and its END a trigger has statements of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the word that says what it is.
    Start,
    /// Behind CREATE.
    Create,
    /// In any statement but CREATE TRIGGER.
    In(Makes),
    /// In a trigger.
    Trigger,
    /// There, behind a semicolon.
    TriggerSemicolon,
    /// There, behind a semicolon and END: the next semicolon ends it.
    TriggerEnd,
}

impl Place {
    fn behind_word(self, word: &[u8]) -> Place {
        let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
        match self {
            Place::Start if is(b"explain") || is(b"query") || is(b"plan") => Place::Start,
            Place::Start if is(b"create") => Place::Create,
            Place::Create if is(b"temp") || is(b"temporary") => Place::Create,
            Place::Create if is(b"trigger") => Place::Trigger,
            Place::Create if is(b"virtual") => Place::In(Makes::Virtual),
            Place::Create if is(b"view") => Place::In(Makes::View),
            Place::Create if is(b"table") => Place::In(Makes::Table),
            Place::Start | Place::Create => Place::In(Makes::Other),
            Place::In(makes) => Place::In(makes),
            Place::TriggerSemicolon if is(b"end") => Place::TriggerEnd,
            Place::Trigger | Place::TriggerSemicolon | Place::TriggerEnd => Place::Trigger,
        }
    }

    /// None: the statement has ended.
    fn behind_semicolon(self) -> Option<Place> {
        match self {
            // Empty statements are skipped.
            Place::Start => Some(Place::Start),
            Place::Create | Place::In(_) | Place::TriggerEnd => None,
            Place::Trigger | Place::TriggerSemicolon => Some(Place::TriggerSemicolon),
        }
    }

    fn behind_sign(self) -> Place {
        match self {
            Place::Start | Place::Create => Place::In(Makes::Other),
            Place::In(makes) => Place::In(makes),
            Place::Trigger | Place::TriggerSemicolon | Place::TriggerEnd => Place::Trigger,
        }
    }

    fn makes(self) -> Makes {
        match self {
            Place::Start | Place::Create => Makes::Other,
            Place::In(makes) => makes,
            Place::Trigger | Place::TriggerSemicolon | Place::TriggerEnd => Makes::Trigger,
        }
    }
}

/// Behind which SQLite reads a text as if it were not there.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Measures the first statement of a text.
fn measured(sql: &[u8]) -> Measure {
    let mut measure = Measure::default();
    let mut open = 0_u64;
    let mut rest = sql;
    let mut place = Place::Start;
    while let Some((first, behind)) = rest.split_first() {
        place = match first {
            0 => break,
            b';' => match place.behind_semicolon() {
                Some(place) => place,
                None => break,
            },
            _ => place,
        };
        let length = match first {
            b'\'' | b'"' | b'`' => quoted(behind, *first),
            b'[' => quoted(behind, b']'),
            _ if rest.starts_with(BYTE_ORDER_MARK) => BYTE_ORDER_MARK.len(),
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
        place = match first {
            b';' | b' ' | b'\t' | b'\n' | b'\r' | 0x0c => place,
            _ if [&b"--"[..], b"/*", BYTE_ORDER_MARK].iter().any(|start| token.starts_with(start)) => place,
            _ if is_word(*first) => place.behind_word(token),
            _ => place.behind_sign(),
        };
        measure.selects += u64::from(token.eq_ignore_ascii_case(b"select"));
        measure.has_in |= token.eq_ignore_ascii_case(b"in");
        measure.has_content |= token.eq_ignore_ascii_case(b"content");
        measure.references += u64::from(token.eq_ignore_ascii_case(b"references"));
        // A literal or a comment nests nothing, however long it is.
        measure.bytes += if is_word(*first) { token.len() as u64 } else { 1 };
        rest = tail;
    }
    measure.makes = place.makes();
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
