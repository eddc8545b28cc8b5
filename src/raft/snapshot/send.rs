//! A snapshot on its way to a peer: from its file, piece by piece, on a connection of its own, so that heartbeats and
//! entries go on meanwhile. openraft-mapping L10, spec: raft-wire 3.5.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::info;

use super::catalogue::{RaftSnapshot, Snapshots};
use crate::peers::link::write_all;
use crate::peers::message::{AppendEntriesResult, InstallSnapshot, Message};
use crate::peers::replicator::Target;
use crate::transport::dial::Stream;
use crate::types::config::{INSTALL_SNAPSHOT_TIMEOUT, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_RESEND_AFTER};
use crate::types::tasks::on_pool;
use crate::types::{Configuration, LogIndex, Term};

/// Bytes that a peer is expected to install in a second at the very least.
const INSTALL_BYTES_PER_SECOND: u64 = 10 * 1024 * 1024;

/// Why a snapshot was not installed.
pub(crate) enum SendError {
    /// The peer is in this term.
    HigherTerm(Term),
    /// Anything else.
    Failed(String),
}

impl SendError {
    fn from(error: impl std::fmt::Display) -> SendError {
        SendError::Failed(error.to_string())
    }
}

/// A snapshot and the peer that needs it.
struct Sending<'a> {
    target: &'a Target,
    snapshots: &'a Snapshots,
    snapshot: &'a RaftSnapshot,
    term: Term,
}

/// What became of the content.
enum Sent {
    /// The peer has answered before its end.
    Answered(Option<AppendEntriesResult>),
    /// The peer has all of it. The connection ends with this.
    Whole(Stream, u64),
}

/// Returns when the peer has installed the snapshot. One that stays silent is sent it again.
pub(crate) async fn send_snapshot(
    target: &Target,
    snapshots: &Snapshots,
    snapshot: &RaftSnapshot,
    term: Term,
) -> Result<(), SendError> {
    let sending = Sending { target, snapshots, snapshot, term };
    let index = snapshot.snapshot.position.index;
    let _sending = snapshots.begin_sending(index);
    let mut answer = target.peer.expect_snapshot(index, term);
    let begin = Instant::now();
    let mut connections = Vec::new();
    loop {
        let sent_at = Instant::now();
        let (connection, content_bytes) = match sending.send(&mut answer).await? {
            Sent::Answered(answered) => return judge(answered, index, term),
            Sent::Whole(connection, content_bytes) => (connection, content_bytes),
        };
        connections.push(connection);
        let installing = Duration::from_secs(content_bytes / INSTALL_BYTES_PER_SECOND);
        let end = begin + INSTALL_SNAPSHOT_TIMEOUT + installing;
        let again = Instant::now() + 2 * sent_at.elapsed() + SNAPSHOT_RESEND_AFTER + installing;
        match timeout_at(again.min(end), &mut answer).await {
            Ok(answered) => return judge(answered.ok(), index, term),
            Err(error) if again >= end => return Err(SendError::from(error)),
            Err(_) => info!(peer = target.id.0, index = index.0, "no answer to a snapshot, sending it again"),
        }
    }
}

