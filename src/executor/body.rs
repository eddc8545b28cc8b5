//! One way through a request: what a body waits for, how it enters SQLite, how it comes to rest, and what its reply waits for.
//! Waits are in this order: turn, room, permit. Each looks at what has ended; what was taken is given back by `rest` alone.

use std::sync::Arc;

use crate::raft::Proposed;
use crate::state_machine::frames;
use crate::types::fault::{self, Fault};
use crate::types::tasks::Expected;

use super::failure::{self, Failure};
use super::inside::{Attempt, Needs, Rest};
use super::permits::{Lane, SqlPermit};
use super::request::{Halt, Request};
use super::seat::{Seat, Source};
use super::session::Session;
use super::sqlite::{End, Heeds, Inside, SqliteError, TransactionState};

/// The attempts of one body.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// What is known of the needs of its statement.
    pub(super) needs: Needs,
    /// It was begun again on account of an old snapshot.
    again: bool,
    /// It was begun again since it was outdated.
    compiled_again: bool,
    /// Another client's transaction holds the turn: the statement runs without it, and the VFS refuses it if it does want to
    /// write.
    turn_is_busy: bool,
}

/// Whether the turn stays with a session that is not done with its statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// A frame of rows leaves, and more may follow.
    InTheMiddle,
    /// The statement is at rest.
    AtRest,
}

impl Session {
    /// Fetches the statement of a source, if it is compiled, and says what it needs.
    pub(super) fn begin_body(&mut self, request: &mut Request, source: &mut Source) -> Result<Tries, Halt> {
        let Some(seat) = self.seat.as_deref_mut() else { return Err(Halt::Lost) };
        seat.fetch(source)?;
        let mut tries = Tries::default();
        match (&seat.running, source) {
            (Some(running), _) => tries.needs = seat.needs(&running.statement),
            (None, Source::Text(text, _)) => text.terminate()?,
            (None, Source::Prepared(_)) => {}
        }
        if !seat.noted.autocommit {
            // Else the first write of the transaction that takes its snapshot now could not be upgraded.
            request.used_head = true;
        }
        Ok(tries)
    }

    /// Waits for what is needed and not held.
    ///
    /// # Errors
    /// What has ended.
    pub(super) async fn grant(&mut self, request: &mut Request, tries: &mut Tries) -> Result<Needs, Halt> {
        let (heeds, needs) = (Heeds::All, tries.needs);
        if needs.turn {
            request.used_head = true;
            if !self.holds_turn() && !tries.turn_is_busy {
                let line = self.seat.as_ref().map(|seat| Arc::clone(&seat.line)).ok_or(Halt::Lost)?;
                let taken = self.ended.race(heeds, line.acquire(self.executor.busy_timeout())).await;
                let taken = taken.map_err(Halt::Ended)?;
                let Some(seat) = self.seat.as_deref_mut() else { return Err(Halt::Lost) };
                tries.turn_is_busy = taken.is_err();
                seat.turn = taken.ok();
            }
        }
        if needs.room && !tries.turn_is_busy {
            let room = self.executor.store.room().wait();
            self.ended.race(heeds, room).await.map_err(Halt::Ended)?;
        }
        Ok(needs)
    }

