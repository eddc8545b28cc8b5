//! One data directory, opened in turn by this library and by each upstream version: after clean stops and after kills, with
//! snapshots compressed and not. Whoever opens it must have the pages that the other one had at its end. `make check-upstream` fetches the versions and sets `UPSTREAM` to their folder.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use dqlite_testing::bed;
use dqlite_testing::client::Client;
use dqlite_testing::image::Image;
use dqlite_testing::process::{Library, NodeOptions, NodeProcess, free_address};
use dqlite_testing::upstream;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Rows written between two openings; past the threshold of a snapshot.
const ROWS: i64 = 47;
fn open(node: &NodeProcess) -> Client {
    Client::of_sole_voter(&node.address, "test.db", TIMEOUT).unwrap()
}

fn image(client: &mut Client) -> Image {
    Image::of_files(&client.dump("test.db").unwrap()).unwrap()
}

// conformance: disk-format 8, 10, 11, 12, 15
// conformance: state-machine 11
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn a_directory_goes_back_and_forth_between_the_libraries() {
    let folder = tempfile::tempdir().unwrap();
    let ours = bed::options(folder.path());
    let (mut openings, mut directories, mut pages) = (0, 0, 0);
    for version in upstream::roots() {
        let theirs = Library::of_root(&version);
        for compress in [true, false] {
            for kill in [false, true] {
                let directory = tempfile::tempdir().unwrap();
                let mut rows = 0;
                let mut left: Option<Image> = None;
                for step in 0..5 {
                    let library = if step % 2 == 0 { ours.library.clone() } else { theirs.clone() };
                    let what = format!("{} step {step}, compress {compress}, kill {kill}", version.display());
                    let mut arguments =
                        vec!["--snapshot-threshold=20".to_owned(), "--snapshot-trailing=30".into()];
                    // 1.11.1 lacks the setting.
                    if !compress && (step % 2 == 0 || !version.ends_with("1.11.1")) {
                        arguments.push("--no-compression".into());
                    }
                    let address = free_address().unwrap();
                    let directory = directory.path().to_owned();
                    let mut node = NodeProcess::start(&NodeOptions {
                        library,
                        address,
                        directory,
                        arguments,
                        ..ours.clone()
                    })
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                    let mut client = open(&node);
                    if let Some(left) = left {
                        assert_eq!(left.different_pages(&image(&mut client)), [0; 0], "{what}");
                        pages += left.page_count();
                    }
                    if step == 0 {
                        client.exec("CREATE TABLE t(n INTEGER, s TEXT)", &[]).unwrap();
                    }
                    assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), rows, "{what}");
                    let sound = "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'";
                    assert_eq!(client.number(sound).unwrap(), 1, "{what}");
                    for number in 0..ROWS {
                        client
                            .exec(&format!("INSERT INTO t VALUES({number}, hex(randomblob(900)))"), &[])
                            .unwrap();
                        rows += 1;
                    }
                    left = Some(image(&mut client));
                    if kill {
                        node.kill().unwrap();
                    } else {
                        assert!(node.stop().unwrap().success(), "{what}: {}", node.error_text());
                    }
                    openings += 1;
                }
                directories += 1;
            }
        }
        println!("{}: sound", version.display());
    }
    println!(
        "{directories} directories, {openings} openings, 0 rows lost, {pages} pages compared and none different"
    );
    assert!(directories >= 8 && openings >= 40 && pages >= 1000);
}