impl Sending<'_> {
    async fn send(&self, answer: &mut oneshot::Receiver<AppendEntriesResult>) -> Result<Sent, SendError> {
        let Sending { target, snapshots, snapshot, term } = self;
        let position = &snapshot.snapshot.position;
        let store = snapshots.store.clone();
        let wanted = position.clone();
        let opened = on_pool(snapshots.pool.as_ref(), move || {
            Ok::<_, String>((store.content_bytes(&wanted)?, store.open(&wanted)?))
        });
        let (content_bytes, mut reader) =
            opened.await.map_err(SendError::from)?.map_err(SendError::Failed)?;
        let message = Message::InstallSnapshot(InstallSnapshot {
            term: *term,
            index: position.index,
            last_term: position.term,
            configuration_index: position.configuration_index,
            configuration: Configuration::clone(&position.configuration),
            content_bytes,
        });
        info!(peer = target.id.0, index = position.index.0, bytes = content_bytes, "sending a snapshot");
        let stream = timeout(INSTALL_SNAPSHOT_TIMEOUT, target.links.dial(&target.address));
        let mut stream = stream.await.map_err(SendError::from)?.map_err(SendError::from)?;
        let head = vec![target.links.hello(), message.encode()];
        write(&mut stream.write, head).await?;
        let mut left = content_bytes;
        let mut piece = Vec::new();
        // One piece is read while the one before it is written.
        while left > 0 || !piece.is_empty() {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(SNAPSHOT_CHUNK_BYTES);
            let read = async {
                let read = on_pool(snapshots.pool.as_ref(), move || {
                    let piece = read_piece(&mut reader, most, left).map_err(|error| error.to_string())?;
                    Ok::<_, String>((reader, piece))
                });
                read.await.map_err(SendError::from)?.map_err(SendError::Failed)
            };
            let written = write(&mut stream.write, vec![piece.into()]);
            let ((back, next), ()) = tokio::select! {
                biased;
                answered = &mut *answer => return Ok(Sent::Answered(answered.ok())),
                both = async { tokio::try_join!(read, written) } => both?,
            };
            if next.len() < most {
                return Err(SendError::Failed(format!("the snapshot ends {left} bytes early")));
            }
            (reader, piece) = (back, next);
            left -= piece.len() as u64;
        }
        Ok(Sent::Whole(stream, content_bytes))
    }
}

/// So many of the bytes that are left, less only at their end. The last are given out only if the stream ends well: the checksum
/// of a compressed file comes behind them, and what is sent has none.
fn read_piece(reader: &mut dyn Read, most: usize, left: u64) -> std::io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(most);
    // A compressed file gives a block at a time.
    reader.take(most as u64).read_to_end(&mut piece)?;
    if piece.len() as u64 == left {
        let mut rest = [0; 1];
        // What else may follow is not content.
        let _ = reader.read(&mut rest)?;
    }
    Ok(piece)
}

fn judge(answer: Option<AppendEntriesResult>, index: LogIndex, term: Term) -> Result<(), SendError> {
    match answer {
        Some(answer) if answer.term > term => Err(SendError::HigherTerm(answer.term)),
        Some(answer) if answer.rejected.0 == 0 && answer.last_index >= index => Ok(()),
        Some(answer) => Err(SendError::Failed(format!(
            "the peer refused the snapshot of index {index} (term {}, last index {})",
            answer.term, answer.last_index
        ))),
        None => Err(SendError::Failed("another snapshot is being sent".to_owned())),
    }
}

async fn write(
    stream: &mut Box<dyn tokio::io::AsyncWrite + Send + Unpin>,
    chunks: Vec<Bytes>,
) -> Result<(), SendError> {
    let written = timeout(INSTALL_SNAPSHOT_TIMEOUT, write_all(stream.as_mut(), chunks.into())).await;
    written.map_err(SendError::from)?.map_err(SendError::from)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Bytes, then what a wrong checksum gives.
    struct Damaged(usize);

    impl Read for Damaged {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("checksum"));
            }
            let count = buffer.len().min(self.0);
            self.0 -= count;
            Ok(count)
        }
    }

    #[test]
    fn the_last_piece_of_a_damaged_snapshot_is_not_sent() {
        let mut reader = Damaged(30);

        assert_eq!(read_piece(&mut reader, 20, 30).unwrap().len(), 20);
        assert_eq!(read_piece(&mut reader, 10, 10).unwrap_err().to_string(), "checksum");
        assert_eq!(read_piece(&mut &[1u8; 10][..], 10, 10).unwrap().len(), 10);
        assert_eq!(read_piece(&mut &[1u8; 11][..], 10, 10).unwrap().len(), 10);
    }
}
