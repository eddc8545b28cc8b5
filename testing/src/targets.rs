//! What the fuzzer runs, and a short seeded version of it that every check runs: arbitrary bytes into every decoder. A
//! decoder may refuse them; what it takes must encode and decode to the same again.

use bytes::Bytes;
use dqlite::pages::PageSpace;
use dqlite::peers::message::{Message, PREAMBLE_BYTES, Preamble};
use dqlite::protocol::request::{Parameters, Request};
use dqlite::protocol::{decode, response};
use dqlite::server::files;
use dqlite::state_machine::command::Command;
use dqlite::state_machine::content;
use dqlite::storage::metadata::{METADATA_BYTES, Metadata};
use dqlite::storage::segment;
use dqlite::storage::snapshot_meta::{SnapshotMeta, SnapshotName};
use dqlite::types::{Configuration, EntryData, LogIndex, Term};

/// One decoder.
pub type Target = fn(&[u8]);

/// Every decoder by name.
pub const TARGETS: [(&str, Target); 10] = [
    ("request", request),
    ("response", answer),
    ("command", command),
    ("content", snapshot_content),
    ("configuration", configuration),
    ("segment", segments),
    ("metadata", metadata),
    ("snapshot_meta", snapshot_meta),
    ("raft_message", raft_message),
    ("server_files", server_files),
];

/// A request: kind, schema, body. Its parameters, too.
pub fn request(bytes: &[u8]) {
    let [kind, schema, body @ ..] = bytes else { return };
    let Ok(request) = Request::decode(*kind, *schema, &Bytes::copy_from_slice(body)) else { return };
    if let Request::Exec { parameters, .. }
    | Request::Query { parameters, .. }
    | Request::ExecSql { parameters, .. }
    | Request::QuerySql { parameters, .. } = &request
        && let Ok(values) = parameters.decode()
    {
        let again = Parameters::encode(&values).decode();
        // NaN is not equal to itself.
        assert_eq!(again.map(|values| format!("{values:?}")), Ok(format!("{values:?}")));
    }
    if let Some(message) = request.encode() {
        let (kind, schema) = (message[4], message[5]);
        assert_eq!(
            Request::decode(kind, schema, &Bytes::copy_from_slice(&message[8..])).as_ref(),
            Ok(&request)
        );
    }
}

/// Answers as a client reads them.
pub fn answer(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    // Each may refuse the body.
    let _ = response::decode_failure(&body);
    let _ = response::decode_server(&body);
    let _ = response::decode_words::<3>(&body);
    let _ = decode::members(&body, 0);
    let _ = decode::members(&body, 1);
    let _ = decode::rows(&body);
    let _ = decode::files(&body);
}

/// A replicated command.
pub fn command(bytes: &[u8]) {
    // It may refuse the bytes.
    let _ = Command::decode(&EntryData::from_bytes(Bytes::copy_from_slice(bytes)));
}

/// The content of a snapshot.
pub fn snapshot_content(bytes: &[u8]) {
    // It may refuse the bytes.
    let _ = content::read(&mut &bytes[..], &PageSpace::memory());
}

/// A configuration.
pub fn configuration(bytes: &[u8]) {
    if let Ok(found) = Configuration::decode(bytes) {
        assert_eq!(Configuration::decode(&found.encode()), Ok(found));
    }
}

/// Closed and open segments.
pub fn segments(bytes: &[u8]) {
    let content = Bytes::copy_from_slice(bytes);
    for expected in [1, 3] {
        if let Ok(entries) = segment::decode_closed(&content, expected) {
            assert_eq!(entries.len() as u64, expected);
        }
    }
    // It may refuse the bytes.
    let _ = segment::decode_open(&content);
}

/// A metadata file.
pub fn metadata(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<METADATA_BYTES>() else { return };
    if let Ok(found) = Metadata::decode(bytes) {
        assert_eq!(&found.encode(), bytes);
    }
}

/// The `.meta` file of a snapshot.
pub fn snapshot_meta(bytes: &[u8]) {
    let name = SnapshotName { term: Term(2), index: LogIndex(16), timestamp: 3 };
    if let Ok(found) = SnapshotMeta::decode(name, bytes) {
        let again = SnapshotMeta::decode(name, &found.encode()).map(|meta| meta.configuration);
        assert_eq!(again.ok(), Some(found.configuration));
    }
}

/// A message between nodes.
pub fn raft_message(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first_chunk::<PREAMBLE_BYTES>() else { return };
    let Ok(preamble) = Preamble::decode(first) else { return };
    let header = &rest[..rest.len().min(preamble.header_bytes as usize)];
    if let Ok(message) = Message::decode(preamble.kind, &Bytes::copy_from_slice(header)) {
        let again = message.encode().slice(PREAMBLE_BYTES..);
        // What an old node leaves out is written.
        assert_eq!(
            Message::decode(preamble.kind, &again).map(|message| message.payload_bytes()),
            Ok(message.payload_bytes())
        );
    }
}

/// `server-info` and `node-store`, also behind the first line that every other text lacks.
pub fn server_files(bytes: &[u8]) {
    for text in [bytes.to_vec(), [b"v1\n", bytes].concat()] {
        if let Ok(info) = files::Info::parse(&text) {
            let again = info.encode().map(|text| files::Info::parse(&text));
            assert_eq!(again, Ok(Ok(info)));
        }
        if let Ok(members) = files::parse_store(&text) {
            let again = files::encode_store(&members).map(|text| files::parse_store(&text));
            assert_eq!(again, Ok(Ok(members)));
        }
    }
}
