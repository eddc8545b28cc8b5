//! Content of a snapshot, as a stream both ways: one page in memory at a time. spec: state-machine 3.1.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::pages::{PageRef, PageSpace, Root};
use crate::types::PageNumber;
use crate::types::config::{DATABASE_NAME_MAX_BYTES, PAGE_SIZE};

const FORMAT: u64 = 1;
const WAL_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: usize = 24;
const ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// Pinned databases, written without blocking anybody.
#[derive(Clone, Debug)]
pub struct Content {
    databases: Vec<(Vec<u8>, Root)>,
}

/// Name of a database and its pages from 1 on.
pub type DatabaseImage = (Vec<u8>, Vec<PageRef>);

/// Why a stream is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The stream failed or ended too early.
    #[error("snapshot content at byte {offset}: {error}")]
    Io {
        /// Bytes read before.
        offset: u64,
        /// What happened.
        error: io::Error,
    },
    /// A page cannot be kept.
    #[error("page {number} of a snapshot: {error}")]
    Store {
        /// Which page.
        number: PageNumber,
        /// What happened.
        error: io::Error,
    },
    /// A value that cannot be.
    #[error("snapshot content at byte {offset}: {field} is {value}")]
    Value {
        /// Bytes read before.
        offset: u64,
        /// Which field.
        field: &'static str,
        /// Value found.
        value: u64,
    },
}

/// Size in pages that page 1 tells.
fn page_one_size(page: &PageRef) -> io::Result<u32> {
    page.with(|bytes| u32::from_be_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]))
}

fn padded(name: &[u8]) -> u64 {
    (name.len() as u64 + 1).next_multiple_of(8)
}

impl Content {
    /// The content of these roots. A deleted database is left out: old versions would misread it.
    #[must_use]
    pub fn new(databases: Vec<(Vec<u8>, Root)>) -> Content {
        let exists = |root: &Root| {
            root.get(PageNumber(1)).is_some_and(|page| page_one_size(page).is_ok_and(|size| size != 0))
        };
        Content { databases: databases.into_iter().filter(|(_, root)| exists(root)).collect() }
    }

    /// Bytes that `write_to` writes.
    #[must_use]
    pub fn size(&self) -> u64 {
        let of = |(name, root): &(Vec<u8>, Root)| {
            padded(name) + 16 + u64::from(root.page_count()) * PAGE_SIZE as u64
        };
        16 + self.databases.iter().map(of).sum::<u64>()
    }

    /// Writes the merged form: no WAL, pages 1 to n in order, zeros for a page that was never written.
    ///
    /// # Errors
    /// The writer's; a page cannot be read.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&FORMAT.to_le_bytes())?;
        out.write_all(&(self.databases.len() as u64).to_le_bytes())?;
        for (name, root) in &self.databases {
            out.write_all(name)?;
            out.write_all(&ZEROS[..(padded(name) as usize) - name.len()])?;
            out.write_all(&(u64::from(root.page_count()) * PAGE_SIZE as u64).to_le_bytes())?;
            out.write_all(&0u64.to_le_bytes())?;
            root.scan(1..=root.page_count(), |bytes| out.write_all(bytes))?;
        }
        Ok(())
    }
}

struct Input<'a> {
    stream: &'a mut dyn Read,
    space: &'a PageSpace,
    offset: u64,
}

impl Input<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ContentError> {
        let offset = self.offset;
        self.stream.read_exact(bytes).map_err(|error| ContentError::Io { offset, error })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn word(&mut self) -> Result<u64, ContentError> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn invalid<T>(&self, field: &'static str, value: u64) -> Result<T, ContentError> {
        Err(ContentError::Value { offset: self.offset, field, value })
    }

    fn name(&mut self) -> Result<Vec<u8>, ContentError> {
        let mut name = Vec::new();
        loop {
            let mut word = [0; 8];
            self.fill(&mut word)?;
            match word.iter().position(|byte| *byte == 0) {
                Some(end) => {
                    name.extend_from_slice(&word[..end]);
                    return Ok(name);
                }
                None => name.extend_from_slice(&word),
            }
            if name.len() > DATABASE_NAME_MAX_BYTES {
                return self.invalid("length of a name", name.len() as u64);
            }
        }
    }

    /// The checksum of a compressed stream comes behind its last byte. What else may follow is ignored, as upstream does.
    fn end(&mut self) -> Result<(), ContentError> {
        let mut rest = [0; 1];
        self.stream.read(&mut rest).map(drop).map_err(|error| ContentError::Io { offset: self.offset, error })
    }

    fn page(&mut self, number: PageNumber) -> Result<PageRef, ContentError> {
        let mut page = [0; PAGE_SIZE];
        self.fill(&mut page)?;
        self.space.page(number, &page).map_err(|error| ContentError::Store { number, error })
    }
}

/// Reads a snapshot of any version: names and pages, which go to `space` one by one. Memory follows the pages received.
///
/// # Errors
/// The stream's, and anything that is no snapshot.
pub fn read(stream: &mut dyn Read, space: &PageSpace) -> Result<Vec<DatabaseImage>, ContentError> {
    let mut input = Input { stream, space, offset: 0 };
    let format = input.word()?;
    if format != FORMAT {
        return input.invalid("format", format);
    }
    let count = input.word()?;
    let mut databases = Vec::new();
    for _ in 0..count {
        let name = input.name()?;
        let main_size = input.word()?;
        let wal_size = input.word()?;
        databases.push((name, read_database(&mut input, main_size, wal_size)?));
    }
    input.end()?;
    Ok(databases)
}

