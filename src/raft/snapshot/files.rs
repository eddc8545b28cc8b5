//! The snapshots of the data directory, as raft asks for them. spec: disk-format 5.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::store::{ReceivedSnapshot, SnapshotStore};
use crate::raft::machine::SnapshotContent;
use crate::raft::types::SnapshotPosition;
use crate::storage::directory::Directory;
use crate::storage::error::StorageError;
use crate::storage::snapshot::{Compression, Sealed, SnapshotWriter};
use crate::storage::snapshot_meta::{SnapshotFile, SnapshotMeta, SnapshotName};
use crate::types::Configuration;
use crate::types::config::{RECEIVED_OUT_AT_ONCE_BYTES, WRITTEN_OUT_AT_ONCE_BYTES};

/// Writes and finds snapshot files.
pub struct SnapshotFiles {
    directory: Directory,
    timestamp_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    compress: Arc<AtomicBool>,
}

impl SnapshotFiles {
    /// Snapshots of `directory`, whose lock the caller holds. `timestamp_ms` tells the milliseconds of a monotonic clock;
    /// `compress` may be switched at any time and counts for the next snapshot.
    #[must_use]
    pub fn new(
        directory: Directory,
        timestamp_ms: impl Fn() -> u64 + Send + Sync + 'static,
        compress: Arc<AtomicBool>,
    ) -> SnapshotFiles {
        SnapshotFiles { directory, timestamp_ms: Box::new(timestamp_ms), compress }
    }

    fn compression(&self) -> Compression {
        if self.compress.load(Ordering::Relaxed) { Compression::Lz4 } else { Compression::None }
    }

    fn meta(&self, position: &SnapshotPosition) -> SnapshotMeta {
        SnapshotMeta {
            term: position.term,
            index: position.index,
            timestamp: (self.timestamp_ms)(),
            configuration: Configuration::clone(&position.configuration),
            configuration_index: position.configuration_index,
        }
    }

    fn existing(&self, position: &SnapshotPosition) -> Result<SnapshotFile, String> {
        let found = self.find(position).map_err(|error| error.to_string())?;
        found.ok_or_else(|| {
            format!("no snapshot of term {} and index {} in the directory", position.term, position.index)
        })
    }

    /// The newest complete file of a snapshot that ends there.
    fn find(&self, position: &SnapshotPosition) -> Result<Option<SnapshotFile>, StorageError> {
        let files = self.directory.list()?;
        let has = |name: &str| files.binary_search_by(|(other, _)| other.as_str().cmp(name)).is_ok();
        let newest = files
            .iter()
            .filter_map(|(name, bytes)| Some((SnapshotName::parse(name)?, name, *bytes)))
            .filter(|(name, ..)| name.term == position.term && name.index == position.index)
            .filter(|(name, ..)| has(&name.meta_name()))
            .max_by_key(|(name, ..)| name.timestamp);
        Ok(newest.map(|(name, data_name, data_bytes)| SnapshotFile {
            meta: SnapshotMeta { timestamp: name.timestamp, ..self.meta(position) },
            data_name: data_name.clone(),
            data_bytes,
        }))
    }
}

impl SnapshotStore for SnapshotFiles {
    fn write(
        &self,
        position: &SnapshotPosition,
        content: &dyn SnapshotContent,
    ) -> Result<Box<dyn Sealed>, String> {
        let meta = self.meta(position);
        let name = meta.name().data_name();
        let size = content.content_size();
        let mut writer = SnapshotWriter::create(
            &self.directory,
            meta,
            size,
            self.compression(),
            WRITTEN_OUT_AT_ONCE_BYTES,
        )
        .map_err(|error| error.to_string())?;
        content.write_to(&mut writer).map_err(|error| format!("{name}: {error}"))?;
        // Nothing may stay behind in a buffer that `seal` does not know.
        writer.flush().map_err(|error| format!("{name}: {error}"))?;
        Ok(Box::new(writer.seal().map_err(|error| error.to_string())?))
    }

    fn open(&self, position: &SnapshotPosition) -> Result<Box<dyn Read + Send>, String> {
        let file = self.existing(position)?;
        let reader = file.open_data(&self.directory).map_err(|error| error.to_string())?;
        Ok(Box::new(reader))
    }

    fn content_bytes(&self, position: &SnapshotPosition) -> Result<u64, String> {
        self.existing(position)?.content_bytes(&self.directory).map_err(|error| error.to_string())
    }

    fn receive(
        &self,
        position: &SnapshotPosition,
        content_bytes: u64,
    ) -> Result<Box<dyn ReceivedSnapshot>, String> {
        let meta = self.meta(position);
        let (compression, at_once) = (self.compression(), RECEIVED_OUT_AT_ONCE_BYTES);
        let writer = SnapshotWriter::create(&self.directory, meta, content_bytes, compression, at_once)
            .map_err(|error| error.to_string())?;
        Ok(Box::new(Receiving(writer)))
    }
}

