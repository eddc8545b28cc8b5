//! The examples of docs/data-directory.md: compared with the files that a node leaves, and through the encoders and decoders of
//! the library, both ways.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dqlite::node::handle::NodeHandle;
use dqlite::protocol::request::{Parameters, Request};
use dqlite::server::files;
use dqlite::storage::directory::Directory;
use dqlite::storage::file_disk::FileDisk;
use dqlite::storage::metadata::Metadata;
use dqlite::storage::segment::{FORMAT_WORD, decode_closed, encode_batch_prefix};
use dqlite::storage::snapshot_meta::{SnapshotFile, SnapshotMeta, SnapshotName};
use dqlite::types::{LogIndex, NodeId, Role, Server, Term};

use crate::blocks::{Block, blocks, examples, text_of};
use crate::node::{ADDRESS, Node};

const DOCUMENT: &str = "docs/data-directory.md";
const FIRST_SEGMENT: &str = "0000000000000001-0000000000000001";
const SECOND_SEGMENT: &str = "0000000000000002-0000000000000002";
/// Longest wait for a snapshot, and the pause between two looks.
const WAIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Files with examples in bytes, each looked at by a test below.
const FILES: [&str; 8] =
    ["metadata1", "voted", "first-segment", "pages", "meta", "snapshot", "content", "recovered"];

/// The examples of one file.
fn of(file: &str) -> Vec<Block> {
    let found: Vec<Block> =
        examples(DOCUMENT).into_iter().filter(|block| block.value("file") == Some(file)).collect();
    assert!(!found.is_empty(), "{DOCUMENT} has no example of {file}");
    found
}

/// The directory that a single node leaves which has made a table and was stopped.
struct Left {
    folder: tempfile::TempDir,
}

