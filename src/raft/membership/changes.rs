//! Changes of the members: one at a time, each one entry with the whole new configuration. Each is a task of consensus, which
//! ends by itself: who asked for it waits for its outcome and nothing else.
//! spec: raft-wire 8, client-protocol 12; openraft-mapping 3, 4.6.

use std::sync::Arc;

use bytes::Bytes;
use openraft::Precondition;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::time::sleep;
use tracing::{info, warn};

use super::catch_up::CatchUp;
use super::deletion::Deletions;
use super::turn::{ChangeTurn, Turn};
use crate::peers::Peers;
use crate::peers::message::{AppendEntries, EntryHeader, Message};
use crate::raft::apply::Consensus;
use crate::raft::election::Transfer;
use crate::raft::log::LogView;
use crate::raft::propose::ProposalQueue;
use crate::raft::types::{Change, ChangeError, Payload, Scope, StatusBoard, membership_of, raft_index};
use crate::types::config::CHANGE_COMMIT_MAX;
use crate::types::{Configuration, NodeId, Role, Server};

/// Makes changes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Changes {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) status: StatusBoard,
    pub(crate) queue: Arc<ProposalQueue>,
    pub(crate) peers: Peers,
    pub(crate) scope: Scope,
    pub(crate) turn: ChangeTurn,
    pub(crate) deletions: Deletions,
    pub(crate) transfer: Transfer,
    pub(crate) catch_up: CatchUp,
}

impl Changes {
    /// Adds a member, as a spare.
    pub(crate) fn add(&self, id: NodeId, address: Vec<u8>) -> Change {
        let next = move |configuration: &Configuration| {
            let mut servers = configuration.servers().to_vec();
            servers.push(Server { id, address, role: Role::Spare });
            Configuration::new(servers).map_err(|error| ChangeError::Duplicate(error.to_string()))
        };
        let changes = self.clone();
        Change::begin(&self.scope, self.take_turn(), async move { changes.change(next).await })
    }

    /// Removes a member.
    pub(crate) fn remove(&self, id: NodeId) -> Change {
        let changes = self.clone();
        Change::begin(&self.scope, self.take_turn(), async move { changes.remove_member(id).await })
    }

    /// Gives a member a role. A new voter is brought up to date first.
    pub(crate) fn assign(&self, id: NodeId, role: Role) -> Change {
        let changes = self.clone();
        Change::begin(&self.scope, self.take_turn(), async move { changes.assign_role(id, role).await })
    }

    async fn remove_member(&self, id: NodeId) -> Result<(), ChangeError> {
        let configuration = self.log.configuration().0;
        let removed_server = configuration.get(id).filter(|server| server.role != Role::Spare).cloned();
        let removed = self.change(move |configuration| {
            if configuration.get(id).is_none() {
                return Err(ChangeError::NotFound(id));
            }
            let servers = configuration.servers().iter().filter(|server| server.id != id).cloned();
            Ok(Configuration::new(servers.collect()).unwrap_or_default())
        });
        removed.await?;
        if let Some(server) = removed_server.filter(|server| server.id != self.id) {
            self.tell_removed(&server);
        }
        self.transfer.retire_if_not_voter();
        Ok(())
    }

    /// openraft sends nothing more to a member that is removed; one that does not learn of it asks for votes for ever.
    /// Whether it takes this is its own affair. spec: raft-wire 8.1.
    fn tell_removed(&self, server: &Server) {
        let index = self.log.configuration().1;
        let (Some(entry), Some((previous_term, _))) =
            (self.log.entry_at(index), self.log.terms_at(index.previous()))
        else {
            return;
        };
        let stored = entry.stored();
        let append = AppendEntries {
            term: self.status.term(),
            previous_index: index.previous(),
            previous_term,
            commit: index,
            entries: vec![EntryHeader {
                term: stored.term,
                kind: stored.kind,
                bytes: stored.data.len() as u32,
            }],
        };
        let mut chunks = vec![Message::AppendEntries(append).encode().into()];
        chunks.extend(stored.data.chunks().iter().cloned());
        let address = Bytes::copy_from_slice(&server.address);
        if let Err(error) = self.peers.links().send(server.id, &address, chunks) {
            info!(node = server.id.0, %error, "the removed node is not told");
        }
    }

