//! The turn of configuration changes: one is made at a time, and a deletion keeps others away while it is proposed.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// Whose turn it is. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangeTurn(Arc<Mutex<()>>);

/// The turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _turn: OwnedMutexGuard<()>,
}

impl ChangeTurn {
    /// Takes the turn, unless somebody has it.
    pub(super) fn take(&self) -> Option<Turn> {
        let turn = Arc::clone(&self.0).try_lock_owned().ok()?;
        Some(Turn { _turn: turn })
    }
}
