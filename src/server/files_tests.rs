//! Golden bytes, every malformation, and what is in the directory.

use proptest::prelude::*;

use super::*;
use crate::storage::file_disk::FileDisk;

/// Written by 1.18.6. spec: c-api 4.2.
const INFO: &[u8] = b"v1\n127.0.0.1:19201\n3297041220608546238\n";
const STORE: &[u8] = b"v1\n127.0.0.1:19201\n3297041220608546238\nvoter\n";

fn server(address: &str, id: u64, role: Role) -> Server {
    Server { id: NodeId(id), address: address.as_bytes().to_vec(), role }
}

fn directory() -> (tempfile::TempDir, Directory) {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(&FileDisk, folder.path()).unwrap();
    (folder, directory)
}

// conformance: c-api 66
#[test]
fn the_texts_are_those_of_upstream() {
    let info = Info { address: b"127.0.0.1:19201".to_vec(), id: NodeId(3_297_041_220_608_546_238) };
    assert_eq!(Info::parse(INFO), Ok(info.clone()));
    assert_eq!(info.encode().unwrap(), INFO);

    let members = [server("127.0.0.1:19201", 3_297_041_220_608_546_238, Role::Voter)];
    assert_eq!(parse_store(STORE).unwrap(), members);
    assert_eq!(encode_store(&members).unwrap(), STORE);

    let text = b"v1\na\n1\nvoter\n[::1]:2\n18446744073709551615\nstandby\n\n0\nspare\n";
    let members =
        [server("a", 1, Role::Voter), server("[::1]:2", u64::MAX, Role::StandBy), server("", 0, Role::Spare)];
    assert_eq!(parse_store(text).unwrap(), members);
    assert_eq!(encode_store(&members).unwrap(), text);
    assert_eq!(parse_store(b"v1\n"), Ok(Vec::new()));
    // compat: an id without a digit is 0 (1.18.6).
    assert_eq!(parse_store(b"v1\na\n\nspare\n").unwrap(), [server("a", 0, Role::Spare)]);
}

// conformance: c-api 66
#[test]
fn what_upstream_does_not_write_is_refused_and_named() {
    for (text, expected) in [
        ("v1", "line 1: 'v1' has no end of line"),
        ("\n", "line 1: version '', expected 'v1'"),
        ("v2\na\n1\n", "line 1: version 'v2', expected 'v1'"),
        ("v1 \na\n1\n", "line 1: version 'v1 ', expected 'v1'"),
        ("v1\r\na\r\n1\r\n", "line 1: version 'v1\\r', expected 'v1'"),
        ("v1\n", "line 2: the address is missing"),
        ("v1\na", "line 2: 'a' has no end of line"),
        ("v1\na\n", "line 3: the id is missing"),
        ("v1\na\n1", "line 3: '1' has no end of line"),
        ("v1\na\0b\n1\n", "address 'a\\0b' has a NUL or an end of line in it"),
        ("v1\na\n-1\n", "line 3: id '-1' is not a decimal number of 64 bits"),
        ("v1\na\n+1\n", "line 3: id '+1' is not a decimal number of 64 bits"),
        ("v1\na\n1 \n", "line 3: id '1 ' is not a decimal number of 64 bits"),
        ("v1\na\n0x1\n", "line 3: id '0x1' is not a decimal number of 64 bits"),
        (
            "v1\na\n18446744073709551616\n",
            "line 3: id '18446744073709551616' is not a decimal number of 64 bits",
        ),
        ("v1\na\n0\n", "line 3: id of the server is 0"),
        ("v1\na\n\n", "line 3: id of the server is 0"),
        ("v1\na\n1\n\n", "line 4: '' is too much"),
        ("v1\na\n1\nvoter\n", "line 4: 'voter' is too much"),
        ("v1\na\n1\nx", "line 4: 'x' has no end of line"),
    ] {
        assert_eq!(Info::parse(text.as_bytes()).unwrap_err().to_string(), expected, "{text:?}");
    }
    for (text, expected) in [
        ("v0\n", "line 1: version 'v0', expected 'v1'"),
        ("v1\na\n", "line 3: the id is missing"),
        ("v1\na\n1\n", "line 4: the role is missing"),
        ("v1\na\n1\nking\n", "line 4: role 'king' is none of voter, standby, spare"),
        ("v1\na\n1\nstand-by\n", "line 4: role 'stand-by' is none of voter, standby, spare"),
        ("v1\na\n1\nvoter", "line 4: 'voter' has no end of line"),
        ("v1\na\n1\nvoter\n\n", "line 6: the id is missing"),
        ("v1\na\n1\nvoter\nb\nx\n", "line 6: id 'x' is not a decimal number of 64 bits"),
        ("v1\na\n1\nvoter\nb\n2\n", "line 7: the role is missing"),
    ] {
        assert_eq!(parse_store(text.as_bytes()).unwrap_err().to_string(), expected, "{text:?}");
    }
}

