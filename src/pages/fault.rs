//! Faults that the simulator plants to show that its checks would find them. Compiled in only with the cargo feature
//! `planted-faults`, and then planted on the calling thread alone: a simulated history runs on one thread.

/// A fault of the page store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A commit that changes no page takes no version, so that the next writer's version has its number.
    VersionTwice,
    /// A version counts as applied as soon as it was proposed.
    ReplyBeforeApply,
}

#[cfg(feature = "planted-faults")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault on this thread, or removes it.
#[cfg(feature = "planted-faults")]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

#[cfg(feature = "planted-faults")]
pub(super) fn is_planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

#[cfg(not(feature = "planted-faults"))]
pub(super) const fn is_planted(_: Fault) -> bool {
    false
}
