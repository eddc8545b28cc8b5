use futures_util::future::BoxFuture;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::*;
use crate::pages::PageSpace;
use crate::pages::testing::FaultyDisk;
use crate::transport::dial::Dial;
use crate::types::PageNumber;

/// Gives out prepared streams; without one the dial fails.
struct Prepared(Mutex<VecDeque<DuplexStream>>, mpsc::UnboundedSender<Vec<u8>>);

impl Dial for Prepared {
    fn dial(&self, address: Vec<u8>) -> BoxFuture<'static, io::Result<Stream>> {
        self.1.send(address).unwrap();
        let stream = self.0.lock().unwrap().pop_front();
        Box::pin(async move {
            let (read, write) = tokio::io::split(stream.ok_or(io::ErrorKind::ConnectionRefused)?);
            Ok(Stream { read: Box::new(read), write: Box::new(write) })
        })
    }
}

/// How long a message may wait for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is in memory needs none.
struct NoPool;

impl BlockingPool for NoPool {
    fn run(&self, _work: Box<dyn FnOnce() + Send>) {
        panic!("work for a pool");
    }
}

fn message(text: &'static [u8]) -> Outgoing {
    Outgoing { chunks: vec![Bytes::from_static(text).into()] }
}

fn started(streams: Vec<DuplexStream>) -> (Arc<Link>, mpsc::UnboundedReceiver<Vec<u8>>, CancellationToken) {
    let (dialled, dials) = mpsc::unbounded_channel();
    let link = Arc::new(Link::new(LinkKind::Member, PATIENCE));
    let stop = CancellationToken::new();
    let hello = connect_bytes(NodeId(1), b"me");
    let dial = Arc::new(Prepared(Mutex::new(streams.into()), dialled));
    let dialler = Dialler::new(dial, Arc::new(|task| drop(tokio::spawn(task))), stop.clone());
    let address = Bytes::from_static(b"peer");
    tokio::spawn(Arc::clone(&link).run(NodeId(2), address, hello, dialler, Arc::new(NoPool), stop.clone()));
    (link, dials, stop)
}

// conformance: raft-wire 1
#[test]
fn connect_has_the_specified_bytes() {
    #[rustfmt::skip]
    let golden = [
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x0b, 0x00, 0x00, 0x00,
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x31, 0x32, 0x37, 0x2e, 0x30, 0x2e, 0x30, 0x2e,
        0x31, 0x3a, 0x32, 0x39, 0x31, 0x30, 0x31, 0x00,
    ];
    assert_eq!(connect_bytes(NodeId(1), b"127.0.0.1:29101"), golden.as_slice());
}

#[tokio::test(start_paused = true)]
async fn messages_follow_connect_in_order() {
    let (ours, mut theirs) = duplex(1 << 16);
    let (link, _dials, _stop) = started(vec![ours]);
    for text in [b"one".as_slice(), b"two", b"three"] {
        link.send(message(text)).unwrap();
    }

    let mut received = vec![0; 32 + 11];
    theirs.read_exact(&mut received).await.unwrap();

    assert_eq!(received[..32], connect_bytes(NodeId(1), b"me"));
    assert_eq!(&received[32..], b"onetwothree");
    assert_eq!(*link.state().borrow(), LinkState { generation: 1, connected: true, failures: 0 });
}

