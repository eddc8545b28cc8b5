//! Linearizable answers: what a request read is proven to have been this leader's to tell. An entry of the request's own that
//! is committed proves it; so does a round of heartbeats, and of a transaction's snapshot that is proven once, all statements
//! on it live. architecture "Two roots".

use super::request::{Halt, Proving, Request};
use super::seat::Seat;
use super::session::Session;
use super::sqlite::{End, TransactionState};

impl Seat {
    /// Whether the request that runs looked at a root that no proof covers.
    pub(super) fn is_unproven(&self, request: &Request) -> bool {
        let took_snapshot = self.view.saw().is_some() && !matches!(request.proving, Proving::Proven);
        took_snapshot || (!self.proven && self.noted.transaction != TransactionState::None)
    }
}

impl Session {
    /// Asks for the proof of a request that is going to read, so that it is on its way meanwhile.
    pub(super) fn ask_ahead(&mut self, request: &mut Request) {
        let holds_proven = self.seat.as_ref().is_some_and(|seat| seat.proven);
        if !holds_proven && matches!(request.proving, Proving::Unasked) {
            request.proving = Proving::Asked(self.executor.engine.prove());
        }
    }

    /// Waits for the proof of what the request read, if it needs one.
    ///
    /// # Errors
    /// This node may not lead. A transaction that is open then is lost with its connection: its client was told of a failure.
    pub(super) async fn prove(&mut self, request: &mut Request) -> Result<(), Halt> {
        if request.has_written() {
            // Committed since: by a majority that knew no later leader.
            self.proven(request);
            return Ok(());
        }
        let Some(seat) = self.seat.as_deref_mut() else { return Err(Halt::Lost) };
        if !seat.is_unproven(request) {
            return Ok(());
        }
        seat.proven = false;
        let asked = std::mem::take(&mut request.proving);
        let proof = if let Proving::Asked(proof) = asked { proof } else { self.executor.engine.prove() };
        let given = self.ended.race(self.heeds(request), proof.given()).await;
        if given == Ok(true) {
            self.proven(request);
            return Ok(());
        }
        // A client that has interrupted its request goes on with the transaction, and asks for the proof again.
        if given != Err(End::Interrupted) {
            self.void_transaction();
        }
        Err(given.err().map_or(Halt::Lost, Halt::Ended))
    }

    fn proven(&mut self, request: &mut Request) {
        request.proving = Proving::Proven;
        if let Some(seat) = self.seat.as_deref_mut() {
            seat.proven = true;
        }
    }

    fn void_transaction(&mut self) {
        if self.seat.as_ref().is_some_and(|seat| !seat.noted.autocommit) {
            self.leave();
        }
    }
}
