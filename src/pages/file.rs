//! The page file of disk mode: slots of one page each, written once, shared by reference and used again when the last
//! reference is gone; what is free beyond a bound is given back to the file system. A slot's checksum is in memory: what a
//! write that was lost later has left behind is not taken for the page. Nothing here is durable, nor need be.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use crc::{CRC_32_ISO_HDLC, Crc, Table};

use super::cache::PageCache;
use crate::memory::{Kept, Returned, Slots};
use crate::types::config::{
    PAGE_FILE_GROWTH_PAGES, PAGE_FILE_KEPT_PAGES, PAGE_FILE_KEPT_SHARE, PAGE_FILE_PUNCHED_PAGES,
    PAGE_FILE_RESERVE_BYTES, PAGE_SIZE,
};
use crate::types::payload::{PayloadStore, StoredBytes};
use crate::types::scratch::ScratchFile;
use crate::types::tasks::{BlockingPool, run_or_now};

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

struct State {
    slots: Slots,
    /// Slots that the file may have grown to.
    length: u32,
    /// Slots by which a transaction may let the file grow before free space is looked at again.
    growth: u32,
}

/// A file of pages, and those of them that are in memory.
pub struct PageFile {
    own: std::sync::Weak<PageFile>,
    file: Box<dyn ScratchFile>,
    state: Mutex<State>,
    cache: PageCache,
    /// Where space is given back; without it, on the spot.
    pool: OnceLock<Arc<dyn BlockingPool>>,
    returned: Returned,
    /// Hears of a page that is lost.
    loss: OnceLock<Loss>,
}

/// Hears that a page could not be read back: what it held is lost, and nothing that needs it can succeed any more.
pub type Loss = Box<dyn Fn(&str) + Send + Sync>;

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

/// Who wants a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// A transaction, which can be refused.
    Transaction,
    /// The log, which cannot.
    Log,
}

impl PageFile {
    /// Pages in `file`, which is empty, of which about `cache_bytes` stay in memory. What is given back is counted.
    pub(super) fn new(file: Box<dyn ScratchFile>, cache_bytes: usize, returned: Returned) -> Arc<PageFile> {
        let kept = Kept { least: PAGE_FILE_KEPT_PAGES, share: PAGE_FILE_KEPT_SHARE };
        let state = State { slots: Slots::new(kept), length: 0, growth: 0 };
        Arc::new_cyclic(|own| PageFile {
            own: own.clone(),
            file,
            state: Mutex::new(state),
            cache: PageCache::new(cache_bytes),
            pool: OnceLock::new(),
            returned,
            loss: OnceLock::new(),
        })
    }

    /// From here on space is given back on this pool.
    pub(super) fn set_pool(&self, pool: Arc<dyn BlockingPool>) {
        // The first one stays.
        let _ = self.pool.set(pool);
    }

