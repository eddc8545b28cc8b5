//! The types that openraft works with.

use openraft::impls::{BoxedErrorSource, InlineBatch};
use openraft::{OptionalSend, RaftTypeConfig, Vote};
use openraft_rt::deterministic_rng::DeterministicRng;
use tokio::sync::oneshot;

use super::entry::{Entry, Node, Payload, Proposal};
use super::leader_id::LeaderId;
use super::runtime::TellingRuntime;

/// openraft's runtime: its random numbers follow from the seed of the scope around each task (`scope` below).
pub type Runtime = DeterministicRng<TellingRuntime>;

/// openraft's types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = ();
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote<LeaderId>;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = OutcomeSender<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// Where openraft reports the outcome of a write; nobody has to listen.
pub struct OutcomeSender<T>(pub oneshot::Sender<T>);

impl<T: Send + 'static> openraft::raft::responder::Responder<TypeConfig, T> for OutcomeSender<T> {
    fn on_complete(self, result: T) {
        // Whoever gave up waiting does not want it.
        let _ = self.0.send(result);
    }
}
