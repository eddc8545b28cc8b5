//! Directories whose log has holes, contradicts its snapshot, or is not ours: what a load sets aside, removes, refuses.

use std::fs;
use std::path::Path;

use super::bootstrap::bootstrap;
use super::mark::{self, MARK_BYTES};
use super::recover::describe_last_entry;
use super::snapshot_meta::SnapshotMeta;
use super::tests::{FIRST, LAST, damaged, edit, last_after, load_path, open, options, segment};
use crate::types::{Configuration, LogIndex, NodeId, Role, Server, Term};

/// An open segment of this library: batches, zeros, and the index of its first entry.
fn marked(batches: usize, first: u64) -> Vec<u8> {
    let mut bytes = segment(batches, 4096);
    let end = bytes.len() - MARK_BYTES;
    bytes[end..].copy_from_slice(&mark::encode(LogIndex(first)));
    bytes
}

/// What a load sets aside of the damaged directory; without auto-recovery the text of its refusal names the same file.
fn set_aside_after(damage: impl Fn(&Path)) -> (u64, Vec<String>) {
    let (_keep, path) = damaged(&damage);
    let before = names(&path);
    let refusal = load_path(&path, false).unwrap_err().to_string();
    assert_eq!(names(&path), before, "a start that is refused changes nothing");
    let loaded = load_path(&path, true).unwrap();
    let told: Vec<String> = loaded.set_aside.iter().map(ToString::to_string).collect();
    assert!(refusal.contains(&loaded.set_aside[0].name), "{refusal}");
    for segment in &loaded.set_aside {
        assert!(path.join(format!("corrupt-12-{}", segment.name)).exists(), "{told:?}");
    }
    // What is left is a whole log.
    let again = load_path(&path, false).unwrap();
    assert_eq!((again.last_index(), again.set_aside.len()), (loaded.last_index(), 0));
    (loaded.last_index().0, told)
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name != "dqlite-lock").collect();
    names.sort();
    names
}

#[test]
fn entries_behind_a_hole_are_set_aside_and_counted_or_refused() {
    // The damaged directory ends with entry 8 in a closed segment and 9 to 11 in open-1.
    let second = |path: &Path| fs::write(path.join("open-2"), segment(2, 4096)).unwrap();
    let torn = |path: &Path| {
        second(path);
        edit(path, "open-1", |bytes| bytes[88 + 50] ^= 1);
    };
    assert_eq!(
        set_aside_after(torn),
        (9, vec!["open-2 (2 entries): open segment open-2 follows open-1, which is damaged".to_owned()])
    );
    let empty = |path: &Path| {
        second(path);
        edit(path, "open-1", Vec::clear);
    };
    assert_eq!(set_aside_after(empty).0, 8);
    let gone = |path: &Path| {
        fs::remove_file(path.join("open-1")).unwrap();
        fs::write(path.join("open-2"), marked(2, 12)).unwrap();
        fs::write(path.join("open-3"), marked(1, 14)).unwrap();
    };
    let reason = "open segment open-2 begins with entry 12, and 9 comes next";
    assert_eq!(
        set_aside_after(gone),
        (
            8,
            vec![
                format!("open-2 (2 entries, 12 to 13): {reason}"),
                format!("open-3 (1 entry, 14): {reason}")
            ]
        )
    );
    let closed_gone = |path: &Path| {
        fs::write(path.join("open-1"), marked(3, 9)).unwrap();
        fs::remove_file(path.join(LAST)).unwrap();
    };
    assert_eq!(set_aside_after(closed_gone).0, 5);
    let (last, told) = set_aside_after(|path| edit(path, LAST, |bytes| bytes[60] ^= 1));
    assert_eq!(last, 5);
    assert!(told[0].starts_with(&format!("{LAST} (3 entries, 6 to 8): ")), "{told:?}");
    assert!(told[1].starts_with("open-1 (3 entries): it follows "), "{told:?}");
}

#[test]
fn segments_that_follow_each_other_are_no_hole_whatever_is_behind_their_entries() {
    let next = |path: &Path| {
        edit(path, "open-1", |bytes| bytes[248..].fill(0xA5));
        fs::write(path.join("open-2"), marked(2, 12)).unwrap();
    };
    assert_eq!(last_after(next), 13);
}

