//! What a `dqlite_node` is: settings, then a running node, then nothing. Calls out of order are refused, never fatal.
//! spec: c-api 3.

use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::core::LiveSettings;
use super::environment;
use super::error_text::{ErrorText, cut};
use super::failure::Failure;
use super::options::{DQLITE_ERROR, DQLITE_MISUSE, OptionError, Options};
use super::run_parts::RunParts;
use super::running::{Running, open_directory};
use super::threads::{OwnThreads, panic_text};
use super::trace;
use crate::storage::directory::Directory;
use crate::storage::disk::FileDisk;
use crate::storage::error::StorageError;
use crate::storage::load::LoadOptions;
use crate::storage::recover::{self, Forgotten};
use crate::transport::dial::{Connector, IpConnector};
use crate::transport::listener::{BindError, BoundSocket};
use crate::types::clock::SystemWallClock;
use crate::types::payload::PayloadStore;
use crate::types::{Configuration, LogIndex, NodeId, Server, Term};

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

impl From<OptionError> for CallError {
    fn from(error: OptionError) -> CallError {
        if error.code() == DQLITE_MISUSE { CallError::Misuse } else { CallError::Error }
    }
}

enum Life {
    Created,
    Running(Box<Running>),
    Stopped,
}

struct Inner {
    life: Life,
    options: Options,
    listener: Option<BoundSocket>,
    connector: Arc<dyn Connector>,
}

/// What is asked while a start, a stop or a handover takes its time. Locked for no longer than a look.
#[derive(Default)]
struct Shown {
    /// The last one is the current one; earlier ones stay because C may hold them.
    bind_addresses: Vec<CString>,
    /// Of a node that runs.
    running: Option<(Failure, OwnThreads)>,
}

/// A node as the C interface has it. Usable from any thread; calls that change something wait for each other, and nobody waits for
/// more than a look to ask something.
pub struct NodeHandle {
    id: NodeId,
    address: Vec<u8>,
    directory: PathBuf,
    live: Arc<LiveSettings>,
    error: ErrorText,
    usable: bool,
    shown: Mutex<Shown>,
    inner: Mutex<Inner>,
}

