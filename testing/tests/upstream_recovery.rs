//! One directory and two libraries at once, and a recovery by the one of what the other wrote. `make check-upstream` fetches
//! upstream's versions and sets `UPSTREAM` to their folder.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dqlite::types::Role;
use dqlite_testing::bed;
use dqlite_testing::client::Client;
use dqlite_testing::cluster::Cluster;
use dqlite_testing::image::Image;
use dqlite_testing::process::{Library, NodeOptions, NodeProcess, compile, free_address};
use dqlite_testing::stored::Stored;
use dqlite_testing::upstream;

const TIMEOUT: Duration = Duration::from_secs(30);
const TRANSFER_ATTEMPTS: usize = 10;
const DATABASE: &str = "test.db";
/// Elections start after 750 ms.
const LATENCY: &str = "--latency-ms=50";
/// The log is sent, no snapshot.
const FEW_SNAPSHOTS: &str = "--snapshot-threshold=1000";

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests-c").join(name)
}

/// A client of a node that is the only voter.
fn open(node: &NodeProcess) -> Client {
    Client::of_sole_voter(&node.address, "test.db", TIMEOUT).unwrap()
}

fn image(client: &mut Client) -> Image {
    Image::of_files(&client.dump("test.db").unwrap()).unwrap()
}

// conformance: c-api 43
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn this_library_and_upstream_keep_each_other_out_of_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let ours = bed::options(folder.path());
    for root in upstream::later_roots() {
        let theirs = NodeOptions { library: Library::of_root(&root), ..ours.clone() };
        for (first, second) in [(&ours, &theirs), (&theirs, &ours)] {
            let directory = tempfile::tempdir().unwrap();
            let at = |options: &NodeOptions| NodeOptions {
                directory: directory.path().to_owned(),
                address: free_address().unwrap(),
                ..options.clone()
            };
            let mut node = NodeProcess::start(&at(first)).unwrap();
            open(&node).exec("CREATE TABLE t(n)", &[]).unwrap();

            let refused = NodeProcess::start(&at(second)).unwrap_err().to_string();
            assert!(refused.contains("couldn't lock the raft directory"), "{refused}");
            open(&node).exec("INSERT INTO t VALUES(1)", &[]).unwrap();
            node.stop().unwrap();

            let mut node = NodeProcess::start(&at(second)).unwrap();
            assert_eq!(open(&node).number("SELECT count(*) FROM t").unwrap(), 1);
            node.stop().unwrap();
        }
        println!("{}: kept out, both ways", root.display());
    }
}

// conformance: c-api 58, 64
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn a_directory_that_one_library_recovered_starts_with_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let ours = bed::options(folder.path());
    let recover = folder.path().join("recover-directory");
    compile(&source("recover-directory.c"), &ours.library.folders[0], &recover).unwrap();
    for root in upstream::roots() {
        let theirs = Library::of_root(&root);
        // Who writes, who recovers, who starts.
        for [writer, recoverer, starter] in [
            [&ours.library, &ours.library, &theirs],
            [&theirs, &theirs, &ours.library],
            [&theirs, &ours.library, &theirs],
            [&ours.library, &theirs, &ours.library],
        ] {
            let directory = tempfile::tempdir().unwrap();
            let at = |library: &Library, id: u64, address: String| NodeOptions {
                library: library.clone(),
                id,
                address,
                directory: directory.path().to_owned(),
                ..ours.clone()
            };
            let mut node = NodeProcess::start(&at(writer, 1, free_address().unwrap())).unwrap();
            let mut client = open(&node);
            client.exec("CREATE TABLE t(n)", &[]).unwrap();
            for _ in 0..70 {
                client.exec("INSERT INTO t VALUES(1)", &[]).unwrap();
            }
            let left = image(&mut client);
            drop(client);
            assert!(node.stop().unwrap().success());

            let address = free_address().unwrap();
            let mut command = recoverer.command(&recover);
            let recovered = command.arg(directory.path()).args(["7", &address]).output().unwrap();
            assert!(recovered.status.success(), "{}", String::from_utf8_lossy(&recovered.stderr));

            let mut node = NodeProcess::start(&at(starter, 7, address.clone())).unwrap();
            let mut client = open(&node);
            assert_eq!(left.different_pages(&image(&mut client)), [0; 0]);
            assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), 70);
            client.exec("INSERT INTO t VALUES(2)", &[]).unwrap();
            let left = image(&mut client);
            let members = client.cluster().unwrap();
            assert_eq!(members.len(), 1);
            assert_eq!((members[0].id.0, members[0].role), (7, Some(Role::Voter)));
            assert_eq!(members[0].address, address.as_bytes());
            drop(client);
            node.stop().unwrap();

            // Another than the starter opens it, and finds the same.
            let other = if std::ptr::eq(starter, &raw const theirs) { &ours.library } else { &theirs };
            let mut node = NodeProcess::start(&at(other, 7, address)).unwrap();
            assert_eq!(left.different_pages(&image(&mut open(&node))), [0; 0]);
            node.stop().unwrap();
        }
        println!("{}: recovered, four ways", root.display());
    }
}

