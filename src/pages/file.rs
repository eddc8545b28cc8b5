//! The page file of disk mode: slots of one page each, written once, shared by reference and used again when the last
//! reference is gone. A slot's checksum is in memory: what a write that was lost later has left behind is not taken for
//! the page. Nothing here is durable, nor need be.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use crc::{CRC_32_ISO_HDLC, Crc, Table};

use super::cache::PageCache;
use crate::types::config::PAGE_SIZE;
use crate::types::payload::{PayloadStore, StoredBytes};
use crate::types::scratch::ScratchFile;

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

#[derive(Debug, Default)]
struct Slots {
    /// Slots that were given back.
    free: Vec<u32>,
    /// Slots that the file has had so far.
    count: u32,
}

/// A file of pages, and those of them that are in memory.
pub struct PageFile {
    own: std::sync::Weak<PageFile>,
    file: Box<dyn ScratchFile>,
    slots: Mutex<Slots>,
    cache: PageCache,
}

impl fmt::Debug for PageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageFile").field("file", &self.file).finish_non_exhaustive()
    }
}

/// A page in the file.
pub(super) struct Slot {
    file: Arc<PageFile>,
    number: u32,
    checksum: u32,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.number).finish()
    }
}

impl PageFile {
    /// An empty page file; about `cache_bytes` of its pages stay in memory.
    #[must_use]
    pub fn new(file: Box<dyn ScratchFile>, cache_bytes: usize) -> Arc<PageFile> {
        Arc::new_cyclic(|own| PageFile {
            own: own.clone(),
            file,
            slots: Mutex::default(),
            cache: PageCache::new(cache_bytes),
        })
    }

    /// Slots in use and slots that the file has.
    #[must_use]
    pub fn slots(&self) -> (u32, u32) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        (slots.count - slots.free.len() as u32, slots.count)
    }

    fn take_slot(&self) -> io::Result<u32> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = slots.free.pop() {
            return Ok(number);
        }
        let number = slots.count;
        slots.count =
            number.checked_add(1).ok_or_else(|| io::Error::other("the page file has 4294967295 pages"))?;
        Ok(number)
    }

    fn give_back(&self, number: u32) {
        self.cache.remove(number);
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).free.push(number);
    }

    /// Writes a page.
    pub(super) fn write(&self, bytes: &[u8; PAGE_SIZE]) -> io::Result<Arc<Slot>> {
        let file = self.own.upgrade().ok_or_else(|| io::Error::other("the page file is closed"))?;
        let number = self.take_slot()?;
        if let Err(error) = self.file.write_all_at(bytes, offset(number)) {
            self.give_back(number);
            return Err(error);
        }
        // What was just written is about to be read: by the log, by peers, by the next statement.
        self.cache.insert(number, bytes);
        Ok(Arc::new(Slot { file, number, checksum: CRC.checksum(bytes) }))
    }
}

fn offset(number: u32) -> u64 {
    u64::from(number) * PAGE_SIZE as u64
}

impl Slot {
    /// Whether this slot is one of `file`.
    pub(super) fn is_of(&self, file: &PageFile) -> bool {
        std::ptr::eq(&raw const *self.file, file)
    }

    /// Of the content; pages with other checksums differ.
    pub(super) fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Reads past the cache: a scan of the whole file must not drive out what is used.
    pub(super) fn scan<T>(&self, read: impl FnOnce(&[u8; PAGE_SIZE]) -> T) -> io::Result<T> {
        let mut page = [0; PAGE_SIZE];
        self.read_into(&mut page)?;
        Ok(read(&page))
    }

    fn read_into(&self, page: &mut [u8; PAGE_SIZE]) -> io::Result<Origin> {
        if self.file.cache.with(self.number, |cached| *page = *cached).is_some() {
            return Ok(Origin::Cache);
        }
        self.file.file.read_exact_at(page, offset(self.number))?;
        if CRC.checksum(page) != self.checksum {
            let text = format!("slot {} of the page file does not hold what was written to it", self.number);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Origin::File)
    }

    /// Reads, and keeps the page in memory as long as it is used.
    pub(super) fn with<T>(&self, read: impl FnOnce(&[u8; PAGE_SIZE]) -> T) -> io::Result<T> {
        let mut page = [0; PAGE_SIZE];
        if let Origin::File = self.read_into(&mut page)? {
            self.file.cache.insert(self.number, &page);
        }
        Ok(read(&page))
    }
}

/// Where a page was found.
enum Origin {
    Cache,
    File,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.file.give_back(self.number);
    }
}

impl PayloadStore for PageFile {
    fn store(&self, bytes: &[u8; PAGE_SIZE]) -> io::Result<Arc<dyn StoredBytes>> {
        let slot: Arc<dyn StoredBytes> = self.write(bytes)?;
        Ok(slot)
    }
}

impl StoredBytes for Slot {
    fn read(&self) -> io::Result<Bytes> {
        self.scan(|page| Bytes::copy_from_slice(page))
    }

    fn cached(&self) -> Option<Bytes> {
        self.file.cache.with(self.number, |page| Bytes::copy_from_slice(page))
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
