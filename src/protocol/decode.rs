//! What an answer says, for those who ask other nodes. spec: client-protocol 4.2-4.5, 6.

use bytes::Bytes;

use super::codec::{CodecError, Reader};
use super::request::Value;
use super::rows::Marker;
use crate::types::{NodeId, Role};

/// A member as SERVERS tells it; the role is there in format 1 only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Id.
    pub id: NodeId,
    /// What others dial.
    pub address: Bytes,
    /// Role.
    pub role: Option<Role>,
}

/// One ROWS message.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Column names.
    pub columns: Vec<Bytes>,
    /// Values, row by row. Times and booleans come as text and integers.
    pub rows: Vec<Vec<Value>>,
    /// Whether another message follows.
    pub marker: Marker,
}

/// A file of a DUMP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Name.
    pub name: Bytes,
    /// Content.
    pub content: Bytes,
}

/// SERVERS in the format that was asked for. Nothing is allocated from the announced count.
///
/// # Errors
/// The body is cut, or a role is none.
pub fn members(body: &Bytes, format: u64) -> Result<Vec<Member>, CodecError> {
    let mut reader = Reader::new(body);
    let count = reader.u64("server count")?;
    let mut members = Vec::new();
    for _ in 0..count {
        let id = NodeId(reader.u64("server id")?);
        let address = reader.text("server address")?;
        let offset = reader.offset();
        let role = match format {
            0 => None,
            _ => {
                let number = reader.u64("server role")?;
                let invalid = CodecError::Invalid { field: "server role", offset, value: number };
                Some(Role::from_client_number(number).ok_or(invalid)?)
            }
        };
        members.push(Member { id, address, role });
    }
    Ok(members)
}

/// ROWS. Nothing is allocated from the announced count.
///
/// # Errors
/// The body is cut, or a value has a type that no row has.
pub fn rows(body: &Bytes) -> Result<Rows, CodecError> {
    let mut reader = Reader::new(body);
    let count = reader.u64("column count")?;
    let mut columns = Vec::new();
    for _ in 0..count {
        columns.push(reader.text("column name")?);
    }
    let mut rows = Vec::new();
    loop {
        let mut ahead = Reader::new(&reader.rest());
        let word = ahead.u64("row or marker")?;
        for marker in [Marker::Done, Marker::Part] {
            if word == marker.word() {
                return Ok(Rows { columns, rows, marker });
            }
        }
        rows.push(row(&mut reader, columns.len())?);
    }
}

fn row(reader: &mut Reader, columns: usize) -> Result<Vec<Value>, CodecError> {
    let at = reader.offset();
    let codes = reader.take("row types", columns.div_ceil(2).next_multiple_of(8) as u64)?;
    if columns == 0 {
        return Err(CodecError::Invalid { field: "row without columns", offset: at, value: 0 });
    }
    let mut values = Vec::with_capacity(columns);
    for column in 0..columns {
        let code = (codes[column / 2] >> if column.is_multiple_of(2) { 0 } else { 4 }) & 0xf;
        values.push(value(code, reader)?);
    }
    Ok(values)
}

fn value(code: u8, reader: &mut Reader) -> Result<Value, CodecError> {
    let offset = reader.offset();
    Ok(match code {
        1 | 9 | 11 => Value::Integer(reader.u64("INTEGER value")?.cast_signed()),
        2 => Value::Float(f64::from_bits(reader.u64("FLOAT value")?)),
        3 | 10 => Value::Text(reader.text("TEXT value")?),
        4 => Value::Blob(reader.blob("BLOB value")?),
        5 => {
            reader.u64("NULL value")?;
            Value::Null
        }
        _ => return Err(CodecError::Invalid { field: "value type", offset, value: u64::from(code) }),
    })
}

/// FILES. Contents share memory with the body.
///
/// # Errors
/// The body is cut.
pub fn files(body: &Bytes) -> Result<Vec<File>, CodecError> {
    let mut reader = Reader::new(body);
    let count = reader.u64("file count")?;
    let mut files = Vec::new();
    for _ in 0..count {
        let name = reader.text("file name")?;
        let size = reader.u64("file size")?;
        let content = reader.take("file content", size)?;
        files.push(File { name, content });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::response;
    use crate::protocol::rows::{ColumnValue, RowsWriter};
    use crate::types::{Configuration, Server};

    fn body(message: Vec<u8>) -> Bytes {
        Bytes::from(message).slice(8..)
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let names: [&[u8]; 3] = [b"a", b"when", b"c"];
        let mut writer = RowsWriter::new(names.into_iter());
        for _ in 0..2 {
            writer.begin_row(3);
            writer.push(0, None, &ColumnValue::Integer(-1));
            writer.push(1, Some(b"DATETIME"), &ColumnValue::Text(b"x"));
            writer.push(2, None, &ColumnValue::Blob(b"123456789"));
        }
        let read = rows(&body(writer.finish(Marker::Part).unwrap())).unwrap();

        let text = Value::Text(Bytes::from_static(b"x"));
        let row = vec![Value::Integer(-1), text, Value::Blob(Bytes::from_static(b"123456789"))];
        assert_eq!(read.rows, vec![row.clone(), row]);
        assert_eq!(read.marker, Marker::Part);
        assert_eq!(read.columns, names.map(Bytes::from_static));
    }

    #[test]
    fn members_are_read_as_they_were_written() {
        let server = Server { id: NodeId(7), address: b"a:1".to_vec(), role: Role::Spare };
        let configuration = Configuration::new(vec![server]).unwrap();
        for (format, role) in [(0, None), (1, Some(Role::Spare))] {
            let read = members(&body(response::servers(&configuration, format)), format).unwrap();
            assert_eq!(read, vec![Member { id: NodeId(7), address: Bytes::from_static(b"a:1"), role }]);
        }
    }

    #[test]
    fn cut_bodies_and_huge_counts_are_errors() {
        let huge = Bytes::from_static(&[0xfe; 16]);
        assert!(members(&huge, 1).is_err() && rows(&huge).is_err() && files(&huge).is_err());
        assert!(rows(&Bytes::from_static(&[0; 16])).is_err());
        assert!(files(&Bytes::new()).is_err());
    }
}