    /// What an attempt came to. `None`: it is to be made again, with what it wants. `Some(None)`: there is no statement.
    pub(super) fn came_to<T: AsRef<Rest>>(
        &mut self,
        request: &mut Request,
        tries: &mut Tries,
        attempt: Attempt<T>,
    ) -> Result<Option<Option<T>>, Halt> {
        match attempt {
            Attempt::Blank => Ok(Some(None)),
            Attempt::Refused(failure) => Err(failure.into()),
            Attempt::NotCompiled(error) => Err(self.failed(error)),
            Attempt::Wants(needs) => {
                tries.needs = needs;
                Ok(None)
            }
            Attempt::Ran(ran) => {
                let Rest::Failed(error) = ran.as_ref() else { return Ok(Some(Some(ran))) };
                let Some(seat) = self.seat.as_deref_mut() else { return Err(Halt::Lost) };
                // `sqlite3_stmt_readonly` is a guess: what it takes for a read may ask for the write lock.
                if seat.view.take_wanted_turn() && seat.turn.is_none() && !tries.turn_is_busy {
                    tries.needs = Needs { turn: true, room: seat.noted.autocommit };
                    request.used_head = true;
                    return Ok(None);
                }
                let is_outdated =
                    seat.running.as_ref().is_some_and(|running| running.statement.is_outdated());
                if is_outdated && !std::mem::replace(&mut tries.compiled_again, true) {
                    return Ok(None);
                }
                let is_old = u64::try_from(error.code) == Ok(failure::BUSY_SNAPSHOT);
                if is_old && seat.noted.autocommit && !std::mem::replace(&mut tries.again, true) {
                    return Ok(None);
                }
                Ok(Some(Some(ran)))
            }
        }
    }

    /// How long the running statement is expected to take; of one that is not compiled, as long as the last one of its text.
    pub(super) fn expected(&self, request: &Request) -> Expected {
        let running = self.seat.as_ref().and_then(|seat| seat.running.as_ref());
        running.map_or(request.expected, |running| running.statement.expected())
    }

    /// The lane in which this session waits for a permit.
    pub(super) fn lane(&self) -> Lane {
        if self.holds_turn() { Lane::HoldsTurn } else { Lane::Works }
    }

    /// Waits for a permit, and looks once more at what has ended, unless something is given back: that is always done.
    ///
    /// # Errors
    /// What has ended.
    pub(super) async fn permit(&mut self, lane: Lane) -> Result<SqlPermit, End> {
        let permits = &self.executor.permits;
        let permit = match permits.try_acquire() {
            Some(permit) => permit,
            None if lane == Lane::GivesBack => permits.acquire(lane).await,
            None => self.ended.race(Heeds::All, permits.acquire(lane)).await?,
        };
        if lane == Lane::GivesBack || fault::is_planted(Fault::WaitsForEver) {
            return Ok(permit);
        }
        self.ended.look(Heeds::All).map_or(Ok(permit), Err)
    }