/// The entry of a recovery has term 1, whatever the terms before it.
fn recover_alone(recoverer: &Library, program: &Path, cluster: &Cluster, id: u64) {
    let mut command = recoverer.command(program);
    command.arg(cluster.directory(id).unwrap()).args([&id.to_string(), cluster.address(id).unwrap()]);
    let recovered = command.output().unwrap();
    assert!(recovered.status.success(), "{}", String::from_utf8_lossy(&recovered.stderr));
}

/// A transfer may be given up after an election timeout, when the machine is busy.
fn transfer(cluster: &Cluster, id: u64) {
    let moved = (0..TRANSFER_ATTEMPTS).map(|_| cluster.transfer(id)).find(Result::is_ok);
    moved.unwrap_or_else(|| panic!("node {id} does not lead: {}", cluster.describe())).unwrap();
}

fn write_rows(cluster: &Cluster, rows: i64) {
    let mut client = cluster.database(DATABASE).unwrap();
    for number in 0..rows {
        client.exec(&format!("INSERT INTO t VALUES({number})"), &[]).unwrap();
    }
}

/// A cluster of three whose leaders change loses all but one node, which is recovered alone: the terms of its log fall. The
/// other library gets that log from it as a member, leads, opens its directory and takes a snapshot behind it.
fn terms_fall(
    bed: &RecoveryBed<'_>,
    writer: &Library,
    recoverer: &Library,
    starter: &Library,
    other: &Library,
) {
    let folder = bed.folder.join("nodes");
    let libraries = vec![writer.clone(); 3];
    let mut cluster =
        Cluster::of_voters(bed.program, &folder, &[LATENCY, FEW_SNAPSHOTS], &libraries).unwrap();
    cluster.database(DATABASE).unwrap().exec("CREATE TABLE t(n)", &[]).unwrap();
    for leader in [2, 3, 1] {
        transfer(&cluster, leader);
        write_rows(&cluster, 10);
    }
    let left = cluster.wait_equal(&[2, 3], DATABASE).unwrap();
    for id in [3, 2, 1] {
        cluster.stop(id).unwrap();
    }
    recover_alone(recoverer, bed.recover, &cluster, 1);
    let stored = |cluster: &Cluster, id| {
        Stored::read(cluster.directory(id).unwrap(), &bed.folder.join("copy")).unwrap()
    };
    assert!(stored(&cluster, 1).terms_fall, "{:?}", stored(&cluster, 1));
    cluster.forget(2).unwrap();
    cluster.forget(3).unwrap();

    cluster.set_library(1, starter).unwrap();
    cluster.start(1).unwrap();
    cluster.wait_leader_is(1).unwrap();
    assert_eq!(left.different_pages(&cluster.image(1, DATABASE).unwrap()), [0; 0]);
    write_rows(&cluster, 10);
    cluster.join(4, other, Role::Voter).unwrap();
    cluster.wait_rows(DATABASE, "t", 40).unwrap();
    transfer(&cluster, 4);
    write_rows(&cluster, 10);
    cluster.wait_rows(DATABASE, "t", 50).unwrap();

    // Both, since one of two that goes takes the leadership of the other along.
    for id in [1, 4] {
        cluster.stop(id).unwrap();
    }
    cluster.set_library(1, other).unwrap();
    cluster.start_with(1, &["--snapshot-threshold=20", "--snapshot-trailing=30"]).unwrap();
    cluster.start(4).unwrap();
    cluster.wait_follow(&[1, 4]).unwrap();
    write_rows(&cluster, 50);
    let left = cluster.wait_rows(DATABASE, "t", 100).unwrap();
    cluster.stop(4).unwrap();
    assert!(stored(&cluster, 4).terms_fall, "node 4 got a snapshot: {:?}", stored(&cluster, 4));
    cluster.stop(1).unwrap();
    assert!(stored(&cluster, 1).snapshot > 0, "{:?}", stored(&cluster, 1));
    for id in [1, 4] {
        cluster.set_library(id, starter).unwrap();
        cluster.start(id).unwrap();
    }
    let found = cluster.wait_rows(DATABASE, "t", 100).unwrap();
    assert_eq!(left.different_pages(&found), [0; 0]);
}

