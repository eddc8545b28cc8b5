//! A leader whose process died is noticed at once: its connections end, and a new one is refused. A connection that ends
//! tells nothing else, since the leader may have lost nothing but that.

use std::io::{self, ErrorKind};

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::board::{HungUp, LeaderBoard};
use crate::peers::Peers;
use crate::raft::log::LogView;
use crate::types::NodeId;
use crate::types::config::{FAILOVER_DIAL_PAUSE, FAILOVER_DIAL_TIMEOUT, FAILOVER_KEEPS_CONNECTION};

/// Looks after leaders that hang up.
pub(crate) struct HangUps {
    pub(crate) id: NodeId,
    pub(crate) log: LogView,
    pub(crate) peers: Peers,
    pub(crate) board: LeaderBoard,
}

impl HangUps {
    /// Never returns.
    pub(crate) async fn run(self) {
        let mut hang_ups = self.board.hung_up();
        loop {
            let hung_up = hang_ups.borrow_and_update().clone();
            let look = async {
                if let Some(hung_up) = &hung_up
                    && timeout(FAILOVER_DIAL_TIMEOUT, self.is_refused(hung_up)).await.unwrap_or(false)
                    && self.board.lost_with_its_connections(hung_up)
                {
                    info!(leader = hung_up.leader.0, term = hung_up.term.0, "the leader is gone");
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                changed = hang_ups.changed() => if changed.is_err() { return },
                () = look => {}
            }
        }
    }

    /// Whether nobody listens where the leader did. A process that is ending may take some connections and drop them.
    async fn is_refused(&self, hung_up: &HungUp) -> bool {
        loop {
            let mut stream = match self.peers.links().dial(&hung_up.address).await {
                Ok(stream) => stream,
                Err(error) if names_refusal(&error) => return true,
                Err(error) if names_own_trouble(&error) => return false,
                // A host's connect function has its own errors: they tell of the leader if others can be reached.
                Err(_) => return self.reaches_another(hung_up.leader).await,
            };
            // Nobody speaks first there.
            let mut byte = [0];
            if timeout(FAILOVER_KEEPS_CONNECTION, stream.read.read(&mut byte)).await.is_err() {
                return false;
            }
            sleep(FAILOVER_DIAL_PAUSE).await;
        }
    }

    /// Whether any other member can be dialled; where there is none, nobody can say.
    async fn reaches_another(&self, leader: NodeId) -> bool {
        let configuration = self.log.configuration().0;
        let others: Vec<Bytes> = configuration
            .voters()
            .filter(|server| server.id != self.id && server.id != leader)
            .map(|server| Bytes::copy_from_slice(&server.address))
            .collect();
        if others.is_empty() {
            return true;
        }
        for address in others {
            if self.peers.links().dial(&address).await.is_ok() {
                return true;
            }
        }
        false
    }
}

/// Nobody listens there.
fn names_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
}

/// This node lacks something: descriptors, memory, a name.
fn names_own_trouble(error: &io::Error) -> bool {
    const OWN: [i32; 6] =
        [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::EACCES];
    error.raw_os_error().is_some_and(|number| OWN.contains(&number))
        || matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::OutOfMemory | ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_of_a_dial_tells_of_the_leader() {
        let number = io::Error::from_raw_os_error;
        for refused in [number(libc::ECONNREFUSED), number(libc::ENOENT)] {
            assert!(names_refusal(&refused) && !names_own_trouble(&refused), "{refused}");
        }
        for own in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EADDRNOTAVAIL, libc::EAGAIN] {
            assert!(!names_refusal(&number(own)) && names_own_trouble(&number(own)), "{own}");
        }
        for unclear in [number(libc::EHOSTUNREACH), number(libc::ECONNRESET), io::Error::other("a host's")] {
            assert!(!names_refusal(&unclear) && !names_own_trouble(&unclear), "{unclear}");
        }
    }
}
