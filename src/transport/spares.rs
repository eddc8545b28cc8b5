//! Descriptors that are held for when clients have taken all others: a node that cannot be reached then, reaches nobody and cannot
//! open its files cannot take over from a leader that dies.
//!
//! When one is wanted and there is none, all of them are given up, and are free for connections to members and for files. Until as
//! many can be held again, no client is taken that would use them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::host::descriptors::above_standard;
use crate::host::register::{Kept, Register};
use crate::types::config::{
    ACCEPT_RETRY, SPARE_CLOSE_PAUSE, SPARE_DESCRIPTORS, SPARE_UNPROVED_MAX, SPARE_WAIT_MIN,
};

/// The spare descriptors of a node.
#[derive(Debug, Default)]
pub struct Spares {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Empty while they are wanted.
    held: Vec<Kept<OwnedFd>>,
    /// Of the node.
    register: Register,
    /// Connections that were taken meanwhile and have not shown that they are a member's, the oldest first.
    unproved: VecDeque<(Instant, CancellationToken)>,
}

impl State {
    fn is_wanted(&self) -> bool {
        self.held.is_empty()
    }

    /// Holds as many as are to be held, if one more can be had; none otherwise.
    fn hold(&mut self) {
        self.held.clear();
        let register = &self.register;
        let spare = || Kept::new(above_standard(UnixDatagram::unbound()?.into())?, register, "a spare");
        let spares: io::Result<Vec<_>> = (0..=SPARE_DESCRIPTORS).map(|_| spare()).collect();
        self.held = spares.unwrap_or_default();
        self.held.truncate(SPARE_DESCRIPTORS);
    }
}

/// A connection that was accepted while descriptors are wanted.
#[derive(Debug)]
pub struct Unproved {
    spares: Arc<Spares>,
    /// Others need its descriptor.
    pub end: CancellationToken,
}

/// Whether the process, or the system, has no descriptor left.
#[must_use]
pub fn is_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl Spares {
    /// Holds them, if they can be had, as descriptors of the node.
    #[must_use]
    pub fn hold(register: &Register) -> Arc<Spares> {
        let spares = Spares::default();
        spares.lock().register = register.clone();
        spares.lock().hold();
        Arc::new(spares)
    }

    /// The descriptors of the node.
    #[must_use]
    pub fn register(&self) -> Register {
        self.lock().register.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something failed that needs a descriptor. Whether it is to be tried again, since there are some.
    pub fn give_up(&self) -> bool {
        let mut state = self.lock();
        let has_none = UnixDatagram::unbound().is_err_and(|error| is_want_of_descriptors(&error));
        let gives = has_none && !state.is_wanted();
        if gives {
            state.held.clear();
        }
        gives
    }

    /// A connection was accepted. None if anybody may have it; else it has to show that it is a member's.
    #[must_use]
    pub fn judge(self: &Arc<Spares>) -> Option<Unproved> {
        let mut state = self.lock();
        if state.is_wanted() {
            state.hold();
        }
        if !state.is_wanted() {
            return None;
        }
        let end = CancellationToken::new();
        state.unproved.push_back((Instant::now(), end.clone()));
        Some(Unproved { spares: self.clone(), end })
    }

    /// Waits, while too many connections have not shown what they are, until the oldest of them has had its time and ends.
    pub async fn until_room(&self) {
        let oldest = {
            let mut state = self.lock();
            let is_full = state.unproved.len() >= SPARE_UNPROVED_MAX;
            if is_full { state.unproved.pop_front() } else { None }
        };
        if let Some(oldest) = oldest {
            Spares::end(oldest).await;
        }
    }

    /// A connection could not be accepted, although all spare descriptors were given up.
    pub async fn make_room(&self) {
        let oldest = self.lock().unproved.pop_front();
        match oldest {
            Some(oldest) => Spares::end(oldest).await,
            None => sleep(ACCEPT_RETRY).await,
        }
    }

    async fn end((since, end): (Instant, CancellationToken)) {
        sleep_until(since + SPARE_WAIT_MIN).await;
        end.cancel();
        sleep(SPARE_CLOSE_PAUSE).await;
    }
}

impl Drop for Unproved {
    fn drop(&mut self) {
        // So that it is found.
        self.end.cancel();
        self.spares.lock().unproved.retain(|(_, end)| !end.is_cancelled());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everybody_is_taken_while_spares_are_held() {
        let spares = Spares::hold(&Register::default());
        assert_eq!(spares.lock().held.len(), SPARE_DESCRIPTORS);
        assert!(spares.judge().is_none());
        // There are others: what failed did so for another reason.
        assert!(!spares.give_up());

        spares.lock().held.clear();
        assert!(spares.judge().is_none(), "they can be held again");
        assert_eq!(spares.lock().held.len(), SPARE_DESCRIPTORS);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_that_has_not_shown_what_it_is_makes_room() {
        let spares = Arc::new(Spares::default());
        let unproved = || {
            let end = CancellationToken::new();
            spares.lock().unproved.push_back((Instant::now(), end.clone()));
            Unproved { spares: spares.clone(), end }
        };
        let mut all: Vec<_> = (0..SPARE_UNPROVED_MAX - 1).map(|_| unproved()).collect();
        let began = Instant::now();

        spares.until_room().await;
        assert_eq!(began.elapsed().as_millis(), 0, "there is room");
        all.push(unproved());
        spares.until_room().await;
        assert!(all[0].end.is_cancelled() && !all[1].end.is_cancelled());
        assert!(began.elapsed() >= SPARE_WAIT_MIN && began.elapsed() < 2 * SPARE_WAIT_MIN);
        all.clear();
        assert!(spares.lock().unproved.is_empty());

        let began = Instant::now();
        spares.make_room().await;
        assert!(began.elapsed() >= ACCEPT_RETRY, "nobody can make room");
    }
}
