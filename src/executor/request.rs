//! One request: what it used, what it put into the log's queue, and what its reply waits for.

use std::sync::Arc;

use crate::pages::{Database, Discarded};
use crate::raft::Proof;
use crate::types::fault::{self, Fault};
use crate::types::tasks::Expected;

use super::failure::Failure;
use super::seat::Noted;
use super::sqlite::End;

/// Why a request goes no further. What that means to its client is known once it is at rest: it may have written by then what it
/// had not when it was halted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// Its client is told this.
    Failure(Failure),
    /// It was ended early.
    Ended(End),
    /// Nobody can carry it on.
    Lost,
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Halt {
        Halt::Failure(failure)
    }
}

/// How far the proof for a request is.
#[derive(Debug, Default)]
pub(super) enum Proving {
    /// Nobody was asked.
    #[default]
    Unasked,
    /// Asked ahead of the answer.
    Asked(Proof),
    /// This node led after the request came in.
    Proven,
}

/// One request on an open database.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) epoch: u64,
    pub(super) database: Arc<Database>,
    /// A statement of this request used head; what follows does too.
    pub(super) used_head: bool,
    /// Newest version made or seen on head.
    version: Option<u32>,
    /// The first version that it put into the log's queue: if that is not in the log, nothing of the request is.
    first_written: Option<u32>,
    /// A version of it was refused: its epoch is over, and that version is surely in no log.
    is_refused: bool,
    pub(super) proving: Proving,
    /// How long the last statement of the request's text took tells of the next one.
    pub(super) expected: Expected,
    /// Room that only a planted fault keeps.
    #[cfg(feature = "planted-faults")]
    kept: Vec<crate::pages::Charge>,
    /// What SQLite said when the last body came to rest.
    pub(super) noted: Option<Noted>,
}

impl Request {
    pub(super) fn new(epoch: u64, database: Arc<Database>) -> Request {
        Request {
            epoch,
            database,
            used_head: false,
            version: None,
            first_written: None,
            is_refused: false,
            proving: Proving::default(),
            expected: Expected::Unknown,
            #[cfg(feature = "planted-faults")]
            kept: Vec::new(),
            noted: None,
        }
    }

    /// A version on head that a statement of this request saw or made: the reply waits for the newest. Versions wrap.
    pub(super) fn saw(&mut self, version: u32) {
        if fault::is_planted(Fault::SeenOnce) && self.version.is_some() {
            return;
        }
        let is_newer = |known: u32| version.wrapping_sub(known).wrapping_sub(1) < u32::MAX / 2;
        if self.version.is_none_or(is_newer) {
            self.version = Some(version);
        }
    }

    /// A version that was put into the log's queue.
    pub(super) fn wrote(&mut self, version: u32) {
        self.first_written.get_or_insert(version);
        self.saw(version);
    }

    /// A version that was made and not taken into the log's queue.
    pub(super) fn refused(&mut self) {
        self.is_refused = true;
    }

    /// Keeps room to its end: a planted fault.
    #[cfg(feature = "planted-faults")]
    pub(super) fn keeps_room(&mut self, room: crate::pages::Charge) {
        self.kept.push(room);
    }

    /// Whether it put something into the log's queue.
    pub(super) fn has_written(&self) -> bool {
        self.first_written.is_some()
    }

    /// What the client of a request that was halted, and is at rest, is told.
    pub(super) fn told(&self, halt: Halt) -> Failure {
        match halt {
            Halt::Failure(failure) => failure,
            Halt::Ended(End::Interrupted) => Failure::interrupted(),
            Halt::Ended(_) | Halt::Lost if self.has_written() => Failure::leadership_lost(),
            Halt::Ended(end) => ended_unwritten(end),
            Halt::Lost => Failure::not_leader(),
        }
    }

