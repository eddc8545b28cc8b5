//! An open main database: locks, reads from the pinned root, writes to an overlay, commit. No SQLite pointers here.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;

use libsqlite3_sys as sqlite;

use super::fetch::Fetched;
use super::template::deletion_page;
use super::view::{DeletionRefused, Seen, View};
use crate::pages::{Attached, CommitError, Database, Overlay, PageSpace, Pin, Reserved, Root, has_memory};
use crate::types::PageNumber;
use crate::types::config::{ENTRY_MAX_BYTES, ENTRY_TO_MEMBERS_MAX_BYTES, PAGE_SIZE};
use crate::types::fault::{self, Fault};
use crate::types::scratch::is_no_space;

/// The head that a transaction was made on has gone: 10250, an I/O error, so that SQLite rolls back and drops its cache.
pub const SQLITE_IOERR_STALE: i32 = sqlite::SQLITE_IOERR | (40 << 8);

/// Bytes of an entry for each page beside the page itself, and once for everything else; more than they really are.
const ENTRY_BYTES_PER_PAGE: u64 = 24;
const ENTRY_BYTES_ONCE: u64 = 1024;

/// Memory for each page while its transaction is on its way to the log: in lists of pages, pieces of the entry and their owners.
const COMMIT_BYTES_PER_PAGE: usize = 256;

/// Format versions in page 1: SQLite is shown a rollback-journal database, the stored image says WAL.
const VERSION_SHOWN: u8 = 1;
const VERSION_STORED: u8 = 2;

const ZERO: MaybeUninit<u8> = MaybeUninit::new(0);

/// What can be set.
#[derive(Clone, Copy, Debug)]
pub struct VfsOptions {
    /// Largest entry in bytes; a larger transaction gets SQLITE_FULL.
    pub entry_max_bytes: u64,
    /// The same while the cluster has other members.
    pub entry_to_members_max_bytes: u64,
}

impl Default for VfsOptions {
    fn default() -> VfsOptions {
        VfsOptions {
            entry_max_bytes: ENTRY_MAX_BYTES,
            entry_to_members_max_bytes: ENTRY_TO_MEMBERS_MAX_BYTES,
        }
    }
}

/// The page that begins at `offset`.
pub(super) fn page_at(offset: i64) -> Option<PageNumber> {
    let offset = u64::try_from(offset).ok().filter(|offset| offset.is_multiple_of(PAGE_SIZE as u64))?;
    u32::try_from(offset / PAGE_SIZE as u64).ok()?.checked_add(1).map(PageNumber)
}

pub(super) struct File {
    attached: Attached,
    view: Arc<View>,
    connection_id: u64,
    options: VfsOptions,
    space: PageSpace,
    lock: i32,
    pin: Option<Pin>,
    fetched: Fetched,
    overlay: Option<Overlay>,
    /// Whether this transaction ran `PRAGMA delete_database`.
    deletes: bool,
}

impl File {
    pub(super) fn new(attached: Attached, connection_id: u64, options: VfsOptions, space: PageSpace) -> File {
        File {
            view: Arc::new(View::new(Arc::clone(attached.database()))),
            attached,
            connection_id,
            options,
            space,
            lock: sqlite::SQLITE_LOCK_NONE,
            pin: None,
            fetched: Fetched::default(),
            overlay: None,
            deletes: false,
        }
    }

    pub(super) fn view(&self) -> &Arc<View> {
        &self.view
    }

    pub(super) fn database(&self) -> &Arc<Database> {
        self.attached.database()
    }

    fn page_count(&self) -> u32 {
        match (&self.overlay, &self.pin) {
            (Some(overlay), _) => overlay.page_count(),
            (None, Some(pin)) => pin.root.page_count(),
            (None, None) => self.database().committed().root.page_count(),
        }
    }

    pub(super) fn size_bytes(&self) -> i64 {
        i64::from(self.page_count()) * PAGE_SIZE as i64
    }

