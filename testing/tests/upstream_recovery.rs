//! One directory and two libraries at once, and a recovery by the one of what the other wrote. `make check-upstream` fetches
//! upstream's versions and sets `UPSTREAM` to their folder.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dqlite::types::Role;
use dqlite_testing::client::Client;
use dqlite_testing::process::{Library, NodeOptions, NodeProcess, compile, free_address};

mod support;

const TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The unpacked roots of these versions; the last one comes from Debian unstable and may be missing.
fn roots(versions: &[&str]) -> Vec<PathBuf> {
    let upstream = std::env::var("UPSTREAM").expect("UPSTREAM is the folder of tests/upstream/fetch.sh");
    let roots = versions.iter().map(|version| Path::new(&upstream).join(version));
    let found: Vec<PathBuf> = roots.filter(|root| root.join(".complete").exists()).collect();
    assert!(found.len() + 1 >= versions.len(), "{found:?}");
    found
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests-c").join(name)
}

/// A client of a node that is the only voter.
fn open(node: &NodeProcess) -> Client {
    let end = Instant::now() + TIMEOUT;
    loop {
        let mut client = Client::connect(&node.address, TIMEOUT).unwrap();
        match client.open("test.db") {
            Ok(()) => return client,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

// conformance: c-api 43
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn this_library_and_upstream_keep_each_other_out_of_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let ours = support::options(folder.path());
    for root in roots(&["1.18.1", "1.18.7"]) {
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
    let ours = support::options(folder.path());
    let recover = folder.path().join("recover-directory");
    compile(&source("recover-directory.c"), &ours.library.folders[0], &recover).unwrap();
    for root in roots(&["1.11.1", "1.18.1", "1.18.7"]) {
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
            drop(client);
            assert!(node.stop().unwrap().success());

            let address = free_address().unwrap();
            let mut command = recoverer.command(&recover);
            let recovered = command.arg(directory.path()).args(["7", &address]).output().unwrap();
            assert!(recovered.status.success(), "{}", String::from_utf8_lossy(&recovered.stderr));

            let mut node = NodeProcess::start(&at(starter, 7, address.clone())).unwrap();
            let mut client = open(&node);
            assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), 70);
            client.exec("INSERT INTO t VALUES(2)", &[]).unwrap();
            let members = client.cluster().unwrap();
            assert_eq!(members.len(), 1);
            assert_eq!((members[0].id.0, members[0].role), (7, Some(Role::Voter)));
            assert_eq!(members[0].address, address.as_bytes());
            node.stop().unwrap();
        }
        println!("{}: recovered, four ways", root.display());
    }
}

// conformance: c-api 6
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn every_function_of_upstreams_headers_is_found_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let library = support::options(folder.path()).library.folders[0].clone();
    for root in roots(&["1.11.1", "1.18.1", "1.18.7"]) {
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
