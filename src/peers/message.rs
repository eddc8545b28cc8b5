//! Raft messages as bytes: a preamble of two words, a header, and behind two of them a payload that is not part of it here,
//! so that pages and snapshots travel without a copy. No I/O. spec: raft-wire 2, 3.

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::codec::{CodecError, Reader};
use crate::types::{Configuration, ConfigurationError, EntryKind, LogIndex, NodeId, Term};

/// Bytes before a header.
pub const PREAMBLE_BYTES: usize = 16;
/// Longest header that is read. spec: raft-wire 2.
pub const HEADER_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of the header of one entry.
const ENTRY_HEADER_BYTES: u64 = 16;

/// What stands before a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// Which message.
    pub kind: Kind,
    /// Bytes of the header, not 0, at most `HEADER_MAX_BYTES`.
    pub header_bytes: u64,
}

/// Number of a message on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[allow(missing_docs)]
pub enum Kind {
    AppendEntries = 1,
    AppendEntriesResult = 2,
    RequestVote = 3,
    RequestVoteResult = 4,
    InstallSnapshot = 5,
    TimeoutNow = 6,
}

/// A message without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 3.
    RequestVote(RequestVote),
    /// Type 4.
    RequestVoteResult(RequestVoteResult),
    /// Type 1; the entries' payloads follow.
    AppendEntries(AppendEntries),
    /// Type 2.
    AppendEntriesResult(AppendEntriesResult),
    /// Type 5; the content of the snapshot follows.
    InstallSnapshot(InstallSnapshot),
    /// Type 6.
    TimeoutNow(TimeoutNow),
}

impl Message {
    /// The term that the message is of: the sender's, of a pre-vote the one that it would stand in.
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Message::RequestVote(message) => message.term,
            Message::RequestVoteResult(message) => message.term,
            Message::AppendEntries(message) => message.term,
            Message::AppendEntriesResult(message) => message.term,
            Message::InstallSnapshot(message) => message.term,
            Message::TimeoutNow(message) => message.term,
        }
    }

    /// Whether it answers another message.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Message::RequestVoteResult(_) | Message::AppendEntriesResult(_))
    }
}

/// A candidate asks for a vote. spec: raft-wire 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVote {
    /// Its term; of a pre-vote one more than its term.
    pub term: Term,
    /// Who asks.
    pub candidate: NodeId,
    /// Index of its last entry.
    pub last_index: LogIndex,
    /// Term of its last entry.
    pub last_term: Term,
    /// The leader itself wants it.
    pub disrupts_leader: bool,
    /// Nothing is promised yet.
    pub is_pre_vote: bool,
}

/// The answer to it. spec: raft-wire 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVoteResult {
    /// Term of the answering node; of a pre-vote the term of the request.
    pub term: Term,
    /// Whether the vote is given.
    pub granted: bool,
    /// Whether it answers a pre-vote; old nodes don't say.
    pub is_pre_vote: Option<bool>,
}

/// Header of an entry in an `AppendEntries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// Term of the entry.
    pub term: Term,
    /// Its kind.
    pub kind: EntryKind,
    /// Bytes of its payload: a multiple of 8.
    pub bytes: u32,
}

/// A leader's entries or heartbeat. spec: raft-wire 3.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// Index of the entry before the first.
    pub previous_index: LogIndex,
    /// Term of the entry before the first.
    pub previous_term: Term,
    /// The leader's commit index.
    pub commit: LogIndex,
    /// What follows.
    pub entries: Vec<EntryHeader>,
}

/// The answer to `AppendEntries` and to `InstallSnapshot`. spec: raft-wire 3.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendEntriesResult {
    /// Term of the answering node.
    pub term: Term,
    /// Index that was refused; 0 for success.
    pub rejected: LogIndex,
    /// Its last entry. spec: raft-wire 5.1, 7.2.
    pub last_index: LogIndex,
}

/// A snapshot. spec: raft-wire 3.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// Index of the last entry in it.
    pub index: LogIndex,
    /// Term of that entry.
    pub last_term: Term,
    /// Index of the entry of the configuration.
    pub configuration_index: LogIndex,
    /// The members.
    pub configuration: Configuration,
    /// Bytes of content that follow, never compressed.
    pub content_bytes: u64,
}

/// The leader asks for an election at once. spec: raft-wire 3.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
    /// Index of the leader's last entry.
    pub last_index: LogIndex,
    /// Term of that entry.
    pub last_term: Term,
}

