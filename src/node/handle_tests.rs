//! The life of a handle in every order of calls.

use super::*;

fn handle(directory: &std::path::Path) -> NodeHandle {
    let (handle, created) = NodeHandle::create(NodeId(1), b"1".to_vec(), directory.to_owned());
    created.unwrap();
    handle
}

// checklist c-api 41: start without bind address: nonzero, no abort; 47: stop before start -> 2 and the node can
// still be started; stop twice -> second 2; handover before start -> 2
#[test]
fn calls_out_of_order_are_misuse_and_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let handle = handle(directory.path());

    assert_eq!(handle.stop(), Err(CallError::Misuse));
    assert_eq!(handle.handover(), Err(CallError::Misuse));
    assert_eq!(handle.start(), Err(CallError::Misuse));
    assert_eq!(handle.error_text().to_text(), "no bind address has been set");

    handle.set_bind_address("@").unwrap();
    handle.start().unwrap();
    assert_eq!(handle.start(), Err(CallError::Error));
    assert_eq!(handle.error_text().to_text(), "couldn't lock the raft directory");
    assert_eq!(handle.change(|options| options.set_block_size(4096)), Err(CallError::Misuse));
    assert_eq!(handle.set_bind_address("@"), Err(CallError::Misuse));
    assert_eq!(handle.describe_last_entry(), Err(CallError::Misuse));
    // checklist c-api 69: handover results of 3.9 (single node 1)
    assert_eq!(handle.handover(), Err(CallError::Error));

    assert_eq!(handle.stop(), Ok(()));
    assert_eq!(handle.stop(), Err(CallError::Misuse));
    assert_eq!(handle.start(), Err(CallError::Misuse));
    assert_eq!(handle.describe_last_entry(), Ok((LogIndex(1), Term(1))));
}

// checklist c-api 41: start with the port taken at listen time: nonzero within a second, no hang
#[test]
fn a_start_that_cannot_listen_fails_and_may_be_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let handle = handle(directory.path());
    handle.set_bind_address("127.0.0.1:0").unwrap();
    let taken = handle.lock().listener.as_ref().unwrap().display_address().to_owned();
    assert_eq!(taken, "127.0.0.1:0");

    let first = BoundSocket::bind("127.0.0.1:0").unwrap();
    drop(first);
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    assert_eq!(handle.set_bind_address(&format!("127.0.0.1:{port}")), Err(CallError::Error));
    assert_eq!(handle.start(), Ok(()));
    assert_eq!(handle.stop(), Ok(()));
}

// checklist c-api 42: second node on the same directory, same process: exact lock text; succeeds after the first
// one's stop (before its destroy); 21 errmsg of a failed start
#[test]
fn a_directory_has_one_running_node() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (handle(directory.path()), handle(directory.path()));
    first.set_bind_address("@").unwrap();
    second.set_bind_address("@").unwrap();

    first.start().unwrap();
    assert_eq!(second.start(), Err(CallError::Error));
    assert_eq!(second.error_text().to_text(), "couldn't lock the raft directory");
    let server = Server { id: NodeId(1), address: b"1".to_vec(), role: crate::types::Role::Voter };
    assert_eq!(second.recover(vec![server]), Err(CallError::Error));

    first.stop().unwrap();
    assert_eq!(second.start(), Ok(()));
    assert_eq!(second.stop(), Ok(()));
    drop(first);
}

// checklist c-api 60: recover twice, recover then start on the same object; 62: n=0, duplicate ids, id 0: error
#[test]
fn a_configuration_is_put_behind_the_log_as_often_as_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let handle = handle(directory.path());
    let server = |id, address: &str| Server {
        id: NodeId(id),
        address: address.as_bytes().to_vec(),
        role: crate::types::Role::Voter,
    };
    handle.set_bind_address("@").unwrap();

    assert_eq!(handle.recover(Vec::new()), Err(CallError::Misuse));
    assert_eq!(handle.recover(vec![server(0, "1")]), Err(CallError::Error));
    assert_eq!(handle.recover(vec![server(1, "1"), server(1, "2")]), Err(CallError::Error));
    assert_eq!(handle.error_text().to_text(), "raft_recover(): io: configuration: server id 1 occurs twice");
    assert_eq!(handle.describe_last_entry(), Ok((LogIndex(0), Term(0))));

    assert_eq!(handle.recover(vec![server(1, "1")]), Ok(()));
    assert_eq!(handle.recover(vec![server(1, "1")]), Ok(()));
    assert_eq!(handle.describe_last_entry(), Ok((LogIndex(2), Term(1))));
}

#[test]
fn a_panic_inside_a_call_stops_the_node_and_becomes_its_text() {
    let directory = tempfile::tempdir().unwrap();
    let handle = handle(directory.path());
    handle.set_bind_address("@").unwrap();
    handle.start().unwrap();

    let result: Result<(), CallError> = handle.guard(|_| panic!("broken invariant"));
    assert_eq!(result, Err(CallError::Error));
    assert_eq!(handle.error_text().to_text(), "internal error: broken invariant");
    assert_eq!(handle.stop(), Err(CallError::Misuse));
    assert_eq!(handle.describe_last_entry(), Ok((LogIndex(1), Term(1))));
}
