//! Pages of one byte, and files without a name that fail on demand.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::PageRef;
use crate::types::config::PAGE_SIZE;
use crate::types::scratch::{ScratchDisk, ScratchFile};

/// A page full of this byte.
pub(crate) fn page(byte: u8) -> PageRef {
    PageRef::new(&[byte; PAGE_SIZE])
}

/// What the files of one disk do: an error number for every operation of a kind, 0 for none.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Of reads.
    pub(crate) read: AtomicI32,
    /// Of the next read.
    pub(crate) read_once: AtomicI32,
    /// Of writes.
    pub(crate) write: AtomicI32,
    /// Byte by which each write is falsified, as by a disk that lies.
    pub(crate) falsify: AtomicI32,
    /// Operations so far.
    pub(crate) reads: AtomicU64,
    /// Bytes that were punched out so far.
    pub(crate) punched: AtomicU64,
    /// Length that a file was cut to last.
    pub(crate) length: AtomicU64,
    /// Bytes of the disk that are used by others.
    pub(crate) taken: AtomicU64,
}

/// Makes files that do as the faults say.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk(pub(crate) Arc<Faults>);

#[derive(Debug)]
struct FaultyFile {
    file: File,
    faults: Arc<Faults>,
}

fn fail(fault: &AtomicI32) -> io::Result<()> {
    match fault.load(Ordering::SeqCst) {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

impl ScratchDisk for FaultyDisk {
    fn create(&self) -> io::Result<Box<dyn ScratchFile>> {
        fail(&self.0.write)?;
        Ok(Box::new(FaultyFile { file: tempfile::tempfile()?, faults: Arc::clone(&self.0) }))
    }
}

impl ScratchFile for FaultyFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.faults.reads.fetch_add(1, Ordering::SeqCst);
        fail(&AtomicI32::new(self.faults.read_once.swap(0, Ordering::SeqCst)))?;
        fail(&self.faults.read)?;
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        fail(&self.faults.write)?;
        let mut bytes = bytes.to_vec();
        if let Some(first) = bytes.first_mut() {
            *first ^= self.faults.falsify.load(Ordering::SeqCst) as u8;
        }
        self.file.write_all_at(&bytes, offset)
    }

    fn punch(&self, _offset: u64, bytes: u64) -> io::Result<()> {
        fail(&self.faults.write)?;
        self.faults.punched.fetch_add(bytes, Ordering::SeqCst);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok((1 << 40) - self.faults.taken.load(Ordering::SeqCst))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        fail(&self.faults.write)?;
        self.faults.length.store(bytes, Ordering::SeqCst);
        self.file.set_len(bytes)
    }
}
