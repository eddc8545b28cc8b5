//! Takes raft messages off an accepted connection. Memory follows the bytes received, never a length announced; every
//! call may be dropped half-way without losing a byte. spec: raft-wire 2.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::message::{Kind, Message, MessageError, PREAMBLE_BYTES, Preamble};
use crate::types::config::{APPEND_PAYLOAD_MAX_BYTES, READ_CHUNK_BYTES, SNAPSHOT_CHUNK_BYTES};

/// Why there is no further message; the connection is closed then.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The stream failed.
    #[error("reading from the peer: {0}")]
    Io(#[from] std::io::Error),
    /// Bytes that are no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A payload beyond the bound.
    #[error("AppendEntries announces {0} bytes of entries, at most {APPEND_PAYLOAD_MAX_BYTES} are taken")]
    TooLarge(u64),
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Cut,
}

/// A message as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Message.
    pub message: Message,
    /// Payload of an `AppendEntries`; the content of a snapshot is read with `content`.
    pub payload: Bytes,
}

/// Buffers what was received and not yet used.
pub struct MessageReader<S> {
    stream: S,
    received: BytesMut,
    preamble: Option<Preamble>,
    message: Option<Message>,
}

impl<S: AsyncRead + Unpin> MessageReader<S> {
    /// A reader behind CONNECT; `received` came with it.
    pub fn new(stream: S, received: Bytes) -> MessageReader<S> {
        MessageReader { stream, received: received.into(), preamble: None, message: None }
    }

    /// The next message; None at the end of the stream.
    ///
    /// # Errors
    /// The stream's; bytes that are no message.
    pub async fn next(&mut self) -> Result<Option<Received>, ReceiveError> {
        let preamble = match self.preamble {
            Some(preamble) => preamble,
            None => {
                if !self.fill(PREAMBLE_BYTES).await? {
                    return if self.received.is_empty() { Ok(None) } else { Err(ReceiveError::Cut) };
                }
                let mut bytes = [0; PREAMBLE_BYTES];
                bytes.copy_from_slice(&self.received.split_to(PREAMBLE_BYTES));
                *self.preamble.insert(Preamble::decode(&bytes)?)
            }
        };
        if self.message.is_none() {
            // At most HEADER_MAX_BYTES.
            let length = preamble.header_bytes as usize;
            if !self.fill(length).await? {
                return Err(ReceiveError::Cut);
            }
            let header = self.received.split_to(length).freeze();
            self.message = Some(Message::decode(preamble.kind, &header)?);
        }
        let announced = self.message.as_ref().map_or(0, Message::payload_bytes);
        let mut payload = Bytes::new();
        if preamble.kind == Kind::AppendEntries {
            let length = usize::try_from(announced).unwrap_or(usize::MAX);
            if announced > APPEND_PAYLOAD_MAX_BYTES {
                return Err(ReceiveError::TooLarge(announced));
            }
            if !self.fill(length).await? {
                return Err(ReceiveError::Cut);
            }
            payload = self.received.split_to(length).freeze();
        }
        self.preamble = None;
        Ok(self.message.take().map(|message| Received { message, payload }))
    }

    /// Some of the content that follows a snapshot's message: at least one byte, at most `left`, not 0.
    ///
    /// # Errors
    /// The stream's; its end.
    pub async fn content(&mut self, left: u64) -> Result<Bytes, ReceiveError> {
        if !self.fill(1).await? {
            return Err(ReceiveError::Cut);
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(SNAPSHOT_CHUNK_BYTES);
        Ok(self.received.split_to(self.received.len().min(most)).freeze())
    }

    /// Waits until `length` bytes are buffered; false if the stream ends before.
    async fn fill(&mut self, length: usize) -> Result<bool, ReceiveError> {
        while self.received.len() < length {
            let missing = length - self.received.len();
            self.received.reserve(missing.clamp(4096, READ_CHUNK_BYTES));
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::message::{AppendEntries, EntryHeader, InstallSnapshot, TimeoutNow};
    use crate::types::{Configuration, EntryKind, LogIndex, Term};

    fn append(bytes: u32) -> Message {
        let entries = vec![EntryHeader { term: Term(2), kind: EntryKind::Command, bytes }];
        let (previous_index, previous_term, commit) = (LogIndex(4), Term(2), LogIndex(4));
        Message::AppendEntries(AppendEntries {
            term: Term(2),
            previous_index,
            previous_term,
            commit,
            entries,
        })
    }

    // conformance: raft-wire 2
    #[tokio::test]
    async fn messages_arrive_whole_however_the_stream_is_cut() {
        let now = TimeoutNow { term: Term(1), last_index: LogIndex(2), last_term: Term(1) };
        let bytes = [&append(16).encode()[..], &[7; 16], &Message::TimeoutNow(now).encode()[..]].concat();
        for at in 0..bytes.len() {
            let (behind_connect, rest) = bytes.split_at(at);
            let rest = tokio_test_io(rest);
            let mut reader = MessageReader::new(rest, Bytes::copy_from_slice(behind_connect));

            let first = reader.next().await.unwrap().unwrap();
            assert_eq!((first.message, &first.payload[..]), (append(16), &[7; 16][..]));
            assert_eq!(reader.next().await.unwrap().unwrap().message, Message::TimeoutNow(now));
            assert!(reader.next().await.unwrap().is_none());
        }
    }

    /// One byte at a time.
    fn tokio_test_io(bytes: &[u8]) -> impl AsyncRead + Unpin + use<> {
        let (mut write, read) = tokio::io::duplex(1);
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut write, &bytes).await.unwrap();
        });
        read
    }

    #[tokio::test]
    async fn the_content_of_a_snapshot_comes_in_pieces() {
        let install = InstallSnapshot {
            term: Term(3),
            index: LogIndex(9),
            last_term: Term(2),
            configuration_index: LogIndex(1),
            configuration: Configuration::default(),
            content_bytes: 1_000_000,
        };
        let message = Message::InstallSnapshot(install);
        let bytes = [&message.encode()[..], &vec![5; 1_000_000][..]].concat();
        let mut reader = MessageReader::new(&bytes[..], Bytes::new());

        assert_eq!(reader.next().await.unwrap().unwrap().message, message);
        let mut left = 1_000_000;
        while left > 0 {
            let piece = reader.content(left).await.unwrap();
            assert!(!piece.is_empty() && piece.len() <= SNAPSHOT_CHUNK_BYTES);
            left -= piece.len() as u64;
        }
        assert!(reader.next().await.unwrap().is_none());
    }

    // conformance: raft-wire 12
    #[tokio::test]
    async fn what_is_no_message_is_an_error_without_memory() {
        let preamble = |kind: u64, header: u64| [kind.to_le_bytes(), header.to_le_bytes()].concat();
        for bytes in [preamble(1, 0), preamble(7, 40), preamble(1, u64::MAX), preamble(3, 1 << 40), vec![1]] {
            let mut reader = MessageReader::new(&bytes[..], Bytes::new());
            assert!(reader.next().await.is_err());
            assert!(reader.received.capacity() < 2 * READ_CHUNK_BYTES);
        }
        let huge = append(u32::MAX - 7).encode();
        let mut reader = MessageReader::new(&huge[..], Bytes::new());
        assert!(reader.next().await.is_err());
        assert!(reader.received.capacity() < 2 * READ_CHUNK_BYTES);
    }
}
