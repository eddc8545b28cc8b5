//! What a client is answered: whole messages, each in one buffer. spec: client-protocol 6.

use bytes::Bytes;

use super::codec::{CodecError, Reader, Writer};
use super::failure::{ERROR, NO_MEMORY};
use crate::types::Configuration;

/// Number of a response on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    Failure = 0,
    Server = 1,
    Welcome = 2,
    Servers = 3,
    Db = 4,
    Stmt = 5,
    Result = 6,
    Rows = 7,
    Empty = 8,
    Files = 9,
    Metadata = 10,
}

fn words(kind: Kind, schema: u8, words: &[u64]) -> Vec<u8> {
    let mut writer = Writer::message(kind as u8, schema);
    for word in words {
        writer.u64(*word);
    }
    finish(writer)
}

/// Of the messages made here only rows and files can outgrow a header, and those are finished elsewhere; a text of ours
/// or of SQLite that did, or that there is no memory for, would be cut to a failure without a text.
fn finish(writer: Writer) -> Vec<u8> {
    let code = if writer.was_refused_memory() { NO_MEMORY as u8 } else { ERROR as u8 };
    writer
        .finish()
        .unwrap_or_else(|| vec![2, 0, 0, 0, 0, 0, 0, 0, code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// FAILURE.
#[must_use]
pub fn failure(code: u64, message: &[u8]) -> Vec<u8> {
    let mut writer = Writer::message(Kind::Failure as u8, 0);
    writer.u64(code);
    writer.text(message);
    finish(writer)
}

/// SERVER.
#[must_use]
pub fn server(id: u64, address: &[u8]) -> Vec<u8> {
    let mut writer = Writer::message(Kind::Server as u8, 0);
    writer.u64(id);
    writer.text(address);
    finish(writer)
}

/// SERVER on a legacy connection.
#[must_use]
pub fn server_legacy(address: &[u8]) -> Vec<u8> {
    let mut writer = Writer::message(Kind::Server as u8, 0);
    writer.text(address);
    finish(writer)
}

/// WELCOME.
#[must_use]
pub fn welcome(heartbeat_timeout_ms: u64) -> Vec<u8> {
    words(Kind::Welcome, 0, &[heartbeat_timeout_ms])
}

/// SERVERS; format 0 leaves the roles out.
#[must_use]
pub fn servers(configuration: &Configuration, format: u64) -> Vec<u8> {
    let mut writer = Writer::message(Kind::Servers as u8, 0);
    writer.u64(configuration.servers().len() as u64);
    for server in configuration.servers() {
        writer.u64(server.id.0);
        writer.text(&server.address);
        if format != 0 {
            writer.u64(server.role.client_number());
        }
    }
    finish(writer)
}

/// DB.
#[must_use]
pub fn db(id: u32) -> Vec<u8> {
    words(Kind::Db, 0, &[u64::from(id)])
}

/// STMT; schema 1 adds the tail offset.
#[must_use]
pub fn stmt(schema: u8, id: u32, parameters: u64, tail_offset: u64) -> Vec<u8> {
    let numbers = [u64::from(id) << 32, parameters, tail_offset];
    words(Kind::Stmt, schema, if schema == 0 { &numbers[..2] } else { &numbers })
}

/// RESULT.
#[must_use]
pub fn result(last_insert_id: i64, rows_affected: u64) -> Vec<u8> {
    words(Kind::Result, 0, &[last_insert_id.cast_unsigned(), rows_affected])
}

/// EMPTY.
#[must_use]
pub fn empty() -> Vec<u8> {
    words(Kind::Empty, 0, &[0])
}

/// METADATA.
#[must_use]
pub fn metadata(failure_domain: u64, weight: u64) -> Vec<u8> {
    words(Kind::Metadata, 0, &[failure_domain, weight])
}

/// A FILES message around the content of the first file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Header and everything before the content.
    pub before: Vec<u8>,
    /// Everything after it.
    pub after: Vec<u8>,
}

/// FILES of a database of `size` bytes, a multiple of 8, and an empty WAL; None if a header cannot tell its length.
#[must_use]
pub fn files(name: &[u8], size: u64, wal_name: &[u8]) -> Option<Files> {
    let mut after = Writer::default();
    after.text(wal_name);
    after.u64(0);
    let after = after.into_bytes().to_vec();
    let mut before = Writer::message(Kind::Files as u8, 0);
    before.u64(2);
    before.text(name);
    before.u64(size);
    let before = before.finish_with_more(size.checked_add(after.len() as u64)?)?;
    Some(Files { before, after })
}

/// A FAILURE's code and text.
///
/// # Errors
/// The body is cut.
pub fn decode_failure(body: &Bytes) -> Result<(u64, Bytes), CodecError> {
    let mut reader = Reader::new(body);
    Ok((reader.u64("code")?, reader.text("message")?))
}

/// Numbers of a response that has nothing else (WELCOME, DB, STMT, RESULT, EMPTY, METADATA).
///
/// # Errors
/// The body is cut.
pub fn decode_words<const N: usize>(body: &Bytes) -> Result<[u64; N], CodecError> {
    let mut reader = Reader::new(body);
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = reader.u64("number")?;
    }
    Ok(numbers)
}

/// A SERVER's id and address.
///
/// # Errors
/// The body is cut.
pub fn decode_server(body: &Bytes) -> Result<(u64, Bytes), CodecError> {
    let mut reader = Reader::new(body);
    Ok((reader.u64("id")?, reader.text("address")?))
}
