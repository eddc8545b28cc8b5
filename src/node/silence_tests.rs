//! A client whose machine vanishes says no word. Whatever its connection holds is given back after a named time; a client that lives is
//! never ended by that.

use std::io::{self, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep};

use super::core::{Core, LiveSettings};
use super::core_testing::{Client, exec_sql, open, query_sql, start_with};
use super::running_tests;
use crate::protocol::request::Request;
use crate::raft::testing::TestDisk;
use crate::transport::client_stream::{ClientRead, ClientStream, Detached, Plain};
use crate::types::config::{
    CLIENT_LOOK_EVERY, CLIENT_SILENCE_LOOK_EVERY, CLIENT_SILENCE_MAX, CLIENT_STALL_MAX, KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL, KEEPALIVE_QUESTIONS, REQUESTS_AHEAD, STATEMENT_WITHOUT_CLIENT_MAX,
};

/// Rows that no stream takes at once.
const MANY_ROWS: &str = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 500) SELECT zeroblob(1000) FROM c";

/// What is known of the machine at the other end.
#[derive(Default)]
struct Known {
    /// Since when it has owed acknowledgements in silence.
    silent_since: Option<Instant>,
    /// It has reset the connection.
    is_reset: bool,
    /// It sends no more.
    sends_no_more: bool,
}

type Machine = Arc<Mutex<Known>>;

/// A stream in memory that says what it is told of the machine at its other end.
struct Far(DuplexStream, Machine);

struct FarRead(ReadHalf<DuplexStream>, Machine);

impl ClientStream for Far {
    type Read = FarRead;
    type Write = Plain<WriteHalf<DuplexStream>>;

    fn split(self) -> (Self::Read, Self::Write) {
        let (read, write) = tokio::io::split(self.0);
        (FarRead(read, self.1), Plain(write))
    }

    fn detach(_: Self::Read, _: Self::Write) -> Detached {
        panic!("no client of these tests dials as a peer")
    }
}

impl AsyncRead for FarRead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl ClientRead for FarRead {
    fn is_hung_up(&self) -> bool {
        self.1.lock().unwrap().is_reset
    }

    fn sends_no_more(&self) -> bool {
        self.1.lock().unwrap().sends_no_more
    }

    const CAN_FALL_SILENT: bool = true;

    fn silence(&self) -> Option<Duration> {
        self.1.lock().unwrap().silent_since.map(|since| since.elapsed())
    }
}

/// A node whose writers wait for an open transaction, and a client whose stream keeps 4096 bytes.
async fn start() -> (Core, Client, Machine) {
    let live = LiveSettings::default();
    live.busy_timeout_ms.store(u32::MAX, std::sync::atomic::Ordering::Relaxed);
    let core = start_with(&TestDisk::bootstrapped(), 1, live).await;
    let mut writer = Client::open(&core, "test").await;
    writer.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)").await.unwrap();
    drop(writer);
    let (client, server) = tokio::io::duplex(4096);
    let machine = Machine::default();
    core.serve(Far(server, Arc::clone(&machine)));
    let mut client = Client(client);
    client.0.write_all(&1u64.to_le_bytes()).await.unwrap();
    assert_eq!(client.call(open("test")).await.0, 4);
    (core, client, machine)
}

