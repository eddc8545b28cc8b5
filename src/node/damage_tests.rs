//! What a node does with a damaged directory. spec: disk-format 7.5.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::opening::open_directory;
use super::running_tests::{connect_to, fixture, number, start};
use crate::storage::load::LoadOptions;
use crate::storage::recover::recover;
use crate::types::clock::SystemWallClock;
use crate::types::{Configuration, NodeId, Role, Server};

/// The newest file of a kind: snapshots end in their time.
fn newest(directory: &Path, is_meta: bool) -> PathBuf {
    let mut names: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("snapshot-1-16-"))
        .filter(|path| path.extension().is_some() == is_meta)
        .collect();
    assert_eq!(names.len(), 1);
    names.remove(0)
}

fn meta(directory: &Path) -> PathBuf {
    newest(directory, true)
}

fn data(directory: &Path) -> PathBuf {
    newest(directory, false)
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn remove(directory: &Path, is_gone: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if is_gone(path.file_name().unwrap().to_str().unwrap()) {
            fs::remove_file(path).unwrap();
        }
    }
}

/// Starts on the directory: the rows of the table, or why there is no start.
fn rows(directory: &Path) -> Result<u64, String> {
    let (running, address) = start(directory);
    let mut running = running.map_err(|error| error.0)?;
    let rows = number(&mut connect_to(&address, "test"), "SELECT count(*) AS n FROM kv");
    running.stop().unwrap();
    Ok(rows)
}

/// A directory with two snapshots, 8 and 16, segments from 9, and 23 rows, after this damage.
fn after(version: &str, damage: impl Fn(&Path)) -> Result<u64, String> {
    let directory = fixture(version, "snapshot-lz4");
    damage(directory.path());
    rows(directory.path())
}

fn is_segment(name: &str) -> bool {
    name.starts_with("00000000")
}

/// Damage to a directory.
type Damage = fn(&Path);

// conformance: disk-format 7, 14
#[test]
fn a_damaged_newest_snapshot_is_no_reason_to_take_an_older_one() {
    let damages: [(&str, Damage); 7] = [
        ("checksum mismatch", |path| edit(&meta(path), |bytes| bytes[8] ^= 1)),
        ("short read: 20 bytes instead of 32", |path| edit(&meta(path), |bytes| bytes.truncate(20))),
        ("short read: 0 bytes instead of 32", |path| edit(&meta(path), Vec::clear)),
        ("format", |path| edit(&meta(path), |bytes| bytes[0] = 2)),
        ("snapshot", |path| edit(&data(path), |bytes| *bytes.iter_mut().nth_back(40).unwrap() ^= 1)),
        // Upstream's older versions never return from this one.
        ("snapshot", |path| edit(&data(path), |bytes| bytes.truncate(bytes.len() - 8))),
        ("snapshot", |path| edit(&data(path), |bytes| bytes.truncate(bytes.len() / 2))),
    ];
    for version in ["1.11.1", "1.18.6"] {
        for (number, (text, damage)) in damages.iter().enumerate() {
            let error = after(version, damage).unwrap_err();
            assert!(
                error.starts_with("raft_start(): ") && error.contains(text),
                "{version} {number}: {error}"
            );
        }
    }
}

// conformance: disk-format 7
#[test]
fn a_snapshot_or_segments_that_are_missing_are_made_up_for_where_that_is_possible() {
    let whole: [Damage; 5] = [
        |path| edit(&data(path), Vec::clear),
        |path| fs::remove_file(data(path)).unwrap(),
        |path| fs::remove_file(meta(path)).unwrap(),
        |path| remove(path, |name| name.starts_with("snapshot-1-16-")),
        |path| edit(&data(path), |bytes| bytes.extend([7; 100])),
    ];
    for (number, damage) in whole.iter().enumerate() {
        assert_eq!(after("1.18.6", damage), Ok(23), "{number}");
    }
    // The snapshot has what was written up to entry 16.
    assert_eq!(after("1.18.6", |path| remove(path, is_segment)), Ok(16));
    let nothing = after("1.18.6", |path| remove(path, |name| name.starts_with("snapshot-"))).unwrap_err();
    assert!(nothing.contains("first index should have been 1"), "{nothing}");
}

// conformance: disk-format 7
#[test]
fn a_log_without_metadata_is_refused_each_time_and_stays_as_it_is() {
    let damages: [Damage; 2] = [
        |path| fs::remove_file(path.join("metadata1")).unwrap(),
        |path| edit(&path.join("metadata1"), |bytes| bytes.truncate(31)),
    ];
    for damage in damages {
        let directory = fixture("1.18.6", "single");
        damage(directory.path());

        for _ in 0..2 {
            let error = rows(directory.path()).unwrap_err();
            assert!(
                error.starts_with("raft_bootstrap(): io: metadata1 and metadata2 are missing"),
                "{error}"
            );
        }
        // As the text says: a node that is alone gets a configuration, and with it a term.
        let opened = open_directory(directory.path()).unwrap();
        let lock = opened.lock().unwrap();
        let alone = Server { id: NodeId(1), address: b"127.0.0.1:1".to_vec(), role: Role::Voter };
        let wall_clock = Arc::new(SystemWallClock);
        let options = LoadOptions { auto_recovery: true, wall_clock, payloads: None };
        recover(&opened, &lock, &options, &Configuration::new(vec![alone]).unwrap()).unwrap();
        drop(lock);
        assert_eq!(rows(directory.path()), Ok(2));
    }
}