/// Why bytes are no message; the connection is closed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A type that nobody sends.
    #[error("message type {0}")]
    Kind(u64),
    /// No header, or one that is too long.
    #[error("header of {0} bytes, expected 1 to {HEADER_MAX_BYTES}")]
    HeaderLength(u64),
    /// The header is cut or holds a value that cannot be.
    #[error("message type {kind}: {error}")]
    Header {
        /// Type.
        kind: u64,
        /// Why.
        error: CodecError,
    },
    /// The configuration of a snapshot.
    #[error("snapshot message: {0}")]
    Configuration(#[from] ConfigurationError),
    /// A payload that would break the steps over it. spec: raft-wire 3.3.
    #[error("entry {position} has {bytes} bytes, not a multiple of 8")]
    Unaligned {
        /// Which entry, from 0.
        position: usize,
        /// Its payload.
        bytes: u32,
    },
    /// Entries without a byte of payload, which C nodes don't survive. spec: raft-wire 9.
    #[error("{0} entries without payload")]
    NoPayload(usize),
}

impl Preamble {
    /// Reads a preamble. The upper bits of the type are ignored, as libraft does since 0.17.
    ///
    /// # Errors
    /// An unknown type, an empty or a huge header.
    pub fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Result<Preamble, MessageError> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (number, header_bytes) = (word(0), word(8));
        let kinds = [
            Kind::AppendEntries,
            Kind::AppendEntriesResult,
            Kind::RequestVote,
            Kind::RequestVoteResult,
            Kind::InstallSnapshot,
            Kind::TimeoutNow,
        ];
        let known = kinds.into_iter().find(|kind| *kind as u64 == number & 0xffff);
        let kind = known.ok_or(MessageError::Kind(number))?;
        if header_bytes == 0 || header_bytes > HEADER_MAX_BYTES {
            return Err(MessageError::HeaderLength(header_bytes));
        }
        Ok(Preamble { kind, header_bytes })
    }
}

impl Message {
    /// Preamble and header.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (kind, header) = match self {
            Message::RequestVote(request) => {
                let flags = u64::from(request.disrupts_leader) | u64::from(request.is_pre_vote) << 1;
                let last = [request.last_index.0, request.last_term.0];
                (Kind::RequestVote, words(&[request.term.0, request.candidate.0, last[0], last[1], flags]))
            }
            Message::RequestVoteResult(result) => {
                let flags = u64::from(result.is_pre_vote == Some(true));
                (Kind::RequestVoteResult, words(&[result.term.0, u64::from(result.granted), flags]))
            }
            Message::AppendEntries(append) => (Kind::AppendEntries, append.header()),
            Message::AppendEntriesResult(result) => {
                let numbers = [result.term.0, result.rejected.0, result.last_index.0, 0];
                (Kind::AppendEntriesResult, words(&numbers))
            }
            Message::InstallSnapshot(install) => (Kind::InstallSnapshot, install.header()),
            Message::TimeoutNow(now) => {
                (Kind::TimeoutNow, words(&[now.term.0, now.last_index.0, now.last_term.0]))
            }
        };
        let mut message = BytesMut::with_capacity(PREAMBLE_BYTES + header.len());
        message.put_u64_le(kind as u64);
        message.put_u64_le(header.len() as u64);
        message.extend_from_slice(&header);
        message.freeze()
    }

    /// Reads a header. What stands behind its last known field is ignored.
    ///
    /// # Errors
    /// It is cut, or a field holds what it cannot.
    pub fn decode(kind: Kind, header: &Bytes) -> Result<Message, MessageError> {
        let mut reader = Reader::new(header);
        let message = match kind {
            Kind::AppendEntries => AppendEntries::decode(&mut reader),
            Kind::InstallSnapshot => return InstallSnapshot::decode(&mut reader),
            _ => decode_words(kind, &mut reader),
        };
        let message = message.map_err(|error| MessageError::Header { kind: kind as u64, error })?;
        if let Message::AppendEntries(append) = &message {
            append.check_payload()?;
        }
        Ok(message)
    }

    /// Bytes that follow the header.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        match self {
            Message::AppendEntries(append) => append.entries.iter().map(|entry| u64::from(entry.bytes)).sum(),
            Message::InstallSnapshot(install) => install.content_bytes,
            _ => 0,
        }
    }
}

fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The messages of a few words. Flags that old nodes leave out count as unset or unknown.
fn decode_words(kind: Kind, reader: &mut Reader) -> Result<Message, CodecError> {
    let term = Term(reader.u64("term")?);
    Ok(match kind {
        Kind::RequestVote => {
            let candidate = NodeId(reader.u64("candidate")?);
            let last_index = LogIndex(reader.u64("last index")?);
            let last_term = Term(reader.u64("last term")?);
            let flags = if reader.left() >= 8 { reader.u64("flags")? } else { 0 };
            let (disrupts_leader, is_pre_vote) = (flags & 1 != 0, flags & 2 != 0);
            let request =
                RequestVote { term, candidate, last_index, last_term, disrupts_leader, is_pre_vote };
            Message::RequestVote(request)
        }
        Kind::RequestVoteResult => {
            let granted = reader.u64("vote granted")? != 0;
            let is_pre_vote = if reader.left() >= 8 { Some(reader.u64("flags")? & 1 != 0) } else { None };
            Message::RequestVoteResult(RequestVoteResult { term, granted, is_pre_vote })
        }
        Kind::AppendEntriesResult => {
            let rejected = LogIndex(reader.u64("rejected index")?);
            let last_index = LogIndex(reader.u64("last index")?);
            Message::AppendEntriesResult(AppendEntriesResult { term, rejected, last_index })
        }
        _ => {
            let last_index = LogIndex(reader.u64("last index")?);
            let last_term = Term(reader.u64("last term")?);
            Message::TimeoutNow(TimeoutNow { term, last_index, last_term })
        }
    })
}

impl AppendEntries {
    /// With the last word, which nobody uses and upstream's nodes expect.
    fn header(&self) -> Vec<u8> {
        let numbers = [self.term.0, self.previous_index.0, self.previous_term.0, self.commit.0];
        let mut header = words(&numbers);
        header.put_u64_le(self.entries.len() as u64);
        for entry in &self.entries {
            header.put_u64_le(entry.term.0);
            header.extend_from_slice(&[entry.kind as u8, 0, 0, 0]);
            header.put_u32_le(entry.bytes);
        }
        header.put_u64_le(0);
        header
    }

    fn decode(reader: &mut Reader) -> Result<Message, CodecError> {
        let term = Term(reader.u64("term")?);
        let previous_index = LogIndex(reader.u64("previous index")?);
        let previous_term = Term(reader.u64("previous term")?);
        let commit = LogIndex(reader.u64("commit index")?);
        let offset = reader.offset();
        let count = reader.u64("entry count")?;
        let have = reader.left();
        let need = count.checked_mul(ENTRY_HEADER_BYTES).filter(|need| *need <= have as u64);
        let Some(need) = need else {
            return Err(CodecError::Truncated { field: "entry headers", need: count, offset, have });
        };
        let mut entries = Vec::with_capacity((need / ENTRY_HEADER_BYTES) as usize);
        for _ in 0..count {
            let term = Term(reader.u64("entry term")?);
            let offset = reader.offset();
            let number = reader.u8("entry type")?;
            let invalid = CodecError::Invalid { field: "entry type", offset, value: u64::from(number) };
            let kind = EntryKind::from_number(number).ok_or(invalid)?;
            reader.take("entry padding", 3)?;
            entries.push(EntryHeader { term, kind, bytes: reader.u32("entry length")? });
        }
        Ok(Message::AppendEntries(AppendEntries { term, previous_index, previous_term, commit, entries }))
    }

    fn check_payload(&self) -> Result<(), MessageError> {
        for (position, entry) in self.entries.iter().enumerate() {
            if !entry.bytes.is_multiple_of(8) {
                return Err(MessageError::Unaligned { position, bytes: entry.bytes });
            }
        }
        if !self.entries.is_empty() && self.entries.iter().all(|entry| entry.bytes == 0) {
            return Err(MessageError::NoPayload(self.entries.len()));
        }
        Ok(())
    }
}

impl InstallSnapshot {
    /// With the last word, which upstream sends up to 1.18.6.
    fn header(&self) -> Vec<u8> {
        let configuration = self.configuration.encode();
        let numbers = [self.term.0, self.index.0, self.last_term.0, self.configuration_index.0];
        let mut header = words(&numbers);
        header.put_u64_le(configuration.len() as u64);
        header.extend_from_slice(&configuration);
        header.put_u64_le(self.content_bytes);
        header.put_u64_le(0);
        header
    }

    fn decode(reader: &mut Reader) -> Result<Message, MessageError> {
        let mut fields = || {
            let term = Term(reader.u64("term")?);
            let index = LogIndex(reader.u64("last index")?);
            let last_term = Term(reader.u64("last term")?);
            let configuration_index = LogIndex(reader.u64("configuration index")?);
            let length = reader.u64("configuration length")?;
            let configuration = reader.take("configuration", length)?;
            let content_bytes = reader.u64("content length")?;
            Ok::<_, CodecError>((term, index, last_term, configuration_index, configuration, content_bytes))
        };
        let (term, index, last_term, configuration_index, configuration, content_bytes) =
            fields().map_err(|error| MessageError::Header { kind: Kind::InstallSnapshot as u64, error })?;
        let configuration = Configuration::decode(&configuration)?;
        let install =
            InstallSnapshot { term, index, last_term, configuration_index, configuration, content_bytes };
        Ok(Message::InstallSnapshot(install))
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
