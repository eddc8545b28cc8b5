//! The files of a server on a disk whose power is cut, or that fails, at every operation: what is read afterwards is the
//! old content or the whole of the other, and what was written without an error stays.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use dqlite::server::files::{self, Info};
use dqlite::storage::directory::Directory;
use dqlite::types::{NodeId, Role, Server};
use dqlite_sim::disk::{Fault, SimDisk};

const DIRECTORY: &str = "/data";
/// Contents written one after the other.
const VERSIONS: u64 = 4;
/// Power cuts at each operation, each of which keeps other parts of what was not synced.
const SEEDS: u64 = 20;

fn open(disk: &SimDisk) -> Directory {
    Directory::open(disk, Path::new(DIRECTORY)).unwrap()
}

fn info(version: u64) -> Info {
    Info { address: format!("address of version {version}").into_bytes(), id: NodeId(version) }
}

/// Longer and shorter than a sector in turn.
fn members(version: u64) -> Vec<Server> {
    let count = if version.is_multiple_of(2) { 60 } else { 1 };
    let server = |id| Server { id: NodeId(id), address: info(version).address, role: Role::Spare };
    (1..=count).map(server).collect()
}

/// Versions of `server-info` and of `node-store` that were written without an error.
fn write(disk: &SimDisk) -> (u64, u64) {
    let (mut infos, mut stores) = (0, 0);
    // The operation that fails may be one of opening the directory.
    let Ok(directory) = Directory::open(disk, Path::new(DIRECTORY)) else { return (0, 0) };
    for version in 1..=VERSIONS {
        if files::write_info(&directory, &info(version)).is_ok() {
            infos = version;
        }
        if files::write_store(&directory, &members(version)).is_ok() {
            stores = version;
        }
    }
    (infos, stores)
}

fn check(disk: &SimDisk, (infos, stores): (u64, u64), what: &str) {
    let known = match files::read(&open(disk)) {
        Ok(known) => known,
        Err(error) => panic!("{what}: {error}"),
    };
    let info_found = known.info.map_or(0, |info| info.id.0);
    assert!(info_found >= infos, "{what}: server-info of {info_found}, {infos} was written");
    let found = (0..=VERSIONS).find(|version| match version {
        0 => known.members.is_empty(),
        version => known.members == members(*version),
    });
    let found = found.unwrap_or_else(|| panic!("{what}: node-store of no version"));
    assert!(found >= stores, "{what}: node-store of {found}, {stores} was written");
}

fn operations() -> u64 {
    let disk = SimDisk::new(Path::new(DIRECTORY));
    assert_eq!(write(&disk), (VERSIONS, VERSIONS));
    disk.operations()
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_old_or_the_whole_of_the_other() {
    let mut cuts = 0;
    for operation in 1..=operations() {
        let disk = SimDisk::new(Path::new(DIRECTORY));
        disk.plan(operation, Fault::Cut);
        let written = write(&disk);
        assert!(disk.is_off());
        for seed in 0..SEEDS {
            check(&disk.after_power_cut(seed), written, &format!("operation {operation}, seed {seed}"));
            cuts += 1;
        }
    }
    assert!(cuts >= 1000, "only {cuts} cuts");
}

#[test]
fn a_failed_operation_leaves_the_old_or_the_whole_of_the_other() {
    for operation in 1..=operations() {
        for fault in [Fault::Error, Fault::NoSpace { operations: 3 }] {
            let disk = SimDisk::new(Path::new(DIRECTORY));
            disk.plan(operation, fault);
            let written = write(&disk);
            let what = format!("{fault:?} at operation {operation}");
            check(&disk, written, &what);
            check(&disk.after_power_cut(operation), written, &what);
        }
    }
}
