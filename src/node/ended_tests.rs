//! What ends a request or a connection early, on a whole node: nothing stays held, and no answer says less than what happened.
//! spec: client-protocol 7.3, 10.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, Sink, WriteHalf};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::core::Core;
use super::core_testing::{Client, exec_sql, failure, open, query_sql, start};
use crate::executor::{Rows, Session, Usage};
use crate::protocol::request::Request;
use crate::raft::LogPhase;
use crate::raft::testing::TestDisk;
use crate::transport::client_stream::{ClientRead, ClientStream, ClientWrite, Detached};
use crate::types::config::STATEMENT_WITHOUT_CLIENT_MAX;

const INTERRUPTED: u64 = 9;
const NOT_LEADER: u64 = 10250;
const LEADERSHIP_LOST: u64 = 10506;

/// Ends the epoch, and waits until the node serves in the next one.
async fn next_epoch(core: &Core) {
    core.executor().store().end_epoch(None);
    while core.engine().serving().is_none_or(|serving| serving.epoch != core.executor().store().epoch()) {
        sleep(Duration::from_millis(10)).await;
    }
}

/// What a test knows of a client's stream.
#[derive(Clone, Default)]
struct Told {
    others_wait: Arc<Mutex<Vec<bool>>>,
    panics: Arc<AtomicBool>,
}

/// A stream in memory that tells what it is told.
struct Telling(DuplexStream, Told);

struct TellingRead(ReadHalf<DuplexStream>);

struct TellingWrite(WriteHalf<DuplexStream>, Told);

impl ClientStream for Telling {
    type Read = TellingRead;
    type Write = TellingWrite;

    fn split(self) -> (TellingRead, TellingWrite) {
        let (read, write) = tokio::io::split(self.0);
        (TellingRead(read), TellingWrite(write, self.1))
    }

    fn detach(_: TellingRead, _: TellingWrite) -> Detached {
        panic!("no client of these tests dials as a peer")
    }
}

impl AsyncRead for TellingRead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl ClientRead for TellingRead {
    fn is_hung_up(&self) -> bool {
        false
    }
}

impl AsyncWrite for TellingWrite {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        assert!(!self.1.panics.load(Ordering::Relaxed), "planted by the test");
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl ClientWrite for TellingWrite {
    fn set_others_wait(&self, others_wait: bool) {
        self.1.others_wait.lock().unwrap().push(others_wait);
    }
}

/// A client whose stream keeps so many bytes.
async fn client_with(core: &Core, bytes: usize, told: &Told) -> Client {
    let (client, server) = tokio::io::duplex(bytes);
    core.serve(Telling(server, told.clone()));
    let mut client = Client(client);
    client.0.write_all(&1u64.to_le_bytes()).await.unwrap();
    assert_eq!(client.call(open("test")).await.0, 4);
    client
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_gone_is_seen_behind_the_end_of_an_epoch() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut writer = Client::open(&core, "test").await;
    writer.exec("CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(1000000))").await.unwrap();
    drop(writer);
    let mut client = client_with(&core, 4096, &Told::default()).await;
    client.exec("SELECT 1 WHERE 0").await.unwrap();
    next_epoch(&core).await;
    client.send(Request::Dump { name: Bytes::from_static(b"test") }).await;
    sleep(Duration::from_secs(1)).await;
    assert_ne!(core.sql_tasks().running(), 0);

    client.0.shutdown().await.unwrap();
    sleep(STATEMENT_WITHOUT_CLIENT_MAX + Duration::from_secs(1)).await;

    assert_eq!(core.sql_tasks().running(), 0);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_members_does_not_end_with_an_epoch_of_the_past() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    client.exec("CREATE TABLE t(x)").await.unwrap();
    next_epoch(&core).await;

    let (kind, body) =
        client.call(Request::Add { id: 2, address: Bytes::from_static(b"127.0.0.1:9002") }).await;

    assert_eq!(kind, 8, "{}", String::from_utf8_lossy(&body));
    core.stop().await;
}

/// A writing statement in the middle of more rows than are collected.
async fn in_the_middle(session: &mut Session) -> Rows {
    session.open(b"test").await.unwrap();
    session.exec_sql(Bytes::from_static(b"CREATE TABLE t(n, x)"), Vec::new()).await.unwrap();
    let sql = "INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 10000)
        SELECT n, hex(zeroblob(1000)) FROM c RETURNING x";
    let mut rows = session.query_sql(Bytes::from_static(sql.as_bytes()), Vec::new()).unwrap();
    assert!(!session.next_frame(&mut rows).await.unwrap().unwrap().last);
    assert!(session.holds_turn());
    rows
}

#[tokio::test(start_paused = true)]
async fn a_change_that_stays_is_not_answered_as_one_that_never_was() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut session = core.executor().session();
    let mut rows = in_the_middle(&mut session).await;