// conformance: raft-wire 6
#[tokio::test(start_paused = true)]
async fn after_a_failed_dial_the_newest_three_are_sent_a_second_later() {
    let (link, mut dials, _stop) = started(vec![]);
    let began = Instant::now();
    for text in [b"1".as_slice(), b"2", b"3", b"4", b"5"] {
        link.send(message(text)).unwrap();
    }

    assert_eq!(dials.recv().await.unwrap(), b"peer");
    assert_eq!(began.elapsed(), std::time::Duration::ZERO);
    dials.recv().await.unwrap();

    assert_eq!(began.elapsed(), DIAL_RETRY);
    assert_eq!(link.lock().messages.len(), 3);
    assert_eq!(link.lock().messages[0].1.chunks[0].read().unwrap(), "3");
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_life_ends_the_wait_for_the_next_dial() {
    let (link, mut dials, _stop) = started(vec![]);
    link.send(message(b"1")).unwrap();
    dials.recv().await.unwrap();
    let began = Instant::now();

    tokio::task::yield_now().await;
    link.poke();
    dials.recv().await.unwrap();

    assert!(began.elapsed() < DIAL_RETRY);
}

// A peer that stops closes its connections one by one; who dials it meanwhile bothers a host that is on its way out.
#[tokio::test(start_paused = true)]
async fn a_sign_of_life_from_before_the_connection_ended_does_not_count() {
    let (ours, theirs) = duplex(1 << 16);
    let (link, mut dials, _stop) = started(vec![ours]);
    let mut state = link.state();
    link.send(message(b"1")).unwrap();
    dials.recv().await.unwrap();
    state.wait_for(|state| state.connected).await.unwrap();
    let began = Instant::now();

    link.poke();
    drop(theirs);
    state.wait_for(|state| !state.connected).await.unwrap();
    link.send(message(b"2")).unwrap();
    dials.recv().await.unwrap();

    assert_eq!(began.elapsed(), DIAL_RETRY);
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_is_noticed_and_the_next_message_dials_again() {
    let (first, theirs) = duplex(1 << 16);
    let (second, mut again) = duplex(1 << 16);
    let (link, _dials, _stop) = started(vec![first, second]);
    let mut state = link.state();
    link.send(message(b"lost")).unwrap();
    state.wait_for(|state| state.connected).await.unwrap();
    drop(theirs);
    state.wait_for(|state| !state.connected).await.unwrap();

    link.send(message(b"more")).unwrap();
    let mut received = vec![0; 36];
    again.read_exact(&mut received).await.unwrap();

    assert_eq!(&received[32..], b"more");
    assert_eq!(link.state().borrow().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_an_idle_link_ends() {
    let (link, _dials, _stop) = started(vec![]);
    for _ in 0..LINK_QUEUE_MESSAGES_MAX {
        link.send(message(b"x")).unwrap();
    }
    assert!(matches!(link.send(message(b"x")), Err(LinkFull::Full { .. })));
    link.take();

    sleep(LINK_IDLE * 2).await;

    assert_eq!(link.send(message(b"x")), Err(LinkFull::Ended));
}

/// A thread for each piece of work.
struct ThreadPool;

impl BlockingPool for ThreadPool {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        std::thread::spawn(work);
    }
}

#[tokio::test]
async fn chunks_that_are_not_in_memory_are_read_in_order_a_window_at_a_time() {
    let disk = FaultyDisk::default();
    let space = PageSpace::on_disk(Arc::new(disk.clone()), 0).unwrap();
    let stored = |byte: u32| space.page(PageNumber(2), &[byte as u8; PAGE_SIZE]).unwrap().chunk();
    let memory = |byte: u32| Chunk::Memory(Bytes::from(vec![byte as u8; 100]));
    let chunks: Vec<Chunk> =
        (0..300).map(|number| if number % 7 == 0 { memory(number) } else { stored(number) }).collect();
    let expected: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.read().unwrap()).collect();

    let mut left = chunks.clone().into_iter();
    let mut found = Vec::new();
    while let Some(window) = next_window(&mut left, &ThreadPool).await.unwrap() {
        let bytes: usize = window.iter().map(Bytes::len).sum();
        assert!(bytes <= PAYLOAD_WINDOW_BYTES);
        found.extend(window.into_iter().flatten());
    }
    assert_eq!(found, expected);

    disk.0.read.store(libc::EIO, std::sync::atomic::Ordering::SeqCst);
    let mut left = chunks.into_iter();
    let failed = loop {
        match next_window(&mut left, &ThreadPool).await {
            Ok(Some(_)) => {}
            outcome => break outcome.unwrap_err(),
        }
    };
    assert!(failed.to_string().contains("Input/output error"), "{failed}");
}
