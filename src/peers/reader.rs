//! Takes raft messages off an accepted connection. Memory follows the bytes received, never a length announced; every
//! call may be dropped half-way without losing a byte. spec: raft-wire 2.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::memory::Share;
use super::message::{Kind, Message, MessageError, PREAMBLE_BYTES, Preamble};
use super::spill::{Spill, Spilling};
use crate::types::config::{
    APPEND_PAYLOAD_MAX_BYTES, PAYLOAD_STORED_MIN_BYTES, PAYLOAD_WINDOW_BYTES, READ_CHUNK_BYTES,
    SNAPSHOT_CHUNK_BYTES,
};
use crate::types::{EntryData, Term};

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
    /// Payloads of the entries of an `AppendEntries`; the content of a snapshot is read with `content`.
    pub payloads: Vec<EntryData>,
}

/// Buffers what was received and not yet used.
pub struct MessageReader<S> {
    stream: S,
    received: BytesMut,
    preamble: Option<Preamble>,
    message: Option<Message>,
    /// Where payloads with pages go.
    spill: Option<Spill>,
    /// Payloads of `message` that are here, and the one that is coming.
    payloads: Vec<EntryData>,
    spilling: Option<Spilling>,
    /// What it may hold of a message that is not here whole; without, as much as comes.
    share: Option<Share>,
    /// Bytes so far, and messages.
    taken: u64,
    messages: u64,
}

impl<S: AsyncRead + Unpin> MessageReader<S> {
    /// A reader behind CONNECT; `received` came with it.
    pub fn new(stream: S, received: Bytes, spill: Option<Spill>) -> MessageReader<S> {
        MessageReader {
            stream,
            received: received.into(),
            preamble: None,
            message: None,
            spill,
            payloads: Vec::new(),
            spilling: None,
            share: None,
            taken: 0,
            messages: 0,
        }
    }

    /// The same with a bound for what it holds.
    pub(super) fn with_share(self, share: Share) -> MessageReader<S> {
        MessageReader { share: Some(share), ..self }
    }

    /// Bytes that came so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whole messages that came so far.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether a message has begun and is not here whole.
    pub(super) fn is_inside(&self) -> bool {
        self.preamble.is_some() || !self.received.is_empty()
    }

    /// The term of the entries that are coming, if their header is here.
    pub(super) fn entries_under_way(&self) -> Option<Term> {
        match &self.message {
            Some(Message::AppendEntries(append)) => Some(append.term),
            _ => None,
        }
    }

    /// Waits for the next message to begin; false at the end of the stream.
    ///
    /// # Errors
    /// The stream's.
    pub(super) async fn begin(&mut self) -> Result<bool, ReceiveError> {
        self.fill(1).await
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
        if preamble.kind == Kind::AppendEntries {
            if announced > APPEND_PAYLOAD_MAX_BYTES {
                return Err(ReceiveError::TooLarge(announced));
            }
            self.take_payloads(usize::try_from(announced).unwrap_or(usize::MAX)).await?;
        }
        self.preamble = None;
        self.messages += 1;
        if let Some(share) = &mut self.share {
            share.release();
        }
        let payloads = std::mem::take(&mut self.payloads);
        Ok(self.message.take().map(|message| Received { message, payloads }))
    }

    /// Takes the payloads of the message that are not here yet; `announced` bytes all of them have.
    async fn take_payloads(&mut self, announced: usize) -> Result<(), ReceiveError> {
        let large = self.spill.clone().filter(|_| announced >= PAYLOAD_STORED_MIN_BYTES);
        if large.is_none() && !self.fill(announced).await? {
            return Err(ReceiveError::Cut);
        }
        while let Some(length) = self.next_payload() {
            let data = match &large {
                Some(spill) if length >= PAYLOAD_STORED_MIN_BYTES => {
                    self.spilling.get_or_insert_with(|| Spilling::new(spill, length));
                    self.spill_payload().await?
                }
                _ => {
                    if !self.fill(length).await? {
                        return Err(ReceiveError::Cut);
                    }
                    // What is kept must not keep the buffer it came in.
                    EntryData::from_bytes(Bytes::copy_from_slice(&self.received.split_to(length)))
                }
            };
            self.payloads.push(data);
        }
        Ok(())
    }

    /// Length of the payload that comes next.
    fn next_payload(&self) -> Option<usize> {
        let Some(Message::AppendEntries(append)) = &self.message else { return None };
        append.entries.get(self.payloads.len()).map(|entry| entry.bytes as usize)
    }

