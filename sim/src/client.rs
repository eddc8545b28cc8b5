//! A client of a simulated cluster: finds the leader, runs statements, and knows what an answer says of the outcome.

use std::time::Duration;

use bytes::Bytes;
use dqlite::protocol::decode::rows;
use dqlite::protocol::request::{Parameters, Request, Value};
use tokio::time::{sleep, timeout};

use crate::history::Outcome;
use crate::network::Network;
use crate::node::SimClient;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// Longest wait for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// Database of all workloads.
pub const DATABASE: &str = "test.db";

/// Failure codes that say that a statement surely had no effect. spec: client-protocol 10.
const SURE: [u64; 3] = [5, 13, 10250];

/// What an answer says.
enum Answer {
    Done(Vec<Vec<Value>>),
    Failed,
    Unknown,
}

/// The client.
#[derive(Debug)]
pub struct ClusterClient {
    network: Network,
    name: Vec<u8>,
    addresses: Vec<Vec<u8>>,
    next: usize,
    connection: Option<SimClient>,
}

impl ClusterClient {
    /// A client that knows these nodes.
    #[must_use]
    pub fn new(network: &Network, number: u64, addresses: &[Vec<u8>]) -> ClusterClient {
        ClusterClient {
            network: network.clone(),
            name: format!("client-{number}").into_bytes(),
            addresses: addresses.to_vec(),
            next: number as usize % addresses.len(),
            connection: None,
        }
    }

    async fn connected(&mut self) -> Option<&mut SimClient> {
        if self.connection.is_none() {
            let address = self.addresses[self.next].clone();
            let dialer = self.network.dialer(&self.name);
            let opening = async {
                let stream = dialer.connect(&address).await.ok()?;
                let mut client = SimClient::over(stream, DATABASE).await?;
                client.keeps_answers = false;
                Some(client)
            };
            self.connection = timeout(CONNECT_PATIENCE, opening).await.ok().flatten();
            if self.connection.is_none() {
                self.turn_away();
            }
        }
        self.connection.as_mut()
    }

    fn turn_away(&mut self) {
        self.connection = None;
        self.next = (self.next + 1) % self.addresses.len();
    }

    async fn call(&mut self, request: &Request) -> Answer {
        let Some(client) = self.connected().await else {
            sleep(Duration::from_millis(50)).await;
            return Answer::Failed;
        };
        match timeout(PATIENCE, client.call(request)).await {
            Ok(Some((6, _))) => Answer::Done(Vec::new()),
            Ok(Some((7, body))) => match rows(&Bytes::from(body)) {
                Ok(rows) => Answer::Done(rows.rows),
                Err(_) => Answer::Unknown,
            },
            Ok(Some((0, body))) => {
                let code = body.get(..8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes);
                self.turn_away();
                if SURE.contains(&code) { Answer::Failed } else { Answer::Unknown }
            }
            _ => {
                self.turn_away();
                Answer::Unknown
            }
        }
    }

    /// Runs a statement that changes something.
    pub async fn exec(&mut self, sql: &str) -> Outcome<()> {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        match self.call(&Request::ExecSql { db: 0, sql, parameters: Parameters::default() }).await {
            Answer::Done(_) => Outcome::Done(()),
            Answer::Failed => Outcome::Failed,
            Answer::Unknown => Outcome::Unknown,
        }
    }

    /// Runs a query.
    pub async fn query(&mut self, sql: &str) -> Outcome<Vec<Vec<Value>>> {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        match self.call(&Request::QuerySql { db: 0, sql, parameters: Parameters::default() }).await {
            Answer::Done(rows) => Outcome::Done(rows),
            Answer::Failed => Outcome::Failed,
            Answer::Unknown => Outcome::Unknown,
        }
    }

    /// Repeats a statement until it is done; None when `patience` is over.
    pub async fn insist(&mut self, sql: &str, patience: Duration) -> Option<()> {
        timeout(patience, async {
            while self.exec(sql).await != Outcome::Done(()) {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .ok()
    }
}
