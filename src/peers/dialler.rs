//! Connects to peers, so many at once. A dial goes on when whoever asked for it has given up: it may hold a thread until its end,
//! and counts for so long.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::limits::{Dials, LinkKind};
use crate::transport::dial::{Dial, Stream};

/// Runs tasks where raft runs.
pub type Spawn = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

/// Connects. Cheap to clone.
#[derive(Clone)]
pub struct Dialler {
    dial: Arc<dyn Dial>,
    spawn: Spawn,
    stop: CancellationToken,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    dials: Mutex<Dials>,
    ended: Notify,
}

/// A dial under way.
struct Turn {
    gate: Arc<Gate>,
    address: Bytes,
    kind: LinkKind,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.gate.dials.lock().unwrap_or_else(PoisonError::into_inner).end(&self.address, self.kind);
        self.gate.ended.notify_waiters();
    }
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").finish_non_exhaustive()
    }
}

impl Dialler {
    /// Dials with `dial` in tasks of `spawn`, until `stop`.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, spawn: Spawn, stop: CancellationToken) -> Dialler {
        Dialler { dial, spawn, stop, gate: Arc::default() }
    }

    async fn turn(gate: Arc<Gate>, address: Bytes, kind: LinkKind) -> Turn {
        loop {
            // Before it looks, so that no end is missed.
            let ended = gate.ended.notified();
            let begun = gate.dials.lock().unwrap_or_else(PoisonError::into_inner).begin(&address, kind);
            if begun {
                return Turn { gate: gate.clone(), address, kind };
            }
            ended.await;
        }
    }

    /// A connection to this address, when its turn has come.
    ///
    /// # Errors
    /// Those of the dial; the node stops.
    pub async fn dial(&self, address: &Bytes, kind: LinkKind) -> io::Result<Stream> {
        let (mut sender, receiver) = oneshot::channel();
        let (dial, gate, address) = (self.dial.clone(), self.gate.clone(), address.clone());
        let stop = self.stop.clone();
        (self.spawn)(Box::pin(async move {
            let dialling = async {
                let turn = tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    turn = Dialler::turn(gate, address.clone(), kind) => turn,
                };
                let dialled = dial.dial(address.to_vec()).await;
                drop(turn);
                // Nobody may want it any more.
                let _ = sender.send(dialled);
            };
            tokio::select! { biased; () = stop.cancelled() => {} () = dialling => {} }
        }));
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the node stops")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::types::config::{MEMBER_DIALS_MAX, STRANGER_DIALS_MAX};

    /// Dials to each address, the most at once, and how many have ended.
    #[derive(Default)]
    struct Counts(BTreeMap<Vec<u8>, usize>, usize, usize);

    /// Takes a second for each dial, and counts.
    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<Counts>>);

    impl Dial for Slow {
        fn dial(&self, address: Vec<u8>) -> BoxFuture<'static, io::Result<Stream>> {
            let counts = self.0.clone();
            Box::pin(async move {
                let most = {
                    let mut counts = counts.lock().unwrap();
                    *counts.0.entry(address.clone()).or_default() += 1;
                    assert_eq!(counts.0[&address], 1, "one for an address");
                    counts.0.values().sum::<usize>()
                };
                sleep(Duration::from_secs(1)).await;
                let mut counts = counts.lock().unwrap();
                counts.1 = counts.1.max(most);
                counts.2 += 1;
                *counts.0.get_mut(&address).unwrap() -= 1;
                Err(io::ErrorKind::ConnectionRefused.into())
            })
        }
    }

    fn dialler(slow: &Slow) -> Dialler {
        let spawn: Spawn = Arc::new(|task| drop(tokio::spawn(task)));
        Dialler::new(Arc::new(slow.clone()), spawn, CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_dials_are_under_way_at_once_and_all_get_their_turn() {
        for (kind, most) in [(LinkKind::Stranger, STRANGER_DIALS_MAX), (LinkKind::Member, MEMBER_DIALS_MAX)] {
            let slow = Slow::default();
            let dialler = dialler(&slow);
            let dials = (0..100_u8).map(|place| {
                let (dialler, address) = (dialler.clone(), Bytes::from(vec![place % 50]));
                async move { dialler.dial(&address, kind).await.err() }
            });
            let errors = futures_util::future::join_all(dials).await;

            assert!(
                errors.iter().all(|error| error.as_ref().unwrap().kind() == io::ErrorKind::ConnectionRefused)
            );
            let counts = slow.0.lock().unwrap();
            assert_eq!((counts.1, counts.2), (most, 100));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_counts_until_it_ends_and_one_that_nobody_waits_for_does_not_begin() {
        let slow = Slow::default();
        let dialler = dialler(&slow);
        let address = Bytes::from_static(b"a");
        for _ in 0..5 {
            let short = Duration::from_millis(100);
            assert!(timeout(short, dialler.dial(&address, LinkKind::Stranger)).await.is_err());
        }
        let began = tokio::time::Instant::now();

        assert!(dialler.dial(&address, LinkKind::Stranger).await.is_err());

        assert!(began.elapsed() >= Duration::from_millis(1400), "{:?}", began.elapsed());
        assert_eq!(slow.0.lock().unwrap().2, 2);
    }
}
