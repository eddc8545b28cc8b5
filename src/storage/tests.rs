//! The data directory as a whole: fixtures of upstream, bytes of the specification, the damages of disk-format 7.5.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::bootstrap::bootstrap;
use super::directory::Directory;
use super::error::StorageError;
use super::file_disk::FileDisk;
use super::load::{LoadOptions, Loaded, load};
use super::metadata::Metadata;
use super::recover::{describe_last_entry, recover};
use super::scratch::UnnamedFiles;
use super::segment::{FORMAT_WORD, SegmentName, encode_batch_prefix, parse_name};
use super::snapshot_meta::{SnapshotMeta, SnapshotName};
use super::vault::read_metadata;
use crate::pages::PageSpace;
use crate::types::clock::WallClock;
use crate::types::{Configuration, Entry, EntryData, EntryKind, LogIndex, NodeId, Role, Server, Term};

struct FixedClock;

impl WallClock for FixedClock {
    fn since_epoch(&self) -> Duration {
        Duration::from_nanos(12)
    }
}

pub(super) fn options(auto_recovery: bool) -> LoadOptions {
    LoadOptions { auto_recovery, wall_clock: Arc::new(FixedClock), payloads: None }
}

pub(super) fn open(path: &Path) -> Result<Directory, StorageError> {
    Directory::open(&FileDisk, path)
}

/// Loads with payloads in memory, and a copy of the directory with payloads in a page file: the result is the same.
pub(super) fn load_path(path: &Path, auto_recovery: bool) -> Result<Loaded, StorageError> {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(path).into_iter().flatten().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let result = load_with(path, &options(auto_recovery));
    if !matches!(result, Err(StorageError::Locked { .. })) && path.is_dir() {
        let scratch = UnnamedFiles::new(&open(copy.path()).unwrap());
        let payloads = PageSpace::on_disk(Arc::new(scratch), 0).unwrap().payloads();
        let stored =
            load_with(copy.path(), &LoadOptions { payloads: Some(payloads), ..options(auto_recovery) });
        match (&result, &stored) {
            (Ok(result), Ok(stored)) => {
                assert_eq!((result.first_index, &result.entries), (stored.first_index, &stored.entries));
                assert_eq!(result.metadata, stored.metadata);
            }
            (Err(result), Err(stored)) => assert_eq!(result.to_string(), stored.to_string()),
            (result, stored) => panic!("in memory {result:?}, in the page file {stored:?}"),
        }
    }
    result
}

fn load_with(path: &Path, options: &LoadOptions) -> Result<Loaded, StorageError> {
    let directory = open(path)?;
    let lock = directory.lock()?;
    load(&directory, &lock, options)
}

fn fixture(version: &str, name: &str) -> (TempDir, PathBuf) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fixtures").join(version).join(name);
    let target = tempfile::tempdir().unwrap();
    if name == "unclean" {
        let archive = source.join("data.tar.gz");
        let status = std::process::Command::new("tar")
            .arg("xzf")
            .arg(archive)
            .arg("-C")
            .arg(target.path())
            .status()
            .unwrap();
        assert!(status.success());
        let path = target.path().join("data");
        return (target, path);
    }
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), target.path().join(entry.file_name())).unwrap();
    }
    let path = target.path().to_path_buf();
    (target, path)
}

// conformance: disk-format 2
#[test]
fn all_fixtures_load_as_their_readme_says() {
    for version in ["datadir-1.11.1", "datadir-1.18.1", "datadir-1.18.6"] {
        let more = u64::from(version != "datadir-1.11.1");
        #[rustfmt::skip]
        let table = [
            // name, term, vote, metadata version, snapshot index, first, last, last term
            ("follower", 2, 2, 3, None, 1, 15 + more, 2),
            ("installed", 2, 2, 3, Some(32), 33, 39 + more, 2),
            ("recovered", 1, 0, 1, None, 1, 4, 1),
            ("single", 1, 0, 1, None, 1, 7, 1),
            ("snapshot-lz4", 1, 0, 1, Some(16), 9, 23, 1),
            ("snapshot-raw", 1, 0, 1, Some(16), 9, 23, 1),
            ("unclean", 1, 0, 1, None, 1, 8, 1),
        ];
        for (name, term, vote, metadata_version, snapshot, first, last, last_term) in table {
            let (_keep, path) = fixture(version, name);
            // The second load sees the closed segments that the first one made.
            for _ in 0..2 {
                let loaded = load_path(&path, true).unwrap();
                assert_eq!(loaded.metadata.term, Term(term), "{version} {name}");
                assert_eq!(loaded.metadata.voted_for, NodeId(vote), "{version} {name}");
                assert_eq!(loaded.metadata.version, metadata_version, "{version} {name}");
                assert_eq!(loaded.snapshot.as_ref().map(|file| file.meta.index.0), snapshot);
                assert_eq!((loaded.first_index.0, loaded.last_index().0), (first, last), "{version} {name}");
                assert_eq!(loaded.entries.last().unwrap().term, Term(last_term), "{version} {name}");
            }
            assert!(!fs::exists(path.join("open-1")).unwrap());
        }
    }
}

