//! Looks at databases through the protocol when all others have gone.

use std::time::Duration;

use bytes::Bytes;
use dqlite::protocol::request::{Request, Value};
use tokio::time::{sleep, timeout};

use super::client::{bytes, exec_sql, query_sql};
use super::wire::{Answer, Manner, Wire};
use crate::network::Network;

/// Bytes of answers on their way.
const BUFFER_BYTES: usize = 1 << 20;
/// Pause before anything is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Whoever looks.
#[derive(Debug)]
pub(super) struct Observer<'a> {
    pub(super) network: &'a Network,
    pub(super) addresses: &'a [Vec<u8>],
}

impl Observer<'_> {
    async fn once(&self, address: &[u8], database: &str, request: &Request) -> Option<Answer> {
        let mut wire = Wire::new(self.network.enter(address, BUFFER_BYTES)?).await?;
        let open = Request::Open { name: bytes(database), flags: 6, vfs: Bytes::new() };
        let exchange = wire.exchange(&[open], Manner::default()).await;
        if !matches!(exchange.answers[..], [Answer::Other(4)]) {
            return None;
        }
        wire.exchange(std::slice::from_ref(request), Manner::default()).await.answers.pop()
    }

    /// Asks whoever leads until there is a success.
    async fn insist(&self, database: &str, request: &Request, patience: Duration) -> Result<Answer, String> {
        let mut last = None;
        let asking = async {
            loop {
                for address in self.addresses {
                    match self.once(address, database, request).await {
                        Some(answer @ (Answer::Result { .. } | Answer::Rows { complete: true, .. })) => {
                            return answer;
                        }
                        other => last = other.or(last.take()),
                    }
                }
                sleep(RETRY).await;
            }
        };
        timeout(patience, asking)
            .await
            .map_err(|_| format!("not within {patience:?}; the last answer was {last:?}"))
    }

    /// Writes something.
    pub(super) async fn exec(&self, database: &str, sql: &str, patience: Duration) -> Result<(), String> {
        let done = self.insist(database, &exec_sql(sql, &[]), patience).await;
        done.map(drop).map_err(|error| format!("{database}: {sql}: {error}"))
    }

    /// Reads something.
    pub(super) async fn rows(
        &self,
        database: &str,
        sql: &str,
        patience: Duration,
    ) -> Result<Vec<Vec<Value>>, String> {
        match self.insist(database, &query_sql(sql, &[]), patience).await {
            Ok(Answer::Rows { rows, .. }) => Ok(rows),
            Ok(other) => Err(format!("{database}: {sql}: {other:?}")),
            Err(error) => Err(format!("{database}: {sql}: {error}")),
        }
    }
}
