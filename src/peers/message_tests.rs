//! Messages as upstream's nodes sent them, spec: raft-wire 3 and openraft-mapping appendix B.

use proptest::prelude::*;

use super::*;
use crate::types::{Role, Server};

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

/// The message at the start of the bytes, and what follows its header.
fn decode(bytes: &[u8]) -> Result<(Message, Bytes), MessageError> {
    let preamble = Preamble::decode(bytes.first_chunk().unwrap())?;
    let rest = Bytes::copy_from_slice(&bytes[PREAMBLE_BYTES..]);
    let header = rest.slice(..preamble.header_bytes as usize);
    Ok((Message::decode(preamble.kind, &header)?, rest.slice(preamble.header_bytes as usize..)))
}

/// Bytes that decode to the message and that it encodes to.
fn golden(text: &str, message: &Message) {
    let bytes = unhex(text);
    assert_eq!(decode(&bytes), Ok((message.clone(), Bytes::new())), "{text}");
    assert_eq!(message.encode(), bytes, "{text}");
}

fn vote(term: u64, candidate: u64, last: (u64, u64), flags: u64) -> Message {
    Message::RequestVote(RequestVote {
        term: Term(term),
        candidate: NodeId(candidate),
        last_index: LogIndex(last.0),
        last_term: Term(last.1),
        disrupts_leader: flags & 1 != 0,
        is_pre_vote: flags & 2 != 0,
    })
}

fn append(term: u64, previous: (u64, u64), commit: u64, entries: Vec<EntryHeader>) -> AppendEntries {
    let (previous_index, previous_term) = (LogIndex(previous.0), Term(previous.1));
    AppendEntries { term: Term(term), previous_index, previous_term, commit: LogIndex(commit), entries }
}

fn result(term: u64, rejected: u64, last: u64) -> Message {
    let (rejected, last_index) = (LogIndex(rejected), LogIndex(last));
    Message::AppendEntriesResult(AppendEntriesResult { term: Term(term), rejected, last_index })
}

// conformance: raft-wire 8
#[test]
fn short_messages_have_the_bytes_of_upstream() {
    golden(
        "0300000000000000 2800000000000000 0300000000000000 0300000000000000 0b00000000000000 0200000000000000 0000000000000000",
        &vote(3, 3, (11, 2), 0),
    );
    golden(
        "0300000000000000 2800000000000000 0300000000000000 0100000000000000 0b00000000000000 0200000000000000 0200000000000000",
        &vote(3, 1, (11, 2), 2),
    );
    golden(
        "0300000000000000 2800000000000000 0200000000000000 0200000000000000 0a00000000000000 0100000000000000 0100000000000000",
        &vote(2, 2, (10, 1), 1),
    );
    let granted = RequestVoteResult { term: Term(3), granted: true, is_pre_vote: Some(true) };
    golden(
        "0400000000000000 1800000000000000 0300000000000000 0100000000000000 0100000000000000",
        &Message::RequestVoteResult(granted),
    );
    golden(
        "0200000000000000 2000000000000000 0100000000000000 0000000000000000 0500000000000000 0000000000000000",
        &result(1, 0, 5),
    );
    let now = TimeoutNow { term: Term(1), last_index: LogIndex(10), last_term: Term(1) };
    golden(
        "0600000000000000 1800000000000000 0100000000000000 0a00000000000000 0100000000000000",
        &Message::TimeoutNow(now),
    );
    golden(
        "0100000000000000 3000000000000000 0100000000000000 0500000000000000 0100000000000000 0500000000000000 0000000000000000 0000000000000000",
        &Message::AppendEntries(append(1, (5, 1), 5, Vec::new())),
    );
}