    /// Fills `buffer` from `offset` on; what lies beyond the end is zero and makes it a short read.
    pub(super) fn read(&self, buffer: &mut [MaybeUninit<u8>], offset: i64) -> i32 {
        let Ok(mut offset) = u64::try_from(offset) else {
            return sqlite::SQLITE_IOERR_READ;
        };
        let committed;
        let root = if let Some(pin) = &self.pin {
            &pin.root
        } else {
            committed = self.database().committed().root;
            &committed
        };
        let page_count = self.overlay.as_ref().map_or(root.page_count(), Overlay::page_count);
        let mut rest = buffer;
        while !rest.is_empty() {
            let index = offset / PAGE_SIZE as u64;
            let within = (offset % PAGE_SIZE as u64) as usize;
            if index >= u64::from(page_count) {
                rest.fill(ZERO);
                return sqlite::SQLITE_IOERR_SHORT_READ;
            }
            let length = rest.len().min(PAGE_SIZE - within);
            let (part, tail) = rest.split_at_mut(length);
            // Below the page count, which is a u32.
            let number = PageNumber(index as u32 + 1);
            if let Err(error) = self.read_page(root, number, part, within) {
                tracing::error!(%error, page = number.0, "a page cannot be read");
                return sqlite::SQLITE_IOERR_READ;
            }
            rest = tail;
            offset += length as u64;
        }
        sqlite::SQLITE_OK
    }

    fn read_page(
        &self,
        root: &Root,
        number: PageNumber,
        out: &mut [MaybeUninit<u8>],
        within: usize,
    ) -> io::Result<()> {
        let page = match &self.overlay {
            Some(overlay) => overlay.get(number),
            None => root.get(number),
        };
        match page {
            Some(page) => page.with(|bytes| {
                for (to, from) in out.iter_mut().zip(&bytes[within..]) {
                    to.write(*from);
                }
            })?,
            None => out.fill(ZERO),
        }
        if number != PageNumber(1) {
            return Ok(());
        }
        let mut show = |at: usize, byte: u8| {
            if let Some(place) = at.checked_sub(within).and_then(|at| out.get_mut(at)) {
                place.write(byte);
            }
        };
        show(18, VERSION_SHOWN);
        show(19, VERSION_SHOWN);
        if self.overlay.as_ref().is_some_and(|overlay| overlay.contains(number)) {
            return Ok(());
        }
        for (index, byte) in root.version().to_be_bytes().into_iter().enumerate() {
            show(24 + index, byte);
            show(92 + index, byte);
        }
        Ok(())
    }

    /// Where a page lies that a reader may use as it is. `None`: it has to be read.
    pub(super) fn fetch(&mut self, number: PageNumber) -> Option<*const u8> {
        // Only from RESERVED on may there be an overlay.
        if self.lock >= sqlite::SQLITE_LOCK_RESERVED {
            return None;
        }
        self.fetched.fetch(self.pin.as_ref()?, number)
    }

    pub(super) fn unfetch(&mut self) {
        self.fetched.release();
    }

    fn overlay(&mut self) -> Option<&mut Overlay> {
        if self.lock < sqlite::SQLITE_LOCK_RESERVED {
            return None;
        }
        if self.overlay.is_none() {
            self.overlay = Some(Overlay::new(self.pin.as_ref()?.root.clone()));
        }
        self.overlay.as_mut()
    }

    /// Whether an entry may hold so many pages.
    fn takes_entry(&self, pages: usize) -> bool {
        let bytes = ENTRY_BYTES_ONCE + pages as u64 * (PAGE_SIZE as u64 + ENTRY_BYTES_PER_PAGE);
        bytes <= self.options.entry_max_bytes
            && (bytes <= self.options.entry_to_members_max_bytes || !self.view.has_other_members())
    }

