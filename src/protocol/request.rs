//! What a client asks. spec: client-protocol 3.3, 4.1, 5.

use bytes::Bytes;

use super::codec::{CodecError, Reader, Writer};
use super::failure::{ERROR, PARSE, UNRECOGNIZED_REQUEST_TYPE, UNRECOGNIZED_SCHEMA};

/// Number of a request on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    Leader = 0,
    Client = 1,
    Heartbeat = 2,
    Open = 3,
    Prepare = 4,
    Exec = 5,
    Query = 6,
    Finalize = 7,
    ExecSql = 8,
    QuerySql = 9,
    Interrupt = 10,
    Connect = 11,
    Add = 12,
    Assign = 13,
    Remove = 14,
    Dump = 15,
    Cluster = 16,
    Transfer = 17,
    Describe = 18,
    Weight = 19,
}

impl Kind {
    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Kind> {
        use Kind::*;
        [
            Leader, Client, Heartbeat, Open, Prepare, Exec, Query, Finalize, ExecSql, QuerySql, Interrupt,
            Connect, Add, Assign, Remove, Dump, Cluster, Transfer, Describe, Weight,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == number)
    }
}

/// A parameter. BOOLEAN comes as 0 or 1, ISO8601 as text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// 64-bit integer.
    Integer(i64),
    /// IEEE 754 binary64.
    Float(f64),
    /// Bytes without NUL.
    Text(Bytes),
    /// Bytes; length 0 is not NULL.
    Blob(Bytes),
    /// NULL.
    Null,
}

impl Value {
    const fn code(&self) -> u8 {
        match self {
            Value::Integer(_) => 1,
            Value::Float(_) => 2,
            Value::Text(_) => 3,
            Value::Blob(_) => 4,
            Value::Null => 5,
        }
    }
}

/// The parameter tuple of a request, not yet decoded. spec: client-protocol 4.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// 0: count in a byte; 1: count in four bytes.
    pub schema: u8,
    /// The rest of the body: empty if there are no parameters.
    pub bytes: Bytes,
}

impl Parameters {
    /// The values. Nothing is allocated from the announced count.
    ///
    /// # Errors
    /// A type that no parameter has, a value that is cut off, more of them than there is memory for.
    pub fn decode(&self) -> Result<Vec<Value>, CodecError> {
        if self.bytes.is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = Reader::new(&self.bytes);
        let count = match self.schema {
            0 => u64::from(reader.u8("parameter count")?),
            _ => u64::from(reader.u32("parameter count")?),
        };
        let codes = reader.take("parameter types", count)?;
        reader.pad_to_word("parameter types")?;
        // Every value takes a word: a count without values costs no memory.
        let mut values = Vec::new();
        let count = codes.len().min(reader.left() / 8);
        let reserved = values.try_reserve_exact(count);
        reserved.map_err(|_| CodecError::NoMemory { field: "parameters", count })?;
        for code in codes {
            // Never more than was reserved: the first value without its word ends it.
            values.push(decode_value(code, &mut reader)?);
        }
        Ok(values)
    }

    /// The tuple of these values; empty for none.
    #[must_use]
    pub fn encode(values: &[Value]) -> Parameters {
        if values.is_empty() {
            return Parameters::default();
        }
        let mut writer = Writer::default();
        let schema = match u8::try_from(values.len()) {
            Ok(count) => {
                writer.u8(count);
                0
            }
            Err(_) => {
                writer.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
                1
            }
        };
        for value in values {
            writer.u8(value.code());
        }
        writer.pad_to_word();
        for value in values {
            match value {
                Value::Integer(number) => writer.bytes(&number.to_le_bytes()),
                Value::Float(number) => writer.u64(number.to_bits()),
                Value::Text(text) => writer.text(text),
                Value::Blob(blob) => writer.blob(blob),
                Value::Null => writer.u64(0),
            }
        }
        Parameters { schema, bytes: writer.into_bytes() }
    }
}