// conformance: raft-wire 9
#[test]
fn older_and_longer_forms_are_read() {
    let old = unhex(
        "0300000000000000 2000000000000000 0300000000000000 0300000000000000 0b00000000000000 0200000000000000",
    );
    assert_eq!(decode(&old).unwrap().0, vote(3, 3, (11, 2), 0));
    let old = unhex("0400000000000000 1000000000000000 0300000000000000 0000000000000000");
    let unknown = RequestVoteResult { term: Term(3), granted: false, is_pre_vote: None };
    assert_eq!(decode(&old).unwrap().0, Message::RequestVoteResult(unknown));
    let rejection =
        unhex("0200000000000000 1800000000000000 0100000000000000 0300000000000000 0000000000000000");
    assert_eq!(decode(&rejection).unwrap().0, result(1, 3, 0));
    let fence = unhex(
        "0100000000000000 2800000000000000 0700000000000000 0500000000000080 0700000000000000 0000000000000000 0000000000000000",
    );
    let fence = decode(&fence).unwrap().0;
    assert_eq!(fence, Message::AppendEntries(append(7, (0x8000_0000_0000_0005, 7), 0, Vec::new())));
    let longer = unhex(
        "0600000000000000 2000000000000000 0100000000000000 0a00000000000000 0100000000000000 ffffffffffffffff",
    );
    assert!(decode(&longer).is_ok());
}

// conformance: raft-wire 8, 10
#[test]
fn entries_of_upstream_are_read_past_what_it_never_initialised() {
    let bytes = unhex(
        "0100000000000000 4000000000000000 0200000000000000 0a00000000000000 0100000000000000 0a00000000000000 \
         0100000000000000 0200000000000000 029d010808000000 08720108127f0000 0000000000000000",
    );
    let (message, payload) = decode(&bytes).unwrap();
    let barrier = EntryHeader { term: Term(2), kind: EntryKind::Barrier, bytes: 8 };
    let wanted = append(2, (10, 1), 10, vec![barrier]);
    assert_eq!(message, Message::AppendEntries(wanted.clone()));
    assert_eq!(message.payload_bytes(), 8);
    assert_eq!(wanted.split_payload(payload), Some(vec![Bytes::from_static(&[0; 8])]));
    assert_eq!(wanted.split_payload(Bytes::from_static(&[0; 16])), None);
    // What upstream never initialised is zero here.
    let mut zeroed = bytes[..80].to_vec();
    zeroed[65..68].fill(0);
    zeroed[72..].fill(0);
    assert_eq!(message.encode(), zeroed);

    let bytes = unhex(
        "0100000000000000 4000000000000000 0100000000000000 0500000000000000 0100000000000000 0500000000000000 \
         0100000000000000 0100000000000000 036e696358000000 3100000000000000 \
         01030000000000000001000000000000 003132372e302e302e313a3239313031 000102000000000000003132372e302e \
         302e313a323931303200010300000000 0000003132372e302e302e313a323931 3033000200000000",
    );
    let (message, payload) = decode(&bytes).unwrap();
    assert_eq!(message.payload_bytes(), 88);
    assert_eq!(payload.len(), 88);
    let mut zeroed = bytes[..80].to_vec();
    zeroed[65..68].fill(0);
    zeroed[72..].fill(0);
    assert_eq!(message.encode(), zeroed);
    let configuration = Configuration::decode(&payload).unwrap();
    assert_eq!(configuration.servers().len(), 3);
    assert_eq!(configuration.servers()[2].role, Role::Spare);
}

// conformance: raft-wire 8, 9, 10
#[test]
fn a_snapshot_message_is_read_with_and_without_its_last_word() {
    let bytes = unhex(
        "0500000000000000 7800000000000000 0100000000000000 2000000000000000 0100000000000000 0400000000000000 \
         4000000000000000 0102000000000000 0001000000000000 003132372e302e30 2e313a3239323031 0001020000000000 \
         00003132372e302e 302e313a32393230 3200010000000000 2820000000000000 4e4f434153450000",
    );
    let (message, rest) = decode(&bytes).unwrap();
    assert!(rest.is_empty());
    assert_eq!(message.payload_bytes(), 8232);
    let Message::InstallSnapshot(install) = &message else { panic!("{message:?}") };
    assert_eq!((install.index, install.configuration_index), (LogIndex(32), LogIndex(4)));
    assert_eq!(install.configuration.servers()[1].address, b"127.0.0.1:29202");
    // Ours has zeros where upstream's has what was in its memory.
    assert_eq!(message.encode()[..bytes.len() - 8], bytes[..bytes.len() - 8]);
    let mut shorter = bytes[..bytes.len() - 8].to_vec();
    shorter[8] = 0x70;
    assert_eq!(decode(&shorter).unwrap().0, message);
}

