//! Which threads run the host's functions for a node: a call that would wait for them is refused there, and a stop counts those
//! that are left.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::failure::Failure;

thread_local! {
    /// The node whose code this thread runs, the host's functions included.
    static OF_NODE: Cell<u64> = const { Cell::new(0) };
    /// Set while the thread is one of a runtime's; what is left when the thread ends was not taken off in order.
    static MEMBER: RefCell<Option<Member>> = const { RefCell::new(None) };
}

/// Tells the threads of the process's nodes apart.
static NEXT_NODE: AtomicU64 = AtomicU64::new(1);

/// The threads of one node that may run the host's functions.
#[derive(Clone, Debug)]
pub struct OwnThreads {
    node: u64,
    alive: Arc<AtomicUsize>,
}

impl OwnThreads {
    /// None yet.
    pub(super) fn new() -> OwnThreads {
        OwnThreads { node: NEXT_NODE.fetch_add(1, Ordering::Relaxed), alive: Arc::default() }
    }

    /// Whether the calling thread is one of them.
    #[must_use]
    pub fn is_one(&self) -> bool {
        OF_NODE.get() == self.node
    }

    /// How many have not ended.
    pub(super) fn alive(&self) -> usize {
        self.alive.load(Ordering::Acquire)
    }

    /// The calling thread is one of them until this is dropped.
    pub(super) fn join(self) -> Joined {
        OF_NODE.set(self.node);
        self.alive.fetch_add(1, Ordering::AcqRel);
        Joined(self)
    }

    /// The calling thread of a runtime is one of them until `leave_runtime`; if it ends without that, the node has failed.
    pub(super) fn join_runtime(self, failure: Failure) {
        let member = Member { _joined: self.join(), failure: Some(failure) };
        MEMBER.with_borrow_mut(|place| *place = Some(member));
    }
}

/// The calling thread of a runtime ends in order.
pub(super) fn leave_runtime() {
    if let Some(mut member) = MEMBER.take() {
        member.failure = None;
    }
}

/// A thread among those of a node.
#[derive(Debug)]
pub(super) struct Joined(OwnThreads);

impl Drop for Joined {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Member {
    _joined: Joined,
    failure: Option<Failure>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(failure) = self.failure.take() {
            failure.report("a thread of the SQL runtime has ended: its descriptors were closed by others, or it panicked");
        }
    }
}

/// The node whose code the calling thread runs, for a thread that goes on with it.
#[derive(Clone, Copy, Debug)]
pub struct Belonging(u64);

/// What the calling thread belongs to.
#[must_use]
pub fn belonging() -> Belonging {
    Belonging(OF_NODE.get())
}

impl Belonging {
    /// The calling thread belongs there, too.
    pub fn take(self) {
        OF_NODE.set(self.0);
    }
}