/// The client asks for all that, and its machine vanishes after the answers to all but the last; or after it, too, where that is short.
async fn vanishes_amid(core: &Core, client: &mut Client, machine: &Machine, asks: &[Request]) {
    let (last, first) = asks.split_last().unwrap();
    for request in first {
        assert_ne!(client.call(request.clone()).await.0, 0);
    }
    client.send(last.clone()).await;
    sleep(Duration::from_secs(1)).await;
    machine.lock().unwrap().silent_since = Some(Instant::now());
    sleep(CLIENT_SILENCE_MAX - Duration::from_millis(1)).await;
    assert_ne!(core.sql_tasks().running(), 0, "it was ended early");
    sleep(CLIENT_SILENCE_LOOK_EVERY + Duration::from_millis(2)).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_client_holds_whose_machine_vanished_is_given_back_after_a_named_time() {
    let cases: [&[Request]; 4] = [
        &[query_sql(MANY_ROWS)],
        &[exec_sql("BEGIN"), query_sql("SELECT * FROM t")],
        &[exec_sql("BEGIN; INSERT INTO t VALUES(2)"), query_sql("SELECT * FROM t")],
        &[query_sql(&format!("INSERT INTO t {MANY_ROWS} RETURNING a"))],
    ];
    for asks in cases {
        let (core, mut client, machine) = start().await;
        vanishes_amid(&core, &mut client, &machine, asks).await;
        assert_eq!(core.sql_tasks().running(), 0, "{asks:?}");
        assert_eq!(core.executor().usage(), crate::executor::Usage::default(), "{asks:?}");
        Client::open(&core, "test").await.exec("INSERT INTO t VALUES(3)").await.unwrap();
        core.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_statement_that_waits_ends_with_the_machine_of_its_client() {
    let (core, mut client, machine) = start().await;
    let mut holder = Client::open(&core, "test").await;
    holder.exec("BEGIN IMMEDIATE").await.unwrap();
    client.send(exec_sql("INSERT INTO t VALUES(2)")).await;
    sleep(Duration::from_secs(1)).await;
    let tasks = core.sql_tasks().running();
    assert_eq!(core.executor().usage().waiting_for_turn, 1);

    machine.lock().unwrap().silent_since = Some(Instant::now());
    sleep(CLIENT_SILENCE_MAX + CLIENT_SILENCE_LOOK_EVERY).await;

    assert_eq!(core.executor().usage().waiting_for_turn, 0);
    assert!(core.sql_tasks().running() < tasks);
    holder.exec("COMMIT").await.unwrap();
    assert_eq!(holder.number("SELECT count(*) AS n FROM t").await, 1);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_gone_is_looked_for_behind_requests_that_are_not_read() {
    for is_reset in [false, true] {
        let (core, mut client, machine) = start().await;
        let mut holder = Client::open(&core, "test").await;
        holder.exec("BEGIN IMMEDIATE").await.unwrap();
        for _ in 0..REQUESTS_AHEAD * 2 {
            client.send(exec_sql("INSERT INTO t VALUES(2)")).await;
        }
        sleep(Duration::from_secs(1)).await;
        let tasks = core.sql_tasks().running();
        {
            let mut machine = machine.lock().unwrap();
            (machine.is_reset, machine.sends_no_more) = (is_reset, !is_reset);
        }
        let patience = if is_reset { Duration::ZERO } else { STATEMENT_WITHOUT_CLIENT_MAX };
        if !is_reset {
            sleep(patience - CLIENT_LOOK_EVERY).await;
            assert_eq!(core.executor().usage().waiting_for_turn, 1, "it may still wait for the answer");
            sleep(CLIENT_LOOK_EVERY).await;
        }
        sleep(CLIENT_LOOK_EVERY * 2).await;
        assert_eq!(core.executor().usage().waiting_for_turn, 0, "{is_reset}");
        assert!(core.sql_tasks().running() < tasks, "{is_reset}");
        holder.exec("COMMIT").await.unwrap();
        assert_eq!(
            holder.number("SELECT count(*) AS n FROM t").await,
            1,
            "what was read ahead is not carried out"
        );
        core.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_lives_is_never_ended_by_silence() {
    let (core, mut client, machine) = start().await;
    assert_ne!(client.call(exec_sql("BEGIN; INSERT INTO t VALUES(2)")).await.0, 0);
    // It acknowledges from time to time: probes of its closed window, or what it is sent.
    for _ in 0..20 {
        machine.lock().unwrap().silent_since = Some(Instant::now());
        sleep(CLIENT_SILENCE_MAX - Duration::from_secs(1)).await;
    }
    // Once it owes nothing it may be idle for as long as it likes.
    machine.lock().unwrap().silent_since = None;
    sleep(CLIENT_SILENCE_MAX * 20).await;

    assert_eq!(client.exec("COMMIT").await.unwrap().1, 1);
    core.stop().await;
}

/// From here on nothing reaches this client, which therefore answers nothing, as if its machine were gone.
fn vanish(client: &TcpStream) {
    let drop_all = SockFilter::new(libc::BPF_RET as u16, 0, 0, 0);
    SockRef::from(client).attach_filter(&[drop_all]).unwrap();
}

/// Whether the node has a connection to this client, which only the system can say of one that hears nothing.
fn is_connected(client: &TcpStream) -> bool {
    const ESTABLISHED: &str = "01";
    let port = |address: io::Result<std::net::SocketAddr>| format!(":{:04X}", address.unwrap().port());
    let (node, client) = (port(client.peer_addr()), port(client.local_addr()));
    std::fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&node) && fields[2].ends_with(&client) && fields[3] == ESTABLISHED
    })
}

/// How long the node keeps the connection to each of the clients, which vanish now; at most so long.
fn kept_for(clients: &[TcpStream], longest: Duration) -> Vec<Duration> {
    clients.iter().for_each(vanish);
    let begin = std::time::Instant::now();
    let mut kept = vec![Duration::MAX; clients.len()];
    while begin.elapsed() < longest && kept.contains(&Duration::MAX) {
        for (client, kept) in clients.iter().zip(&mut kept) {
            if *kept == Duration::MAX && !is_connected(client) {
                *kept = begin.elapsed();
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    kept
}

/// A client of a running node that has asked for all that and reads nothing but the first answers.
fn asking(address: &str, database: &str, asks: &[Request]) -> TcpStream {
    let mut client = running_tests::connect_to(address, database);
    let (last, first) = asks.split_last().unwrap();
    for request in first {
        assert_ne!(running_tests::call(&mut client, request).0, 0);
    }
    client.write_all(&last.encode().unwrap()).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    client
}

#[test]
fn the_system_notices_in_time_that_a_client_vanished_which_holds_the_turn() {
    let directory = tempfile::tempdir().unwrap();
    let (running, address) = running_tests::start(directory.path());
    let mut running = running.unwrap();
    let mut living = running_tests::connect_to(&address, "living");
    assert_eq!(running_tests::exec(&mut living, "CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1)").0, 6);
    let begin = exec_sql("BEGIN IMMEDIATE");
    let gone = [
        asking(&address, "idle", std::slice::from_ref(&begin)),
        asking(&address, "rows", &[begin, query_sql(&MANY_ROWS.replace("500", "50000"))]),
    ];

    for kept in kept_for(&gone, CLIENT_STALL_MAX * 4) {
        println!("kept for {kept:?}");
        assert!(kept > CLIENT_STALL_MAX / 2 && kept < CLIENT_STALL_MAX + Duration::from_secs(5), "{kept:?}");
    }

    for database in ["idle", "rows"] {
        let mut other = running_tests::connect_to(&address, database);
        assert_eq!(running_tests::exec(&mut other, "CREATE TABLE t(a)").0, 6);
    }
    assert_eq!(running_tests::exec(&mut living, "COMMIT").0, 6);
    running.stop().unwrap();
}

#[test]
#[ignore = "takes five minutes: make vanished-clients"]
fn the_system_notices_in_time_that_any_client_vanished() {
    let directory = tempfile::tempdir().unwrap();
    let (running, address) = running_tests::start(directory.path());
    let mut running = running.unwrap();
    let rows = query_sql(&MANY_ROWS.replace("500", "50000"));
    let mut silent = running_tests::connect(&address);
    let stalled = asking(&address, "test", std::slice::from_ref(&rows));
    let idle = [asking(&address, "test", &[exec_sql("BEGIN")])];
    let owing = [asking(&address, "test", std::slice::from_ref(&rows))];
    let longest = CLIENT_SILENCE_MAX * 2;

    let (idle, owing) = std::thread::scope(|scope| {
        let idle = scope.spawn(|| kept_for(&idle, longest)[0]);
        let owing = kept_for(&owing, longest)[0];
        (idle.join().unwrap(), owing)
    });

    println!("kept for {idle:?} where nothing was owed, else for {owing:?}");
    let asked = KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_QUESTIONS;
    assert!(idle > asked / 2 && idle < asked + KEEPALIVE_INTERVAL, "{idle:?}");
    let looked = CLIENT_SILENCE_MAX + CLIENT_SILENCE_LOOK_EVERY;
    assert!(owing >= CLIENT_SILENCE_MAX - Duration::from_secs(5), "{owing:?}");
    assert!(owing < looked + Duration::from_secs(5), "{owing:?}");
    assert!(is_connected(&stalled), "a client that lives was ended");
    assert_eq!(running_tests::number(&mut silent, "SELECT 5 AS n"), 5);
    running.stop().unwrap();
}
