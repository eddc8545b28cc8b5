//! What a `dqlite_node` is: settings, then a running node, then nothing. Calls out of order are refused, never fatal.
//! spec: c-api 3.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::core::LiveSettings;
use super::environment;
use super::error_text::{ErrorText, cut};
use super::keeper::{Ending, Keeper, Refused, StillInside, elsewhere, elsewhere_if_possible};
use super::life::{Call, Verdict, verdict};
use super::opening::open_directory;
use super::options::{DQLITE_ERROR, DQLITE_MISUSE, OptionError, Options};
use super::run_parts::RunParts;
use super::running::Running;
use super::threads::panic_text;
use super::trace;
use crate::host::panics;
use crate::storage::directory::Directory;
use crate::storage::error::StorageError;
use crate::storage::load::{LoadOptions, SetAside};
use crate::storage::recover::{self, Forgotten};
use crate::storage::vault::read_metadata;
use crate::transport::dial::{Connector, IpConnector};
use crate::transport::listener::BoundSocket;
use crate::types::clock::SystemWallClock;
use crate::types::payload::PayloadStore;
use crate::types::{Configuration, LogIndex, NodeId, Role, Server, Term};

/// Longest part of a text that tells of the data directory. spec: c-api 3.1.
const DIRECTORY_TEXT_MAX_BYTES: usize = 255;

/// Return code of a call that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// `DQLITE_ERROR`.
    Error,
    /// `DQLITE_MISUSE`.
    Misuse,
}

impl CallError {
    /// The number in C.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            CallError::Error => DQLITE_ERROR,
            CallError::Misuse => DQLITE_MISUSE,
        }
    }
}

/// A call that did not succeed: its code, and the text that `errmsg` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    code: CallError,
    text: String,
}

impl Refusal {
    fn error(error: impl std::fmt::Display) -> Refusal {
        Refusal { code: CallError::Error, text: error.to_string() }
    }

    fn misuse(error: impl std::fmt::Display) -> Refusal {
        Refusal { code: CallError::Misuse, text: error.to_string() }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        match refused {
            Refused::Misuse(text) => Refusal::misuse(text),
            Refused::Error(text) => Refusal::error(text),
        }
    }
}

impl From<StillInside> for Refusal {
    fn from(error: StillInside) -> Refusal {
        Refusal::error(error)
    }
}

impl From<OptionError> for Refusal {
    fn from(error: OptionError) -> Refusal {
        if error.code() == DQLITE_MISUSE { Refusal::misuse(error) } else { Refusal::error(error) }
    }
}

/// What the next start is made of.
struct Settings {
    /// From the creation, if it could be used then, until the stop: the host may want to unmount it then.
    directory: Option<Directory>,
    options: Options,
    listener: Option<BoundSocket>,
    connector: Arc<dyn Connector>,
    /// The last one is the current one; earlier ones stay because C may hold them.
    bind_addresses: Vec<CString>,
}

/// A node as the C interface has it. Usable from any thread; what a call does is decided by `life`.
pub struct NodeHandle {
    id: NodeId,
    address: Vec<u8>,
    path: PathBuf,
    live: Arc<LiveSettings>,
    error: ErrorText,
    /// The text has told why the node has failed.
    failure_told: AtomicBool,
    /// Where the text of the bound address is.
    bind_address: AtomicPtr<c_char>,
    keeper: Keeper<Settings>,
}

impl NodeHandle {
    /// Checks `directory` and changes nothing in it. A handle of a bad directory is made all the same: its text says
    /// what is wrong. The address is not parsed. spec: c-api 3.1.
    pub fn create(id: NodeId, address: Vec<u8>, directory: PathBuf) -> (NodeHandle, Result<(), CallError>) {
        let opened = elsewhere_if_possible(|| {
            let opened = open_directory(&directory)?;
            read_metadata(&opened).map(|_| opened)
        });
        let settings = Settings {
            directory: opened.as_ref().ok().cloned(),
            options: Options::default(),
            listener: None,
            connector: Arc::new(IpConnector),
            bind_addresses: Vec::new(),
        };
        let handle = NodeHandle {
            id,
            address,
            // Where it was, wherever the process goes.
            path: std::path::absolute(&directory).unwrap_or(directory),
            live: Arc::default(),
            error: ErrorText::default(),
            failure_told: AtomicBool::new(false),
            bind_address: AtomicPtr::new(std::ptr::null_mut()),
            keeper: Keeper::new(verdict, settings),
        };
        let result = match opened {
            Ok(_) => Ok(()),
            Err(StorageError::PathTooLong) => {
                handle.error.set("raft_uv_init(): directory path too long");
                Err(CallError::Error)
            }
            Err(error) => {
                let text = error.to_string();
                let text = cut(&text, DIRECTORY_TEXT_MAX_BYTES);
                handle.error.set(&format!("raft_init(): io: {text}"));
                Err(CallError::Error)
            }
        };
        (handle, result)
    }

