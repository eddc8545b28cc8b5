//! Changes of the members and of the leader: one at a time, each one entry with the whole new configuration. Each is a task
//! of consensus, which ends by itself: who asked for it waits for its outcome and nothing else.
//! spec: raft-wire 8, client-protocol 12; openraft-mapping 3, 4.6.

use std::sync::Arc;

use bytes::Bytes;
use openraft::Precondition;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::apply::matched;
use super::engine::Engine;
use super::types::{Change, ChangeError, LOOK_AGAIN, Payload, Status, membership_of, raft_index};
use crate::peers::message::{AppendEntries, EntryHeader, Message, TimeoutNow};
use crate::peers::replicator::Target;
use crate::types::config::{CATCH_UP_ROUND_MAX, CATCH_UP_ROUNDS_MAX, CHANGE_COMMIT_MAX};
use crate::types::{Configuration, NodeId, Role, Server, Term};

impl Engine {
    /// Starts a change, which holds `turn` until it has ended.
    fn begin<T, F>(&self, turn: Result<T, ChangeError>, change: impl FnOnce(Engine) -> F) -> Change
    where
        T: Send + 'static,
        F: Future<Output = Result<(), ChangeError>> + Send + 'static,
    {
        Change::begin(&self.scope, turn, change(self.clone()))
    }

    /// Adds a member, as a spare.
    pub fn add(&self, id: NodeId, address: Vec<u8>) -> Change {
        let next = move |configuration: &Configuration| {
            let mut servers = configuration.servers().to_vec();
            servers.push(Server { id, address, role: Role::Spare });
            Configuration::new(servers).map_err(|error| ChangeError::Duplicate(error.to_string()))
        };
        self.begin(self.take_change_turn(), |engine| async move { engine.change(next).await })
    }

    /// Removes a member.
    pub fn remove(&self, id: NodeId) -> Change {
        self.begin(self.take_change_turn(), move |engine| async move { engine.remove_member(id).await })
    }

    /// Gives a member a role. A new voter is brought up to date first.
    pub fn assign(&self, id: NodeId, role: Role) -> Change {
        self.begin(self.take_change_turn(), move |engine| async move { engine.assign_role(id, role).await })
    }

    /// Hands leadership to a voter; without a choice to the one that has most of the log. Done when this node does not
    /// lead any more. Writes wait meanwhile.
    pub fn transfer(&self, target: Option<NodeId>) -> Change {
        let serving = self.serving().ok_or(ChangeError::NotLeader);
        let turn =
            serving.and_then(|serving| Ok((serving.term, self.queue.pause().ok_or(ChangeError::NotLeader)?)));
        let term = turn.as_ref().map_or(Term(0), |(term, _)| *term);
        self.begin(turn, move |engine| async move { engine.hand_over(target, term).await })
    }

    async fn remove_member(&self, id: NodeId) -> Result<(), ChangeError> {
        let configuration = self.configuration().configuration;
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
        self.retire_if_not_voter();
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
            term: self.current_term(),
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
        let configuration = self.configuration().configuration;
        let old = configuration.get(id).ok_or(ChangeError::NotFound(id))?.role;
        if old == role {
            return Err(ChangeError::NotAllowed(format!("node {id} has this role already")));
        }
        if old == Role::Spare {
            self.leave_deletions_behind().await?;
        }
        if role != Role::Voter {
            self.change(with_role(id, role)).await?;
            self.retire_if_not_voter();
            return Ok(());
        }
        if old == Role::Spare {
            // Spares get no entries.
            self.change(with_role(id, Role::StandBy)).await?;
        }
        if let Err(error) = self.catch_up(id).await {
            if old == Role::Spare && error == ChangeError::NoConnection(id) {
                self.change(with_role(id, Role::Spare)).await?;
            }
            return Err(error);
        }
        self.change(with_role(id, Role::Voter)).await
    }