impl NodeHandle {
    /// Checks `directory` and changes nothing in it. A handle of a bad directory is made all the same: its text says
    /// what is wrong. The address is not parsed. spec: c-api 3.1.
    pub fn create(id: NodeId, address: Vec<u8>, directory: PathBuf) -> (NodeHandle, Result<(), CallError>) {
        let opened = Directory::open(Arc::new(FileDisk), &directory);
        let inner = Inner {
            life: Life::Created,
            options: Options::default(),
            listener: None,
            connector: Arc::new(IpConnector),
        };
        let handle = NodeHandle {
            id,
            address,
            directory,
            live: Arc::default(),
            error: ErrorText::default(),
            usable: opened.is_ok(),
            shown: Mutex::default(),
            inner: Mutex::new(inner),
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call. A panic in it becomes the text, and the node is stopped for good.
    ///
    /// # Errors
    /// Those of the call; `Error` after a panic.
    pub fn guard<T>(&self, call: impl FnOnce(&NodeHandle) -> Result<T, CallError>) -> Result<T, CallError> {
        match catch_unwind(AssertUnwindSafe(|| call(self))) {
            Ok(result) => result,
            Err(panic) => {
                self.error.set(&format!("internal error: {}", panic_text(panic.as_ref())));
                let life = std::mem::replace(&mut self.lock().life, Life::Stopped);
                self.shown().running = None;
                // A second panic while stopping changes nothing: what it was in is dropped.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(life)));
                Err(CallError::Error)
            }
        }
    }

    /// Changes settings that are fixed while the node runs.
    ///
    /// # Errors
    /// `Misuse` while it runs; what the setting refuses.
    pub fn change(&self, set: impl FnOnce(&mut Options) -> Result<(), OptionError>) -> Result<(), CallError> {
        let mut inner = self.lock();
        if matches!(inner.life, Life::Running(_)) {
            return Err(CallError::Misuse);
        }
        set(&mut inner.options).map_err(CallError::from)
    }

    /// Changes settings that are taken at the next start but may be set at any time.
    pub fn change_any_time(&self, set: impl FnOnce(&mut Options)) {
        set(&mut self.lock().options);
    }

    /// Settings that work while the node runs.
    #[must_use]
    pub fn live(&self) -> &LiveSettings {
        &self.live
    }

    /// Binds a socket, which listens after `start`. spec: c-api 3.3.
    ///
    /// # Errors
    /// `Misuse` while the node runs; `Error` if the address is none or cannot be had.
    pub fn set_bind_address(&self, address: &str) -> Result<(), CallError> {
        let mut inner = self.lock();
        if matches!(inner.life, Life::Running(_)) {
            return Err(CallError::Misuse);
        }
        // The old socket stays if the new address is refused.
        let socket = BoundSocket::bind(address).map_err(|_: BindError| CallError::Error)?;
        let shown = CString::new(socket.display_address()).map_err(|_| CallError::Error)?;
        inner.listener = Some(socket);
        self.shown().bind_addresses.push(shown);
        Ok(())
    }

    /// The address in use, at a place that stays until the handle is dropped.
    #[must_use]
    pub fn bind_address(&self) -> Option<*const std::ffi::c_char> {
        self.shown().bind_addresses.last().map(|address| address.as_ptr())
    }

    /// Who connects to other nodes.
    ///
    /// # Errors
    /// `Misuse` while the node runs.
    pub fn set_connector(&self, connector: Arc<dyn Connector>) -> Result<(), CallError> {
        let mut inner = self.lock();
        if matches!(inner.life, Life::Running(_)) {
            return Err(CallError::Misuse);
        }
        inner.connector = connector;
        Ok(())
    }

    /// Starts the node; it serves clients when this returns. A node whose directory is at the end of all terms starts, too, and
    /// the text says so. spec: c-api 3.8.
    ///
    /// # Errors
    /// `Misuse` without a bind address, after a stop, or on a handle whose creation failed; otherwise `Error` with a text.
    pub fn start(&self) -> Result<(), CallError> {
        let mut inner = self.lock();
        match inner.life {
            Life::Created => {}
            Life::Running(_) => {
                self.error.set(&StorageError::Locked.to_string());
                return Err(CallError::Error);
            }
            Life::Stopped => {
                self.error.set("the node has been stopped: create another one");
                return Err(CallError::Misuse);
            }
        }
        if !self.usable {
            return Err(CallError::Misuse);
        }
        trace::follow_environment();
        self.live.deletions_always.store(environment::deletions_always(), Ordering::Relaxed);
        let listener = self.take_listener(&mut inner)?;
        let parts = RunParts {
            id: self.id,
            address: self.address.clone(),
            directory: self.directory.clone(),
            options: inner.options.clone(),
            live: Arc::clone(&self.live),
            listener,
            connector: Arc::clone(&inner.connector),
        };
        let running = Running::start(parts).map_err(|error| self.failed(&error.to_string()))?;
        if let Some(term) = running.core().and_then(|core| core.engine().terms_ended_in()) {
            self.error.set(&format!(
                "no term is left for elections: the directory is in term {term}, and this node stands for none. \
                 dqlite_node_recover_ext gives it another"
            ));
        }
        let own = running.own_threads().cloned();
        self.shown().running = own.map(|own| (running.failure_board().clone(), own));
        inner.life = Life::Running(Box::new(running));
        tracing::info!(id = self.id.0, directory = %self.directory.display(), "node started");
        Ok(())
    }

    /// The socket of `set_bind_address`; a start that failed has closed it, then the same address is bound again.
    fn take_listener(&self, inner: &mut Inner) -> Result<BoundSocket, CallError> {
        if let Some(listener) = inner.listener.take() {
            return Ok(listener);
        }
        let address =
            self.shown().bind_addresses.last().and_then(|address| address.to_str().ok().map(str::to_owned));
        let Some(address) = address else {
            self.error.set("no bind address has been set");
            return Err(CallError::Misuse);
        };
        BoundSocket::bind(&address).map_err(|error| self.failed(&error.to_string()))
    }

    fn failed(&self, text: &str) -> CallError {
        self.error.set(text);
        CallError::Error
    }

    /// Stops the node; nothing of it runs afterwards and its directory is free. spec: c-api 3.9.
    ///
    /// # Errors
    /// `Misuse` if it does not run, or on a thread of its own, which it would have to wait for; `Error` if it had failed before,
    /// or if threads are left inside SQLite or the host's functions, which the text tells.
    pub fn stop(&self) -> Result<(), CallError> {
        if self.shown().running.as_ref().is_some_and(|(_, own)| own.is_one()) {
            self.error.set("a node cannot be stopped in a function that it calls itself");
            return Err(CallError::Misuse);
        }
        let mut inner = self.lock();
        if !matches!(inner.life, Life::Running(_)) {
            return Err(CallError::Misuse);
        }
        let Life::Running(mut running) = std::mem::replace(&mut inner.life, Life::Stopped) else {
            return Err(CallError::Misuse);
        };
        let stopped = running.stop();
        self.shown().running = None;
        tracing::info!(id = self.id.0, "node stopped");
        if let Err(left) = stopped {
            return Err(self.failed(&left.to_string()));
        }
        match running.failure() {
            Some(reason) => Err(self.failed(&reason)),
            None => Ok(()),
        }
    }

    /// Gives leadership and vote to other nodes before a stop. spec: c-api 3.9.
    ///
    /// # Errors
    /// `Misuse` if the node does not run; `Error` if there is nobody to hand over to.
    pub fn handover(&self) -> Result<(), CallError> {
        match &self.lock().life {
            Life::Running(running) => running.handover().map_err(|_| CallError::Error),
            Life::Created | Life::Stopped => Err(CallError::Misuse),
        }
    }

    /// Puts a configuration behind the log. spec: c-api 3.10.
    ///
    /// # Errors
    /// `Error` if the directory is in use (without a text), if it or the servers are refused (with one).
    pub fn recover(&self, servers: Vec<Server>) -> Result<(), CallError> {
        trace::follow_environment();
        let inner = self.lock();
        let failed = |error: StorageError| self.failed(&format!("raft_recover(): io: {error}"));
        if servers.is_empty() {
            self.error.set("raft_recover(): io: a configuration needs at least one server");
            return Err(CallError::Misuse);
        }
        let configuration = Configuration::new(servers).map_err(|error| failed(error.into()))?;
        let directory = Directory::open(Arc::new(FileDisk), &self.directory).map_err(failed)?;
        let lock = match directory.lock() {
            Ok(lock) => lock,
            Err(StorageError::Locked) => return Err(CallError::Error),
            Err(error) => return Err(failed(error)),
        };
        directory.clean_up(&lock).map_err(failed)?;
        recover::recover(&directory, &lock, &load_options(&inner.options), &configuration).map_err(failed)?;
        tracing::info!(directory = %self.directory.display(), "configuration put behind the log");
        Ok(())
    }

    /// Index and term of the last entry on disk; 0 and 0 in an empty directory, where nothing is made.
    ///
    /// # Errors
    /// `Misuse` while the node runs; `Error` if the directory cannot be loaded. No text. spec: c-api 3.10.
    pub fn describe_last_entry(&self) -> Result<(LogIndex, Term), CallError> {
        let inner = self.lock();
        if matches!(inner.life, Life::Running(_)) {
            return Err(CallError::Misuse);
        }
        let directory = open_directory(&self.directory).map_err(|_| CallError::Error)?;
        recover::describe_last_entry(&directory, &load_options(&inner.options)).map_err(|_| CallError::Error)
    }

    /// The text of the last failure; of a running node that has failed, why. Its place stays until the handle is dropped.
    #[must_use]
    pub fn error_text(&self) -> &ErrorText {
        let failure = self.shown().running.as_ref().and_then(|(failure, _)| failure.reason());
        if let Some(reason) = failure {
            self.error.set(&reason);
        }
        &self.error
    }
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