    /// Writes one whole page.
    pub(super) fn write(&mut self, bytes: &[u8], offset: i64) -> i32 {
        let (Some(number), Ok(bytes)) = (page_at(offset), <&[u8; PAGE_SIZE]>::try_from(bytes)) else {
            return sqlite::SQLITE_IOERR_WRITE;
        };
        let page_one;
        let bytes = if number == PageNumber(1) {
            let mut stored = *bytes;
            if u16::from_be_bytes([stored[16], stored[17]]) as usize != PAGE_SIZE {
                return sqlite::SQLITE_IOERR_WRITE;
            }
            stored[18] = VERSION_STORED;
            stored[19] = VERSION_STORED;
            page_one = stored;
            &page_one
        } else {
            bytes
        };
        let space = self.space.clone();
        let Some(overlay) = self.overlay() else {
            return sqlite::SQLITE_IOERR_WRITE;
        };
        let (is_new, pages) = (!overlay.contains(number), overlay.changed() + 1);
        if is_new && !self.takes_entry(pages) {
            return sqlite::SQLITE_FULL;
        }
        let Some(overlay) = self.overlay() else {
            return sqlite::SQLITE_IOERR_WRITE;
        };
        match space.page_if_possible(number, bytes) {
            Ok(page) => {
                overlay.write(number, page);
                sqlite::SQLITE_OK
            }
            Err(error) => {
                tracing::warn!(%error, page = number.0, "a page cannot be written");
                match error.kind() {
                    io::ErrorKind::OutOfMemory => sqlite::SQLITE_IOERR_NOMEM,
                    _ if is_no_space(&error) => sqlite::SQLITE_FULL,
                    _ => sqlite::SQLITE_IOERR_WRITE,
                }
            }
        }
    }

    pub(super) fn truncate(&mut self, size_bytes: i64) -> i32 {
        let pages = size_bytes.checked_add(PAGE_SIZE as i64 - 1).map(|bytes| bytes / PAGE_SIZE as i64);
        let Some(page_count) = pages.and_then(|pages| u32::try_from(pages).ok()) else {
            return sqlite::SQLITE_IOERR_TRUNCATE;
        };
        match self.overlay() {
            Some(overlay) => {
                overlay.truncate(page_count);
                sqlite::SQLITE_OK
            }
            None => sqlite::SQLITE_IOERR_TRUNCATE,
        }
    }

    /// SHARED pins a root, RESERVED is for one writer on the head, the rest is granted: readers have their own roots.
    pub(super) fn lock(&mut self, level: i32) -> i32 {
        if level >= sqlite::SQLITE_LOCK_SHARED && self.pin.is_none() {
            let on_head = self.view.uses_head();
            let pin = if on_head { self.database().head() } else { self.database().committed() };
            if !self.view.is_of(pin.epoch) && !fault::is_planted(Fault::SnapshotOfNextEpoch) {
                return SQLITE_IOERR_STALE;
            }
            self.set_pin(pin, on_head);
        }
        if level >= sqlite::SQLITE_LOCK_RESERVED && self.lock < sqlite::SQLITE_LOCK_RESERVED {
            let asker = self.view.has_turn_or_wants_it().then_some(self.connection_id);
            match self.pin.as_ref().map(|pin| self.database().reserve(pin, asker)) {
                Some(Reserved::Yes) => {}
                Some(Reserved::No) => return sqlite::SQLITE_BUSY,
                Some(Reserved::NotOnHead) | None => return sqlite::SQLITE_BUSY_SNAPSHOT,
            }
        }
        self.lock = self.lock.max(level);
        sqlite::SQLITE_OK
    }

    fn set_pin(&mut self, pin: Pin, on_head: bool) {
        self.view.pinned(Seen { epoch: pin.epoch, version: pin.root.version(), on_head });
        if let Some(before) = self.pin.replace(pin) {
            self.fetched.keep(before.root);
        }
    }