// conformance: disk-format 3, 4, 17
#[test]
fn bootstrap_and_recover_write_the_specified_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let directory = open(path).unwrap();
    let lock = directory.lock().unwrap();
    assert_eq!(directory.lock().unwrap_err().to_string(), "couldn't lock the raft directory");

    bootstrap(&directory, &lock, NodeId(1), b"127.0.0.1:29001").unwrap();

    let bytes = fs::read(path.join("0000000000000001-0000000000000001")).unwrap();
    assert_eq!(bytes.len(), 80);
    let start = [1, 0, 0, 0, 0, 0, 0, 0, 0x2d, 0x99, 0xf9, 0x86, 0xbd, 0x48, 0x32, 0x89];
    assert_eq!(bytes[..16], start);
    assert_eq!(fs::read(path.join("metadata1")).unwrap(), {
        let mut metadata = [0; 32];
        (metadata[0], metadata[8], metadata[16]) = (1, 1, 1);
        metadata
    });

    let server = |id, port: u16, role| Server {
        id: NodeId(id),
        address: format!("127.0.0.1:{port}").into_bytes(),
        role,
    };
    let configuration = Configuration::new(vec![
        server(1, 29001, Role::Voter),
        server(2, 29002, Role::StandBy),
        server(3, 29003, Role::Spare),
    ])
    .unwrap();
    recover(&directory, &lock, &options(true), &configuration).unwrap();

    let bytes = fs::read(path.join("0000000000000002-0000000000000002")).unwrap();
    assert_eq!(bytes[8..16], [0x2a, 0x62, 0x17, 0x4a, 0x67, 0xdf, 0xd9, 0xa8]);
    assert_eq!(bytes.len(), 0x80);
    assert_eq!(describe_last_entry(&directory, &options(true)).unwrap(), (LogIndex(2), Term(1)));
    assert!(!fs::exists(path.join("tmp-0000000000000002-0000000000000002")).unwrap());

    fs::remove_file(path.join("metadata1")).unwrap();
    let error = bootstrap(&directory, &lock, NodeId(1), b"127.0.0.1:29001").unwrap_err();
    assert!(matches!(error, StorageError::MetadataMissing { .. }), "{error}");
    assert!(!path.join("metadata1").exists(), "a cluster is not founded on the log of another");
}

fn batch(count: usize) -> Vec<u8> {
    let data = EntryData::from_bytes(Bytes::from(vec![7; 48]));
    let entry = Entry { term: Term(1), kind: EntryKind::Command, data, proposals: None };
    let entries = vec![entry; count];
    let mut bytes = encode_batch_prefix(&entries).unwrap();
    bytes.extend(vec![7; 48 * count]);
    bytes
}

pub(super) fn segment(batches: usize, zeros: usize) -> Vec<u8> {
    let mut bytes = FORMAT_WORD.to_vec();
    for _ in 0..batches {
        bytes.extend(batch(1));
    }
    bytes.resize(bytes.len() + zeros, 0);
    bytes
}

pub(super) const FIRST: &str = "0000000000000001-0000000000000001";
const MIDDLE: &str = "0000000000000002-0000000000000005";
pub(super) const LAST: &str = "0000000000000006-0000000000000008";

/// The directory of disk-format 7.5; a batch has 80 bytes.
pub(super) fn damaged(damage: impl FnOnce(&Path)) -> (TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().to_path_buf();
    fs::write(path.join(FIRST), segment(1, 0)).unwrap();
    let metadata = Metadata { version: 1, term: Term(1), voted_for: NodeId(0) };
    fs::write(path.join("metadata1"), metadata.encode()).unwrap();
    fs::write(path.join(MIDDLE), segment(4, 0)).unwrap();
    fs::write(path.join(LAST), segment(3, 0)).unwrap();
    fs::write(path.join("open-1"), segment(3, 4096)).unwrap();
    fs::write(path.join("open-2"), vec![0; 4096]).unwrap();
    damage(&path);
    (temporary, path)
}

