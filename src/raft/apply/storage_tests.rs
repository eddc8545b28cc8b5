//! openraft's own suite for storage: the log and the state machine together.

use std::io;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio_util::sync::CancellationToken;

use super::StateMachine;
use crate::raft::log::LogStore;
use crate::raft::machine::SnapshotContent;
use crate::raft::snapshot::{ReceivedSnapshot, SnapshotPace, SnapshotPolicy, SnapshotStore, Snapshots};
use crate::raft::testing::{InlinePool, TestDisk, TestMachine, TestSealed};
use crate::raft::types::{Runtime, SnapshotPosition, TypeConfig};
use crate::storage::snapshot::Sealed;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for Builder {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let disk = TestDisk::default();
        let policy = SnapshotPolicy {
            threshold_entries: u64::MAX,
            trailing_entries: u64::MAX,
            pace: SnapshotPace::Entries,
        };
        let store = LogStore::new(&disk.loaded(), disk.sender(), Arc::new(InlinePool)).unwrap();
        // One snapshot file is enough: the suite installs what it has just built.
        let snapshots =
            Snapshots::new(Arc::new(SharedFiles), Arc::new(InlinePool), disk.sender(), store.view(), policy);
        let (machine, stopping) = (Box::new(TestMachine::default()), CancellationToken::new());
        let machine = StateMachine::new(machine, snapshots, store.view(), stopping);
        Ok(((), store, machine))
    }
}

/// Snapshots without content, known to every node.
struct SharedFiles;

impl SnapshotStore for SharedFiles {
    fn write(
        &self,
        position: &SnapshotPosition,
        _content: &dyn SnapshotContent,
    ) -> Result<Box<dyn Sealed>, String> {
        // Nobody looks at the disk that it is named on.
        let (disk, bytes) = (TestDisk::default(), Vec::new());
        Ok(Box::new(TestSealed { disk, position: position.clone(), bytes }))
    }

    fn open(&self, _position: &SnapshotPosition) -> Result<Box<dyn io::Read + Send>, String> {
        Ok(Box::new(io::empty()))
    }

    fn content_bytes(&self, _position: &SnapshotPosition) -> Result<u64, String> {
        Ok(0)
    }

    fn receive(
        &self,
        _position: &SnapshotPosition,
        _content_bytes: u64,
    ) -> Result<Box<dyn ReceivedSnapshot>, String> {
        Err("nothing is received".to_owned())
    }
}

#[tokio::test]
async fn the_storage_suite_of_openraft_passes() {
    Runtime::scope(1, async { Suite::test_all(Builder).await.unwrap() }).await;
}