    /// Runs a call; the text is that of the last one that has ended. A panic in it becomes the text, and the node fails.
    fn run<T>(&self, call: impl FnOnce(&NodeHandle) -> Result<T, Refusal>) -> Result<T, CallError> {
        self.run_and_tell(|handle| call(handle).map(|result| (result, None)))
    }

    /// The same for a call that may have something to tell though it succeeds.
    fn run_and_tell<T>(
        &self,
        call: impl FnOnce(&NodeHandle) -> Result<(T, Option<String>), Refusal>,
    ) -> Result<T, CallError> {
        // Until nothing of the handle is used any more: another thread may free it then.
        let _inside = self.keeper.come_in();
        let result = panics::caught(|| call(self));
        let result = result.unwrap_or_else(|panic| {
            let text = format!("internal error: {}", panic_text(panic.as_ref()));
            if !self.keeper.is_in_child() {
                let failure = self.keeper.lock().watch().failure.clone();
                failure.report(&text);
            }
            Err(Refusal::error(text))
        });
        // What fails tells its own reason; else a node that has failed goes on telling why.
        let failed = result.is_err();
        let (result, told) = match result {
            Ok((result, told)) => (Ok(result), told.unwrap_or_default()),
            Err(refusal) => (Err(refusal.code), refusal.text),
        };
        self.error.set(&told);
        self.failure_told.store(failed, Ordering::Release);
        result
    }

    /// Refuses a call whose arguments make no sense.
    ///
    /// # Errors
    /// Always `Misuse`.
    pub fn refuse(&self, text: &str) -> Result<(), CallError> {
        self.run(|_| Err(Refusal::misuse(text)))
    }

    /// Changes settings that are fixed while the node runs.
    ///
    /// # Errors
    /// `Misuse` while it runs; what the setting refuses.
    pub fn change(&self, set: impl FnOnce(&mut Options) -> Result<(), OptionError>) -> Result<(), CallError> {
        self.run(|handle| {
            let (mut held, _) = handle.keeper.enter(Call::Set)?;
            Ok(set(&mut held.settings.options)?)
        })
    }

    /// Changes settings that are taken at the next start but may be set at any time.
    ///
    /// # Errors
    /// `Misuse` in a forked child.
    pub fn change_any_time(&self, set: impl FnOnce(&mut Options)) -> Result<(), CallError> {
        self.run(|handle| {
            let (mut held, _) = handle.keeper.enter(Call::SetAnyTime)?;
            set(&mut held.settings.options);
            Ok(())
        })
    }

    /// Changes settings that work while the node runs.
    ///
    /// # Errors
    /// `Misuse` in a forked child.
    pub fn change_live(&self, set: impl FnOnce(&LiveSettings)) -> Result<(), CallError> {
        self.run(|handle| {
            drop(handle.keeper.enter(Call::SetAnyTime)?);
            set(&handle.live);
            Ok(())
        })
    }

    /// Binds a socket, which listens after `start`. spec: c-api 3.3.
    ///
    /// # Errors
    /// `Misuse` while the node runs; `Error` if the address is none or cannot be had.
    pub fn set_bind_address(&self, address: impl AsRef<[u8]>) -> Result<(), CallError> {
        self.run(|handle| {
            drop(handle.keeper.enter(Call::Set)?);
            let address = std::str::from_utf8(address.as_ref())
                .map_err(|_| Refusal::error("a listen address that is no UTF-8"))?;
            // The old socket stays if the new address is refused.
            let socket = elsewhere_if_possible(|| BoundSocket::bind(address)).map_err(Refusal::error)?;
            let text = CString::new(socket.display_address()).map_err(Refusal::error)?;
            let (mut held, _) = handle.keeper.enter(Call::Set)?;
            held.settings.listener = Some(socket);
            handle.bind_address.store(text.as_ptr().cast_mut(), Ordering::Release);
            held.settings.bind_addresses.push(text);
            Ok(())
        })
    }

    /// The address in use, at a place that stays until the handle is dropped; null if there is none.
    #[must_use]
    pub fn bind_address(&self) -> *const c_char {
        self.bind_address.load(Ordering::Acquire)
    }

    /// Who connects to other nodes.
    ///
    /// # Errors
    /// `Misuse` while the node runs.
    pub fn set_connector(&self, connector: Arc<dyn Connector>) -> Result<(), CallError> {
        self.run(|handle| {
            handle.keeper.enter(Call::Set)?.0.settings.connector = connector;
            Ok(())
        })
    }

