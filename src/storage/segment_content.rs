//! The content of a segment, from memory or from its file. From the file nothing is held but a window: payloads that are not
//! small go to where they need no memory.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;

use super::checksum::crc32;
use super::disk::DiskFile;
use crate::types::EntryData;
use crate::types::config::{PAYLOAD_STORED_MIN_BYTES, PAYLOAD_WINDOW_BYTES};
use crate::types::payload::{PayloadKeeper, PayloadStore};

/// Bytes of a segment. Callers ask for nothing behind `length`.
pub trait SegmentContent {
    /// How many.
    fn length(&self) -> usize;

    /// Some of them.
    ///
    /// # Errors
    /// The file cannot be read.
    fn bytes(&self, offset: usize, len: usize) -> io::Result<Bytes>;

    /// Checksum of some of them.
    ///
    /// # Errors
    /// The file cannot be read.
    fn checksum(&self, offset: usize, len: usize) -> io::Result<u32>;

    /// The payload of an entry.
    ///
    /// # Errors
    /// The file cannot be read; the payload cannot be kept.
    fn payload(&self, offset: usize, len: usize) -> io::Result<EntryData>;

    /// Whether all from `offset` up to `end` are zero.
    ///
    /// # Errors
    /// The file cannot be read.
    fn is_zero(&self, offset: usize, end: usize) -> io::Result<bool>;
}

impl SegmentContent for Bytes {
    fn length(&self) -> usize {
        self.len()
    }

    fn bytes(&self, offset: usize, len: usize) -> io::Result<Bytes> {
        Ok(self.slice(offset..offset + len))
    }

    fn checksum(&self, offset: usize, len: usize) -> io::Result<u32> {
        Ok(crc32(0, &self[offset..offset + len]))
    }

    fn payload(&self, offset: usize, len: usize) -> io::Result<EntryData> {
        Ok(EntryData::from_bytes(self.slice(offset..offset + len)))
    }

    fn is_zero(&self, offset: usize, end: usize) -> io::Result<bool> {
        Ok(self.get(offset..end).is_none_or(|part| part.iter().all(|byte| *byte == 0)))
    }
}

/// A segment that stays in its file.
pub struct SegmentFile {
    file: Box<dyn DiskFile>,
    len: usize,
    payloads: Arc<dyn PayloadStore>,
}

impl SegmentFile {
    /// The content of `file`; its payloads go to `payloads`.
    ///
    /// # Errors
    /// The length cannot be had.
    pub fn new(file: Box<dyn DiskFile>, payloads: Arc<dyn PayloadStore>) -> io::Result<SegmentFile> {
        let len = usize::try_from(file.len()?).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        Ok(SegmentFile { file, len, payloads })
    }

    /// Fills `buffer`; a read may give less than was asked for.
    fn fill(&self, buffer: &mut [u8], offset: usize) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], (offset + filled) as u64)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Gives the bytes of a range to `take`, window by window, until it says no.
    fn windows(
        &self,
        offset: usize,
        len: usize,
        mut take: impl FnMut(&[u8]) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut window = vec![0; len.min(PAYLOAD_WINDOW_BYTES)];
        let mut done = 0;
        while done < len {
            let part = &mut window[..(len - done).min(PAYLOAD_WINDOW_BYTES)];
            self.fill(part, offset + done)?;
            done += part.len();
            if !take(part)? {
                break;
            }
        }
        Ok(())
    }
}

impl SegmentContent for SegmentFile {
    fn length(&self) -> usize {
        self.len
    }

    fn bytes(&self, offset: usize, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    fn checksum(&self, offset: usize, len: usize) -> io::Result<u32> {
        let mut checksum = 0;
        self.windows(offset, len, |part| {
            checksum = crc32(checksum, part);
            Ok(true)
        })?;
        Ok(checksum)
    }

    fn payload(&self, offset: usize, len: usize) -> io::Result<EntryData> {
        if len < PAYLOAD_STORED_MIN_BYTES {
            return Ok(EntryData::from_bytes(self.bytes(offset, len)?));
        }
        let mut keeper = PayloadKeeper::new(self.payloads.clone(), len);
        self.windows(offset, len, |part| keeper.push(part).map(|()| true))?;
        Ok(keeper.finish())
    }

    fn is_zero(&self, offset: usize, end: usize) -> io::Result<bool> {
        let mut zero = true;
        self.windows(offset, end.saturating_sub(offset), |part| {
            zero = part.iter().all(|byte| *byte == 0);
            Ok(zero)
        })?;
        Ok(zero)
    }
}
