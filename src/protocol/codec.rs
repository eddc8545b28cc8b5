//! Reading and writing the fields of a body. spec: client-protocol 3.1.

use bytes::Bytes;

/// Why a body does not decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The body ends inside a field.
    #[error("truncated {field}: need {need} bytes at offset {offset}, have {have}")]
    Truncated {
        /// Name of the field.
        field: &'static str,
        /// Bytes that the field takes.
        need: u64,
        /// Where it starts.
        offset: usize,
        /// Bytes that are left there.
        have: usize,
    },
    /// No NUL before the end of the body.
    #[error("text {field} at offset {offset} has no end")]
    Unterminated {
        /// Name of the field.
        field: &'static str,
        /// Where it starts.
        offset: usize,
    },
    /// There is no memory for what the field announces.
    #[error("{field}: no memory for {count}")]
    NoMemory {
        /// Name of the field.
        field: &'static str,
        /// How many were announced.
        count: usize,
    },
    /// A value that the field cannot have.
    #[error("{field} at offset {offset} is {value}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
        /// Where it is.
        offset: usize,
        /// What was found.
        value: u64,
    },
}

/// Reads fields in order, never past the end. What it hands out shares memory with the body.
#[derive(Clone, Debug)]
pub struct Reader {
    body: Bytes,
    offset: usize,
}

impl Reader {
    /// A reader at the start of `body`.
    #[must_use]
    pub fn new(body: &Bytes) -> Reader {
        Reader { body: body.clone(), offset: 0 }
    }

    /// Bytes not read.
    #[must_use]
    pub fn left(&self) -> usize {
        self.body.len() - self.offset
    }

    /// Where the next field starts.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The rest of the body.
    #[must_use]
    pub fn rest(&self) -> Bytes {
        self.body.slice(self.offset..)
    }

    /// `count` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn take(&mut self, field: &'static str, count: u64) -> Result<Bytes, CodecError> {
        let have = self.left();
        match usize::try_from(count) {
            Ok(length) if length <= have => {
                let taken = self.body.slice(self.offset..self.offset + length);
                self.offset += length;
                Ok(taken)
            }
            _ => Err(CodecError::Truncated { field, need: count, offset: self.offset, have }),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let bytes = self.take(field, N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    /// One byte.
    ///
    /// # Errors
    /// None is left.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A text without its NUL; padding is stepped over unseen.
    ///
    /// # Errors
    /// No NUL, or padding cut off.
    pub fn text(&mut self, field: &'static str) -> Result<Bytes, CodecError> {
        let offset = self.offset;
        let length = self
            .body
            .get(offset..)
            .and_then(|rest| rest.iter().position(|byte| *byte == 0))
            .ok_or(CodecError::Unterminated { field, offset })?;
        let padded = (length + 1).next_multiple_of(8);
        let whole = self.take(field, padded as u64)?;
        Ok(whole.slice(..length))
    }

    /// A blob: length, bytes, padding.
    ///
    /// # Errors
    /// The length is more than is left.
    pub fn blob(&mut self, field: &'static str) -> Result<Bytes, CodecError> {
        let length = self.u64(field)?;
        let have = self.left() as u64;
        if length > have {
            return Err(CodecError::Truncated {
                field,
                need: length,
                offset: self.offset,
                have: self.left(),
            });
        }
        let blob = self.take(field, length)?;
        self.pad_to_word(field)?;
        Ok(blob)
    }

    /// Steps to the next multiple of 8.
    ///
    /// # Errors
    /// The padding is cut off.
    pub fn pad_to_word(&mut self, field: &'static str) -> Result<(), CodecError> {
        let padding = self.offset.next_multiple_of(8) - self.offset;
        self.take(field, padding as u64).map(|_| ())
    }
}

/// Most messages are no longer: they grow once.
const SMALL_MESSAGE_BYTES: usize = 256;

/// Appends fields to a message; padding is zero. Once memory is refused, nothing is there any more and nothing is added: only
/// the end is looked at.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
    refused: bool,
}

impl Writer {
    /// A message of this kind and schema, its header without a length.
    #[must_use]
    pub fn message(kind: u8, schema: u8) -> Writer {
        Writer::message_in(Vec::new(), kind, schema)
    }

    /// The same, in the room of a message that was sent.
    #[must_use]
    pub fn message_in(mut out: Vec<u8>, kind: u8, schema: u8) -> Writer {
        out.clear();
        let mut writer = Writer { out, refused: false };
        writer.refused = writer.out.try_reserve(SMALL_MESSAGE_BYTES).is_err();
        writer.bytes(&[0, 0, 0, 0, kind, schema, 0, 0]);
        writer
    }

    /// Bytes so far, header included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Whether memory was refused: then there is no message.
    #[must_use]
    pub fn was_refused_memory(&self) -> bool {
        self.refused
    }

    fn has_room(&mut self, more: usize) -> bool {
        // Twice as much first, as a vector grows; what is just enough may still be had.
        if !self.refused && self.out.try_reserve(more).is_err() && self.out.try_reserve_exact(more).is_err() {
            self.refused = true;
            self.out = Vec::new();
        }
        !self.refused
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            self.out.extend_from_slice(bytes);
        }
    }

    /// A text, cut at its first NUL, with NUL and padding.
    pub fn text(&mut self, text: &[u8]) {
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        self.bytes(text.get(..end).unwrap_or_default());
        self.u8(0);
        self.pad_to_word();
    }

    /// A blob: length, bytes, padding.
    pub fn blob(&mut self, blob: &[u8]) {
        self.u64(blob.len() as u64);
        self.bytes(blob);
        self.pad_to_word();
    }

    /// Zeros up to the next multiple of 8.
    pub fn pad_to_word(&mut self) {
        let padding = self.out.len().next_multiple_of(8) - self.out.len();
        self.bytes(&[0; 8][..padding]);
    }

    /// Changes a byte written before.
    pub fn or_byte(&mut self, offset: usize, bits: u8) {
        if let Some(byte) = self.out.get_mut(offset) {
            *byte |= bits;
        }
    }

    /// What was written, for a part of a message.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.out.into()
    }

    /// The message with its length in the header; None if it has more words than the header can tell, or no memory.
    #[must_use]
    pub fn finish(self) -> Option<Vec<u8>> {
        self.finish_with_more(0)
    }

    /// As `finish`, for a message to which `more` bytes will be added behind.
    #[must_use]
    pub fn finish_with_more(mut self, more: u64) -> Option<Vec<u8>> {
        if self.refused {
            return None;
        }
        let body = (self.out.len() as u64).checked_sub(8)?.checked_add(more)?;
        let words = u32::try_from(body / 8).ok()?;
        self.out.get_mut(..4)?.copy_from_slice(&words.to_le_bytes());
        Some(self.out)
    }
}