    session.ended().set_client_gone();
    let failure = loop {
        match session.next_frame(&mut rows).await {
            Ok(frame) => assert!(!frame.unwrap().last),
            Err(failure) => break failure,
        }
    };

    assert_eq!(failure.code, LEADERSHIP_LOST);
    assert!(!session.holds_turn());
    // Nobody has waited for it.
    sleep(Duration::from_millis(50)).await;
    let mut other = Client::open(&core, "test").await;
    assert_eq!(other.number("SELECT count(*) AS n FROM t").await, 10_000);
    drop((session, other));
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_statement_that_was_left_in_its_middle_does_not_shield_the_next_one() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut session = core.executor().session();
    let mut rows = in_the_middle(&mut session).await;
    next_epoch(&core).await;
    session.leave_if_stale();
    session.end_query(&mut rows).await.unwrap_err();
    session.open(b"test").await.unwrap();
    let ended = session.ended().clone();
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        ended.set_client_gone();
    });

    let sql = b"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 30000000) SELECT count(*) FROM c";
    let mut rows = session.query_sql(Bytes::from_static(sql), Vec::new()).unwrap();
    let failure = session.next_frame(&mut rows).await.unwrap_err();

    assert_eq!(failure.code, INTERRUPTED);
    leaving.join().unwrap();
    drop(session);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_inside_a_transaction_is_not_called_interrupted_once_it_is_made() {
    let disk = TestDisk::bootstrapped();
    let core = start(&disk, 1).await;
    let mut first = Client::open(&core, "test").await;
    first.exec("CREATE TABLE t(n); INSERT INTO t VALUES(1)").await.unwrap();
    let mut second = Client::open(&core, "test").await;
    second.exec("BEGIN").await.unwrap();
    disk.lock().held = true;
    first.send(exec_sql("UPDATE t SET n = n + 10")).await;
    sleep(Duration::from_millis(50)).await;
    second.send(exec_sql("UPDATE t SET n = n + 100")).await;
    sleep(Duration::from_millis(50)).await;

    second.send(Request::Interrupt { db: 0 }).await;
    sleep(Duration::from_millis(50)).await;
    disk.lock().held = false;
    disk.flush();

    assert_eq!(first.receive().await.0, 6);
    assert_eq!([second.receive().await.0, second.receive().await.0], [6, 8]);
    second.exec("COMMIT").await.unwrap();
    assert_eq!(first.number("SELECT n FROM t").await, 111);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_socket_of_a_client_knows_when_nobody_waits_for_it_any_more() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let told = Told::default();
    let mut client = client_with(&core, 4096, &told).await;
    client.exec("BEGIN IMMEDIATE").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(*told.others_wait.lock().unwrap(), [false, true]);

    next_epoch(&core).await;
    sleep(Duration::from_millis(50)).await;

    assert_eq!(*told.others_wait.lock().unwrap(), [false, true, false]);
    drop(client);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_looks_after_a_connection_whose_task_has_panicked() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let told = Told::default();
    let mut client = client_with(&core, 4096, &told).await;
    client.exec("CREATE TABLE t(x); BEGIN IMMEDIATE").await.unwrap();
    told.panics.store(true, Ordering::Relaxed);

    client.send(Request::Leader).await;
    sleep(Duration::from_secs(1)).await;

    assert_eq!(core.sql_tasks().running(), 0);
    let mut other = Client::open(&core, "test").await;
    other.exec("INSERT INTO t VALUES(1)").await.unwrap();
    drop(other);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn beyond_a_bound_of_old_pages_the_reader_that_has_waited_longest_goes() {
    const PAGES: u64 = 300;
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut writer = Client::open(&core, "test").await;
    writer.exec("CREATE TABLE t(x)").await.unwrap();
    let rows = format!("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {PAGES})");
    writer.exec(&format!("INSERT INTO t {rows} SELECT hex(zeroblob(1800)) FROM c")).await.unwrap();
    core.gateway().set_pinned_old_bytes_max(PAGES * 4096 + 4096 / 2);
    let idle = core.sql_tasks().running();
    let mut dumping = client_with(&core, 4096, &Told::default()).await;
    dumping.send(Request::Dump { name: Bytes::from_static(b"test") }).await;
    sleep(Duration::from_secs(3)).await;
    writer.exec("UPDATE t SET x = x || 'a' WHERE rowid = 1").await.unwrap();
    let mut querying = client_with(&core, 4096, &Told::default()).await;
    querying.send(query_sql("SELECT x FROM t")).await;
    // One that keeps nothing, however long it waits.
    let mut waiting = client_with(&core, 64, &Told::default()).await;
    waiting.send(query_sql("SELECT hex(zeroblob(1000))")).await;
    sleep(Duration::from_secs(3)).await;
    let running = |clients: usize| assert_eq!(core.sql_tasks().running(), idle + 2 * clients);

    // All pages of the second reader, and one of the first.
    writer.exec("UPDATE t SET x = x || 'a'").await.unwrap();
    running(3);
    sleep(Duration::from_secs(3)).await;
    running(2);
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut dumping.0, &mut rest).await.unwrap();

    // The second one alone keeps too much for a smaller bound.
    assert_eq!(core.executor().usage().connections, 3);
    core.gateway().set_pinned_old_bytes_max(PAGES * 4096 / 2);
    sleep(Duration::from_secs(3)).await;
    running(1);
    assert_eq!(core.executor().store().pages_kept_by_old_pins(), 0);
    assert_eq!(waiting.receive().await.0, 7);
    drop((writer, querying, waiting));
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_goes_with_a_session_goes_when_its_connection_is_closed() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    for is_open in [true, false] {
        let mut session = core.executor().session();
        if is_open {
            session.open(b"test").await.unwrap();
        }
        let permits: Vec<_> = std::iter::from_fn(|| core.executor().permits().try_acquire()).collect();
        let stall = Arc::new(());
        session.end_before(Arc::clone(&stall));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            (core.executor().usage().connections, Arc::strong_count(&stall)),
            match is_open {
                true => (1, 2),
                false => (0, 1),
            }
        );
        drop(permits);
        sleep(Duration::from_secs(1)).await;
        assert_eq!((core.executor().usage().connections, Arc::strong_count(&stall)), (0, 1));
    }
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_turn_of_an_idle_client_ends_with_its_epoch_whatever_it_asked_last() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = Client::open(&core, "test").await;
    client.exec("CREATE TABLE t(x); BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(client.call(Request::Leader).await.0, 1);
    assert_eq!(core.executor().usage().connections, 1);

    next_epoch(&core).await;
    sleep(Duration::from_millis(50)).await;

    assert_eq!(core.executor().usage(), Usage::default());
    drop(client);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_query_that_wrote_and_is_surely_not_in_the_log_says_so() {
    let disk = TestDisk::bootstrapped();
    let core = start(&disk, 1).await;
    let mut client = Client::open(&core, "test").await;
    client.exec("CREATE TABLE t(n)").await.unwrap();
    // It stays in the queue.
    disk.lock().phase.send_replace(LogPhase::Busy);
    client.send(query_sql("INSERT INTO t VALUES(1) RETURNING n")).await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(core.executor().usage().transactions, 1);

    core.engine().step_down().await;
    let (kind, body) = client.receive().await;

    assert_eq!(failure(kind, &body).0, NOT_LEADER);
    disk.lock().phase.send_replace(LogPhase::Idle);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_transaction_saw_is_waited_for_by_each_of_its_requests_whatever_became_of_the_first() {
    let disk = TestDisk::bootstrapped();
    let core = start(&disk, 1).await;
    let mut writer = Client::open(&core, "test").await;
    writer.exec("CREATE TABLE t(n); INSERT INTO t VALUES(1)").await.unwrap();
    let mut reader = Client::open(&core, "test").await;
    reader.exec("BEGIN").await.unwrap();
    disk.lock().held = true;
    writer.send(exec_sql("UPDATE t SET n = 2")).await;
    sleep(Duration::from_millis(50)).await;
    reader.send(query_sql("SELECT n FROM t")).await;
    sleep(Duration::from_millis(50)).await;
    reader.send(Request::Interrupt { db: 0 }).await;
    assert_eq!(reader.receive().await.0, 8);

    reader.send(query_sql("SELECT n FROM t")).await;
    let early = timeout(Duration::from_secs(1), reader.receive()).await;
    disk.lock().held = false;
    disk.flush();

    assert!(early.is_err(), "rows of a version that no log has");
    assert_eq!([writer.receive().await.0, reader.receive().await.0], [6, 7]);
    drop((writer, reader));
    core.stop().await;
}

/// A stream whose client takes whatever it is sent, at once.
struct Taking(DuplexStream, Arc<AtomicUsize>);

struct TakingWrite(Sink, Arc<AtomicUsize>);

impl ClientStream for Taking {
    type Read = TellingRead;
    type Write = TakingWrite;

    fn split(self) -> (TellingRead, TakingWrite) {
        (TellingRead(tokio::io::split(self.0).0), TakingWrite(tokio::io::sink(), self.1))
    }

    fn detach(_: TellingRead, _: TakingWrite) -> Detached {
        panic!("no client of these tests dials as a peer")
    }
}

impl AsyncWrite for TakingWrite {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let taken = Pin::new(&mut self.0).poll_write(context, bytes);
        if let Poll::Ready(Ok(taken)) = &taken {
            self.1.fetch_add(*taken, Ordering::Relaxed);
        }
        taken
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl ClientWrite for TakingWrite {
    fn set_others_wait(&self, _: bool) {}
}

#[tokio::test(start_paused = true)]
async fn a_query_whose_client_takes_rows_as_fast_as_they_come_hears_an_interrupt() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let taken = Arc::new(AtomicUsize::new(0));
    core.serve(Taking(server, Arc::clone(&taken)));
    client.write_all(&1u64.to_le_bytes()).await.unwrap();
    client.write_all(&open("test").encode().unwrap()).await.unwrap();
    let endless =
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n, zeroblob(2000) FROM c";
    client.write_all(&query_sql(endless).encode().unwrap()).await.unwrap();
    let turns = async |number: usize| {
        for _ in 0..number {
            yield_now().await;
        }
        taken.load(Ordering::Relaxed)
    };
    let before = turns(100).await;
    assert!(turns(20).await > before, "no rows come");

    client.write_all(&Request::Interrupt { db: 0 }.encode().unwrap()).await.unwrap();
    let after = turns(100).await;

    assert_eq!(turns(100).await, after, "rows go on");
    drop(client);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_no_more_gets_all_its_rows_however_slowly_it_reads() {
    let core = start(&TestDisk::bootstrapped(), 1).await;
    let mut client = client_with(&core, 4096, &Told::default()).await;
    let rows = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 500)";
    client.send(query_sql(&format!("{rows} SELECT zeroblob(1000) FROM c"))).await;
    client.0.shutdown().await.unwrap();

    let begin = Instant::now();
    let mut read = 0;
    loop {
        let (kind, body) = client.receive().await;
        assert_eq!(kind, 7);
        read += body.len();
        if body.ends_with(&[0xff; 8]) {
            break;
        }
        sleep(STATEMENT_WITHOUT_CLIENT_MAX / 2).await;
    }

    assert!(read > 500 * 1000 && begin.elapsed() > STATEMENT_WITHOUT_CLIENT_MAX * 2);
    core.stop().await;
}
