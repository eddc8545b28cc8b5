//! Payloads on their way from a connection to where pages lie. Writing goes on when its caller is dropped
//! half-way: no byte that was taken off the connection is lost.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::types::EntryData;
use crate::types::payload::{PayloadKeeper, PayloadStore};
use crate::types::tasks::{BlockingPool, on_pool};

/// Where payloads go, and where that is done.
#[derive(Clone)]
pub struct Spill {
    /// Keeps them.
    pub store: Arc<dyn PayloadStore>,
    /// Writes them.
    pub pool: Arc<dyn BlockingPool>,
}

/// One payload that is being received.
pub(super) struct Spilling {
    state: State,
    /// None: nothing waits for a disk.
    pool: Option<Arc<dyn BlockingPool>>,
    left: usize,
}

enum State {
    Waiting(PayloadKeeper),
    Writing(BoxFuture<'static, io::Result<PayloadKeeper>>),
    Ended,
}

impl Spilling {
    /// For a payload of `len` bytes.
    pub(super) fn new(spill: &Spill, len: usize) -> Spilling {
        let keeper = PayloadKeeper::new(spill.store.clone(), len);
        let pool = spill.store.may_wait().then(|| spill.pool.clone());
        Spilling { state: State::Waiting(keeper), pool, left: len }
    }

    /// Bytes that were not taken yet.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Waits until bytes can be taken. May be dropped half-way.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        if let State::Writing(writing) = &mut self.state {
            let written = writing.await;
            self.state = State::Ended;
            self.state = State::Waiting(written?);
        }
        Ok(())
    }

    /// Takes bytes, at most `left`. To be called when it is ready.
    pub(super) fn take(&mut self, bytes: Bytes) {
        if let State::Waiting(mut keeper) = std::mem::replace(&mut self.state, State::Ended) {
            self.left -= bytes.len().min(self.left);
            let Some(pool) = self.pool.clone() else {
                let pushed = keeper.push(&bytes).map(|()| keeper);
                self.state = match pushed {
                    Ok(keeper) => State::Waiting(keeper),
                    Err(error) => State::Writing(Box::pin(std::future::ready(Err(error)))),
                };
                return;
            };
            self.state = State::Writing(Box::pin(async move {
                let push = move || keeper.push(&bytes).map(|()| keeper);
                on_pool(pool.as_ref(), push).await.map_err(io::Error::other)?
            }));
        }
    }

    /// The payload, once it is ready and nothing is left.
    pub(super) fn finish(self) -> io::Result<EntryData> {
        match self.state {
            State::Waiting(keeper) if keeper.left() == 0 => Ok(keeper.finish()),
            _ => Err(io::Error::other("a payload was not received to its end")),
        }
    }
}
