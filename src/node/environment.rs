//! Settings that come from the environment and have no function in the interface: read at every start of a node.

use std::ffi::OsStr;
use std::sync::atomic::Ordering;

use super::core::LiveSettings;
use super::trace;

/// Vouches that every node that is or becomes a member understands the deletion of a database.
pub const DELETE_DATABASE: &str = "LIBDQLITE_DELETE_DATABASE";
/// Its one value.
const ALWAYS: &str = "always";

/// Does what the environment asks for, as every start does first.
pub fn follow(live: &LiveSettings) {
    trace::follow_environment();
    live.deletions_always.store(deletions_always(), Ordering::Relaxed);
}

/// Whether databases may be deleted whoever is a member.
fn deletions_always() -> bool {
    std::env::var_os(DELETE_DATABASE).is_some_and(|value| is_always(&value))
}

/// Any other value is told and vouches for nothing.
fn is_always(value: &OsStr) -> bool {
    let always = value == ALWAYS;
    if !always && !value.is_empty() {
        tracing::warn!(variable = DELETE_DATABASE, ?value, "the value is not known and changes nothing");
    }
    always
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_always_vouches_for_all_members() {
        assert!(is_always(OsStr::new("always")));
        for value in ["", "1", "Always", "never", "always "] {
            assert!(!is_always(OsStr::new(value)), "{value:?}");
        }
    }
}