    pub(super) fn unlock(&mut self, level: i32) -> i32 {
        if level < sqlite::SQLITE_LOCK_RESERVED && self.lock >= sqlite::SQLITE_LOCK_RESERVED {
            self.overlay = None;
            self.deletes = false;
            self.database().unreserve(self.connection_id);
        }
        if level == sqlite::SQLITE_LOCK_NONE {
            if let Some(before) = self.pin.take() {
                self.fetched.keep(before.root);
            }
            self.view.unpinned();
        }
        self.lock = self.lock.min(level);
        sqlite::SQLITE_OK
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.database().is_reserved()
    }

    /// Second phase of SQLite's commit: the overlay becomes the head. Fires at an empty COMMIT, too.
    pub(super) fn commit(&mut self) -> i32 {
        let Some(pin) = self.pin.clone() else {
            return sqlite::SQLITE_OK;
        };
        let mut deletion_permit = None;
        if self.overlay.is_none() && self.deletes && self.lock >= sqlite::SQLITE_LOCK_RESERVED {
            // Other changes in the transaction make the deletion void. spec: state-machine 4.9.
            match self.view.permit_deletion() {
                Ok(permit) => deletion_permit = Some(permit),
                Err(refused) => return commit_refused(refused),
            }
            if let Some(page) = pin.root.get(PageNumber(1)) {
                let mut overlay = Overlay::new(pin.root.clone());
                match page.with(deletion_page) {
                    Ok(page) => overlay.write(PageNumber(1), page),
                    Err(_) => return sqlite::SQLITE_IOERR_READ,
                }
                self.overlay = Some(overlay);
            }
        }
        self.deletes = false;
        let Some(overlay) = self.overlay.take() else {
            return sqlite::SQLITE_OK;
        };
        if self.view.refuses_commit() {
            return SQLITE_IOERR_STALE;
        }
        if !has_memory(overlay.changed() * COMMIT_BYTES_PER_PAGE) {
            return sqlite::SQLITE_IOERR_NOMEM;
        }
        // Members may have come since its pages were written.
        if !self.takes_entry(overlay.changed()) || !self.database().is_on_disk(overlay.changed()) {
            return sqlite::SQLITE_FULL;
        }
        match self.database().commit(&pin, overlay) {
            Ok(commit) => {
                let pin = Pin { root: commit.root.clone(), epoch: commit.epoch };
                self.view.committed(commit, deletion_permit);
                self.set_pin(pin, true);
                sqlite::SQLITE_OK
            }
            Err(CommitError::Stale(stale)) => {
                tracing::debug!(version = stale.version, epoch = stale.epoch, "commit on a discarded head");
                SQLITE_IOERR_STALE
            }
            Err(CommitError::Io(error)) => {
                tracing::error!(%error, "a commit cannot read its pages");
                sqlite::SQLITE_IOERR_READ
            }
        }
    }

    /// What `PRAGMA delete_database` does: it checks and holds nothing, since its transaction may be open for long. The rest happens at COMMIT. spec: state-machine 4.9.
    pub(super) fn delete_database(&mut self) -> Result<(), DeletionRefused> {
        let refused = |text: &'static CStr| DeletionRefused { code: sqlite::SQLITE_ERROR, text };
        if self.lock < sqlite::SQLITE_LOCK_RESERVED {
            return Err(refused(
                c"PRAGMA delete_database must be run in a write transaction. Use BEGIN IMMEDIATE to start one.",
            ));
        }
        if self.overlay.is_some() {
            return Err(refused(
                c"PRAGMA delete_database must be the only statement run in the transaction.",
            ));
        }
        self.view.check_deletion()?;
        self.deletes = true;
        Ok(())
    }
}

/// The code of a COMMIT that may not delete. SQLITE_BUSY itself would leave the transaction open, with nothing in it.
fn commit_refused(refused: DeletionRefused) -> i32 {
    if refused.code == sqlite::SQLITE_BUSY { sqlite::SQLITE_BUSY_TIMEOUT } else { refused.code }
}

impl Drop for File {
    fn drop(&mut self) {
        self.unlock(sqlite::SQLITE_LOCK_NONE);
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