    /// Starts the node; it serves clients when this returns. A node whose directory is at the end of all terms starts, too, and
    /// the text says so. spec: c-api 3.8.
    ///
    /// # Errors
    /// `Misuse` without a bind address, after a stop, or on a handle whose creation failed; otherwise `Error` with a text.
    pub fn start(&self) -> Result<(), CallError> {
        self.run_and_tell(|handle| Ok(((), elsewhere(|| handle.try_start()).map_err(Refusal::error)??)))
    }

    fn try_start(&self) -> Result<Option<String>, Refusal> {
        let (mut held, _) = self.keeper.enter(Call::Start)?;
        if held.settings.bind_addresses.is_empty() {
            return Err(Refusal::misuse("no bind address has been set"));
        }
        let directory =
            held.settings.directory.clone().ok_or_else(|| {
                Refusal::misuse("the directory could not be used when the node was created")
            })?;
        let (bound, last) = (held.settings.listener.take(), held.settings.bind_addresses.last().cloned());
        let (options, connector) = (held.settings.options.clone(), Arc::clone(&held.settings.connector));
        let start = self.keeper.begin_start(held);
        environment::follow(&self.live);
        let lock = match directory.lock() {
            Ok(lock) => lock,
            Err(error) => {
                // For the next try.
                self.keeper.lock().settings.listener = bound;
                return Err(Refusal::error(error));
            }
        };
        let parts = RunParts {
            id: self.id,
            address: self.address.clone(),
            directory,
            lock,
            options,
            live: Arc::clone(&self.live),
            listener: bound.map_or_else(|| bind_again(last.as_deref()), Ok)?,
            connector,
        };
        let running = Running::start_unless(parts, &start.watch).map_err(Refusal::error)?;
        let term = running.core().and_then(|core| core.engine().terms_ended_in());
        let set_aside = set_aside_text(running.set_aside());
        start.succeed(Box::new(running)).map_err(Refusal::error)?;
        tracing::info!(id = self.id.0, directory = %self.path.display(), "node started");
        let no_term = term.map(|term| {
            format!(
                "no term is left for elections: the directory is in term {term}, and this node stands for none. \
                 dqlite_node_recover_ext gives it another"
            )
        });
        Ok(set_aside.or(no_term))
    }

    /// The directory that was opened when the handle was made, or where it was by its path.
    fn directory(&self, opened: Option<Directory>) -> Result<Directory, StorageError> {
        opened.map_or_else(|| open_directory(&self.path), Ok)
    }

    /// Stops the node; nothing of it runs afterwards and its directory is free. spec: c-api 3.9.
    ///
    /// # Errors
    /// `Misuse` if it does not run, or on a thread of its own, which it would have to wait for; `Error` if it had failed before,
    /// or if threads are left inside SQLite or the host's functions, which the text tells.
    pub fn stop(&self) -> Result<(), CallError> {
        self.run(|handle| elsewhere_if_possible(|| handle.try_stop(Call::Stop)))
    }

    fn try_stop(&self, call: Call) -> Result<(), Refusal> {
        let (mut held, verdict) = self.keeper.enter(call)?;
        if matches!(verdict, Verdict::Enter(_)) {
            held.settings.directory = None;
        }
        let gives_up = matches!(verdict, Verdict::GiveUpStart);
        let result = self.keeper.stop(held, verdict, |running| {
            let stopped = running.stop();
            tracing::info!(id = self.id.0, "node stopped");
            match (running.failure(), stopped) {
                (None, Ok(())) => Ok(()),
                (None, Err(left)) => Err(Refusal::error(left)),
                (Some(reason), Ok(())) => Err(Refusal::error(reason)),
                (Some(reason), Err(left)) => Err(Refusal::error(format!("{reason}; {left}"))),
            }
        });
        if gives_up && result.is_ok() {
            // The start has ended, and kept them for a next one.
            let mut held = self.keeper.lock();
            (held.settings.directory, held.settings.listener) = (None, None);
        }
        result
    }

    /// Ends the node for good, whatever it does, and tells whether the handle may be freed.
    pub fn finish(&self) -> Ending {
        // Who is told of nothing more cannot be told what is left.
        let end = || {
            let _ = self.run(|handle| elsewhere_if_possible(|| handle.try_stop(Call::Destroy)));
        };
        self.keeper.finish(|text| self.error.set(text), end)
    }

    /// Gives leadership and vote to other nodes before a stop. spec: c-api 3.9.
    ///
    /// # Errors
    /// `Misuse` if the node does not run; `Error` if there is nobody to hand over to.
    pub fn handover(&self) -> Result<(), CallError> {
        self.run(|handle| elsewhere_if_possible(|| handle.try_handover()))
    }

    fn try_handover(&self) -> Result<(), Refusal> {
        let (held, _) = self.keeper.enter(Call::Handover)?;
        let handing = held.running().and_then(Running::handing_over);
        drop(held);
        let handing = handing.ok_or_else(|| Refusal::misuse("the node does not run"))?;
        handing.run().map_err(|error| Refusal::error(format!("handover: {error}")))
    }