    /// From here on a page that is lost is told.
    pub(super) fn set_loss(&self, loss: Loss) {
        // The first one stays.
        let _ = self.loss.set(loss);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Slots in use and slots that the file has.
    #[must_use]
    pub fn slots(&self) -> (u32, u32) {
        let state = self.lock();
        (state.slots.used(), state.slots.count())
    }

    fn take_slot(&self, whom: For) -> io::Result<u32> {
        let mut state = self.lock();
        let taken = state.slots.take();
        let taken = taken.ok_or_else(|| io::Error::other("the page file has 4294967295 pages"))?;
        if taken.grows && whom == For::Transaction {
            if state.growth == 0 {
                state.growth = self.growth_left();
            }
            if state.growth == 0 {
                state.slots.give_back_void(taken.slot);
                let text = "the rest of the file system is left to log and snapshots";
                return Err(io::Error::new(io::ErrorKind::StorageFull, text));
            }
            state.growth -= 1;
        }
        state.length = state.length.max(state.slots.count());
        Ok(taken.slot)
    }

    /// Slots by which the file may grow. What the file system does not tell is found out by writing.
    fn growth_left(&self) -> u32 {
        let free = self.file.free_bytes().unwrap_or(u64::MAX);
        let slots = free.saturating_sub(PAGE_FILE_RESERVE_BYTES) / PAGE_SIZE as u64;
        u32::try_from(slots).map_or(PAGE_FILE_GROWTH_PAGES, |slots| slots.min(PAGE_FILE_GROWTH_PAGES))
    }

    fn give_back(self: &Arc<PageFile>, number: u32) {
        self.cache.remove(number);
        let mut state = self.lock();
        state.slots.give_back(number);
        let begins = state.slots.begin_sweep();
        drop(state);
        if begins {
            let own = Arc::clone(self);
            run_or_now(self.pool.get(), move || own.sweep());
        }
    }

    /// Gives the space of most free slots back: their blocks, and the end of the file behind the last one that is used.
    fn sweep(&self) {
        let mut slots = 0;
        let mut state = self.lock();
        while let Some(run) = state.slots.leave(1, PAGE_FILE_PUNCHED_PAGES) {
            drop(state);
            let bytes = u64::from(run.end - run.start) * PAGE_SIZE as u64;
            // A file system without holes keeps it until the end of the file is cut off.
            let _ = self.file.punch(offset(run.start), bytes);
            slots += run.end - run.start;
            state = self.lock();
            state.slots.left(run);
            self.cut(&mut state);
        }
        // There is more than when it was looked at.
        state.growth = 0;
        drop(state);
        self.returned.add(slots as usize * PAGE_SIZE);
    }

    /// Cuts the end of the file off. Under the lock: whoever gets a slot there writes to it afterwards.
    fn cut(&self, state: &mut State) {
        let count = state.slots.count();
        if count < state.length {
            // What cannot be cut off has been punched out.
            let _ = self.file.set_len(offset(count));
            state.length = count;
        }
    }

    /// Writes a page.
    pub(super) fn write(&self, bytes: &[u8; PAGE_SIZE]) -> io::Result<Arc<Slot>> {
        self.write_for(For::Log, bytes)
    }

    /// The same, unless that takes what log and snapshots need.
    pub(super) fn write_leaving_reserve(&self, bytes: &[u8; PAGE_SIZE]) -> io::Result<Arc<Slot>> {
        self.write_for(For::Transaction, bytes)
    }

    fn write_for(&self, whom: For, bytes: &[u8; PAGE_SIZE]) -> io::Result<Arc<Slot>> {
        let file = self.own.upgrade().ok_or_else(|| io::Error::other("the page file is closed"))?;
        let number = self.take_slot(whom)?;
        if let Err(error) = self.file.write_all_at(bytes, offset(number)) {
            file.give_back(number);
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

    /// Whether this is the next slot of the file.
    pub(super) fn is_behind(&self, before: &Slot) -> bool {
        before.is_of(&self.file) && before.number.checked_add(1) == Some(self.number)
    }

    /// Whether these bytes are what was written.
    pub(super) fn holds(&self, bytes: &[u8; PAGE_SIZE]) -> bool {
        CRC.checksum(bytes) == self.checksum
    }

    /// Reads this slot and those behind it from the file, whatever is in them.
    pub(super) fn read_from(&self, window: &mut [u8]) -> io::Result<()> {
        self.file.file.read_exact_at(window, offset(self.number))
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
        // A second time, since the next step is drastic.
        let read = self.read_file(page).or_else(|_| self.read_file(page));
        read.inspect_err(|error| {
            if let Some(tell) = self.file.loss.get() {
                tell(&error.to_string());
            }
        })?;
        Ok(Origin::File)
    }

    fn read_file(&self, page: &mut [u8; PAGE_SIZE]) -> io::Result<()> {
        let failed = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("slot {} of the page file cannot be read: {error}", self.number),
            )
        };
        self.file.file.read_exact_at(page, offset(self.number)).map_err(failed)?;
        if self.holds(page) {
            return Ok(());
        }
        let text = format!("slot {} of the page file does not hold what was written to it", self.number);
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
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
    fn read(self: Arc<Self>) -> io::Result<Bytes> {
        self.scan(|page| Bytes::copy_from_slice(page))
    }

    fn cached(self: Arc<Self>) -> Option<Bytes> {
        self.file.cache.with(self.number, |page| Bytes::copy_from_slice(page))
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