    async fn assign_role(&self, id: NodeId, role: Role) -> Result<(), ChangeError> {
        let configuration = self.log.configuration().0;
        let old = configuration.get(id).ok_or(ChangeError::NotFound(id))?.role;
        if old == role {
            return Err(ChangeError::NotAllowed(format!("node {id} has this role already")));
        }
        if old == Role::Spare {
            self.deletions.leave_behind().await?;
        }
        if role != Role::Voter {
            self.change(with_role(id, role)).await?;
            self.transfer.retire_if_not_voter();
            return Ok(());
        }
        if old == Role::Spare {
            // Spares get no entries.
            self.change(with_role(id, Role::StandBy)).await?;
        }
        if let Err(error) = self.catch_up.wait_for(id).await {
            if old == Role::Spare && error == ChangeError::NoConnection(id) {
                self.change(with_role(id, Role::Spare)).await?;
            }
            return Err(error);
        }
        self.change(with_role(id, Role::Voter)).await
    }

    fn take_turn(&self) -> Result<Turn, ChangeError> {
        if self.status.serving().is_none() || self.queue.is_paused() {
            return Err(ChangeError::NotLeader);
        }
        self.turn.take().ok_or(ChangeError::InProgress)
    }

    /// Appends the configuration that `next` makes of the current one, and waits until it is committed and applied.
    async fn change(
        &self,
        next: impl FnOnce(&Configuration) -> Result<Configuration, ChangeError>,
    ) -> Result<(), ChangeError> {
        let Some(serving) = self.status.serving() else { return Err(ChangeError::NotLeader) };
        let (current, index) = self.log.configuration();
        if current.get(self.id).is_none_or(|server| server.role != Role::Voter) {
            // It is giving leadership up.
            return Err(ChangeError::NotLeader);
        }
        let configuration = Arc::new(next(&current)?);
        let nobody = || ChangeError::NotAllowed("nobody would vote".to_owned());
        let membership = membership_of(&configuration).ok_or_else(nobody)?;
        let payload = Payload::change(configuration).ok_or_else(nobody)?;
        let known = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            *metrics.membership_config.log_id()
        };
        if known.map(|id| id.index) != raft_index(index) {
            return Err(ChangeError::InProgress);
        }
        let precondition = Precondition::LastMembershipLogId { last_membership_log_id: known };
        let mut status = self.status.watch();
        let written = tokio::select! {
            biased;
            written = self.raft.append_membership(membership, payload, [precondition]) => written,
            _ = status.wait_for(|now| now.serving != Some(serving)) => return Err(ChangeError::LeadershipLost),
            () = sleep(CHANGE_COMMIT_MAX) => return Err(ChangeError::NotCommittedYet),
        };
        match written {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(ChangeError::Stopped(fatal.to_string())),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(ChangeError::NotLeader),
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Err(ChangeError::LeadershipLost)
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => Err(match error {
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                    ChangeError::InProgress
                }
                error => ChangeError::NotAllowed(error.to_string()),
            }),
            Err(RaftError::APIError(error)) => {
                warn!(%error, "the configuration was not changed");
                Err(ChangeError::InProgress)
            }
        }
    }
}

fn with_role(id: NodeId, role: Role) -> impl FnOnce(&Configuration) -> Result<Configuration, ChangeError> {
    move |configuration| {
        let mut servers = configuration.servers().to_vec();
        let server = servers.iter_mut().find(|server| server.id == id).ok_or(ChangeError::NotFound(id))?;
        server.role = role;
        Configuration::new(servers).map_err(|error| ChangeError::NotAllowed(error.to_string()))
    }
}
