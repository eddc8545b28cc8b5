//! ROWS messages: names once a message, then whole rows, then a marker. spec: client-protocol 4.2-4.5.

use super::codec::Writer;
use super::response::Kind;

/// What follows the rows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Another message with rows.
    Part,
    /// Nothing.
    Done,
}

impl Marker {
    /// The last word of the body.
    #[must_use]
    pub const fn word(self) -> u64 {
        match self {
            Marker::Part => 0xeeee_eeee_eeee_eeee,
            Marker::Done => u64::MAX,
        }
    }
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfinished {
    /// A header cannot tell its length.
    #[error("rows longer than a header can tell")]
    TooLong,
    /// Memory was refused.
    #[error("no memory for rows")]
    NoMemory,
}

/// A value of a row as SQLite has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ColumnValue<'a> {
    /// 64-bit integer.
    Integer(i64),
    /// IEEE 754 binary64.
    Float(f64),
    /// Text; sent up to its first NUL.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
    /// NULL.
    Null,
}

/// Type code of a value of a column declared so. Where upstream aborts, the storage class is sent.
/// spec: client-protocol 4.4.
#[must_use]
pub fn type_code(declared: Option<&[u8]>, value: &ColumnValue<'_>) -> u8 {
    let declared = declared.unwrap_or_default();
    let is = |name: &str| declared.eq_ignore_ascii_case(name.as_bytes());
    if is("DATETIME") || is("DATE") || is("TIMESTAMP") {
        match value {
            ColumnValue::Integer(_) => return 9,
            ColumnValue::Text(_) | ColumnValue::Null => return 10,
            _ => {}
        }
    } else if is("BOOLEAN") && matches!(value, ColumnValue::Integer(_) | ColumnValue::Null) {
        return 11;
    }
    match value {
        ColumnValue::Integer(_) => 1,
        ColumnValue::Float(_) => 2,
        ColumnValue::Text(_) => 3,
        ColumnValue::Blob(_) => 4,
        ColumnValue::Null => 5,
    }
}

/// Makes one ROWS message.
#[derive(Clone, Debug)]
pub struct RowsWriter {
    writer: Writer,
    /// Where the type codes of the current row start.
    codes_at: usize,
}

impl RowsWriter {
    /// A message with these column names and no rows.
    #[must_use]
    pub fn new<'a>(names: impl ExactSizeIterator<Item = &'a [u8]>) -> RowsWriter {
        RowsWriter::new_in(Vec::new(), names)
    }

    /// The same, in the room of a message that was sent.
    #[must_use]
    pub fn new_in<'a>(room: Vec<u8>, names: impl ExactSizeIterator<Item = &'a [u8]>) -> RowsWriter {
        let mut writer = Writer::message_in(room, Kind::Rows as u8, 0);
        writer.u64(names.len() as u64);
        for name in names {
            writer.text(name);
        }
        RowsWriter { writer, codes_at: 0 }
    }

    /// Bytes so far, header included; more than any bound once memory is refused.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.writer.was_refused_memory() { usize::MAX } else { self.writer.len() }
    }

    /// Never: the names are there from the start.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writer.is_empty()
    }

    /// Starts a row of `columns` values, which are to be pushed in order.
    pub fn begin_row(&mut self, columns: usize) {
        self.codes_at = self.writer.len();
        for _ in 0..columns.div_ceil(2) {
            self.writer.u8(0);
        }
        self.writer.pad_to_word();
    }

    /// The next value of the row.
    pub fn push(&mut self, column: usize, declared: Option<&[u8]>, value: &ColumnValue<'_>) {
        let code = type_code(declared, value);
        let shift = if column.is_multiple_of(2) { 0 } else { 4 };
        self.writer.or_byte(self.codes_at + column / 2, code << shift);
        match (code, value) {
            (10, ColumnValue::Null) => self.writer.text(b""),
            (_, ColumnValue::Null) => self.writer.u64(0),
            (_, ColumnValue::Integer(number)) => self.writer.u64(number.cast_unsigned()),
            (_, ColumnValue::Float(number)) => self.writer.u64(number.to_bits()),
            (_, ColumnValue::Text(text)) => self.writer.text(text),
            (_, ColumnValue::Blob(blob)) => self.writer.blob(blob),
        }
    }

    /// The whole message.
    ///
    /// # Errors
    /// It is too long, or there was no memory for it.
    pub fn finish(mut self, marker: Marker) -> Result<Vec<u8>, Unfinished> {
        self.writer.u64(marker.word());
        if self.writer.was_refused_memory() {
            return Err(Unfinished::NoMemory);
        }
        self.writer.finish().ok_or(Unfinished::TooLong)
    }
}
