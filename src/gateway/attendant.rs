//! Looks after a connection while its request is worked on: reads ahead, and tells the session what has ended. The connection's
//! own task does it at every wait; while that task is inside SQLite for long, a second one does it in its place.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::inbox::{End, Inbox, Seen};
use crate::executor::sqlite::{Ended, Heeds};
use crate::executor::{Place, Session};
use crate::transport::client_stream::ClientRead;
use crate::types::config::{
    CLIENT_LOOK_EVERY, CLIENT_SILENCE_LOOK_EVERY, SQL_STOPS_WITHIN, STATEMENT_WITHOUT_CLIENT_MAX,
};

/// Resolves at the end of the epoch that was seen last, and gives back what watches it; None when the node stops.
type Over = Pin<Box<dyn Future<Output = Option<watch::Receiver<u64>>> + Send>>;

/// One of those who look after a connection.
pub(super) struct Attendant<R> {
    inbox: Arc<Inbox<R>>,
    ended: Ended,
    place: Place,
    stop: CancellationToken,
    over: Over,
    /// The epoch that `over` waits for the end of, as it was told; the store may know of it earlier.
    told_epoch: u64,
    /// Whom `over` wakes.
    waits: Option<Waker>,
    /// Until then the client may wait for its answers, though it sends no more.
    patience: Option<Pin<Box<Sleep>>>,
    /// When a stream that nobody reads is looked at again.
    next_look: Option<Pin<Box<Sleep>>>,
    /// When it is looked at again whether the client's machine has fallen silent.
    next_silence_look: Option<Pin<Box<Sleep>>>,
    /// When a statement that was told to stop is overdue.
    next_overdue_look: Option<Pin<Box<Sleep>>>,
}

/// With the epoch that was told last.
fn over(stop: CancellationToken, mut epoch: watch::Receiver<u64>) -> (u64, Over) {
    let told = *epoch.borrow_and_update();
    let over = async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            // An error would be the end of the store, which the session holds.
            changed = epoch.changed() => changed.ok().map(|()| epoch),
        }
    };
    (told, Box::pin(over))
}

impl<R: ClientRead> Attendant<R> {
    pub(super) fn new(inbox: Arc<Inbox<R>>, session: &Session, stop: CancellationToken) -> Attendant<R> {
        let (told_epoch, over) = over(stop.clone(), session.watch_epoch());
        Attendant {
            inbox,
            ended: session.ended().clone(),
            place: session.place().clone(),
            stop,
            over,
            told_epoch,
            waits: None,
            patience: None,
            next_look: None,
            next_silence_look: None,
            next_overdue_look: None,
        }
    }

    /// What it tells the session.
    pub(super) fn ended(&self) -> &Ended {
        &self.ended
    }

    /// Looks at everything once; the task is woken when there is something new. What is looked at is bounded in number and bytes, so that it counts
    /// for nothing in the task's share of its worker: a request that has used it up would not be looked after.
    pub(super) fn look(&mut self, context: &mut Context<'_>) {
        let look = unconstrained(poll_fn(|context| {
            self.look_now(context);
            Poll::Ready(())
        }));
        // It is ready at once.
        let _ = pin!(look).poll(context);
    }

    fn look_now(&mut self, context: &mut Context<'_>) {
        self.wait_for_the_end(context);
        let Seen { is_full, is_owed, mut end } = self.inbox.read_ahead(context);
        if is_full {
            self.look_for_hang_up(context);
            end = self.inbox.end();
        } else {
            self.next_look = None;
        }
        if is_owed && self.look_for_silence(context) {
            end = self.inbox.end();
        }
        match end {
            None => {}
            Some(End::Failed) => self.ended.set_client_gone(),
            Some(End::Closed { since }) => {
                let until = since + STATEMENT_WITHOUT_CLIENT_MAX;
                let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(until)));
                if patience.deadline() != until {
                    patience.as_mut().reset(until);
                }
                if patience.as_mut().poll(context).is_ready() {
                    self.inbox.set_failed();
                    self.ended.set_client_gone();
                }
            }
        }
    }

    /// Has the task woken by the end of the epoch and by the stop of the node. Sessions know of either before anybody is woken.
    fn wait_for_the_end(&mut self, context: &mut Context<'_>) {
        let is_woken = |waker: &Waker| waker.will_wake(context.waker());
        if self.told_epoch == self.ended.newest_epoch() && self.waits.as_ref().is_some_and(is_woken) {
            return;
        }
        while let Poll::Ready(ended) = self.over.as_mut().poll(context) {
            match ended {
                Some(epoch) => (self.told_epoch, self.over) = over(self.stop.clone(), epoch),
                None => self.over = Box::pin(std::future::pending()),
            }
        }
        self.waits = Some(context.waker().clone());
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

    /// While a machine owes acknowledgements, the operating system asks it for no other sign of life, and waits for it for a quarter
    /// of an hour. Whether it has looked.
    fn look_for_silence(&mut self, context: &mut Context<'_>) -> bool {
        let mut has_looked = false;
        loop {
            let next = || Box::pin(sleep(CLIENT_SILENCE_LOOK_EVERY));
            let next_look = self.next_silence_look.get_or_insert_with(next);
            if next_look.as_mut().poll(context).is_pending() {
                return has_looked;
            }
            self.next_silence_look = None;
            has_looked = true;
            if !self.inbox.look_for_silence() {
                return true;
            }
        }
    }

    /// A statement that was told to stop and does not leaves its place inside SQLite to others.
    fn look_for_overdue(&mut self, context: &mut Context<'_>) {
        while self.ended.look(Heeds::All).is_some() {
            let next_look = self.next_overdue_look.get_or_insert_with(|| Box::pin(sleep(SQL_STOPS_WITHIN)));
            if next_look.as_mut().poll(context).is_pending() {
                return;
            }
            self.next_overdue_look = None;
            self.place.step_aside();
        }
        self.next_overdue_look = None;
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
                    self.look_for_overdue(context);
                    Poll::Pending
                }) => {}
            }
            self.next_overdue_look = None;
            self.inbox.hand_back();
        }
    }
}
