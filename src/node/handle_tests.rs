//! The life of a handle in every order of calls.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::life::{Caller, State};
use super::*;
use crate::protocol::request::{Parameters, Request};
use crate::storage::metadata::Metadata;

fn handle(directory: &std::path::Path) -> NodeHandle {
    let (handle, created) = NodeHandle::create(NodeId(1), b"1".to_vec(), directory.to_owned());
    created.unwrap();
    handle
}

// conformance: c-api 41 (better: upstream does not return)
// conformance: c-api 47, 69
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
    assert_eq!(handle.handover(), Err(CallError::Error));

    assert_eq!(handle.stop(), Ok(()));
    assert_eq!(handle.stop(), Err(CallError::Misuse));
    assert_eq!(handle.start(), Err(CallError::Misuse));
    assert_eq!(handle.describe_last_entry(), Ok((LogIndex(1), Term(1))));
}

#[test]
fn a_bind_address_that_is_refused_leaves_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let handle = handle(directory.path());
    handle.set_bind_address("127.0.0.1:0").unwrap();
    let taken = handle.keeper.lock().settings.listener.as_ref().unwrap().display_address().to_owned();
    assert_eq!(taken, "127.0.0.1:0");

    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    assert_eq!(handle.set_bind_address(format!("127.0.0.1:{port}")), Err(CallError::Error));
    assert_eq!(handle.start(), Ok(()));
    assert_eq!(handle.stop(), Ok(()));
}

// conformance: c-api 42
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

// conformance: c-api 60
// conformance: c-api 62 (better: upstream does not return, or writes it)
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

// A version before this one took up any term that a message said.
#[test]
fn a_directory_at_the_end_of_all_terms_starts_says_so_and_is_repaired_by_a_recovery() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let started = || {
        let handle = handle(path);
        handle.set_bind_address("@").unwrap();
        assert_eq!(handle.start(), Ok(()));
        handle
    };
    let serves = |handle: &NodeHandle| {
        let held = handle.keeper.lock();
        held.running().unwrap().core().unwrap().engine().serving().is_some()
    };
    assert_eq!(started().stop(), Ok(()));
    let ended = Metadata { version: 9, term: Term(u64::MAX), voted_for: NodeId(0) };
    std::fs::write(path.join("metadata1"), ended.encode()).unwrap();

    let node = started();
    let text = "no term is left for elections: the directory is in term 18446744073709551615, and this node stands for \
                none. dqlite_node_recover_ext gives it another";
    assert_eq!(node.error_text().to_text(), text);
    assert!(!serves(&node));
    assert_eq!(node.stop(), Ok(()));

    let server =
        crate::types::Server { id: NodeId(1), address: b"1".to_vec(), role: crate::types::Role::Voter };
    assert_eq!(handle(path).recover(vec![server]), Ok(()));
    let node = started();
    assert_eq!(node.error_text().to_text(), "");
    assert!(serves(&node));
    assert_eq!(node.stop(), Ok(()));
}

#[test]
fn a_panic_inside_a_call_stops_the_node_and_becomes_its_text() {
    let directory = tempfile::tempdir().unwrap();
    let handle = handle(directory.path());
    handle.set_bind_address("@").unwrap();
    handle.start().unwrap();

    let result: Result<(), CallError> = handle.run(|_| panic!("broken invariant"));
    assert_eq!(result, Err(CallError::Error));
    assert_eq!(handle.error_text().to_text(), "internal error: broken invariant");
    assert_eq!(handle.handover(), Err(CallError::Error));
    let text = "the node has stopped by itself: internal error: broken invariant";
    assert_eq!(handle.error_text().to_text(), text);
    assert_eq!(handle.stop(), Err(CallError::Error));
    assert_eq!(handle.error_text().to_text(), "internal error: broken invariant");
    assert_eq!(handle.stop(), Err(CallError::Misuse));
    assert_eq!(handle.describe_last_entry(), Ok((LogIndex(1), Term(1))));
}