    async fn hand_over(&self, target: Option<NodeId>, term: Term) -> Result<(), ChangeError> {
        let configuration = self.configuration().configuration;
        let mut candidates = configuration.voters().filter(|server| server.id != self.id);
        let target = match target {
            Some(id) => candidates.find(|server| server.id == id).ok_or(ChangeError::NotFound(id))?,
            None => candidates
                .max_by_key(|server| matched(&self.raft, server.id))
                .ok_or_else(|| ChangeError::NotAllowed("there is no other voter".to_owned()))?,
        };
        let peer = Target::new(&self.peers, target.id, Bytes::copy_from_slice(&target.address));
        let deadline = Instant::now() + self.election_timeout;
        let mut status = self.status();
        let asking = async {
            loop {
                let (index, stored, _) = self.log.last();
                if matched(&self.raft, target.id) >= index && self.last_applied() >= index {
                    let now = TimeoutNow { term, last_index: index, last_term: stored };
                    info!(to = target.id.0, index = index.0, "handing leadership over");
                    // A full queue is tried again.
                    let _ = peer.send_message(&Message::TimeoutNow(now));
                    sleep(self.heartbeat_interval).await;
                } else {
                    sleep(LOOK_AGAIN).await;
                }
            }
        };
        let left = tokio::select! {
            biased;
            left = timeout_at(deadline, status.wait_for(|now| has_moved(now, self.id, term))) => left.is_ok(),
            () = asking => unreachable!("asks for ever"),
        };
        // Who does not lead any more has nothing to take back.
        if left || self.current_term() != term { Ok(()) } else { Err(ChangeError::TransferFailed) }
    }

    fn take_change_turn(&self) -> Result<tokio::sync::OwnedMutexGuard<()>, ChangeError> {
        if self.serving().is_none() || self.queue.is_paused() {
            return Err(ChangeError::NotLeader);
        }
        Arc::clone(&self.changing).try_lock_owned().map_err(|_| ChangeError::InProgress)
    }

    /// Appends the configuration that `next` makes of the current one, and waits until it is committed and applied.
    async fn change(
        &self,
        next: impl FnOnce(&Configuration) -> Result<Configuration, ChangeError>,
    ) -> Result<(), ChangeError> {
        let Some(serving) = self.serving() else { return Err(ChangeError::NotLeader) };
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
        let mut status = self.status();
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

    /// Waits until a member has the log. spec: raft-wire 8.2.
    async fn catch_up(&self, id: NodeId) -> Result<(), ChangeError> {
        for round in 1..=CATCH_UP_ROUNDS_MAX {
            let began = Instant::now();
            let goal = self.log.last_index();
            let reached = async {
                while matched(&self.raft, id) < goal {
                    if self.serving().is_none() {
                        return Err(ChangeError::LeadershipLost);
                    }
                    sleep(LOOK_AGAIN).await;
                }
                Ok(())
            };
            let mut reached = std::pin::pin!(reached);
            loop {
                match timeout(CATCH_UP_ROUND_MAX, &mut reached).await {
                    Ok(reached) => break reached?,
                    // A snapshot has its own bound, by its size.
                    Err(_) if self.snapshots.is_sending() => {}
                    Err(_) => return Err(ChangeError::NoConnection(id)),
                }
            }
            if began.elapsed() < self.election_timeout || matched(&self.raft, id) >= self.log.last_index() {
                info!(node = id.0, round, "caught up");
                return Ok(());
            }
        }
        Err(ChangeError::NoConnection(id))
    }

    /// A leader that does not vote any more gives up leadership.
    pub(super) fn retire_if_not_voter(&self) {
        let CurrentRole { votes, committed } = self.current_role();
        if votes || !committed || self.serving().is_none() {
            return;
        }
        let engine = self.clone();
        self.spawn_scoped(async move {
            if let Err(error) = engine.transfer(None).await {
                info!(%error, "stepping down without a successor");
                if engine.serving().is_some() {
                    engine.step_down().await;
                }
            }
        });
    }

    fn current_role(&self) -> CurrentRole {
        let (configuration, index) = self.log.configuration();
        let votes = configuration.get(self.id).is_some_and(|server| server.role == Role::Voter);
        CurrentRole { votes, committed: index <= self.last_applied() }
    }
}

/// Whether another node is known to lead in a later term.
fn has_moved(now: &Status, own: NodeId, term: Term) -> bool {
    now.term > term && now.leader.as_ref().is_some_and(|(leader, _)| *leader != own) || now.failed.is_some()
}

struct CurrentRole {
    votes: bool,
    committed: bool,
}

fn with_role(id: NodeId, role: Role) -> impl FnOnce(&Configuration) -> Result<Configuration, ChangeError> {
    move |configuration| {
        let mut servers = configuration.servers().to_vec();
        let server = servers.iter_mut().find(|server| server.id == id).ok_or(ChangeError::NotFound(id))?;
        server.role = role;
        Configuration::new(servers).map_err(|error| ChangeError::NotAllowed(error.to_string()))
    }
}
