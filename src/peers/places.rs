//! The connections that peers have made: each has a place, and is closed when others need it more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::inbound::{Caller, Inbound, Sender};
use super::known::Known;
use super::limits;
use crate::types::NodeId;

/// All places.
#[derive(Debug, Default)]
pub(super) struct Places {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    places: limits::Places,
    ends: BTreeMap<u64, CancellationToken>,
    /// Members that came from another address than the configuration's, and that were told.
    told: BTreeSet<NodeId>,
}

/// The place of one connection; dropping it leaves it.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// Ends the connection.
    pub(super) end: CancellationToken,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection comes; `stop` ends all of them.
    pub(super) fn enter(
        self: &Arc<Places>,
        number: u64,
        from: &Sender,
        inbound: &dyn Inbound,
        known: &Known,
        stop: &CancellationToken,
    ) -> Place {
        let end = stop.child_token();
        let caller = |from: &Sender| inbound.caller(from);
        let speaks = |number, from: &Sender| known.get(from.id).is_some_and(|peer| peer.speaks_on(number));
        let mut state = self.lock();
        let gone = state.places.enter(number, from.clone(), Instant::now(), caller, speaks);
        state.ends.insert(number, end.clone());
        let ends: Vec<_> = gone.iter().filter_map(|number| state.ends.remove(number)).collect();
        let is_elsewhere = caller(from) == Caller::Member { has_address: false };
        let tells = is_elsewhere && state.told.insert(from.id);
        drop(state);
        if tells {
            let address = String::from_utf8_lossy(&from.address);
            warn!(peer = from.id.0, %address, "a member connects from an address that the configuration does not name");
        }
        for end in ends {
            debug!(peer = from.id.0, "a raft connection makes room for another one");
            end.cancel();
        }
        Place { places: self.clone(), number, end }
    }
}

impl Place {
    /// A message came; whether the leader that is followed has sent it.
    pub(super) fn used(&self, by_leader: bool) {
        let mut state = self.places.lock();
        state.places.used(self.number, Instant::now());
        if by_leader {
            state.places.leads(self.number);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.places.leave(self.number);
        state.ends.remove(&self.number);
    }
}
