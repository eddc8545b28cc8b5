//! `server-info` and `node-store` as upstream has them, byte for byte; written so that a crash leaves the old content or
//! the whole of the other. Parsing is strict, and a text that would not parse is not written. spec: c-api 4.2.

use std::str::from_utf8;

use crate::storage::directory::Directory;
use crate::storage::error::StorageError;
use crate::types::config::SERVER_FILE_MAX_BYTES;
use crate::types::{NodeId, Role, Server};

/// Who the server is.
const INFO_NAME: &str = "server-info";
/// Where `server-info` is made.
const INFO_TEMPORARY: &str = "server-info-tmp";
/// The members of its cluster.
const STORE_NAME: &str = "node-store";
/// Where `node-store` is made.
const STORE_TEMPORARY: &str = "node-store-tmp";
/// First line of both.
const VERSION: &[u8] = b"v1";

/// What `server-info` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What others dial.
    pub address: Vec<u8>,
    /// Id of the node, not 0.
    pub id: NodeId,
}

/// What is wrong with a text. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The first line.
    #[error("line 1: version '{0}', expected 'v1'")]
    Version(String),
    /// The text ends inside a line.
    #[error("line {line}: '{text}' has no end of line")]
    Unended {
        /// Which line.
        line: usize,
        /// What is there of it.
        text: String,
    },
    /// The text ends before a line that belongs there.
    #[error("line {line}: {what} is missing")]
    Missing {
        /// Which line.
        line: usize,
        /// What should be there.
        what: &'static str,
    },
    /// Digits only, below 2^64.
    #[error("line {line}: id '{text}' is not a decimal number of 64 bits")]
    Id {
        /// Which line.
        line: usize,
        /// What is there.
        text: String,
    },
    /// A server has an id.
    #[error("line 3: id of the server is 0")]
    NoId,
    /// voter, standby, spare.
    #[error("line {line}: role '{text}' is none of voter, standby, spare")]
    Role {
        /// Which line.
        line: usize,
        /// What is there.
        text: String,
    },
    /// No connect function could be given it.
    #[error("address '{0}' has a NUL or an end of line in it")]
    Address(String),
    /// More lines than there may be.
    #[error("line {line}: '{text}' is too much")]
    Rest {
        /// Which line.
        line: usize,
        /// What is there.
        text: String,
    },
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The text of the file.
    #[error("{file}: {error}")]
    Text {
        /// Its name.
        file: &'static str,
        /// What is wrong.
        error: TextError,
    },
    /// Nobody wrote this.
    #[error("{file}: {bytes} bytes, at most {} are read", SERVER_FILE_MAX_BYTES)]
    TooLarge {
        /// Its name.
        file: &'static str,
        /// Its length.
        bytes: u64,
    },
    /// Members without a server that knows them.
    #[error("node-store has members, but server-info is missing or empty")]
    StoreWithoutInfo,
    /// The file system.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What both files tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// None before the first start.
    pub info: Option<Info>,
    /// The members that were seen last.
    pub members: Vec<Server>,
}

/// Reads both files; one that is missing or empty tells nothing.
///
/// # Errors
/// A text that is not as upstream writes it; members without a server; those of the file system.
pub fn read(directory: &Directory) -> Result<Known, FileError> {
    let parsed = |file, error| FileError::Text { file, error };
    let info = read_file(directory, INFO_NAME)?
        .map(|bytes| Info::parse(&bytes).map_err(|error| parsed(INFO_NAME, error)))
        .transpose()?;
    let members = read_file(directory, STORE_NAME)?
        .map(|bytes| parse_store(&bytes).map_err(|error| parsed(STORE_NAME, error)))
        .transpose()?;
    if info.is_none() && members.is_some() {
        return Err(FileError::StoreWithoutInfo);
    }
    Ok(Known { info, members: members.unwrap_or_default() })
}

/// Writes `server-info`, durably.
///
/// # Errors
/// An address that would not be read again; those of the file system.
pub fn write_info(directory: &Directory, info: &Info) -> Result<(), FileError> {
    let text = info.encode().map_err(|error| FileError::Text { file: INFO_NAME, error })?;
    Ok(directory.replace_file(INFO_TEMPORARY, INFO_NAME, &text)?)
}

/// Writes `node-store`, durably.
///
/// # Errors
/// An address that would not be read again; those of the file system.
pub fn write_store(directory: &Directory, members: &[Server]) -> Result<(), FileError> {
    let text = encode_store(members).map_err(|error| FileError::Text { file: STORE_NAME, error })?;
    Ok(directory.replace_file(STORE_TEMPORARY, STORE_NAME, &text)?)
}