fn decode_value(code: u8, reader: &mut Reader) -> Result<Value, CodecError> {
    let offset = reader.offset();
    Ok(match code {
        1 => Value::Integer(reader.u64("INTEGER parameter")?.cast_signed()),
        2 => Value::Float(f64::from_bits(reader.u64("FLOAT parameter")?)),
        3 | 10 => Value::Text(reader.text("TEXT parameter")?),
        4 => Value::Blob(reader.blob("BLOB parameter")?),
        5 => {
            reader.u64("NULL parameter")?;
            Value::Null
        }
        11 => Value::Integer(i64::from(reader.u64("BOOLEAN parameter")? != 0)),
        _ => return Err(CodecError::Invalid { field: "parameter type", offset, value: u64::from(code) }),
    })
}

/// A decoded request. Texts and parameters share memory with the body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Request {
    Leader,
    Client {
        id: u64,
    },
    Open {
        name: Bytes,
        flags: u64,
        vfs: Bytes,
    },
    Prepare {
        schema: u8,
        db: u64,
        sql: Bytes,
    },
    Exec {
        db: u32,
        stmt: u32,
        parameters: Parameters,
    },
    Query {
        db: u32,
        stmt: u32,
        parameters: Parameters,
    },
    Finalize {
        db: u32,
        stmt: u32,
    },
    ExecSql {
        db: u64,
        sql: Bytes,
        parameters: Parameters,
    },
    QuerySql {
        db: u64,
        sql: Bytes,
        parameters: Parameters,
    },
    Interrupt {
        db: u64,
    },
    Connect {
        id: u64,
        address: Bytes,
    },
    Add {
        id: u64,
        address: Bytes,
    },
    Assign {
        id: u64,
        role: u64,
    },
    /// The old form of ASSIGN: one word, role voter.
    Promote {
        id: u64,
    },
    Remove {
        id: u64,
    },
    Dump {
        name: Bytes,
    },
    Cluster {
        format: u64,
    },
    Transfer {
        id: u64,
    },
    Describe {
        format: u64,
    },
    Weight {
        weight: u64,
    },
}

/// What a request that does not decode gets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The connection is closed.
    #[error("request of type {0} does not decode: {1}")]
    Close(u8, CodecError),
    /// A FAILURE; the connection goes on.
    #[error("{code}: {message}")]
    Failure {
        /// Code of the FAILURE.
        code: u64,
        /// Text of the FAILURE.
        message: &'static str,
    },
}

impl Request {
    /// Decodes a body. Bytes behind the last field are ignored.
    ///
    /// # Errors
    /// What spec client-protocol 3.3 recommends for it.
    pub fn decode(kind: u8, schema: u8, body: &Bytes) -> Result<Request, DecodeError> {
        let Some(known) = Kind::from_number(kind).filter(|kind| *kind != Kind::Heartbeat) else {
            return Err(DecodeError::Failure { code: PARSE, message: UNRECOGNIZED_REQUEST_TYPE });
        };
        let has_variants =
            matches!(known, Kind::Prepare | Kind::Exec | Kind::Query | Kind::ExecSql | Kind::QuerySql);
        if schema > u8::from(has_variants) {
            let code = if has_variants { ERROR } else { PARSE };
            return Err(DecodeError::Failure { code, message: UNRECOGNIZED_SCHEMA });
        }
        Request::decode_fields(known, schema, body).map_err(|error| DecodeError::Close(kind, error))
    }