    /// Waits until everything that the request saw or made is applied.
    ///
    /// # Errors
    /// What the fate of its versions means to its client.
    pub(super) async fn applied(&self) -> Result<(), Failure> {
        let when_applied = |version| self.database.when_applied(self.epoch, version);
        let of_first = |fate: Result<(), Discarded>| {
            fate.map_or_else(|lost| Failure::discarded(lost.appended), |()| Failure::leadership_lost())
        };
        if self.is_refused {
            let Some(first) = self.first_written.map(when_applied) else { return Err(Failure::not_leader()) };
            return Err(of_first(first.await));
        }
        let Some(version) = self.version else { return Ok(()) };
        // Asked for before the wait: of an epoch that is over nobody knows what became of its versions.
        let earlier = self.first_written.map(|first| (first != version).then(|| when_applied(first)));
        let Err(discarded) = when_applied(version).await else { return Ok(()) };
        Err(match earlier {
            None => Failure::leadership_lost(),
            Some(None) => Failure::discarded(discarded.appended),
            Some(Some(first)) => of_first(first.await),
        })
    }
}

/// What an end means to a client of whom nothing was written, whatever it has asked for.
pub(super) fn ended_unwritten(end: End) -> Failure {
    match end {
        // A client that only sends no more may still read it: this node may well lead.
        End::Interrupted | End::ClientGone => Failure::interrupted(),
        End::Stopping | End::EpochOver => Failure::not_leader(),
    }
}

#[cfg(test)]
mod tests {
    use crate::executor::sqlite::empty_page;
    use crate::pages::PageStore;

    use super::*;

    #[test]
    fn an_early_end_says_that_nothing_happened_only_of_a_request_that_wrote_nothing() {
        let attached = PageStore::new().attach(b"test", &empty_page()).unwrap();
        let mut request = Request::new(1, Arc::clone(attached.database()));
        let (interrupted, not_leader) = (Failure::interrupted(), Failure::not_leader());
        let told = |request: &Request| {
            let ends = [End::Interrupted, End::ClientGone, End::Stopping, End::EpochOver];
            (ends.map(|end| request.told(Halt::Ended(end))), request.told(Halt::Lost))
        };
        let ends = [interrupted.clone(), interrupted.clone(), not_leader.clone(), not_leader.clone()];
        assert_eq!(told(&request), (ends, not_leader));
        request.wrote(1);
        let lost = Failure::leadership_lost();
        assert_eq!(told(&request), ([interrupted, lost.clone(), lost.clone(), lost.clone()], lost));
        assert_eq!(request.told(Halt::Failure(Failure::bind())), Failure::bind());
    }

    #[tokio::test]
    async fn what_was_refused_is_surely_not_in_the_log_and_what_was_written_before_it_decides() {
        let attached = PageStore::new().attach(b"test", &empty_page()).unwrap();
        let mut request = Request::new(1, Arc::clone(attached.database()));
        // What it saw counts no more.
        request.saw(1);
        request.refused();
        assert!(!request.has_written());
        assert_eq!(request.applied().await, Err(Failure::not_leader()));
        assert_eq!(request.told(Halt::Lost), Failure::not_leader());
        // One that is applied.
        request.wrote(attached.database().committed().root.version());
        assert_eq!(request.applied().await, Err(Failure::leadership_lost()));
    }

    #[test]
    fn the_reply_waits_for_the_newest_version_whatever_the_order_in_which_they_are_seen() {
        let attached = PageStore::new().attach(b"test", &empty_page()).unwrap();
        let mut request = Request::new(1, Arc::clone(attached.database()));
        for (seen, newest) in [(u32::MAX - 1, u32::MAX - 1), (3, 3), (u32::MAX, 3), (2, 3), (4, 4)] {
            request.saw(seen);
            assert_eq!(request.version, Some(newest));
        }
        assert!(!request.has_written());
        request.wrote(5);
        request.wrote(6);
        assert_eq!((request.first_written, request.version), (Some(5), Some(6)));
    }
}
