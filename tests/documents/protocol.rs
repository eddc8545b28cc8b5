//! The examples of docs/protocol.md: sent to a running node and compared with what it sends, and through the encoders and
//! decoders of the library, both ways.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use dqlite::protocol::header::MessageHeader;
use dqlite::protocol::request::{Parameters, Request};
use dqlite::protocol::rows::Marker;
use dqlite::protocol::{decode, response};
use dqlite::types::{Configuration, NodeId, Role, Server};

use crate::blocks::{Block, examples};
use crate::node::Node;

const DOCUMENT: &str = "docs/protocol.md";
/// Types of the answers.
const FAILURE: u8 = 0;
const SERVER: u8 = 1;
const ROWS: u8 = 7;
const FILES: u8 = 9;

/// The connection of an example; most are on one.
fn connection_of(block: &Block) -> &str {
    block.value("on").unwrap_or("main")
}

/// The messages of one kind, without the handshakes, which are the first of each connection.
fn messages(kind: &str) -> Vec<Block> {
    let mut connections = BTreeSet::new();
    let is_message = |block: &Block| {
        let first = block.is("client") && connections.insert(connection_of(block).to_owned());
        block.is(kind) && !first
    };
    examples(DOCUMENT).into_iter().filter(is_message).collect()
}

fn header(block: &Block) -> MessageHeader {
    let bytes = block.bytes();
    let start: Vec<u8> = bytes[..8].iter().map(|byte| byte.unwrap()).collect();
    let header = MessageHeader::read(&start);
    assert_eq!(header.body_bytes() as usize, bytes.len() - 8, "{}: length in the header", block.place);
    assert_eq!(header.extra.get(), 0, "{}", block.place);
    header
}

fn body(block: &Block) -> Bytes {
    Bytes::from(block.whole()).slice(8..)
}

// conformance: client-protocol H1, H2, H3, M1, M9, C1, C2, Q3
#[test]
fn a_running_node_answers_every_request_of_the_document_as_it_says() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let nodes = [Node::start(1, folders[0].path(), |_| {}), Node::start(2, folders[1].path(), |_| {})];
    let mut connections: HashMap<String, UnixStream> = HashMap::new();
    let mut answers = 0;
    for block in examples(DOCUMENT) {
        let name = connection_of(&block);
        if block.is("client") {
            let node = match block.value("to") {
                Some("2") => &nodes[1],
                _ => &nodes[0],
            };
            let stream = connections.entry(name.to_owned()).or_insert_with(|| node.connect());
            stream.write_all(&block.whole()).unwrap();
        } else if block.is("server") {
            let stream =
                connections.get_mut(name).unwrap_or_else(|| panic!("{}: nothing asked", block.place));
            let mut found = vec![0; block.bytes().len()];
            let mut have = 0;
            while have < found.len() {
                let count = stream.read(&mut found[have..]).unwrap_or(0);
                assert!(count > 0, "{}: only {:02x?}", block.place, &found[..have]);
                have += count;
            }
            block.assert_is(&found);
            answers += 1;
        } else if block.is("closed") {
            let mut rest = Vec::new();
            connections.remove(name).unwrap().read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty(), "{}: {rest:?}", block.place);
        }
    }
    // Nothing is left over: the next answer is that of the next request.
    for (name, stream) in connections.iter_mut().filter(|(name, _)| *name != "peer") {
        stream.write_all(&Request::Leader.encode().unwrap()).unwrap();
        let mut start = [0; 8];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(start[4], SERVER, "{name}");
    }
    assert!(answers >= 30, "{answers} answers");
}