struct Receiving(SnapshotWriter);

impl ReceivedSnapshot for Receiving {
    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0.write_all(bytes).map_err(|error| error.to_string())
    }

    fn seal(self: Box<Self>) -> Result<Box<dyn Sealed>, String> {
        Ok(Box::new(self.0.seal().map_err(|error| error.to_string())?))
    }
}

impl std::fmt::Debug for SnapshotFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotFiles").field("directory", &self.directory).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::storage::file_disk::FileDisk;
    use crate::storage::load::{LoadOptions, load};
    use crate::storage::metadata::Metadata;
    use crate::types::clock::WallClock;
    use crate::types::{LogIndex, NodeId, Role, Server, Term};

    struct Bytes(Vec<u8>, u64);

    impl SnapshotContent for Bytes {
        fn content_size(&self) -> u64 {
            self.1
        }

        fn write_to(&self, writer: &mut dyn Write) -> io::Result<()> {
            self.0.chunks(1000).try_for_each(|piece| writer.write_all(piece))
        }
    }

    const FIRST: Metadata = Metadata { version: 1, term: Term(1), voted_for: NodeId(0) };

    struct NoClock;

    impl WallClock for NoClock {
        fn since_epoch(&self) -> std::time::Duration {
            std::time::Duration::ZERO
        }
    }

    fn position(index: u64) -> SnapshotPosition {
        let server = Server { id: NodeId(1), address: b"127.0.0.1:29001".to_vec(), role: Role::Voter };
        SnapshotPosition {
            term: Term(2),
            index: LogIndex(index),
            configuration: Arc::new(Configuration::new(vec![server]).unwrap()),
            configuration_index: LogIndex(1),
        }
    }

    fn store(path: &std::path::Path) -> (SnapshotFiles, Directory, Arc<AtomicBool>) {
        let directory = Directory::open(&FileDisk, path).unwrap();
        let compress = Arc::new(AtomicBool::new(true));
        let clock = AtomicU64::new(5);
        let tick = move || clock.fetch_add(1, Ordering::Relaxed);
        (SnapshotFiles::new(directory.clone(), tick, compress.clone()), directory, compress)
    }

    fn take(store: &SnapshotFiles, position: &SnapshotPosition, content: &Bytes) {
        let mut sealed = store.write(position, content).unwrap();
        sealed.name_meta().unwrap();
        sealed.name_data().unwrap();
    }

    fn content(store: &SnapshotFiles, position: &SnapshotPosition) -> Vec<u8> {
        let mut read = Vec::new();
        store.open(position).unwrap().read_to_end(&mut read).unwrap();
        read
    }

    // conformance: disk-format 12
    #[test]
    fn a_snapshot_is_found_again_in_either_form_and_compression_is_switched_while_running() {
        let keep = tempfile::tempdir().unwrap();
        let (store, directory, compress) = store(keep.path());
        let (first, second) = (vec![7; 100_000], vec![8; 100_000]);

        take(&store, &position(10), &Bytes(first.clone(), 100_000));
        compress.store(false, Ordering::Relaxed);
        take(&store, &position(20), &Bytes(second.clone(), 100_000));

        assert_eq!(content(&store, &position(10)), first);
        assert_eq!(content(&store, &position(20)), second);
        let bytes: Vec<u64> = directory
            .list()
            .unwrap()
            .into_iter()
            .filter(|(name, _)| !name.ends_with(".meta"))
            .map(|file| file.1)
            .collect();
        assert!(bytes[0] < 10_000, "{bytes:?}");
        assert_eq!(bytes[1], 100_000);
        std::fs::write(keep.path().join("metadata1"), FIRST.encode()).unwrap();
        let lock = directory.lock().unwrap();
        let options = LoadOptions { auto_recovery: false, wall_clock: Arc::new(NoClock), payloads: None };
        let loaded = load(&directory, &lock, &options).unwrap().snapshot.unwrap();
        assert_eq!((loaded.meta.index, loaded.meta.configuration_index), (LogIndex(20), LogIndex(1)));
        assert_eq!(loaded.meta.configuration, *position(20).configuration);
    }

    #[test]
    fn content_that_is_shorter_than_announced_leaves_no_snapshot() {
        let keep = tempfile::tempdir().unwrap();
        let (store, directory, _) = store(keep.path());

        assert!(store.write(&position(10), &Bytes(vec![1; 100], 200)).is_err());

        assert!(store.open(&position(10)).err().unwrap().contains("index 10"));
        assert!(directory.list().unwrap().is_empty());
    }

    #[test]
    fn of_two_files_that_end_at_one_index_the_newer_is_opened() {
        let keep = tempfile::tempdir().unwrap();
        let (store, ..) = store(keep.path());

        take(&store, &position(10), &Bytes(vec![1; 8], 8));
        take(&store, &position(10), &Bytes(vec![2; 8], 8));

        assert_eq!(content(&store, &position(10)), [2; 8]);
    }
}