pub(super) fn edit(path: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path.join(name)).unwrap();
    change(&mut bytes);
    fs::write(path.join(name), bytes).unwrap();
}

pub(super) fn last_after(damage: impl FnOnce(&Path)) -> u64 {
    let (_keep, path) = damaged(damage);
    load_path(&path, true).unwrap().last_index().0
}

fn error_after(auto_recovery: bool, damage: impl FnOnce(&Path)) -> String {
    let (_keep, path) = damaged(damage);
    load_path(&path, auto_recovery).unwrap_err().to_string()
}

// conformance: disk-format 7
#[test]
fn a_damaged_last_closed_segment_is_set_aside() {
    assert_eq!(last_after(|_| {}), 11);
    assert_eq!(last_after(|path| edit(path, LAST, |bytes| bytes[60] ^= 1)), 5);
    assert_eq!(last_after(|path| edit(path, LAST, |bytes| bytes[30] ^= 1)), 5);
    assert_eq!(last_after(|path| edit(path, LAST, |bytes| bytes.resize(bytes.len() + 16, 0))), 5);
    assert_eq!(last_after(|path| edit(path, LAST, Vec::clear)), 5);
    assert_eq!(last_after(|path| edit(path, LAST, |bytes| bytes[0] = 2)), 5);
    let rename = |path: &Path| {
        fs::rename(path.join(LAST), path.join("0000000000000006-0000000000000009")).unwrap();
    };
    assert_eq!(last_after(rename), 5);

    let (_keep, path) = damaged(|path| edit(path, LAST, |bytes| bytes[0] = 2));
    load_path(&path, true).unwrap();
    assert!(fs::exists(path.join(format!("corrupt-12-{LAST}"))).unwrap());
    assert!(fs::exists(path.join("corrupt-12-open-1")).unwrap());
}

// conformance: disk-format 7
#[test]
fn damage_that_stops_the_start_has_the_text_of_upstream() {
    assert_eq!(
        error_after(true, |path| edit(path, LAST, |bytes| bytes.truncate(bytes.len() - 8))),
        format!(
            "load closed segment {LAST}: entries batch 3 starting at byte 168: read data: \
             short read: 40 bytes instead of 48"
        )
    );
    assert_eq!(
        error_after(true, |path| edit(path, MIDDLE, |bytes| bytes[60] ^= 1)),
        format!("load closed segment {MIDDLE}: entries batch 1 starting at byte 8: data checksum mismatch")
    );
    assert_eq!(
        error_after(true, |path| fs::remove_file(path.join(MIDDLE)).unwrap()),
        format!("unexpected closed segment {LAST}: first index should have been 2")
    );
    let overlap = |path: &Path| {
        fs::write(path.join("0000000000000004-0000000000000005"), segment(2, 0)).unwrap();
    };
    assert!(error_after(true, overlap).starts_with("unexpected closed segment"));
    assert!(
        error_after(true, |path| fs::write(path.join("open-2"), [1, 0, 0, 0]).unwrap())
            .ends_with("file has only 4 bytes")
    );
    assert!(
        error_after(false, |path| edit(path, "open-1", |bytes| bytes[0] = 2))
            .ends_with("unexpected format version 2")
    );
    assert!(
        error_after(false, |path| edit(path, LAST, |bytes| bytes[60] ^= 1))
            .ends_with("data checksum mismatch")
    );
}

// conformance: disk-format 7, 8 (better: upstream aborts when a segment ends inside a batch)
#[test]
fn an_open_segment_keeps_what_stands_before_the_damage() {
    assert_eq!(last_after(|path| edit(path, "open-1", |bytes| bytes[88 + 50] ^= 1)), 9);
    assert_eq!(last_after(|path| edit(path, "open-1", |bytes| bytes[248..].fill(0xA5))), 11);
    for len in 168..=264 {
        let expected = if len < 248 { 10 } else { 11 };
        assert_eq!(last_after(|path| edit(path, "open-1", |bytes| bytes.truncate(len))), expected, "{len}");
    }
    for kept in 168..248 {
        assert_eq!(last_after(|path| edit(path, "open-1", |bytes| bytes[kept..].fill(0))), 10, "{kept}");
    }
    assert_eq!(last_after(|path| edit(path, "open-1", |bytes| bytes[0] = 2)), 8);
    assert_eq!(last_after(|path| edit(path, "open-2", Vec::clear)), 11);
    assert_eq!(last_after(|path| fs::rename(path.join("open-1"), path.join("open-77")).unwrap()), 11);
}