#[test]
fn every_request_of_the_document_decodes_and_encodes_to_the_same_bytes() {
    let mut kinds = BTreeSet::new();
    for block in messages("client").into_iter().chain(messages("request")) {
        let header = header(&block);
        let decoded = Request::decode(header.kind, header.schema, &body(&block));
        if block.is("malformed") {
            assert!(decoded.is_err(), "{}", block.place);
            continue;
        }
        let request = decoded.unwrap_or_else(|error| panic!("{}: {error}", block.place));
        assert_eq!(request.encode().unwrap(), block.whole(), "{}", block.place);
        if let Request::Exec { parameters, .. }
        | Request::Query { parameters, .. }
        | Request::ExecSql { parameters, .. }
        | Request::QuerySql { parameters, .. } = &request
        {
            let values = parameters.decode().unwrap_or_else(|error| panic!("{}: {error}", block.place));
            let again = Parameters::encode(&values);
            assert_eq!(again.decode().unwrap(), values, "{}", block.place);
            // Values do not keep BOOLEAN and ISO8601 apart from integers and texts, nor the two counts.
            let is_loose = parameters.schema != 0 || block.lines.iter().any(|line| line.contains("BOOLEAN"));
            assert!(is_loose || again == *parameters, "{}", block.place);
        }
        kinds.insert(header.kind);
    }
    let all: BTreeSet<u8> = (0..=19).filter(|kind| *kind != 2).collect();
    assert_eq!(kinds, all, "requests without an example, or without a place in the protocol");
}

#[test]
fn every_answer_of_the_document_decodes_and_encodes_to_the_same_bytes() {
    let mut kinds = BTreeSet::new();
    for block in messages("server") {
        let header = header(&block);
        kinds.insert(header.kind);
        if block.bytes().iter().any(Option::is_none) {
            // Too long to be told; the running node has sent it.
            assert!(matches!(header.kind, ROWS | FILES), "{}", block.place);
            continue;
        }
        if let Some(again) = again(&block, header) {
            assert_eq!(again, block.whole(), "{}", block.place);
        }
    }
    assert_eq!(kinds, (0..=10).collect(), "answers without an example");
}

/// What the library encodes after it has decoded an answer; None of rows, which it reads and does not write again.
fn again(block: &Block, header: MessageHeader) -> Option<Vec<u8>> {
    let body = body(block);
    let words: Vec<u64> = body.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    Some(match (header.kind, &words[..]) {
        (FAILURE, _) => {
            let (code, message) = response::decode_failure(&body).unwrap();
            response::failure(code, &message)
        }
        (SERVER, _) if connection_of(block) == "old" => {
            let end = body.iter().position(|byte| *byte == 0).unwrap();
            response::server_legacy(&body[..end])
        }
        (SERVER, _) => {
            let (id, address) = response::decode_server(&body).unwrap();
            response::server(id, &address)
        }
        (2, [milliseconds]) => response::welcome(*milliseconds),
        (3, _) => members(block, &body),
        (4, [db]) => response::db(u32::try_from(*db).unwrap()),
        (5, [ids, parameters]) => response::stmt(0, (ids >> 32) as u32, *parameters, 0),
        (5, [ids, parameters, tail]) => response::stmt(1, (ids >> 32) as u32, *parameters, *tail),
        (6, [id, changed]) => response::result(id.cast_signed(), *changed),
        (ROWS, _) => {
            let rows = decode::rows(&body).unwrap();
            assert!(rows.marker == Marker::Done || !rows.rows.is_empty(), "{}", block.place);
            return None;
        }
        (8, [0]) => response::empty(),
        (10, [domain, weight]) => response::metadata(*domain, *weight),
        _ => panic!("{}: type {} with {} words", block.place, header.kind, words.len()),
    })
}

fn members(block: &Block, body: &Bytes) -> Vec<u8> {
    // A member without a role is shorter by a word.
    let format = u64::from(decode::members(body, 1).is_ok());
    let members = decode::members(body, format).unwrap_or_else(|error| panic!("{}: {error}", block.place));
    let server = |member: decode::Member| Server {
        id: NodeId(member.id.0),
        address: member.address.to_vec(),
        role: member.role.unwrap_or(Role::Voter),
    };
    let configuration = Configuration::new(members.into_iter().map(server).collect()).unwrap();
    response::servers(&configuration, format)
}
