//! Looks after a connection while its request is worked on: reads ahead, and tells the session what has ended. The connection's
//! own task does it at every wait; while that task is inside SQLite for long, a second one does it in its place.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::inbox::{End, Inbox};
use crate::executor::sqlite::Ended;
use crate::transport::client_stream::ClientRead;
use crate::types::config::{CLIENT_LOOK_EVERY, STATEMENT_WITHOUT_CLIENT_MAX};

/// Resolves at the end of an epoch, and gives back what watches it; None when the node stops.
type Over = Pin<Box<dyn Future<Output = Option<watch::Receiver<u64>>> + Send>>;

/// One of those who look after a connection.
pub(super) struct Attendant<R> {
    inbox: Arc<Inbox<R>>,
    ended: Ended,
    stop: CancellationToken,
    over: Over,
    /// Whom the end of which epoch wakes: until it ends, nothing is to be asked again.
    waits: Option<(Waker, u64)>,
    /// Until then the client may wait for its answers, though it sends no more.
    patience: Option<Pin<Box<Sleep>>>,
    /// When a stream that nobody reads is looked at again.
    next_look: Option<Pin<Box<Sleep>>>,
}

fn over(stop: CancellationToken, mut epoch: watch::Receiver<u64>) -> Over {
    Box::pin(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            changed = epoch.changed() => match changed {
                Ok(()) => Some(epoch),
                // The store has gone with its node.
                Err(_) => None,
            },
        }
    })
}

impl<R: ClientRead> Attendant<R> {
    pub(super) fn new(
        inbox: Arc<Inbox<R>>,
        ended: Ended,
        stop: CancellationToken,
        epoch: watch::Receiver<u64>,
    ) -> Attendant<R> {
        let over = over(stop.clone(), epoch);
        Attendant { inbox, ended, stop, over, waits: None, patience: None, next_look: None }
    }

    /// Looks at everything once; the task is woken when there is something new.
    pub(super) fn look(&mut self, context: &mut Context<'_>) {
        self.wait_for_the_end(context);
        let (is_full, mut end) = self.inbox.read_ahead(context);
        if is_full {
            self.look_for_hang_up(context);
            end = self.inbox.end();
        } else {
            self.next_look = None;
        }
        match end {
            None => {}
            Some(End::Failed) => self.ended.set_client_gone(),
            Some(End::Closed { since }) => {
                let until = || Box::pin(sleep_until(since + STATEMENT_WITHOUT_CLIENT_MAX));
                let patience = self.patience.get_or_insert_with(until);
                if patience.as_mut().poll(context).is_ready() {
                    self.inbox.set_failed();
                    self.ended.set_client_gone();
                }
            }
        }
    }

    /// The end of the epoch and the stop of the node wake the task. Both are seen without asking here, but for a stop that nobody
    /// has told the sessions.
    fn wait_for_the_end(&mut self, context: &mut Context<'_>) {
        let epoch = self.ended.newest_epoch();
        let is_woken = |(waker, of): &(Waker, u64)| *of == epoch && waker.will_wake(context.waker());
        if self.waits.as_ref().is_some_and(is_woken) && !self.stop.is_cancelled() {
            return;
        }
        while let Poll::Ready(ended) = self.over.as_mut().poll(context) {
            match ended {
                Some(epoch) => self.over = over(self.stop.clone(), epoch),
                None => {
                    self.ended.set_node_stops();
                    self.over = Box::pin(std::future::pending());
                }
            }
        }
        self.waits = Some((context.waker().clone(), epoch));
    }

    /// A stream that is not read to its end does not tell that its client has gone.
    fn look_for_hang_up(&mut self, context: &mut Context<'_>) {
        loop {
            self.inbox.look_for_hang_up();
            let next = || Box::pin(sleep_until(Instant::now() + CLIENT_LOOK_EVERY));
            let next_look = self.next_look.get_or_insert_with(next);
            if next_look.as_mut().poll(context).is_pending() {
                return;
            }
            self.next_look = None;
        }
    }

    /// Looks after the connection whenever its own task is inside SQLite for long.
    pub(super) async fn stand_in(mut self) {
        let mut runs_long = self.ended.runs_long();
        loop {
            if runs_long.wait_for(|long| *long).await.is_err() {
                return;
            }
            tokio::select! {
                biased;
                _ = runs_long.wait_for(|long| !*long) => {}
                () = poll_fn(|context| {
                    self.look(context);
                    Poll::Pending
                }) => {}
            }
            self.inbox.hand_back();
        }
    }
}
