//! A rollback journal of disk mode: what a transaction has overwritten, in memory up to a bound, beyond it in a file without
//! a name. Nobody but its connection ever reads it, and a rollback of the whole transaction does not need it at all; a
//! failed statement and a savepoint do. No SQLite pointers here.

use std::io;
use std::sync::Arc;

use crate::types::config::JOURNAL_MEMORY_MAX_BYTES;
use crate::types::scratch::{ScratchDisk, ScratchFile};

/// The content of a journal.
#[derive(Debug)]
pub(super) struct Journal {
    scratch: Arc<dyn ScratchDisk>,
    /// The content while there is no file.
    memory: Vec<u8>,
    file: Option<Box<dyn ScratchFile>>,
    len: u64,
}

impl Journal {
    /// An empty journal.
    pub(super) fn new(scratch: Arc<dyn ScratchDisk>) -> Journal {
        Journal { scratch, memory: Vec::new(), file: None, len: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` from `offset` on; zeros behind the end. How many bytes were there.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let there = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (found, missing) = buffer.split_at_mut(there);
        missing.fill(0);
        match &self.file {
            Some(file) => file.read_exact_at(found, offset)?,
            // `there` bytes from `offset` on are in `memory`, or none.
            None if there > 0 => {
                found.copy_from_slice(&self.memory[offset as usize..offset as usize + there])
            }
            None => {}
        }
        Ok(there)
    }

    /// Writes at `offset`; a gap before it is zeros.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or_else(|| io::Error::other(format!("a journal write at {offset}")))?;
        if self.file.is_none() && end > JOURNAL_MEMORY_MAX_BYTES as u64 {
            let file = self.scratch.create()?;
            file.write_all_at(&self.memory, 0)?;
            self.file = Some(file);
            self.memory = Vec::new();
        }
        match &self.file {
            Some(file) => file.write_all_at(bytes, offset)?,
            None => {
                // At most JOURNAL_MEMORY_MAX_BYTES.
                let (start, end) = (offset as usize, end as usize);
                if self.memory.len() < end {
                    self.memory.resize(end, 0);
                }
                self.memory[start..end].copy_from_slice(bytes);
            }
        }
        self.len = self.len.max(end);
        Ok(())
    }

    /// Cuts to `len` bytes; a journal that is emptied gives its file back.
    pub(super) fn truncate(&mut self, len: u64) -> io::Result<()> {
        if len >= self.len {
            return Ok(());
        }
        self.len = len;
        match &self.file {
            Some(_) if len == 0 => self.file = None,
            Some(file) => file.set_len(len)?,
            None => self.memory.truncate(len as usize),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::directory::Directory;
    use crate::storage::file_disk::FileDisk;
    use crate::storage::scratch::UnnamedFiles;

    fn scratch(path: &std::path::Path) -> Arc<UnnamedFiles> {
        Arc::new(UnnamedFiles::new(&Directory::open(&FileDisk, path).unwrap()))
    }

    #[test]
    fn a_journal_reads_the_same_in_memory_and_beyond_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(scratch(folder.path()));
        let mut model = Vec::new();
        let piece: Vec<u8> = (0..5000_u32).map(|at| at as u8).collect();
        for number in 0..500_u64 {
            // With gaps, and over what is there.
            let offset = (number * 7919) % 3000 + number * 4500;
            journal.write(&piece, offset).unwrap();
            let end = offset as usize + piece.len();
            if model.len() < end {
                model.resize(end, 0);
            }
            model[offset as usize..end].copy_from_slice(&piece);
            assert_eq!(journal.file.is_some(), model.len() > JOURNAL_MEMORY_MAX_BYTES);

            let mut buffer = vec![9; 6000];
            let from = offset.saturating_sub(500);
            let there = journal.read(&mut buffer, from).unwrap();
            let known = &model[from as usize..model.len().min(from as usize + 6000)];
            assert_eq!(there, known.len());
            assert_eq!(buffer[..there], *known);
            assert!(buffer[there..].iter().all(|byte| *byte == 0));
        }
        assert_eq!(journal.len(), model.len() as u64);

        journal.truncate(100).unwrap();
        assert_eq!(journal.read(&mut [0; 200], 0).unwrap(), 100);
        journal.truncate(0).unwrap();
        assert!(journal.file.is_none());
        assert_eq!(journal.read(&mut [0; 200], 50).unwrap(), 0);
    }

    #[test]
    fn a_journal_is_in_memory_up_to_the_bound_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(scratch(folder.path()));
        journal.write(&[1; 8], JOURNAL_MEMORY_MAX_BYTES as u64 - 8).unwrap();
        assert!(journal.file.is_none());
        journal.write(&[2], JOURNAL_MEMORY_MAX_BYTES as u64).unwrap();
        assert!(journal.file.is_some());
    }
}
