//! What SQLite's connections ask about the members of the cluster, and what a client reads whose `PRAGMA delete_database` is
//! refused. spec: client-protocol 11.3.

use crate::raft;
use crate::raft::Engine;
use crate::vfs::{DeletionPermit, DeletionRefused, Members};

use super::failure;

/// Not SQLITE_BUSY: who retries that would do so for ever.
const OTHER_MEMBERS: DeletionRefused = DeletionRefused {
    code: failure::ERROR as i32,
    text: c"PRAGMA delete_database is refused while the cluster has other members, whose versions are not known: set LIBDQLITE_DELETE_DATABASE=always for every server once all are 1.18.3 or later",
};
/// The text of a configuration change that meets another.
const IN_PROGRESS: DeletionRefused =
    DeletionRefused { code: failure::BUSY as i32, text: c"a configuration change is already in progress" };

/// Asks consensus, which knows the members.
#[derive(Debug)]
pub(super) struct OfEngine(pub(super) Engine);

impl Members for OfEngine {
    fn are_there_others(&self) -> bool {
        !self.0.is_only_member()
    }

    fn check_deletion(&self) -> Result<(), DeletionRefused> {
        self.0.check_deletion().map_err(refused)
    }

    fn permit_deletion(&self) -> Result<DeletionPermit, DeletionRefused> {
        self.0.permit_deletion().map_err(refused).map(|permit| Box::new(permit) as DeletionPermit)
    }
}

fn refused(reason: raft::DeletionRefused) -> DeletionRefused {
    match reason {
        raft::DeletionRefused::OtherMembers => OTHER_MEMBERS,
        raft::DeletionRefused::InProgress => IN_PROGRESS,
    }
}