    /// Moves the payload that is coming to where pages lie, a window at a time.
    async fn spill_payload(&mut self) -> Result<EntryData, ReceiveError> {
        while let Some(spilling) = &mut self.spilling {
            spilling.ready().await?;
            let left = spilling.left();
            if left == 0 {
                break;
            }
            if !self.fill(left.min(PAYLOAD_WINDOW_BYTES)).await? {
                return Err(ReceiveError::Cut);
            }
            let window = self.received.split_to(self.received.len().min(left).min(PAYLOAD_WINDOW_BYTES));
            if let Some(spilling) = &mut self.spilling {
                spilling.take(window.freeze());
            }
        }
        match self.spilling.take() {
            Some(spilling) => Ok(spilling.finish()?),
            None => Err(ReceiveError::Cut),
        }
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
            let missing = (length - self.received.len()).clamp(4096, READ_CHUNK_BYTES);
            if let Some(share) = &mut self.share {
                share.hold(self.message.as_ref(), self.received.len() + missing).await;
            }
            self.received.reserve(missing);
            let count = self.stream.read_buf(&mut self.received).await?;
            if count == 0 {
                return Ok(false);
            }
            self.taken += count as u64;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::pages::testing::FaultyDisk;
    use crate::pages::{PageFile, PageSpace};
    use crate::peers::message::{AppendEntries, EntryHeader, InstallSnapshot, TimeoutNow};
    use crate::types::tasks::BlockingPool;
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
            let mut reader = MessageReader::new(rest, Bytes::copy_from_slice(behind_connect), None);

            let first = reader.next().await.unwrap().unwrap();
            assert_eq!(first.message, append(16));
            assert_eq!(first.payloads[0].contiguous().unwrap(), [7; 16][..]);
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

    /// A thread for each piece of work.
    struct Threads;

    impl BlockingPool for Threads {
        fn run(&self, work: Box<dyn FnOnce() + Send>) {
            std::thread::spawn(work);
        }
    }

    fn spill() -> (Arc<PageFile>, FaultyDisk, Spill) {
        let disk = FaultyDisk::default();
        let space = PageSpace::on_disk(Arc::new(disk.clone()), 0).unwrap();
        let file = space.file().unwrap().clone();
        let spill = Spill { store: file.clone(), pool: Arc::new(Threads) };
        (file, disk, spill)
    }

    /// An append with payloads of these lengths, and the payloads.
    fn large(lengths: &[u32]) -> (Message, Vec<Vec<u8>>) {
        let Message::AppendEntries(mut append) = append(8) else { unreachable!() };
        append.entries = lengths
            .iter()
            .map(|bytes| EntryHeader { term: Term(2), kind: EntryKind::Command, bytes: *bytes })
            .collect();
        let payloads = lengths.iter().map(|bytes| (0..*bytes).map(|at| (at / 5) as u8).collect()).collect();
        (Message::AppendEntries(append), payloads)
    }

    #[tokio::test]
    async fn large_payloads_go_to_the_page_file_however_often_their_reader_is_dropped() {
        let (file, _, spill) = spill();
        let (message, payloads) = large(&[1 << 20, 16, 70_000, 4152, 3 << 20, 8]);
        let bytes = [&message.encode()[..], &payloads.concat(), &append(0).encode()].concat();
        let (mut write, read) = tokio::io::duplex(10_000);
        tokio::spawn(async move {
            for piece in bytes.chunks(9_999) {
                write.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut reader = MessageReader::new(read, Bytes::new(), Some(spill));

        let mut dropped = 0;
        let received = loop {
            tokio::select! {
                biased;
                received = reader.next() => break received.unwrap().unwrap(),
                () = tokio::task::yield_now() => dropped += 1,
            }
        };

        assert!(dropped > 100, "the reader was dropped {dropped} times");
        assert_eq!(received.message, message);
        for (data, payload) in received.payloads.iter().zip(&payloads) {
            assert_eq!(data.contiguous().unwrap(), *payload);
        }
        assert_eq!(file.slots().0, (1 << 8) + 70_000 / 4096 + 1 + (3 << 8));
        assert!(reader.received.capacity() < 3 * PAYLOAD_WINDOW_BYTES);
        drop(received);
        assert_eq!(file.slots().0, 0);
    }

    #[tokio::test]
    async fn a_payload_that_cannot_be_kept_closes_the_connection() {
        let (_, disk, spill) = spill();
        disk.0.write.store(libc::ENOSPC, std::sync::atomic::Ordering::SeqCst);
        let (message, payloads) = large(&[1 << 20]);
        let bytes = [&message.encode()[..], &payloads.concat()].concat();
        let mut reader = MessageReader::new(&bytes[..], Bytes::new(), Some(spill));

        let error = reader.next().await.unwrap_err();

        assert!(error.to_string().contains("No space left"), "{error}");
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
        let mut reader = MessageReader::new(&bytes[..], Bytes::new(), None);

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
            let mut reader = MessageReader::new(&bytes[..], Bytes::new(), None);
            assert!(reader.next().await.is_err());
            assert!(reader.received.capacity() < 2 * READ_CHUNK_BYTES);
        }
        let huge = append(u32::MAX - 7).encode();
        let mut reader = MessageReader::new(&huge[..], Bytes::new(), None);
        assert!(reader.next().await.is_err());
        assert!(reader.received.capacity() < 2 * READ_CHUNK_BYTES);
    }
}