// conformance: disk-format 7, 19
#[test]
fn unknown_files_stay_and_temporary_files_go() {
    let others = ["open-", "open-x", "1-1x", "snapshot-1-2", "corrupt-12-open-9"];
    let (_keep, path) = damaged(|path| {
        for name in others.iter().chain(&["tmp-foo", "snapshot-1-2-3", "snapshot-1-3-4.meta"]) {
            fs::write(path.join(name), b"x").unwrap();
        }
    });
    assert_eq!(load_path(&path, true).unwrap().last_index(), LogIndex(11));
    for name in others {
        assert!(fs::exists(path.join(name)).unwrap(), "{name}");
    }
    for name in ["tmp-foo", "snapshot-1-2-3", "snapshot-1-3-4.meta"] {
        assert!(!fs::exists(path.join(name)).unwrap(), "{name}");
    }
    assert_eq!(parse_name("open-3"), Some(SegmentName::Open { counter: 3 }));
    assert_eq!(parse_name("1-2"), Some(SegmentName::Closed { first: LogIndex(1), last: LogIndex(2) }));
}

// conformance: disk-format 6
#[test]
fn damaged_metadata_has_the_text_of_upstream() {
    let check = |files: &[(&str, &[u8])]| {
        let temporary = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(temporary.path().join(name), content).unwrap();
        }
        let metadata = open(temporary.path()).and_then(|directory| read_metadata(&directory));
        metadata.map(|metadata| metadata.version).map_err(|error| error.to_string())
    };
    let mut content = [0; 32];
    content[0] = 1;
    assert_eq!(
        check(&[("metadata1", &content)]).unwrap_err(),
        "decode content of metadata1: version is set to zero"
    );
    content[8] = 1;
    assert_eq!(check(&[("metadata1", &content)]), Ok(1));
    assert_eq!(check(&[("metadata1", &content[..31])]), Ok(0));
    assert_eq!(check(&[("metadata1", &[1; 40])]).unwrap_err(), "metadata1 has size 40 instead of 32");
    assert_eq!(
        check(&[("metadata1", &content), ("metadata2", &content)]).unwrap_err(),
        "metadata1 and metadata2 are both at version 1"
    );
    content[0] = 2;
    assert_eq!(
        check(&[("metadata1", &content)]).unwrap_err(),
        "decode content of metadata1: bad format version 2"
    );
}

// conformance: disk-format 7, 14
#[test]
fn a_damaged_snapshot_stops_the_start_and_a_missing_one_does_not() {
    let (_keep, path) = fixture("datadir-1.18.6", "snapshot-raw");
    let newest = load_path(&path, true).unwrap().snapshot.unwrap();
    let meta_name = format!("{}.meta", newest.data_name);
    let encoded = newest.meta.encode();
    assert_eq!(SnapshotMeta::decode(newest.meta.name(), &encoded), Ok(newest.meta.clone()));
    let good = fs::read(path.join(&meta_name)).unwrap();

    edit(&path, &meta_name, |bytes| bytes[8] ^= 1);
    let error = load_path(&path, true).unwrap_err().to_string();
    assert_eq!(error, format!("read {meta_name}: checksum mismatch"));
    fs::write(path.join(&meta_name), &good[..20]).unwrap();
    assert!(load_path(&path, true).unwrap_err().to_string().ends_with("short read: 20 bytes instead of 32"));

    fs::write(path.join(&meta_name), &good).unwrap();
    fs::write(path.join(&newest.data_name), b"").unwrap();
    let loaded = load_path(&path, true).unwrap();
    assert_eq!(loaded.snapshot.unwrap().meta.index, LogIndex(8));
    assert_eq!(SnapshotName::parse("snapshot-1-2"), None);
}

#[test]
fn old_segments_that_a_snapshot_covers_and_nobody_would_keep_are_not_read() {
    let (_keep, path) = fixture("datadir-1.18.6", "snapshot-raw");
    let before = load_path(&path, true).unwrap();
    assert_eq!(before.first_index, LogIndex(9));
    // Zeros are no segment.
    let old = path.join("0000000000000001-0000000000000008");
    fs::File::create(&old).unwrap().set_len(1 << 25).unwrap();

    let loaded = load_path(&path, true).unwrap();

    assert_eq!((loaded.first_index, loaded.entries), (before.first_index, before.entries));
    fs::File::options().write(true).open(&old).unwrap().set_len(1 << 20).unwrap();
    assert!(load_path(&path, true).unwrap_err().to_string().contains("0000000000000001-0000000000000008"));
}
