use openraft::LogId;
use openraft::entry::{RaftEntry, RaftPayload};

use super::*;
use crate::raft::testing::{InlinePool, TestDisk, command};
use crate::raft::types::{Payload, Proposal};
use crate::types::{ProposalRange, Term};

fn empty_store(disk: &TestDisk) -> LogStore {
    LogStore::new(&disk.loaded(), disk.sender(), Arc::new(InlinePool)).unwrap()
}

#[tokio::test]
async fn the_vote_file_never_records_a_vote_that_was_not_given() {
    let disk = TestDisk::default();
    let mut store = empty_store(&disk);
    let table = [
        // vote (term, for, committed), write expected
        ((1, 0, false), Some((1, 0))),
        ((1, 7, false), Some((1, 7))),
        ((1, 7, true), None),
        ((2, 8, true), Some((2, 0))),
        ((2, 8, true), None),
        ((3, 9, false), Some((3, 9))),
        ((3, 9, false), None),
        ((3, 8, true), None),
        ((9, 0, false), Some((9, 0))),
        ((9, 0, false), None),
    ];

    for ((term, voted_for, committed), write) in table {
        let before = disk.lock().votes.len();
        let vote = Vote { leader_id: LeaderId { term, voted_for }, committed };
        store.save_vote(&vote).await.unwrap();

        assert_eq!(disk.lock().votes.get(before).copied(), write, "{vote}");
        assert_eq!(store.get_log_reader().await.read_vote().await.unwrap(), Some(vote));
    }
}

fn proposal(index: u64, epoch: u64, sequence: u64) -> Entry {
    several(index, epoch, [sequence, sequence])
}

fn several(index: u64, epoch: u64, [first, last]: [u64; 2]) -> Entry {
    let proposals = Some(ProposalRange { epoch, first, last });
    let data = command(first).data;
    Entry::new(LogId::new(1, index), Payload::normal(Proposal { data, proposals }))
}

#[tokio::test]
async fn a_gap_in_the_tokens_fails_the_store_before_anything_is_written() {
    let disk = TestDisk::default();
    let mut store = empty_store(&disk);
    let append = |entries: Vec<Entry>| (entries, IOFlushed::noop());
    let (entries, done) = append(vec![proposal(0, 4, 1), proposal(1, 4, 2)]);
    store.append(entries, done).await.unwrap();
    let blank = Entry::new(LogId::new(1, 2), Payload::blank());
    store.append([blank, proposal(3, 4, 3)], IOFlushed::noop()).await.unwrap();

    for wrong in
        [proposal(4, 4, 5), proposal(4, 4, 3), proposal(4, 3, 1), proposal(4, 5, 2), proposal(9, 4, 4)]
    {
        let next = Entry::new(LogId::new(1, 5), Payload::blank());
        assert!(store.append([wrong, next], IOFlushed::noop()).await.is_err());
    }

    assert_eq!(disk.lock().entries.len(), 4);
    assert_eq!(store.view().last_index(), LogIndex(4));
    assert_eq!(*store.view().appended().borrow(), Some(ProposalToken { epoch: 4, sequence: 3 }));
    store.append([several(4, 5, [1, 3]), several(5, 5, [4, 4])], IOFlushed::noop()).await.unwrap();
    for wrong in [[4, 5], [6, 7], [5, 4]] {
        assert!(store.append([several(6, 5, wrong)], IOFlushed::noop()).await.is_err(), "{wrong:?}");
    }
    store.append([several(6, 5, [5, 6])], IOFlushed::noop()).await.unwrap();
    assert_eq!(*store.view().appended().borrow(), Some(ProposalToken { epoch: 5, sequence: 6 }));
}

#[tokio::test]
async fn a_log_that_begins_before_its_snapshot_counts_its_first_entry_as_purged() {
    // openraft-mapping 2.6.
    let disk = TestDisk::bootstrapped();
    let mut loaded = disk.loaded();
    loaded.first_index = LogIndex(7);
    loaded.entries.push(crate::types::Entry::barrier(Term(1)));

    let mut store = LogStore::new(&loaded, disk.sender(), Arc::new(InlinePool)).unwrap();

    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(LogId::new(1, 6)));
    assert_eq!(state.last_log_id, Some(LogId::new(1, 7)));
}

#[tokio::test]
async fn a_reader_gets_at_least_one_entry_and_not_more_bytes_than_the_bound() {
    let disk = TestDisk::default();
    let mut store = empty_store(&disk);
    let big = |index| {
        let data = crate::types::EntryData::from_bytes(vec![0; REPLICATION_BATCH_BYTES_MAX / 2 + 8].into());
        Entry::new(LogId::new(1, index), Payload::normal(Proposal { data, proposals: None }))
    };
    store.append([big(0), big(1), big(2)], IOFlushed::noop()).await.unwrap();

    let entries = store.get_log_reader().await.limited_get_log_entries(0, 3).await.unwrap();

    assert_eq!(entries.len(), 1);
}