struct RecoveryBed<'a> {
    folder: &'a Path,
    program: &'a Path,
    recover: &'a Path,
}

// conformance: disk-format 16
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn a_recovered_log_whose_terms_fall_goes_from_one_library_to_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let ours = options.library;
    let recover = folder.path().join("recover-directory");
    compile(&source("recover-directory.c"), &ours.folders[0], &recover).unwrap();
    for root in upstream::roots() {
        let theirs = Library::of_root(&root);
        for [writer, recoverer, starter, other] in [
            [&ours, &ours, &theirs, &ours],
            [&theirs, &theirs, &ours, &theirs],
            [&theirs, &ours, &theirs, &ours],
            [&ours, &theirs, &ours, &theirs],
        ] {
            let folder = tempfile::tempdir().unwrap();
            let bed = RecoveryBed { folder: folder.path(), program: &options.program, recover: &recover };
            terms_fall(&bed, writer, recoverer, starter, other);
        }
        println!("{}: terms that fall, four ways", root.display());
    }
}

// conformance: c-api 6
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn every_function_of_upstreams_headers_is_found_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let library = bed::options(folder.path()).library.folders[0].clone();
    for root in upstream::roots() {
        let include = root.join("usr/include");
        let path = folder.path().join("addresses.c");
        std::fs::write(&path, "#include <dqlite.h>\n").unwrap();
        let header = Command::new("cc").args(["-E", "-P", "-I"]).arg(&include).arg(&path).output().unwrap();
        let header = String::from_utf8(header.stdout).unwrap();
        let names: BTreeSet<&str> = header
            .match_indices("dqlite_")
            .filter_map(|(at, _)| {
                let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                let end = at + header[at..].bytes().position(|byte| !is_word(byte))?;
                let begins = at == 0 || !is_word(header.as_bytes()[at - 1]);
                (begins && header[end..].trim_start().starts_with('(')).then(|| &header[at..end])
            })
            .collect();
        assert!(names.len() >= 25, "{names:?}");
        let table: String = names.iter().map(|name| format!("    (void (*)(void)){name},\n")).collect();
        let text = format!(
            "#include <dqlite.h>\nvoid (*const functions[])(void) = {{\n{table}}};\n\
             int main(void) {{ return functions[0] == 0; }}\n"
        );
        std::fs::write(&path, text).unwrap();
        let program = folder.path().join("addresses");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-Wall", "-Werror", "-Wl,-z,now", "-I"])
            .arg(&include)
            .arg(&path)
            .arg("-o")
            .arg(&program);
        let made = compiler.arg("-L").arg(&library).arg("-ldqlite").status().unwrap();
        assert!(made.success(), "{}", root.display());

        let ran = Command::new(&program).env("LD_LIBRARY_PATH", &library).env("LD_BIND_NOW", "1").status();

        assert!(ran.unwrap().success(), "{}", root.display());
        println!("{}: {} functions", root.display(), names.len());
    }
}