    /// The only way into SQLite: a permit, another look at what has ended, then `work` on the seat, on the spot or elsewhere.
    ///
    /// # Errors
    /// What has ended; the seat is void.
    pub(super) async fn enter<T: Send + 'static>(
        &mut self,
        request: &Request,
        lane: Lane,
        expected: Expected,
        work: impl FnOnce(&mut Inside, &mut Seat) -> T + Send + 'static,
    ) -> Result<T, Halt> {
        let permit = self.permit(lane).await.map_err(Halt::Ended)?;
        self.leave_if_stale();
        let Some(mut seat) = self.seat.take() else { return Err(Halt::Lost) };
        seat.view.set_use_head(request.used_head || seat.turn.is_some());
        seat.view.set_turn(seat.turn.is_some());
        let entered = self.executor.run_inside(&self.ended, &self.place, permit, expected, move |inside| {
            seat.begin_entry(inside);
            let result = work(inside, &mut seat);
            seat.end_entry(inside);
            (seat, result)
        });
        let Some((seat, result)) = entered.await else { return Err(Halt::Lost) };
        self.seat = Some(seat);
        Ok(result)
    }

    /// Brings a body to rest, however it ended: its statement is reset and goes home, what it committed is proposed, the turn is
    /// given back. The only place that does.
    pub(super) async fn rest(&mut self, request: &mut Request) {
        let running = self.seat.as_ref().and_then(|seat| seat.running.as_ref());
        if let Some(running) = running {
            request.expected = running.statement.expected();
            if running.started {
                let expected = running.statement.expected();
                let rested = self.enter(request, Lane::GivesBack, expected, |inside, seat| {
                    seat.come_to_rest(inside);
                });
                // A seat that is void is brought to rest by whoever closes it.
                let _ = rested.await;
            }
        }
        self.rest_outside(request, Pause::AtRest);
        if self.seat.as_ref().is_some_and(|seat| seat.is_spoilt) {
            tracing::warn!("SQLite keeps a snapshot in autocommit: the connection is given up");
            self.leave();
        }
    }

    /// The outside half of `rest`: proposes what was committed, raises what the reply waits for, and gives the turn back unless
    /// SQLite is in a write transaction.
    pub(super) fn rest_outside(&mut self, request: &mut Request, pause: Pause) {
        let Some(seat) = self.seat.as_deref_mut() else { return };
        if fault::is_planted(Fault::ReadKeepsTurn)
            && seat.turn.is_some()
            && seat.running.as_ref().is_some_and(|running| running.statement.read_only())
        {
            return;
        }
        if pause == Pause::AtRest {
            seat.put_home();
            request.noted = Some(seat.noted);
        }
        for commit in seat.view.take_commits() {
            if commit.pages.is_empty() {
                request.saw(commit.version);
                continue;
            }
            if fault::is_planted(Fault::CommitDropped) && self.ended.look(Heeds::All) == Some(End::ClientGone)
            {
                request.wrote(commit.version);
                commit.propose(|_| true);
                continue;
            }
            let data = frames::encode_frames(seat.database.name(), &commit.pages);
            #[cfg(feature = "planted-faults")]
            if fault::is_planted(Fault::RoomKept) {
                request.keeps_room(self.executor.store.room().charge(data.len()));
            }
            let proposal = Proposed { data, merges: !commit.shrinks };
            let (engine, version) = (&self.executor.engine, commit.version);
            let is_proposed = commit.propose(|commit| {
                let assign = |token| commit.database.assign(commit.version, token);
                let proposed = engine.propose(commit.epoch, proposal, assign).is_ok();
                proposed || fault::is_planted(Fault::SnapshotOfNextEpoch)
            });
            if is_proposed {
                request.wrote(version);
            } else {
                request.refused();
            }
        }
        seat.view.drop_deletion_permit();
        // The snapshot of a transaction may be older than the request: who asked for it may have been interrupted before it was
        // applied.
        for seen in [seat.view.saw(), seat.view.pinned_version()].into_iter().flatten() {
            if seen.on_head {
                request.saw(seen.version);
            }
        }
        let stays = pause == Pause::InTheMiddle || seat.noted.transaction == TransactionState::Write;
        if let Some(turn) = &seat.turn
            && stays
        {
            turn.set_held_by_client(true);
        } else if seat.noted.transaction != TransactionState::Read || !fault::is_planted(Fault::TurnKept) {
            seat.turn = None;
        }
    }

    /// What ends the wait for what was done: who is told of an INTERRUPT takes it that nothing was, be it in a transaction that
    /// is still open.
    pub(super) fn heeds(&self, request: &Request) -> Heeds {
        if request.has_written() || self.holds_turn() { Heeds::AllButInterrupt } else { Heeds::All }
    }

    /// Waits until everything that the request saw or made is applied, and this node is known to have led meanwhile.
    ///
    /// # Errors
    /// What the fate of its versions means to its client.
    pub(super) async fn settle(&mut self, request: &mut Request) -> Result<(), Halt> {
        let heeds = self.heeds(request);
        // The end of an epoch tells what became of its versions.
        self.ended.race_to(heeds, request.applied()).await.map_err(Halt::Ended)??;
        self.prove(request).await
    }

    /// The outcome of a request, which is at rest, from that of its statements and that of the wait.
    pub(super) async fn conclude<T>(
        &mut self,
        request: &mut Request,
        result: Result<T, Halt>,
    ) -> Result<T, Failure> {
        let settled = self.settle(request).await;
        outcome(request, result, settled)
    }

    /// Why a statement failed, as far as what has ended decides it.
    pub(super) fn failed(&self, error: SqliteError) -> Halt {
        said_of_end(Failure::from(error), self.ended.look(Heeds::AllButInterrupt))
    }
}