// conformance: raft-wire 12
// conformance: raft-wire 29 (better: upstream dies of some of these when they come)
#[test]
fn what_is_no_message_is_refused_before_anything_is_allocated() {
    let preamble = |kind: u64, length: u64| {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..8].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&length.to_le_bytes());
        Preamble::decode(&bytes)
    };
    assert_eq!(preamble(3, 0), Err(MessageError::HeaderLength(0)));
    assert_eq!(preamble(3, HEADER_MAX_BYTES + 1), Err(MessageError::HeaderLength(HEADER_MAX_BYTES + 1)));
    for kind in [0, 7, 13, 0xffff] {
        assert_eq!(preamble(kind, 24), Err(MessageError::Kind(kind)));
    }
    assert_eq!(preamble(0x1_0003, 40).unwrap().kind, Kind::RequestVote);

    let entry = |bytes| EntryHeader { term: Term(1), kind: EntryKind::Command, bytes };
    let refused =
        |entries| decode(&Message::AppendEntries(append(1, (0, 0), 0, entries)).encode()).unwrap_err();
    assert_eq!(refused(vec![entry(8), entry(12)]), MessageError::Unaligned { position: 1, bytes: 12 });
    assert_eq!(refused(vec![entry(0)]), MessageError::NoPayload(1));
    let mut huge = Message::AppendEntries(append(1, (0, 0), 0, Vec::new())).encode().to_vec();
    huge[PREAMBLE_BYTES + 32..PREAMBLE_BYTES + 40].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(decode(&huge), Err(MessageError::Header { kind: 1, .. })));
}

fn any_message() -> impl Strategy<Value = Message> {
    let entry = (any::<u64>(), 1u8..=3, 1u32..1000).prop_map(|(term, kind, words)| EntryHeader {
        term: Term(term),
        kind: EntryKind::from_number(kind).unwrap(),
        bytes: words * 8,
    });
    let server = (1u64..1_000_000, "[a-z0-9.:]{1,20}", 0u8..3);
    prop_oneof![
        (any::<[u64; 4]>(), 0u64..4).prop_map(|(n, flags)| vote(n[0], n[1], (n[2], n[3]), flags)),
        any::<[u64; 3]>().prop_map(|n| result(n[0], n[1], n[2])),
        (any::<u64>(), any::<bool>(), any::<bool>()).prop_map(|(term, granted, pre)| {
            Message::RequestVoteResult(RequestVoteResult {
                term: Term(term),
                granted,
                is_pre_vote: Some(pre),
            })
        }),
        (any::<[u64; 4]>(), proptest::collection::vec(entry, 0..20))
            .prop_map(|(n, entries)| Message::AppendEntries(append(n[0], (n[1], n[2]), n[3], entries))),
        (any::<[u64; 5]>(), server).prop_map(|(n, (id, address, role))| {
            let role = Role::from_raft_number(role).unwrap();
            let server = Server { id: NodeId(id), address: address.into_bytes(), role };
            Message::InstallSnapshot(InstallSnapshot {
                term: Term(n[0]),
                index: LogIndex(n[1]),
                last_term: Term(n[2]),
                configuration_index: LogIndex(n[3]),
                configuration: Configuration::new(vec![server]).unwrap(),
                content_bytes: n[4],
            })
        }),
    ]
}

proptest! {
    #[test]
    fn every_message_is_read_as_it_was_written(message in any_message()) {
        prop_assert_eq!(decode(&message.encode()), Ok((message, Bytes::new())));
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_an_error(message in any_message(), cut in 1usize..32) {
        let bytes = message.encode();
        let header = bytes.slice(PREAMBLE_BYTES..);
        let preamble = Preamble::decode(bytes.first_chunk().unwrap()).unwrap();
        // The last word of some headers may be missing.
        let cut = header.len().saturating_sub(8 + cut);
        let _ = Message::decode(preamble.kind, &header.slice(..cut));
    }
}