impl Left {
    /// The node stops when `is_enough` is true of the names of its files.
    fn new(set: impl FnOnce(&NodeHandle), is_enough: impl Fn(&[String]) -> bool) -> Left {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(1, folder.path(), set);
        let mut stream = node.connect();
        stream.write_all(&[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let open = Request::Open { name: "test.db".into(), flags: 0, vfs: Bytes::new() };
        let sql = |sql: &'static str| Request::ExecSql {
            db: 0,
            sql: sql.into(),
            parameters: Parameters::default(),
        };
        for request in [open, sql("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)")] {
            stream.write_all(&request.encode().unwrap()).unwrap();
            let mut header = [0; 8];
            stream.read_exact(&mut header).unwrap();
            assert_ne!(header[4], 0, "a failure");
            let mut body =
                vec![0; u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize * 8];
            stream.read_exact(&mut body).unwrap();
        }
        drop(stream);
        let left = Left { folder };
        let begin = Instant::now();
        while !is_enough(&left.names()) {
            assert!(begin.elapsed() < WAIT, "{:?}", left.names());
            std::thread::sleep(LOOK_AGAIN);
        }
        node.handle.stop().unwrap();
        left
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}: {:?}", self.names()))
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn directory(path: &Path) -> Directory {
    Directory::open(&FileDisk, path).unwrap()
}

/// Runs the examples of a segment with `entries` entries through the library: decoded, then encoded to the same bytes.
fn segment_comes_back(file: &str, entries: u64) {
    for block in of(file) {
        let decoded = decode_closed(&Bytes::from(block.whole()), entries).unwrap();
        let mut again = FORMAT_WORD.to_vec();
        again.extend(encode_batch_prefix(&decoded).unwrap());
        for chunk in decoded.iter().flat_map(|entry| entry.data.chunks()) {
            again.extend_from_slice(&chunk.read().unwrap());
        }
        assert_eq!(again, block.whole(), "{}", block.place);
    }
}

#[test]
fn every_example_of_a_file_is_of_one_that_a_test_makes() {
    let found: BTreeSet<String> =
        examples(DOCUMENT).iter().map(|block| block.value("file").unwrap_or_default().to_owned()).collect();
    assert_eq!(found, FILES.map(str::to_owned).into());
}

#[test]
fn a_new_node_leaves_the_files_of_the_document() {
    let left = Left::new(|_| {}, |_| true);

    assert_eq!(left.names(), [FIRST_SEGMENT, SECOND_SEGMENT, "dqlite-lock", "metadata1"]);
    of("metadata1")[0].assert_is(&left.read("metadata1"));
    of("first-segment")[0].assert_is(&left.read(FIRST_SEGMENT));
    let second = left.read(SECOND_SEGMENT);
    of("pages")[0].assert_is(&second);
    assert!(left.read("dqlite-lock").is_empty());
    segment_comes_back("first-segment", 1);
    // What the document does not tell of the segment with pages are pages and checksums.
    assert_eq!(decode_closed(&Bytes::from(second), 1).unwrap().len(), 1);
}

#[test]
fn metadata_of_the_document_decodes_and_encodes_to_the_same_bytes() {
    for (file, version, term, vote) in [("metadata1", 1, 1, 0), ("voted", 3, 2, 2)] {
        for block in of(file) {
            let bytes: [u8; 32] = block.whole().try_into().unwrap();
            let metadata = Metadata::decode(&bytes).unwrap();
            assert_eq!(
                (metadata.version, metadata.term, metadata.voted_for),
                (version, Term(term), NodeId(vote))
            );
            assert_eq!(metadata.encode(), bytes, "{}", block.place);
        }
    }
}

#[test]
fn a_snapshot_has_the_bytes_of_the_document() {
    let is_snapshot =
        |name: &str| SnapshotName::parse(name).is_some_and(|snapshot| snapshot.index == LogIndex(2));
    let left = Left::new(
        |handle| handle.change(|options| options.set_snapshot_params(2, 4, 0)).unwrap(),
        |names| names.iter().any(|name| is_snapshot(name)),
    );
    let data_name = left.names().into_iter().find(|name| is_snapshot(name)).unwrap();
    let name = SnapshotName::parse(&data_name).unwrap();
    let meta_bytes = left.read(&name.meta_name());

    of("meta")[0].assert_is(&meta_bytes);
    let meta = SnapshotMeta::decode(name, &meta_bytes).unwrap();
    assert_eq!(meta.encode(), of("meta")[0].whole());
    let data = left.read(&data_name);
    of("snapshot")[0].assert_begins(&data);
    let file = SnapshotFile { meta, data_name, data_bytes: data.len() as u64 };
    let mut content = Vec::new();
    file.open_data(&directory(left.path())).unwrap().read_to_end(&mut content).unwrap();
    of("content")[0].assert_is(&content);
}

#[test]
fn a_recovery_writes_the_segment_of_the_document() {
    let left = Left::new(|_| {}, |_| true);
    let (handle, created) = NodeHandle::create(NodeId(1), ADDRESS.into(), left.path().to_owned());
    created.unwrap();
    let server =
        |id: u64, role| Server { id: NodeId(id), address: format!("127.0.0.1:900{id}").into(), role };

    let servers = vec![server(1, Role::Voter), server(2, Role::StandBy), server(3, Role::Spare)];
    handle.recover(servers).unwrap();

    of("recovered")[0].assert_is(&left.read("0000000000000003-0000000000000003"));
    assert_eq!(handle.describe_last_entry(), Ok((LogIndex(3), Term(1))));
    segment_comes_back("recovered", 1);
}

#[test]
fn the_texts_of_a_server_are_read_and_written_as_the_document_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let texts: Vec<Block> = blocks(DOCUMENT)
        .into_iter()
        .filter(|block| block.words.first().is_some_and(|word| word == "text"))
        .collect();
    let whole = |block: &Block| block.lines.iter().fold(String::new(), |text, line| text + line + "\n");
    for block in &texts {
        std::fs::write(folder.path().join(block.value("file").unwrap()), whole(block)).unwrap();
    }

    let known = files::read(&directory(folder.path())).unwrap();
    let other = tempfile::tempdir().unwrap();
    files::write_info(&directory(other.path()), &known.info.unwrap()).unwrap();
    files::write_store(&directory(other.path()), &known.members).unwrap();

    assert_eq!(texts.len(), 2);
    for block in &texts {
        let written = std::fs::read_to_string(other.path().join(block.value("file").unwrap())).unwrap();
        assert_eq!(written, whole(block), "{}", block.place);
    }
}

#[test]
fn the_texts_of_damages_are_those_of_the_source() {
    let document = text_of(DOCUMENT);
    let errors = text_of("src/storage/error.rs");
    let section = document.split("## Damage").nth(1).unwrap();
    let quoted = section.lines().filter(|line| line.starts_with("| ")).flat_map(|line| {
        line.split('`').skip(1).step_by(2).filter(|text| text.contains(' ')).collect::<Vec<_>>()
    });
    let mut count = 0;
    for text in quoted {
        assert!(errors.contains(text), "{text}");
        count += 1;
    }
    assert!(count >= 8, "{count} texts");
}