/// Waits until this process has so many files without a name in `directory` open: segments have none while they are made.
fn wait_for_unnamed(directory: &std::path::Path, expected: usize) {
    let began = std::time::Instant::now();
    while unnamed(directory) != expected {
        assert!(began.elapsed().as_secs() < 20, "{} files without a name", unnamed(directory));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn unnamed(directory: &std::path::Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.starts_with(directory) && link.to_string_lossy().ends_with("(deleted)")).count()
}

// conformance: c-api 38
#[test]
fn in_disk_mode_pages_are_in_a_file_without_a_name_that_goes_with_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let handle = handle(directory.path());
    let name = format!("dqlite-handle-disk-{}", std::process::id());
    handle.set_bind_address(format!("@{name}")).unwrap();
    let enable = |options: &mut Options| {
        options.disk_mode = true;
        Ok(())
    };
    handle.change(enable).unwrap();
    handle.start().unwrap();
    assert_eq!(handle.change(enable), Err(CallError::Misuse));
    wait_for_unnamed(directory.path(), 1);

    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let mut client = UnixStream::connect_addr(&address).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    client.write_all(&1u64.to_le_bytes()).unwrap();
    let rows = "INSERT INTO t WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT 2000) \
                SELECT i, randomblob(3000) FROM n";
    let exec = |sql: &'static str| Request::ExecSql {
        db: 0,
        sql: Bytes::from_static(sql.as_bytes()),
        parameters: Parameters::default(),
    };
    let open = Request::Open { name: Bytes::from_static(b"test.db"), flags: 0, vfs: Bytes::new() };
    for (request, answer) in [(open, 4), (exec("CREATE TABLE t(i, b)"), 6), (exec(rows), 6)] {
        client.write_all(&request.encode().unwrap()).unwrap();
        let mut header = [0; 8];
        client.read_exact(&mut header).unwrap();
        let mut body = vec![0; 8 * header[0] as usize];
        client.read_exact(&mut body).unwrap();
        assert_eq!(header[4], answer, "{}", String::from_utf8_lossy(&body));
    }
    wait_for_unnamed(directory.path(), 1);

    // The client is still there.
    assert_eq!(handle.stop(), Ok(()));
    assert_eq!(unnamed(directory.path()), 0);
    assert_eq!(handle.describe_last_entry(), Ok((LogIndex(3), Term(1))));
}

/// A connect function that is called and does not return until it is let go.
struct Gate {
    called: std::sync::mpsc::Sender<()>,
    go: Mutex<std::sync::mpsc::Receiver<()>>,
    /// What a stop of the node says that calls it.
    stopped: Mutex<Option<Result<(), CallError>>>,
    node: std::sync::OnceLock<std::sync::Weak<NodeHandle>>,
}

impl Connector for Gate {
    fn connect(&self, _: &str) -> std::io::Result<crate::transport::dial::Socket> {
        if let Some(node) = self.node.get().and_then(std::sync::Weak::upgrade) {
            *self.stopped.lock().unwrap() = Some(node.stop());
        }
        // The test may have ended.
        let _ = self.called.send(());
        let _ = self.go.lock().unwrap().recv();
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }
}