/// What SQLite says of a statement that the node or its client has ended is not the reason.
fn said_of_end(failure: Failure, end: Option<End>) -> Halt {
    match (failure.code, end) {
        (failure::NOT_LEADER, _) => Halt::Lost,
        (failure::INTERRUPT, Some(end)) => Halt::Ended(end),
        _ => failure.into(),
    }
}

/// What the client is told. What a statement said counts only if the versions that it saw did not go.
fn outcome<T>(request: &Request, result: Result<T, Halt>, settled: Result<(), Halt>) -> Result<T, Failure> {
    match (result.map_err(|halt| request.told(halt)), settled) {
        (Err(failure), _) if failure.is_leadership() => Err(failure),
        (_, Err(halt)) => Err(request.told(halt)),
        (result, Ok(())) => result,
    }
}

impl AsRef<Rest> for Rest {
    fn as_ref(&self) -> &Rest {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::sqlite::empty_page;
    use crate::pages::PageStore;

    fn request() -> Request {
        let attached = PageStore::new().attach(b"test", &empty_page()).unwrap();
        Request::new(1, Arc::clone(attached.database()))
    }

    #[test]
    fn a_statement_that_was_ended_is_told_for_the_reason_of_its_end() {
        let (not_leader, interrupted) = (Failure::not_leader(), Failure::interrupted());
        let constraint = Failure::new(2067, "UNIQUE constraint failed");
        for (said, end, halt) in [
            (&not_leader, None, Halt::Lost),
            (&not_leader, Some(End::ClientGone), Halt::Lost),
            (&interrupted, None, interrupted.clone().into()),
            (&interrupted, Some(End::Stopping), Halt::Ended(End::Stopping)),
            (&interrupted, Some(End::ClientGone), Halt::Ended(End::ClientGone)),
            (&constraint, Some(End::Stopping), constraint.clone().into()),
            (&constraint, None, constraint.clone().into()),
        ] {
            assert_eq!(said_of_end(said.clone(), end), halt, "{said:?} {end:?}");
        }
    }

    #[test]
    fn what_a_statement_said_counts_unless_the_versions_that_it_saw_have_gone() {
        let constraint = || Failure::new(2067, "UNIQUE constraint failed");
        let not_leader = || Halt::from(Failure::not_leader());
        let mut request = request();
        let told = |request: &Request, result: Result<u8, Halt>, settled| outcome(request, result, settled);

        assert_eq!(told(&request, Ok(1), Ok(())), Ok(1));
        assert_eq!(told(&request, Err(constraint().into()), Ok(())), Err(constraint()));
        assert_eq!(told(&request, Ok(1), Err(not_leader())), Err(Failure::not_leader()));
        assert_eq!(told(&request, Err(constraint().into()), Err(not_leader())), Err(Failure::not_leader()));
        request.wrote(1);
        assert_eq!(
            told(&request, Err(Halt::Lost), Err(Failure::interrupted().into())),
            Err(Failure::leadership_lost())
        );
    }

    // A client that has closed its sending side ends a RETURNING between two rows: its changes are committed as it comes to rest.
    #[test]
    fn what_is_written_as_a_statement_comes_to_rest_decides_what_its_end_means() {
        let ends = [End::Interrupted, End::ClientGone, End::Stopping, End::EpochOver];
        for halt in ends.map(Halt::Ended).into_iter().chain([Halt::Lost]) {
            let mut request = request();
            let result: Result<(), Halt> = Err(halt.clone());
            request.wrote(1);
            let told = outcome(&request, result, Ok(())).unwrap_err();
            let is_unknown = told == Failure::leadership_lost();
            // Whoever interrupts its own request expects no answer but that.
            assert_eq!(is_unknown, halt != Halt::Ended(End::Interrupted), "{halt:?}: {told:?}");
        }
    }
}