    fn decode_fields(kind: Kind, schema: u8, body: &Bytes) -> Result<Request, CodecError> {
        let mut reader = Reader::new(body);
        let parameters = |reader: &Reader| Parameters { schema, bytes: reader.rest() };
        Ok(match kind {
            Kind::Leader | Kind::Heartbeat => {
                reader.u64("unused")?;
                Request::Leader
            }
            Kind::Client => Request::Client { id: reader.u64("client id")? },
            Kind::Open => Request::Open {
                name: reader.text("name")?,
                flags: reader.u64("flags")?,
                vfs: reader.text("vfs")?,
            },
            Kind::Prepare => Request::Prepare { schema, db: reader.u64("db")?, sql: reader.text("sql")? },
            Kind::Exec => {
                let (db, stmt) = (reader.u32("db")?, reader.u32("stmt")?);
                Request::Exec { db, stmt, parameters: parameters(&reader) }
            }
            Kind::Query => {
                let (db, stmt) = (reader.u32("db")?, reader.u32("stmt")?);
                Request::Query { db, stmt, parameters: parameters(&reader) }
            }
            Kind::Finalize => Request::Finalize { db: reader.u32("db")?, stmt: reader.u32("stmt")? },
            Kind::ExecSql => {
                let (db, sql) = (reader.u64("db")?, reader.text("sql")?);
                Request::ExecSql { db, sql, parameters: parameters(&reader) }
            }
            Kind::QuerySql => {
                let (db, sql) = (reader.u64("db")?, reader.text("sql")?);
                Request::QuerySql { db, sql, parameters: parameters(&reader) }
            }
            Kind::Interrupt => Request::Interrupt { db: reader.u64("db")? },
            Kind::Connect => Request::Connect { id: reader.u64("id")?, address: reader.text("address")? },
            Kind::Add => Request::Add { id: reader.u64("id")?, address: reader.text("address")? },
            Kind::Assign => {
                let id = reader.u64("id")?;
                if reader.left() == 0 {
                    Request::Promote { id }
                } else {
                    Request::Assign { id, role: reader.u64("role")? }
                }
            }
            Kind::Remove => Request::Remove { id: reader.u64("id")? },
            Kind::Dump => Request::Dump { name: reader.text("name")? },
            Kind::Cluster => Request::Cluster { format: reader.u64("format")? },
            Kind::Transfer => Request::Transfer { id: reader.u64("id")? },
            Kind::Describe => Request::Describe { format: reader.u64("format")? },
            Kind::Weight => Request::Weight { weight: reader.u64("weight")? },
        })
    }

    /// The message; None if it is longer than a header can tell.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let start = |kind: Kind, schema| Writer::message(kind as u8, schema);
        let word = |kind: Kind, value: u64| {
            let mut writer = start(kind, 0);
            writer.u64(value);
            writer
        };
        let named = |kind: Kind, id: u64, address: &[u8]| {
            let mut writer = word(kind, id);
            writer.text(address);
            writer
        };
        let statement = |kind: Kind, schema, db: u32, stmt: u32| {
            let mut writer = start(kind, schema);
            writer.u32(db);
            writer.u32(stmt);
            writer
        };
        let text = |kind: Kind, schema, db: u64, sql: &[u8]| {
            let mut writer = start(kind, schema);
            writer.u64(db);
            writer.text(sql);
            writer
        };
        let with = |mut writer: Writer, parameters: &Parameters| {
            writer.bytes(&parameters.bytes);
            writer
        };
        let writer = match self {
            Request::Leader => word(Kind::Leader, 0),
            Request::Client { id } => word(Kind::Client, *id),
            Request::Open { name, flags, vfs } => {
                let mut writer = start(Kind::Open, 0);
                writer.text(name);
                writer.u64(*flags);
                writer.text(vfs);
                writer
            }
            Request::Prepare { schema, db, sql } => text(Kind::Prepare, *schema, *db, sql),
            Request::Exec { db, stmt, parameters } => {
                with(statement(Kind::Exec, parameters.schema, *db, *stmt), parameters)
            }
            Request::Query { db, stmt, parameters } => {
                with(statement(Kind::Query, parameters.schema, *db, *stmt), parameters)
            }
            Request::Finalize { db, stmt } => statement(Kind::Finalize, 0, *db, *stmt),
            Request::ExecSql { db, sql, parameters } => {
                with(text(Kind::ExecSql, parameters.schema, *db, sql), parameters)
            }
            Request::QuerySql { db, sql, parameters } => {
                with(text(Kind::QuerySql, parameters.schema, *db, sql), parameters)
            }
            Request::Interrupt { db } => word(Kind::Interrupt, *db),
            Request::Connect { id, address } => named(Kind::Connect, *id, address),
            Request::Add { id, address } => named(Kind::Add, *id, address),
            Request::Assign { id, role } => {
                let mut writer = word(Kind::Assign, *id);
                writer.u64(*role);
                writer
            }
            Request::Promote { id } => word(Kind::Assign, *id),
            Request::Remove { id } => word(Kind::Remove, *id),
            Request::Dump { name } => {
                let mut writer = start(Kind::Dump, 0);
                writer.text(name);
                writer
            }
            Request::Cluster { format } => word(Kind::Cluster, *format),
            Request::Transfer { id } => word(Kind::Transfer, *id),
            Request::Describe { format } => word(Kind::Describe, *format),
            Request::Weight { weight } => word(Kind::Weight, *weight),
        };
        writer.finish()
    }
}
