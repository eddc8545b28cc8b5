//! The life of a handle: what every call does in every state, asked from every kind of thread. Pure; `handle` and `server` do what is
//! decided here. The table is in docs/c-api.md, and its test walks it. spec: c-api 3.0 "Life cycle".

/// Where a handle is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing of it runs yet.
    Created,
    /// A start is under way.
    Starting,
    /// It serves clients.
    Running,
    /// A stop is under way.
    Stopping,
    /// Nothing of it runs any more.
    Stopped,
    /// It runs no more by itself, and waits to be stopped.
    Failed,
}

/// What is asked of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A setting that is fixed while the node runs, its addresses and its connect function among them.
    Set,
    /// A setting that may be changed at any time.
    SetAnyTime,
    /// Errmsg and getters.
    Ask,
    /// Start.
    Start,
    /// Handover.
    Handover,
    /// Stop.
    Stop,
    /// A configuration is put behind the log.
    Recover,
    /// The last entry is asked for.
    Describe,
    /// Destroy.
    Destroy,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A thread of the host.
    Host,
    /// A function of the host that the node itself has called.
    Callback,
    /// A process that the host forked after the start.
    Child,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Do,
    /// It is done, and the handle is in this state meanwhile.
    Enter(State),
    /// The start that is under way is told to give up, and waited for as long as `CALL_BESIDE_MAX`.
    GiveUpStart,
    /// The stop that is under way is waited for as long.
    AwaitStop,
    /// Memory and threads stay as they are.
    Leave,
    /// `DQLITE_MISUSE`, at once.
    Misuse(&'static str),
    /// `DQLITE_ERROR`, at once.
    Error(&'static str),
}

/// The node has failed; the text goes on with its reason.
pub const FAILED: &str = "the node has stopped by itself";

/// What a call does.
#[must_use]
pub const fn verdict(state: State, call: Call, caller: Caller) -> Verdict {
    match caller {
        Caller::Host => of_host(state, call),
        Caller::Callback => of_callback(state, call),
        Caller::Child => match call {
            Call::Ask => Verdict::Do,
            Call::Destroy => Verdict::Leave,
            _ => Verdict::Misuse("the node was started by another process"),
        },
    }
}

const fn of_host(state: State, call: Call) -> Verdict {
    match call {
        Call::Ask | Call::SetAnyTime => Verdict::Do,
        Call::Set | Call::Describe => match state {
            State::Created | State::Stopped => Verdict::Do,
            _ => Verdict::Misuse("not while the node runs"),
        },
        Call::Start => match state {
            State::Created => Verdict::Enter(State::Starting),
            // compat: upstream's second start finds the directory locked by the first (1.18.6).
            State::Starting | State::Running => Verdict::Error("couldn't lock the raft directory"),
            State::Failed => Verdict::Error(FAILED),
            State::Stopping | State::Stopped => {
                Verdict::Misuse("the node has been stopped: create another one")
            }
        },
        Call::Handover => match state {
            State::Running => Verdict::Do,
            State::Failed => Verdict::Error(FAILED),
            _ => Verdict::Misuse("the node does not run"),
        },
        Call::Stop => match state {
            State::Running | State::Failed => Verdict::Enter(State::Stopping),
            State::Starting => Verdict::GiveUpStart,
            State::Stopping => Verdict::Misuse("the node is being stopped"),
            State::Created | State::Stopped => Verdict::Misuse("the node does not run"),
        },
        Call::Recover => match state {
            State::Created | State::Stopped => Verdict::Do,
            _ => Verdict::Error("the directory is in use by this node"),
        },
        Call::Destroy => match state {
            State::Created | State::Stopped => Verdict::Do,
            State::Starting => Verdict::GiveUpStart,
            State::Running | State::Failed => Verdict::Enter(State::Stopping),
            State::Stopping => Verdict::AwaitStop,
        },
    }
}

const fn of_callback(state: State, call: Call) -> Verdict {
    match call {
        Call::Ask | Call::SetAnyTime | Call::Set | Call::Describe => of_host(state, call),
        Call::Start | Call::Handover | Call::Stop | Call::Recover | Call::Destroy => {
            Verdict::Misuse("not in a function that the node calls itself: it would wait for itself")
        }
    }
}

/// The same for a server, which may be started again after a stop and whose settings count at the next start.
#[must_use]
pub const fn server_verdict(state: State, call: Call, caller: Caller) -> Verdict {
    match (caller, call, state) {
        (Caller::Host | Caller::Callback, Call::Set, _) => Verdict::Do,
        (Caller::Host, Call::Start, State::Created | State::Stopped) => Verdict::Enter(State::Starting),
        (Caller::Host, Call::Start, _) => Verdict::Error("the server has been started"),
        (Caller::Host, Call::Stop | Call::Handover, State::Created | State::Stopped) => {
            Verdict::Error("the server has not been started")
        }
        (Caller::Host, Call::Handover, State::Starting | State::Stopping) => {
            Verdict::Error("the server does not run")
        }
        (Caller::Host, Call::Stop, State::Stopping) => Verdict::Error("the server is being stopped"),
        _ => verdict(state, call, caller),
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
