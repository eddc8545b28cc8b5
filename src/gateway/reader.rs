//! Takes frames off a client's socket. Memory follows the bytes received, never a length announced; what is refused for a large
//! body closes the connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::protocol::header::{HEADER_BYTES, MessageHeader};
use crate::types::config;

/// One whole request.
#[derive(Debug)]
pub struct Frame {
    /// Its header.
    pub header: MessageHeader,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no further frame.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The socket failed.
    #[error("reading from the client: {0}")]
    Io(#[from] std::io::Error),
    /// A message without a body. spec: client-protocol 3.2.
    #[error("message of type {0} has no body")]
    Empty(u8),
    /// No memory for as much of a body as has come.
    #[error("message of type {kind}: no memory for {bytes} bytes of {announced}")]
    NoMemory {
        /// Type of the message.
        kind: u8,
        /// Bytes asked for.
        bytes: usize,
        /// Bytes announced.
        announced: usize,
    },
    /// A body beyond the bound.
    #[error("message of type {kind} announces {bytes} bytes, at most {max} are taken")]
    TooLarge {
        /// Type of the message.
        kind: u8,
        /// Bytes announced.
        bytes: u64,
        /// Bytes taken at most.
        max: u64,
    },
}

/// Buffers what was received and not yet used.
#[derive(Debug)]
pub struct FrameReader<S> {
    stream: S,
    received: BytesMut,
    /// A body longer than a chunk, as far as it has come.
    large: Option<LargeBody>,
}

#[derive(Debug)]
struct LargeBody {
    header: MessageHeader,
    announced: usize,
    bytes: Vec<u8>,
}

impl LargeBody {
    /// Makes room for more, at least for a chunk or the rest: twice as much as there is, or what can be had of it.
    fn grow(&mut self) -> Result<(), ReadError> {
        let missing = self.announced - self.bytes.len();
        let chunk = missing.min(config::READ_CHUNK_BYTES);
        if self.bytes.capacity() > self.bytes.len()
            || self.bytes.try_reserve_exact(missing.min(self.bytes.len().max(chunk))).is_ok()
            || self.bytes.try_reserve_exact(chunk).is_ok()
        {
            return Ok(());
        }
        let bytes = self.bytes.len() + chunk;
        Err(ReadError::NoMemory { kind: self.header.kind, bytes, announced: self.announced })
    }
}

impl<S: AsyncRead + Unpin> FrameReader<S> {
    /// A reader at the start of the stream.
    pub fn new(stream: S) -> FrameReader<S> {
        FrameReader { stream, received: BytesMut::new(), large: None }
    }

    /// The first word of the stream; None if the stream ends before it.
    ///
    /// # Errors
    /// The socket's.
    pub async fn handshake(&mut self) -> Result<Option<u64>, ReadError> {
        if !poll_fn(|context| self.poll_fill(context, 8)).await? {
            return Ok(None);
        }
        Ok(Some(self.received.get_u64_le()))
    }

    /// The next request; None at the end of the stream, also in the middle of a request. What was received so far is kept
    /// while it is not whole: any task may ask again. A body of so many bytes is not begun unless it may be: then nobody is woken.
    ///
    /// # Errors
    /// The socket's; a length that is not taken.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
        may_begin: impl FnOnce(u64) -> bool,
    ) -> Poll<Result<Option<Frame>, ReadError>> {
        if self.large.is_some() {
            return self.poll_large(context);
        }
        if !ready!(self.poll_fill(context, HEADER_BYTES))? {
            return Poll::Ready(Ok(None));
        }
        let header = MessageHeader::read(&self.received[..HEADER_BYTES]);
        let bytes = header.body_bytes();
        if bytes == 0 {
            return Poll::Ready(Err(ReadError::Empty(header.kind)));
        }
        let length = usize::try_from(bytes).ok().filter(|_| bytes <= config::MESSAGE_BODY_MAX_BYTES);
        let Some(length) = length else {
            let max = config::MESSAGE_BODY_MAX_BYTES;
            return Poll::Ready(Err(ReadError::TooLarge { kind: header.kind, bytes, max }));
        };
        if !may_begin(bytes) {
            return Poll::Pending;
        }
        if length > config::READ_CHUNK_BYTES {
            self.received.advance(HEADER_BYTES);
            let mut large = LargeBody { header, announced: length, bytes: Vec::new() };
            let here = self.received.len().min(length);
            if large.bytes.try_reserve_exact(here).is_err() {
                return Poll::Ready(Err(ReadError::NoMemory {
                    kind: header.kind,
                    bytes: here,
                    announced: length,
                }));
            }
            large.bytes.extend_from_slice(&self.received.split_to(here));
            self.large = Some(large);
            return self.poll_large(context);
        }
        if !ready!(self.poll_fill(context, HEADER_BYTES + length))? {
            return Poll::Ready(Ok(None));
        }
        self.received.advance(HEADER_BYTES);
        Poll::Ready(Ok(Some(Frame { header, body: self.received.split_to(length).freeze() })))
    }

    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    fn poll_large(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReadError>> {
        let Some(large) = self.large.as_mut() else { return Poll::Ready(Ok(None)) };
        while large.bytes.len() < large.announced {
            large.grow()?;
            // Never beyond what there is room for: a full vector would grow by itself.
            let room = large.bytes.capacity().min(large.announced) - large.bytes.len();
            let mut space = (&mut large.bytes).limit(room);
            if ready!(poll_read_buf(Pin::new(&mut self.stream), context, &mut space))? == 0 {
                return Poll::Ready(Ok(None));
            }
        }
        let whole = self.large.take().map(|large| Frame { header: large.header, body: large.bytes.into() });
        Poll::Ready(Ok(whole))
    }

    /// The stream and what was received beyond the last frame.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.received.freeze())
    }