#[test]
fn an_address_that_would_not_be_read_again_is_not_written() {
    let (folder, directory) = directory();
    for address in ["a\nb", "a\0"] {
        let info = Info { address: address.into(), id: NodeId(1) };
        assert!(matches!(info.encode(), Err(TextError::Address(_))));
        let error = write_store(&directory, &[server(address, 1, Role::Voter)]).unwrap_err().to_string();
        assert!(error.starts_with("node-store: address 'a"), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

// conformance: c-api 66
#[test]
fn files_that_are_missing_or_empty_tell_nothing_and_members_need_a_server() {
    let (folder, directory) = directory();
    let put = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
    assert_eq!(read(&directory).unwrap(), Known::default());

    put("server-info", b"");
    put("node-store", b"");
    assert_eq!(read(&directory).unwrap(), Known::default());

    put("node-store", STORE);
    assert_eq!(
        read(&directory).unwrap_err().to_string(),
        "node-store has members, but server-info is missing or empty"
    );

    put("server-info", INFO);
    let known = read(&directory).unwrap();
    assert_eq!((known.info, known.members), (Info::parse(INFO).ok(), parse_store(STORE).unwrap()));

    put("server-info", b"v1\na\n1");
    assert_eq!(read(&directory).unwrap_err().to_string(), "server-info: line 3: '1' has no end of line");

    std::fs::File::create(folder.path().join("node-store"))
        .unwrap()
        .set_len(SERVER_FILE_MAX_BYTES + 1)
        .unwrap();
    put("server-info", INFO);
    let expected =
        format!("node-store: {} bytes, at most {SERVER_FILE_MAX_BYTES} are read", SERVER_FILE_MAX_BYTES + 1);
    assert_eq!(read(&directory).unwrap_err().to_string(), expected);
}

#[test]
fn a_file_is_replaced_whole_whatever_a_crash_left_under_its_temporary_name() {
    let (folder, directory) = directory();
    std::fs::write(folder.path().join("node-store-tmp"), [b'x'; 1000]).unwrap();
    std::fs::write(folder.path().join("node-store"), [b'y'; 2000]).unwrap();

    write_store(&directory, &parse_store(STORE).unwrap()).unwrap();
    write_info(&directory, &Info::parse(INFO).unwrap()).unwrap();

    assert_eq!(std::fs::read(folder.path().join("node-store")).unwrap(), STORE);
    assert_eq!(std::fs::read(folder.path().join("server-info")).unwrap(), INFO);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

fn any_address() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("in a line", |byte| ![b'\n', 0].contains(byte));
    prop::collection::vec(byte, 0..40)
}

fn any_role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Voter), Just(Role::StandBy), Just(Role::Spare)]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        address in any_address(),
        id in 1..=u64::MAX,
        members in prop::collection::vec((any_address(), any::<u64>(), any_role()), 0..6),
    ) {
        let info = Info { address, id: NodeId(id) };
        prop_assert_eq!(Info::parse(&info.encode().unwrap()), Ok(info));

        let member = |(address, id, role)| Server { id: NodeId(id), address, role };
        let members: Vec<Server> = members.into_iter().map(member).collect();
        prop_assert_eq!(parse_store(&encode_store(&members).unwrap()), Ok(members));
    }

    #[test]
    fn a_text_that_was_cut_off_is_refused_or_ends_on_a_member(cut in 0..STORE.len(), cut_info in 0..INFO.len()) {
        prop_assert!(Info::parse(&INFO[..cut_info]).is_err());
        prop_assert_eq!(parse_store(&STORE[..cut]).is_ok(), cut == b"v1\n".len());
    }
}