impl Info {
    /// The text.
    ///
    /// # Errors
    /// An address that would not be read again.
    pub fn encode(&self) -> Result<Vec<u8>, TextError> {
        let id = self.id.to_string();
        Ok([VERSION, b"\n", checked(&self.address)?, b"\n", id.as_bytes(), b"\n"].concat())
    }

    /// Reads the text.
    ///
    /// # Errors
    /// Anything that upstream does not write.
    pub fn parse(text: &[u8]) -> Result<Info, TextError> {
        let mut lines = Lines::after_version(text)?;
        let address = lines.address()?.ok_or(TextError::Missing { line: 2, what: "the address" })?;
        let id = lines.id()?;
        if id.0 == 0 {
            return Err(TextError::NoId);
        }
        match lines.next()? {
            None => Ok(Info { address, id }),
            Some(rest) => Err(TextError::Rest { line: lines.number, text: shown(rest) }),
        }
    }
}

/// The text of `node-store`.
///
/// # Errors
/// An address that would not be read again.
pub fn encode_store(members: &[Server]) -> Result<Vec<u8>, TextError> {
    let mut text = [VERSION, b"\n"].concat();
    for member in members {
        let id = member.id.to_string();
        let role: &[u8] = match member.role {
            Role::Voter => b"voter",
            Role::StandBy => b"standby",
            Role::Spare => b"spare",
        };
        for line in [checked(&member.address)?, id.as_bytes(), role] {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }
    Ok(text)
}

/// Reads the text of `node-store`.
///
/// # Errors
/// Anything that upstream does not write.
pub fn parse_store(text: &[u8]) -> Result<Vec<Server>, TextError> {
    let mut lines = Lines::after_version(text)?;
    let mut members = Vec::new();
    while let Some(address) = lines.address()? {
        members.push(Server { address, id: lines.id()?, role: lines.role()? });
    }
    Ok(members)
}

/// Lines that all have an end.
struct Lines<'a> {
    rest: &'a [u8],
    /// Of the last line given.
    number: usize,
}

impl<'a> Lines<'a> {
    fn after_version(text: &'a [u8]) -> Result<Lines<'a>, TextError> {
        let mut lines = Lines { rest: text, number: 0 };
        match lines.next()? {
            Some(VERSION) => Ok(lines),
            other => Err(TextError::Version(shown(other.unwrap_or_default()))),
        }
    }

    fn next(&mut self) -> Result<Option<&'a [u8]>, TextError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| TextError::Unended { line: self.number, text: shown(self.rest) })?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(Some(line))
    }

    fn expect(&mut self, what: &'static str) -> Result<&'a [u8], TextError> {
        let line = self.number + 1;
        self.next()?.ok_or(TextError::Missing { line, what })
    }

    fn address(&mut self) -> Result<Option<Vec<u8>>, TextError> {
        self.next()?.map(|line| checked(line).map(<[u8]>::to_vec)).transpose()
    }

    /// compat: no digit at all is 0 (1.18.6).
    fn id(&mut self) -> Result<NodeId, TextError> {
        let line = self.expect("the id")?;
        let digits = line.iter().all(u8::is_ascii_digit).then_some(line);
        let number = match digits {
            Some([]) => Some(0),
            Some(digits) => from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
            None => None,
        };
        number.map(NodeId).ok_or_else(|| TextError::Id { line: self.number, text: shown(line) })
    }

    fn role(&mut self) -> Result<Role, TextError> {
        match self.expect("the role")? {
            b"voter" => Ok(Role::Voter),
            b"standby" => Ok(Role::StandBy),
            b"spare" => Ok(Role::Spare),
            other => Err(TextError::Role { line: self.number, text: shown(other) }),
        }
    }
}

fn checked(address: &[u8]) -> Result<&[u8], TextError> {
    if address.iter().any(|byte| [b'\n', 0].contains(byte)) {
        return Err(TextError::Address(shown(address)));
    }
    Ok(address)
}

/// As it goes into an error: cut, on one line.
fn shown(text: &[u8]) -> String {
    const SHOWN_MAX_BYTES: usize = 80;
    let text = text.get(..SHOWN_MAX_BYTES).unwrap_or(text);
    String::from_utf8_lossy(text).escape_debug().to_string()
}

fn read_file(directory: &Directory, name: &'static str) -> Result<Option<Vec<u8>>, FileError> {
    let Some(stat) = directory.stat(name)? else { return Ok(None) };
    if stat.bytes > SERVER_FILE_MAX_BYTES {
        return Err(FileError::TooLarge { file: name, bytes: stat.bytes });
    }
    let content = directory.read(name)?;
    Ok((!content.is_empty()).then(|| content.to_vec()))
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