    /// Waits until `length` bytes are buffered; false if the stream ends before.
    fn poll_fill(&mut self, context: &mut Context<'_>, length: usize) -> Poll<Result<bool, ReadError>> {
        while self.received.len() < length {
            let missing = length - self.received.len();
            if self.received.capacity() - self.received.len() < missing.max(config::READ_LEFT_BYTES) {
                self.received.reserve(missing.clamp(config::READ_MIN_BYTES, config::READ_CHUNK_BYTES));
            }
            if ready!(poll_read_buf(Pin::new(&mut self.stream), context, &mut self.received))? == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        Poll::Ready(Ok(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next<S: AsyncRead + Unpin>(reader: &mut FrameReader<S>) -> Result<Option<Frame>, ReadError> {
        poll_fn(|context| reader.poll_frame(context, |_| true)).await
    }

    #[tokio::test]
    async fn a_long_request_takes_nothing_of_the_one_behind_it() {
        let words = |words: u32, kind: u8| [&words.to_le_bytes()[..], &[kind, 0, 0, 0]].concat();
        for long in [config::READ_CHUNK_BYTES / 8 + 1, 40_000, 300_000] {
            let first = [words(u32::try_from(long).unwrap(), 1), vec![7; long * 8]].concat();
            let bytes = [first, words(2, 2), vec![9; 16]].concat();
            let mut reader = FrameReader::new(&bytes[..]);

            let frame = next(&mut reader).await.unwrap().unwrap();
            assert_eq!((frame.header.kind, frame.body), (1, vec![7; long * 8].into()));
            let frame = next(&mut reader).await.unwrap().unwrap();
            assert_eq!((frame.header.kind, frame.body), (2, vec![9; 16].into()));
            assert!(next(&mut reader).await.unwrap().is_none());

            // Its header alone comes first.
            let (header, rest) = bytes.split_at(HEADER_BYTES);
            let mut reader = FrameReader::new(tokio::io::AsyncReadExt::chain(header, rest));
            assert_eq!(next(&mut reader).await.unwrap().unwrap().body, vec![7; long * 8]);
            assert_eq!(next(&mut reader).await.unwrap().unwrap().body, vec![9; 16]);
        }
    }

    // conformance: client-protocol H5
    #[tokio::test]
    async fn a_stream_that_dribbles_is_put_together() {
        let (client, server) = tokio::io::duplex(1);
        let mut reader = FrameReader::new(server);
        let bytes = [1u8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        let writing = tokio::spawn(async move {
            let mut client = client;
            for byte in bytes {
                tokio::io::AsyncWriteExt::write_all(&mut client, &[byte]).await.unwrap();
            }
        });

        assert_eq!(reader.handshake().await.unwrap(), Some(1));
        let frame = next(&mut reader).await.unwrap().unwrap();

        assert_eq!((frame.header.kind, &frame.body[..]), (7, &[9, 0, 0, 0, 0, 0, 0, 0][..]));
        assert!(next(&mut reader).await.unwrap().is_none());
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_large_body_is_put_together_between_small_ones_and_memory_follows_it() {
        let large_bytes = 3 * config::READ_CHUNK_BYTES + 8;
        let header = |kind: u8, bytes: usize| {
            let words = u32::try_from(bytes / 8).unwrap().to_le_bytes();
            [&words[..], &[kind, 0, 0, 0]].concat()
        };
        let content: Vec<u8> = (0..large_bytes).map(|at| (at % 251) as u8).collect();
        let bytes =
            [&header(1, 8)[..], &[7; 8], &header(2, large_bytes), &content, &header(3, 8), &[9; 8]].concat();
        for pipe_bytes in [1000, 64 * 1024, 1 << 20] {
            let (mut client, server) = tokio::io::duplex(pipe_bytes);
            let sent = bytes.clone();
            let writing = tokio::spawn(async move {
                tokio::io::AsyncWriteExt::write_all(&mut client, &sent).await.unwrap();
            });
            let mut reader = FrameReader::new(server);

            let kinds =
                [next(&mut reader).await.unwrap().unwrap(), next(&mut reader).await.unwrap().unwrap()];
            assert_eq!(kinds.each_ref().map(|frame| frame.header.kind), [1, 2]);
            assert_eq!((&kinds[0].body[..], &kinds[1].body[..]), (&[7; 8][..], &content[..]));
            let last = next(&mut reader).await.unwrap().unwrap();
            assert_eq!((last.header.kind, &last.body[..]), (3, &[9; 8][..]));
            writing.await.unwrap();
            assert!(next(&mut reader).await.unwrap().is_none());
        }

        // Announced and not sent.
        let cut = [&header(2, 1 << 29)[..], &content].concat();
        let mut reader = FrameReader::new(&cut[..]);
        assert!(next(&mut reader).await.unwrap().is_none());
        let kept = reader.large.unwrap().bytes;
        assert_eq!(kept, content);
        assert!(kept.capacity() <= 4 * large_bytes, "{}", kept.capacity());
    }

    // conformance: client-protocol X1, X17 (better: upstream aborts, never reads again, or makes room for what is announced)
    #[tokio::test]
    async fn lengths_that_are_not_taken_are_errors_without_memory() {
        for words in [[0u8, 0, 0, 0], [0, 0, 0, 0x10], [0xff, 0xff, 0xff, 0xff]] {
            let bytes = [words, [0, 0, 0, 0]].concat();
            let mut reader = FrameReader::new(&bytes[..]);

            assert!(next(&mut reader).await.is_err());
            assert!(reader.received.capacity() < 2 * config::READ_CHUNK_BYTES);
        }
    }
}