/// Makes a snapshot of this term that ends there.
fn snapshot(path: &Path, term: u64, index: u64) {
    let server = Server { id: NodeId(1), address: b"1".to_vec(), role: Role::Voter };
    let meta = SnapshotMeta {
        term: Term(term),
        index: LogIndex(index),
        timestamp: 1,
        configuration: Configuration::new(vec![server]).unwrap(),
        configuration_index: LogIndex(1),
    };
    fs::write(path.join(meta.name().meta_name()), meta.encode()).unwrap();
    fs::write(path.join(meta.name().data_name()), b"content").unwrap();
}

#[test]
fn what_is_left_of_a_log_that_a_snapshot_has_replaced_goes() {
    // The installation was cut off; the second time the node has written on.
    let (_keep, path) = damaged(|path| {
        snapshot(path, 2, 20);
        fs::remove_file(path.join("open-1")).unwrap();
    });
    let loaded = load_path(&path, false).unwrap();
    assert_eq!((loaded.first_index, loaded.entries.len()), (LogIndex(21), 0));
    assert_eq!(names(&path), ["metadata1", "snapshot-2-20-1", "snapshot-2-20-1.meta"]);

    for open in [marked(3, 21), segment(3, 4096)] {
        let (_keep, path) = damaged(|path| {
            snapshot(path, 1, 20);
            fs::write(path.join("open-1"), &open).unwrap();
        });
        let loaded = load_path(&path, false).unwrap();
        assert_eq!((loaded.first_index, loaded.last_index()), (LogIndex(21), LogIndex(23)));
        assert!(!path.join(LAST).exists() && !path.join(FIRST).exists());
    }
}

#[test]
fn a_log_that_contradicts_its_snapshot_is_kept_and_told_where_it_goes_on_behind_it() {
    let contradict = |path: &Path, index| {
        snapshot(path, 2, index);
        fs::write(path.join("open-1"), marked(3, 9)).unwrap();
    };
    let loaded = |index| {
        let (keep, path) = damaged(|path| contradict(path, index));
        let loaded = load_path(&path, true).unwrap();
        assert_eq!(loaded.first_index, LogIndex(index + 1));
        assert!(loaded.entries.is_empty());
        (keep, path, loaded.set_aside)
    };

    let (_keep, path, set_aside) = loaded(11);
    assert!(set_aside.is_empty(), "the snapshot has all of it");
    assert_eq!(names(&path), ["metadata1", "snapshot-2-11-1", "snapshot-2-11-1.meta"]);

    let (_keep, path, set_aside) = loaded(9);
    assert_eq!(set_aside.len(), 1);
    assert_eq!((set_aside[0].name.as_str(), set_aside[0].first), ("open-1", Some(LogIndex(9))));
    assert!(path.join("corrupt-12-open-1").exists());
    let (_keep, path) = damaged(|path| contradict(path, 9));
    let refusal = load_path(&path, false).unwrap_err().to_string();
    assert!(refusal.contains("entry 9 of the log has term 1"), "{refusal}");
}

#[test]
fn a_log_without_metadata_is_refused_and_no_cluster_is_founded_on_anything_that_is_there() {
    let leftovers: [(&str, Vec<u8>); 4] = [
        ("open-7", segment(2, 4096)),
        ("0000000000000005-0000000000000006", segment(2, 0)),
        ("corrupt-12-open-9", b"x".to_vec()),
        ("open-1", b"not a segment".to_vec()),
    ];
    for (name, content) in leftovers {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        fs::write(path.join(name), content).unwrap();
        let directory = open(path).unwrap();
        let lock = directory.lock().unwrap();

        let refusal = bootstrap(&directory, &lock, NodeId(1), b"127.0.0.1:29001").unwrap_err().to_string();

        assert!(refusal.contains(name), "{refusal}");
        assert_eq!(names(path), [name]);
    }
    let (_keep, path) = damaged(|path| edit(path, "metadata1", |bytes| bytes.truncate(31)));
    let before = names(&path);
    let refusal = load_path(&path, true).unwrap_err().to_string();
    assert!(refusal.starts_with("metadata1 and metadata2 are missing or empty"), "{refusal}");
    assert_eq!(names(&path), before);
}

#[test]
fn describing_a_directory_changes_nothing() {
    let (_keep, path) = damaged(|_| {});
    let before: Vec<Vec<u8>> = names(&path).iter().map(|name| fs::read(path.join(name)).unwrap()).collect();

    let described = describe_last_entry(&open(&path).unwrap(), &options(true)).unwrap();

    assert_eq!(described, (LogIndex(11), Term(1)));
    let after: Vec<Vec<u8>> = names(&path).iter().map(|name| fs::read(path.join(name)).unwrap()).collect();
    assert_eq!(before, after);
}
