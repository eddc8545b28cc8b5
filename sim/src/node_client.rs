//! A client of one simulated node.

use bytes::Bytes;
use dqlite::node::core::Core;
use dqlite::protocol::request::{Parameters, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Bytes between client and node that nobody has read.
const STREAM_BYTES: usize = 1 << 20;

/// A client at the other end of a stream in memory.
#[derive(Debug)]
pub struct SimClient {
    stream: DuplexStream,
    /// Every answer, type and body.
    pub answers: Vec<(u8, Vec<u8>)>,
    /// Whether answers are kept.
    pub keeps_answers: bool,
}

impl SimClient {
    /// Connects and opens a database; None if the node does not answer.
    pub async fn open(core: &Core, name: &str) -> Option<SimClient> {
        let (client, server) = tokio::io::duplex(STREAM_BYTES);
        let (read, write) = tokio::io::split(server);
        core.serve((read, write));
        SimClient::over(client, name).await
    }

    /// Opens a database over a stream; None if the node does not answer or refuses.
    pub async fn over(stream: DuplexStream, name: &str) -> Option<SimClient> {
        let mut client = SimClient { stream, answers: Vec::new(), keeps_answers: true };
        client.stream.write_all(&1u64.to_le_bytes()).await.ok()?;
        let name = Bytes::copy_from_slice(name.as_bytes());
        let (kind, _) = client.call(&Request::Open { name, flags: 0, vfs: Bytes::new() }).await?;
        (kind == 4).then_some(client)
    }

    /// Sends a request and waits for its answer; None if the connection ends.
    pub async fn call(&mut self, request: &Request) -> Option<(u8, Vec<u8>)> {
        self.stream.write_all(&request.encode()?).await.ok()?;
        let mut header = [0; 8];
        self.stream.read_exact(&mut header).await.ok()?;
        let words = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let mut body = vec![0; words as usize * 8];
        self.stream.read_exact(&mut body).await.ok()?;
        if self.keeps_answers {
            self.answers.push((header[4], body.clone()));
        }
        Some((header[4], body))
    }

    /// Runs a statement; whether its success was acknowledged.
    pub async fn exec(&mut self, sql: &str) -> bool {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        let request = Request::ExecSql { db: 0, sql, parameters: Parameters::default() };
        self.call(&request).await.is_some_and(|(kind, _)| kind == 6)
    }

    /// The one integer of `SELECT ... AS n`; None if there is none.
    pub async fn number(&mut self, sql: &str) -> Option<u64> {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        let request = Request::QuerySql { db: 0, sql, parameters: Parameters::default() };
        let (kind, body) = self.call(&request).await?;
        let word = body.get(24..32)?.try_into().ok()?;
        (kind == 7).then_some(u64::from_le_bytes(word))
    }
}