#[test]
fn getters_answer_at_once_while_a_stop_waits_for_a_connect_function_where_no_stop_is_possible() {
    let directory = tempfile::tempdir().unwrap();
    let handle = Arc::new(handle(directory.path()));
    let ((called, calls), (go, gone)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let (stopped, node) = (Mutex::default(), std::sync::OnceLock::new());
    let gate = Arc::new(Gate { called, go: Mutex::new(gone), stopped, node });
    handle.set_bind_address("127.0.0.1:0").unwrap();
    handle.set_connector(Arc::<Gate>::clone(&gate)).unwrap();
    handle.start().unwrap();
    gate.node.set(Arc::downgrade(&handle)).unwrap();
    let engine = {
        let held = handle.keeper.lock();
        held.running().unwrap().core().unwrap().engine().clone()
    };
    let waiting = tokio::runtime::Builder::new_current_thread().build().unwrap();
    waiting.block_on(engine.add(NodeId(2), b"127.0.0.1:9".to_vec())).unwrap();
    // Dialled as soon as entries are for it.
    drop(engine.assign(NodeId(2), crate::types::Role::StandBy));
    calls.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(*gate.stopped.lock().unwrap(), Some(Err(CallError::Misuse)));
    assert!(handle.error_text().to_text().contains("that the node calls itself"));

    let stopping = std::thread::spawn({
        let handle = Arc::clone(&handle);
        move || handle.stop()
    });
    while handle.describe_last_entry().is_ok() || handle.keeper.lock().running().is_some() {
        std::thread::yield_now();
    }
    let began = Instant::now();
    let address = handle.bind_address();
    for _ in 0..100 {
        assert!(!handle.error_text().as_ptr().is_null());
        assert_eq!(handle.bind_address(), address, "it moves");
    }
    assert!(began.elapsed() < Duration::from_millis(500));
    assert_eq!(handle.stop(), Err(CallError::Misuse));
    assert_eq!(handle.start(), Err(CallError::Misuse));
    assert_eq!(handle.handover(), Err(CallError::Misuse));
    assert!(began.elapsed() < Duration::from_millis(500));
    assert!(!stopping.is_finished());
    drop(go);

    assert_eq!(stopping.join().unwrap(), Ok(()));
}

/// Makes one call; what the setting refuses, or a directory, does not matter here.
fn make(call: Call, handle: &NodeHandle) -> Result<(), CallError> {
    let server = Server { id: NodeId(1), address: b"1".to_vec(), role: crate::types::Role::Voter };
    match call {
        Call::Set => handle.change(|_| Ok(())),
        Call::SetAnyTime => handle.change_live(|_| {}),
        Call::Ask => {
            assert!(!handle.bind_address().is_null());
            assert!(!handle.error_text().as_ptr().is_null());
            Ok(())
        }
        Call::Start => handle.start(),
        Call::Handover => handle.handover(),
        Call::Stop | Call::Destroy => handle.stop(),
        Call::Recover => handle.recover(vec![server]),
        Call::Describe => handle.describe_last_entry().map(|_| ()),
    }
}

/// Makes a call in a state, and compares what comes of it with the table.
fn step(state: State, call: Call, caller: Caller) {
    let directory = tempfile::tempdir().unwrap();
    let handle = handle(directory.path());
    handle.set_bind_address("@").unwrap();
    if matches!(state, State::Running | State::Failed | State::Stopped) {
        handle.start().unwrap();
    }
    match state {
        State::Stopped => handle.stop().unwrap(),
        State::Failed => handle.keeper.lock().watch().failure.report("broken"),
        _ => {}
    }
    let under_way = (state == State::Starting).then(|| handle.keeper.begin_start(handle.keeper.lock()));
    let expected = verdict(state, call, caller);
    let made = std::thread::scope(|scope| {
        let calling = scope.spawn(|| {
            let own = handle.keeper.lock().watch().own.clone();
            let _joined = (caller == Caller::Callback).then(|| own.join());
            make(call, &handle)
        });
        if expected == Verdict::GiveUpStart {
            // The stop has come, and waits.
            while !handle.keeper.lock().watch().give_up.is_cancelled() {
                std::thread::yield_now();
            }
            assert!(!calling.is_finished());
        }
        if !matches!(expected, Verdict::GiveUpStart) {
            let made = calling.join().unwrap();
            drop(under_way);
            return made;
        }
        drop(under_way);
        calling.join().unwrap()
    });

    let text = handle.error_text().to_text();
    let what = format!("{call:?} by {caller:?} when {state:?}: {made:?} '{text}'");
    match expected {
        Verdict::Misuse(said) => {
            assert_eq!(made, Err(CallError::Misuse), "{what}");
            assert_eq!(text, said, "{what}");
        }
        Verdict::Error(said) => {
            assert_eq!(made, Err(CallError::Error), "{what}");
            assert!(text.starts_with(said), "{what}");
        }
        Verdict::Do | Verdict::Enter(_) | Verdict::GiveUpStart => {
            assert_ne!(made, Err(CallError::Misuse), "{what}");
            assert!(made.is_ok() || !text.is_empty(), "{what}");
        }
        Verdict::AwaitStop | Verdict::Leave => unreachable!("of a destroy, or of a child"),
    }
    // What the walk has begun ends.
    let ended = handle.stop();
    assert!(handle.start().is_err() || handle.stop().is_ok(), "{what}: {ended:?}");
}

// The state in which a stop is under way has a test of its own above; a forked child is one of tests-c/guest.c.
#[test]
fn every_call_does_what_the_table_says_in_every_state_that_a_node_can_be_in() {
    let states = [State::Created, State::Starting, State::Running, State::Stopped, State::Failed];
    let calls = [
        Call::Set,
        Call::SetAnyTime,
        Call::Ask,
        Call::Start,
        Call::Handover,
        Call::Stop,
        Call::Recover,
        Call::Describe,
    ];
    for state in states {
        for caller in [Caller::Host, Caller::Callback] {
            for call in calls {
                step(state, call, caller);
            }
        }
    }
}

#[test]
fn a_handle_is_freed_when_nothing_uses_it_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let handle = handle(directory.path());
    handle.set_bind_address("@").unwrap();
    handle.start().unwrap();
    let inside = handle.keeper.come_in();
    let ending = std::thread::scope(|scope| {
        let ending = scope.spawn(|| handle.finish());
        while handle.keeper.lock().running().is_some() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(50));
        assert!(!ending.is_finished(), "a call is inside");
        drop(inside);
        ending.join().unwrap()
    });

    assert_eq!(ending, Ending::Free);
    assert_eq!(handle.stop(), Err(CallError::Misuse));
}