fn read_database(input: &mut Input<'_>, main_size: u64, wal_size: u64) -> Result<Vec<PageRef>, ContentError> {
    let page = PAGE_SIZE as u64;
    if main_size == 0 || !main_size.is_multiple_of(page) || main_size / page > u64::from(u32::MAX) {
        return input.invalid("main_size", main_size);
    }
    let mut pages = Vec::new();
    for index in 0..main_size / page {
        // Below u32::MAX, checked above.
        pages.push(input.page(PageNumber(index as u32 + 1))?);
    }
    if wal_size > 0 {
        lay_wal_over(input, wal_size, &mut pages)?;
    }
    // What a shrink left behind on nodes up to 1.18.1. spec: state-machine 3.1.
    let offset = input.offset;
    let size = pages.first().map(page_one_size).transpose();
    if let Some(size) = size.map_err(|error| ContentError::Io { offset, error })?
        && size != 0
        && (size as usize) < pages.len()
    {
        pages.truncate(size as usize);
    }
    Ok(pages)
}

/// Applies a WAL as upstream up to 1.16 wrote it: page numbers and the size in its last frame count.
fn lay_wal_over(input: &mut Input<'_>, wal_size: u64, pages: &mut Vec<PageRef>) -> Result<(), ContentError> {
    let frame = (FRAME_HEADER_BYTES + PAGE_SIZE) as u64;
    if wal_size < WAL_HEADER_BYTES || !(wal_size - WAL_HEADER_BYTES).is_multiple_of(frame) {
        return input.invalid("wal_size", wal_size);
    }
    input.fill(&mut [0; WAL_HEADER_BYTES as usize])?;
    let mut newest = BTreeMap::new();
    let mut size = None;
    for _ in 0..(wal_size - WAL_HEADER_BYTES) / frame {
        let mut header = [0; FRAME_HEADER_BYTES];
        input.fill(&mut header)?;
        let number = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        if number == 0 {
            return input.invalid("page number of a WAL frame", 0);
        }
        size = Some(u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
        newest.insert(number, input.page(PageNumber(number))?);
    }
    let Some(size) = size else { return Ok(()) };
    if size == 0 || u64::from(size) > pages.len() as u64 + newest.len() as u64 + 1 {
        return input.invalid("size in the last WAL frame", u64::from(size));
    }
    pages.resize(size as usize, PageRef::new(&ZEROS));
    for (number, page) in newest {
        if let Some(place) = pages.get_mut(number as usize - 1) {
            *place = page;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PageStore;

    fn page_one(size: u32) -> PageRef {
        let mut bytes = [0; PAGE_SIZE];
        bytes[..16].copy_from_slice(b"SQLite format 3\0");
        bytes[16..20].copy_from_slice(&[0x10, 0, 2, 2]);
        bytes[28..32].copy_from_slice(&size.to_be_bytes());
        PageRef::new(&bytes)
    }

    // conformance: state-machine 11, 13
    #[test]
    fn what_is_written_is_read_back_and_as_long_as_announced() {
        let store = PageStore::new();
        let other = store.attach(b"b", &page_one(1)).unwrap();
        other.database().apply_pages(vec![(PageNumber(1), page_one(1))]).unwrap();
        let eight = store.attach(b"eightchr", &page_one(1)).unwrap();
        let image = PageRef::new(&[7; PAGE_SIZE]);
        eight
            .database()
            .apply_pages(vec![(PageNumber(1), page_one(3)), (PageNumber(3), image.clone())])
            .unwrap();

        let content = Content::new(store.pin_committed());
        let mut bytes = Vec::new();
        content.write_to(&mut bytes).unwrap();

        assert_eq!(bytes.len() as u64, content.size());
        assert_eq!(bytes[..24], *b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0b\0\0\0\0\0\0\0");
        let databases = read(&mut &bytes[..], &PageSpace::memory()).unwrap();
        assert_eq!(databases.len(), 2);
        assert_eq!(databases[0], (b"b".to_vec(), vec![page_one(1)]));
        assert_eq!(databases[1].1, [page_one(3), PageRef::new(&ZEROS), image]);
        for length in (0..bytes.len()).step_by(501) {
            assert!(read(&mut &bytes[..length], &PageSpace::memory()).is_err(), "{length}");
        }
    }

    // conformance: disk-format 13
    // conformance: state-machine 10, 13
    #[test]
    fn a_wal_is_laid_over_the_main_image() {
        let mut bytes = Vec::new();
        for word in [1u64, 1] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(b"b\0\0\0\0\0\0\0");
        bytes.extend_from_slice(&0x1000u64.to_le_bytes());
        bytes.extend_from_slice(&0x2050u64.to_le_bytes());
        page_one(1).with(|page| bytes.extend_from_slice(page)).unwrap();
        bytes.extend_from_slice(&[0; 32]);
        for (number, size, image) in [(1u32, 0u32, page_one(2)), (2, 2, PageRef::new(&[0x5a; PAGE_SIZE]))] {
            bytes.extend_from_slice(&number.to_be_bytes());
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend_from_slice(&[0; 16]);
            image.with(|page| bytes.extend_from_slice(page)).unwrap();
        }

        assert_eq!(bytes.len(), 12408);
        let databases = read(&mut &bytes[..], &PageSpace::memory()).unwrap();

        assert_eq!(databases[0].1, [page_one(2), PageRef::new(&[0x5a; PAGE_SIZE])]);
    }

    #[test]
    fn announced_sizes_cost_no_memory() {
        let mut bytes = Vec::new();
        for word in [1u64, u64::MAX, 0x61, !4095u64, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        assert!(read(&mut &bytes[..], &PageSpace::memory()).is_err());
    }
}
