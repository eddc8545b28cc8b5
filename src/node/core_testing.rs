//! A whole node, SQL included, on one thread with a paused clock, and a client that speaks to it in bytes.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use std::sync::Arc;

use super::core::{Core, CoreError, CoreParts, LiveSettings, StoreEpochs};
use crate::pages::{PageSpace, PageStore};
use crate::protocol::request::{Parameters, Request, Value};
use crate::raft::testing::{InlinePool, TestDisk};
use crate::raft::{EngineOptions, SnapshotPace, SnapshotPolicy};
use crate::state_machine::databases::Databases;
use crate::types::NodeId;
use crate::types::random::RandomSource;
use crate::types::tasks::{SqlSection, Tasks};
use crate::vfs::empty_page;

pub(super) async fn start(disk: &TestDisk, seed: u64) -> Core {
    start_with(disk, seed, LiveSettings::default()).await
}

pub(super) async fn start_with(disk: &TestDisk, seed: u64, live: LiveSettings) -> Core {
    start_in(disk, seed, live, PageSpace::memory()).await.unwrap()
}

pub(super) async fn start_in(
    disk: &TestDisk,
    seed: u64,
    live: LiveSettings,
    space: PageSpace,
) -> Result<Core, CoreError> {
    let store = PageStore::in_space(space);
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let engine = EngineOptions {
        id: NodeId(1),
        address: b"127.0.0.1:9001".to_vec(),
        heartbeat_interval: Duration::from_millis(500),
        election_timeout: Duration::from_millis(3000),
        snapshot_policy: SnapshotPolicy {
            threshold_entries: 64,
            trailing_entries: 16,
            pace: SnapshotPace::Entries,
        },
        consensus: tasks,
        pool: Arc::new(InlinePool),
        random: Arc::new(RandomSource::from_seed(seed)),
        log: disk.sender(),
        loaded: disk.loaded(),
        snapshots: Arc::new(disk.clone()),
        machine: Box::new(Databases::new(Arc::clone(&store), empty_page())),
        hooks: Arc::new(StoreEpochs(Arc::clone(&store))),
        dial: Arc::new(crate::raft::testing::NoDial),
        payloads: Some(store.space().payloads()),
    };
    let parts = CoreParts {
        store,
        engine,
        sql_tasks: Tasks::new(tokio::runtime::Handle::current()),
        sql: SqlSection::Inline,
        sql_threads: 4,
        live: Arc::new(live),
        on_panic: Box::new(|text| panic!("{text}")),
    };
    Core::start(parts).await
}

/// A client at the other end of a stream in memory.
pub(super) struct Client(pub(super) DuplexStream);

impl Client {
    pub(super) async fn connect(core: &Core) -> Client {
        let (client, server) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(server);
        core.serve((read, write));
        let mut client = Client(client);
        client.0.write_all(&1u64.to_le_bytes()).await.unwrap();
        client
    }

    pub(super) async fn open(core: &Core, name: &str) -> Client {
        let mut client = Client::connect(core).await;
        assert_eq!(client.call(open(name)).await.0, 4);
        client
    }

    pub(super) async fn send(&mut self, request: Request) {
        self.0.write_all(&request.encode().unwrap()).await.unwrap();
    }

    /// The next FAILURE.
    pub(super) async fn refusal(&mut self, request: Request) -> (u64, String) {
        let (kind, body) = self.call(request).await;
        failure(kind, &body)
    }

    /// Whether the node closes the connection without another byte.
    pub(super) async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        self.0.read(&mut byte).await.unwrap_or(0) == 0
    }

    pub(super) async fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 8];
        self.0.read_exact(&mut header).await.unwrap();
        let words = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let mut body = vec![0; words as usize * 8];
        self.0.read_exact(&mut body).await.unwrap();
        (header[4], body)
    }

    pub(super) async fn call(&mut self, request: Request) -> (u8, Vec<u8>) {
        self.send(request).await;
        self.receive().await
    }

    /// (kind 6, id, affected) or (kind 0, code, text).
    pub(super) async fn exec_with(
        &mut self,
        sql: &str,
        values: &[Value],
    ) -> Result<(u64, u64), (u64, String)> {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        let (kind, body) =
            self.call(Request::ExecSql { db: 0, sql, parameters: Parameters::encode(values) }).await;
        match kind {
            6 => Ok((word(&body, 0), word(&body, 1))),
            _ => Err(failure(kind, &body)),
        }
    }

    pub(super) async fn exec(&mut self, sql: &str) -> Result<(u64, u64), (u64, String)> {
        self.exec_with(sql, &[]).await
    }

    /// Bodies of all ROWS messages.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Vec<u8>>, (u64, String)> {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        self.send(Request::QuerySql { db: 0, sql, parameters: Parameters::default() }).await;
        let mut bodies = Vec::new();
        loop {
            let (kind, body) = self.receive().await;
            if kind != 7 {
                return Err(failure(kind, &body));
            }
            let last = body.last() == Some(&0xff);
            bodies.push(body);
            if last {
                return Ok(bodies);
            }
        }
    }

    /// The one integer of a query with one column of a one-word name and one row.
    pub(super) async fn number(&mut self, sql: &str) -> u64 {
        let bodies = self.query(sql).await.unwrap();
        word(&bodies[0], 3)
    }
}

/// OPEN of a database.
pub(super) fn open(name: impl AsRef<[u8]>) -> Request {
    Request::Open { name: Bytes::copy_from_slice(name.as_ref()), flags: 0, vfs: Bytes::new() }
}

/// EXEC_SQL without parameters.
pub(super) fn exec_sql(sql: &str) -> Request {
    Request::ExecSql { db: 0, sql: Bytes::copy_from_slice(sql.as_bytes()), parameters: Parameters::default() }
}

/// QUERY_SQL without parameters.
pub(super) fn query_sql(sql: &str) -> Request {
    Request::QuerySql {
        db: 0,
        sql: Bytes::copy_from_slice(sql.as_bytes()),
        parameters: Parameters::default(),
    }
}

/// A message with any header.
pub(super) fn message(kind: u8, schema: u8, body: &[u8]) -> Vec<u8> {
    let words = u32::try_from(body.len() / 8).unwrap();
    [&words.to_le_bytes()[..], &[kind, schema, 0, 0], body].concat()
}

pub(super) fn word(body: &[u8], position: usize) -> u64 {
    u64::from_le_bytes(body[position * 8..position * 8 + 8].try_into().unwrap())
}

pub(super) fn failure(kind: u8, body: &[u8]) -> (u64, String) {
    assert_eq!(kind, 0, "{body:?}");
    let end = body[8..].iter().position(|byte| *byte == 0).unwrap();
    (word(body, 0), String::from_utf8(body[8..8 + end].to_vec()).unwrap())
}

pub(super) fn err<T>(code: u64, text: &str) -> Result<T, (u64, String)> {
    Err((code, text.to_owned()))
}
