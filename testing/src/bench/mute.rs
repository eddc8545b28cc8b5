//! A node that does nothing: every request gets the answer that a real node would give, at once and from one thread. What clients
//! reach with it is the most that this machine lets any node show.

use std::net::SocketAddr;
use std::sync::mpsc;

use bytes::{Buf, BytesMut};
use dqlite::protocol::header::{HEADER_BYTES, MessageHeader};
use dqlite::protocol::response;
use dqlite::protocol::rows::{ColumnValue, Marker, RowsWriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::results::Results;
use super::{Failure, Settings, floor};
use crate::load::run::{Plan, run};
use crate::load::workload::{ROW_BYTES, Workload};

/// Types of the requests of a load. spec: client-protocol 5.
const OPEN: u8 = 3;
const PREPARE: u8 = 4;
const QUERY: u8 = 6;
/// Requests per second of the open loop.
const OPEN_LOOP_RATE: f64 = 8000.0;
const TAIL: [(f64, &str); 4] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "longest")];
/// Bytes of the word by which a client begins.
const PROTOCOL_BYTES: usize = 8;

/// Runs the loads of one request on it.
///
/// # Errors
/// A connection fails.
pub(super) fn measure(settings: &Settings, results: &mut Results) -> Result<(), Failure> {
    let (address_to, address) = mpsc::channel();
    let (end, ended) = oneshot::channel();
    let node = std::thread::spawn(move || serve(&address_to, ended));
    let address = address.recv().map_err(|_| "the mute node does not listen")?;
    let loads = [
        (Workload::Insert, 1, None),
        (Workload::Insert, 64, None),
        (Workload::PointRead, 1, None),
        (Workload::PointRead, 16, None),
        // The tail that the machine gives whatever a node does.
        (Workload::Insert, 64, Some(OPEN_LOOP_RATE)),
    ];
    for (workload, clients, rate) in loads {
        let mut name = format!("node that does nothing, {}, {clients} clients", workload.name());
        if let Some(rate) = rate {
            name = format!("{name} at {rate} a second");
        }
        if !settings.wants(&name) {
            continue;
        }
        let plan = Plan {
            address: address.to_string(),
            databases: vec!["none".to_owned()],
            workload,
            clients,
            warm_up: settings.warm_up,
            time: settings.time,
            rate,
            rows: 1000,
        };
        let outcome = run(&plan, || {}, || {})?;
        results.add(floor::NAME, 0, &format!("{name}: per second"), outcome.per_second());
        let shares: &[(f64, &str)] = if rate.is_some() { &TAIL } else { &TAIL[..1] };
        for (share, text) in shares {
            results.add(floor::NAME, 0, &format!("{name}: {text} us"), outcome.quantile_us(*share));
        }
    }
    // Its end is the end of the channel, too.
    let _ = end.send(());
    node.join().map_err(|_| "the mute node panicked")??;
    Ok(())
}

fn serve(address: &mpsc::Sender<SocketAddr>, ended: oneshot::Receiver<()>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        address.send(listener.local_addr()?)?;
        let accepting = async {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        };
        tokio::select! {
            () = accepting => {}
            _ = ended => {}
        }
        Ok(())
    })
}

/// Until the client goes, or breaks off: the load sees that.
async fn answer(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut rows = RowsWriter::new([&b"v"[..]].into_iter());
    rows.begin_row(1);
    rows.push(0, None, &ColumnValue::Blob(&[0x5a; ROW_BYTES]));
    let rows = rows.finish(Marker::Done).ok()?;
    let (db, stmt, result) = (response::db(0), response::stmt(0, 0, 1, 0), response::result(1, 1));
    let mut received = BytesMut::new();
    let mut skip = PROTOCOL_BYTES;
    loop {
        while received.len() < skip + HEADER_BYTES {
            received.reserve(16 * 1024);
            if stream.read_buf(&mut received).await.ok()? == 0 {
                return None;
            }
        }
        received.advance(skip);
        let header = MessageHeader::read(&received[..HEADER_BYTES]);
        skip = 0;
        let length = HEADER_BYTES + usize::try_from(header.body_bytes()).ok()?;
        while received.len() < length {
            received.reserve(16 * 1024);
            if stream.read_buf(&mut received).await.ok()? == 0 {
                return None;
            }
        }
        received.advance(length);
        let answer = match header.kind {
            OPEN => &db,
            PREPARE => &stmt,
            QUERY => &rows,
            _ => &result,
        };
        stream.write_all(answer).await.ok()?;
    }
}