    /// Puts a configuration behind the log. spec: c-api 3.10.
    ///
    /// # Errors
    /// `Error` if the directory is in use, or if it or the servers are refused.
    pub fn recover(&self, servers: Vec<Server>) -> Result<(), CallError> {
        self.run_and_tell(|handle| Ok(((), elsewhere_if_possible(|| handle.try_recover(servers))?)))
    }

    fn try_recover(&self, servers: Vec<Server>) -> Result<Option<String>, Refusal> {
        let (held, _) = self.keeper.enter(Call::Recover)?;
        let (options, opened) = (held.settings.options.clone(), held.settings.directory.clone());
        drop(held);
        trace::follow_environment();
        let failed = |error: StorageError| Refusal::error(format!("raft_recover(): io: {error}"));
        if servers.is_empty() {
            return Err(Refusal::misuse("raft_recover(): io: a configuration needs at least one server"));
        }
        if !servers.iter().any(|server| server.role == Role::Voter) {
            return Err(Refusal::misuse("raft_recover(): io: a configuration needs at least one voter"));
        }
        let configuration = Configuration::new(servers).map_err(|error| failed(error.into()))?;
        let directory = self.directory(opened).map_err(failed)?;
        let lock = directory.lock().map_err(|error| match &error {
            StorageError::Locked { .. } => {
                let by = error.holder().unwrap_or("another node");
                Refusal::error(format!("raft_recover(): {error}: it is held by {by}"))
            }
            _ => failed(error),
        })?;
        let recovered = recover::recover(&directory, &lock, &load_options(&options), &configuration);
        let told = set_aside_text(&recovered.map_err(failed)?);
        tracing::info!(directory = %self.path.display(), "configuration put behind the log");
        Ok(told)
    }

    /// Index and term of the last entry on disk; 0 and 0 in an empty directory, where nothing is made.
    ///
    /// # Errors
    /// `Misuse` while the node runs; `Error` if the directory cannot be loaded. spec: c-api 3.10.
    pub fn describe_last_entry(&self) -> Result<(LogIndex, Term), CallError> {
        self.run(|handle| {
            let (held, _) = handle.keeper.enter(Call::Describe)?;
            let (options, opened) = (load_options(&held.settings.options), held.settings.directory.clone());
            drop(held);
            elsewhere_if_possible(|| {
                let directory = handle.directory(opened).map_err(Refusal::error)?;
                recover::describe_last_entry(&directory, &options).map_err(Refusal::error)
            })
        })
    }

    /// The text of the last call that ended, or why the node has failed since. Its place stays until the handle is dropped.
    #[must_use]
    pub fn error_text(&self) -> &ErrorText {
        if !self.keeper.is_in_child() {
            let _inside = self.keeper.come_in();
            let held = self.keeper.lock();
            let failure = held.running().and_then(Running::failure);
            drop(held);
            if let Some(reason) = failure.filter(|_| !self.failure_told.swap(true, Ordering::AcqRel)) {
                self.error.set(&reason);
            }
        }
        &self.error
    }
}

/// A start that failed has closed the socket of `set_bind_address`: then the same address is bound again.
fn bind_again(last: Option<&CStr>) -> Result<BoundSocket, Refusal> {
    let address = last.and_then(|address| address.to_str().ok());
    let address = address.ok_or_else(|| Refusal::misuse("no bind address has been set"))?;
    BoundSocket::bind(address).map_err(Refusal::error)
}

/// What a call tells that succeeded and has set segments aside.
fn set_aside_text(segments: &[SetAside]) -> Option<String> {
    let [first, later @ ..] = segments else { return None };
    let known: u64 = segments.iter().filter_map(|segment| segment.entries).sum();
    let entries = match segments.iter().all(|segment| segment.entries.is_some()) {
        true if known == 1 => "1 entry".to_owned(),
        true => format!("{known} entries"),
        false if known > 0 => format!("more than {known} entries"),
        false => "entries".to_owned(),
    };
    let behind = match later.len() {
        0 => String::new(),
        count => format!("; and {count} behind it"),
    };
    Some(format!(
        "set aside: {entries} of the log, which this node may have acknowledged: {first}{behind}. They are kept in \
         corrupt-*"
    ))
}

fn load_options(options: &Options) -> LoadOptions {
    LoadOptions {
        auto_recovery: options.auto_recovery,
        wall_clock: Arc::new(SystemWallClock),
        // Here entries are only counted.
        payloads: options.disk_mode.then(|| {
            let forgotten: Arc<dyn PayloadStore> = Arc::new(Forgotten);
            forgotten
        }),
    }
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
