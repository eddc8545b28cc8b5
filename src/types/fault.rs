//! Faults that the simulator plants to show that its checks would find them. Compiled in only with the cargo feature
//! `planted-faults`, and then planted on the calling thread alone: a simulated history runs on one thread.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A commit that changes no page takes no version, so that the next writer's version has its number.
    VersionTwice,
    /// A version counts as applied as soon as it was proposed.
    ReplyBeforeApply,
    /// A request waits for the first version that it saw, not for the newest.
    SeenOnce,
    /// A statement that is refused since its snapshot is old keeps the turn that it has waited for.
    TurnKept,
    /// A reading statement whose function has written keeps the turn, and what it wrote is not proposed.
    ReadKeepsTurn,
    /// The waits of a request do not look at what has ended.
    WaitsForEver,
    /// Nobody looks whether the client of a statement has gone.
    ClientGoneUnseen,
    /// A client that takes nothing while others wait for it is waited for.
    StallUnseen,
    /// A request keeps the room of its finished statements.
    RoomKept,
    /// What a statement committed whose client has gone is not proposed, and its epoch does not end.
    CommitDropped,
    /// A connection of an ended epoch takes snapshots of the next one, which does not end when what it commits is refused.
    SnapshotOfNextEpoch,
    /// A lone voter leads again in term 1 after a start, whoever else may have its entries.
    TermReused,
    /// Answers on the newest connection of a peer count, and no others.
    NewestSilences,
    /// Strangers take the links of members.
    SharedLinks,
    /// A snapshot keeps the belief in a leader, and its connection, however slowly it comes.
    DripRenews,
    /// Every term is believed.
    TermUnbounded,
    /// Whoever claims to lead in the current term is believed.
    SecondClaimantHeard,
    /// A success is told although the entries are not durable: a stored vote counts as the sync of all before it.
    AckOnVoteFlush,
    /// A success is told to a leader although a later term was taken up.
    AckAfterLaterTerm,
    /// A node stands for elections although its log is not durable.
    StandsUndurable,
    /// A vote waits for the entries before it.
    VoteBehindAppend,
}

impl Fault {
    /// Those that simulated sessions of clients must find.
    pub const OF_SESSIONS: [Fault; 11] = [
        Fault::VersionTwice,
        Fault::ReplyBeforeApply,
        Fault::SeenOnce,
        Fault::TurnKept,
        Fault::ReadKeepsTurn,
        Fault::WaitsForEver,
        Fault::ClientGoneUnseen,
        Fault::StallUnseen,
        Fault::RoomKept,
        Fault::CommitDropped,
        Fault::SnapshotOfNextEpoch,
    ];

    /// The fault of this name, of those.
    #[must_use]
    pub fn named(name: &str) -> Option<Fault> {
        Fault::OF_SESSIONS.into_iter().find(|fault| format!("{fault:?}") == name)
    }
}

#[cfg(feature = "planted-faults")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault on this thread, or removes it. A thread that runs SQL for another one inherits it by `planted`.
#[cfg(feature = "planted-faults")]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

#[cfg(feature = "planted-faults")]
/// Whether this fault is planted on this thread.
#[must_use]
pub fn is_planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// What is planted on this thread.
#[cfg(feature = "planted-faults")]
#[must_use]
pub fn planted() -> Option<Fault> {
    PLANTED.get()
}

#[cfg(not(feature = "planted-faults"))]
/// Never: faults are not compiled in.
#[must_use]
pub const fn is_planted(_: Fault) -> bool {
    false
}
