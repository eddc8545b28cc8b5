//! A server asks its cluster: who leads, who belongs to it, may it come in, may it vote. Every request has a deadline of
//! the client's; nothing here waits for longer than these. spec: c-api 4.3, 4.4.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::files::Info;
use super::one_at_a_time::OneAtATime;
use crate::client::{Client, ClientError};
use crate::node::roles::Membership;
use crate::transport::dial::Dial;
use crate::types::backoff::Backoff;
use crate::types::{NodeId, Role, Server, config};

/// Reasons that a text names; there may be thousands of members.
const REASONS_SHOWN: usize = 3;

/// Why a server is not in its cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nobody who was asked knows a leader that can be reached.
    #[error("no leader among {asked} asked: {reasons}")]
    NoLeader {
        /// How many were asked.
        asked: usize,
        /// What the first of them said.
        reasons: String,
    },
    /// The leader did not do what it was asked for.
    #[error(transparent)]
    Leader(#[from] ClientError),
    /// Another member has the server's address. Waiting does not help.
    #[error("address {address} belongs to member {member}: remove that one before server {own} joins")]
    AddressTaken {
        /// The address.
        address: String,
        /// Whose it is.
        member: NodeId,
        /// This server.
        own: NodeId,
    },
    /// The time is up.
    #[error("the cluster did not take the server in within {limit:?}: {last}")]
    TooLate {
        /// How long was waited.
        limit: Duration,
        /// What was wrong at last.
        last: String,
    },
}

/// A server's way to its cluster.
pub(super) struct Cluster {
    own: Info,
    dial: OneAtATime,
    membership: Arc<dyn Membership>,
}

impl Cluster {
    /// The way of `own`, whose node is `membership`.
    pub(super) fn new(own: Info, dial: Arc<dyn Dial>, membership: Arc<dyn Membership>) -> Cluster {
        Cluster { own, dial: OneAtATime::new(dial), membership }
    }

    /// Whether the node's own log says that it is a member.
    pub(super) fn is_member(&self) -> bool {
        self.membership.configuration().get(self.own.id).is_some()
    }

    /// The members, when the server is one of them, asking again and again for as long as `limit`; `None` is for ever.
    /// The vote of a server that has none comes on top.
    ///
    /// # Errors
    /// The time is up, or the address belongs to another member.
    pub(super) async fn attach(
        &self,
        known: &[Vec<u8>],
        limit: Option<Duration>,
    ) -> Result<Vec<Server>, ClusterError> {
        let deadline = limit.map(|limit| (limit, Instant::now() + limit));
        let mut last = "no answer yet".to_owned();
        let mut pauses = Backoff::new(config::SERVER_RETRY_MIN, config::SERVER_RETRY_MAX);
        loop {
            let attempt = self.join_once(known);
            let result = match deadline {
                None => Some(attempt.await),
                Some((_, deadline)) => timeout_at(deadline, attempt).await.ok(),
            };
            match result {
                // What has begun well has its own bound: a server that is in does not fail for want of a vote.
                Some(Ok((leader, members))) => return Ok(self.ask_for_vote(leader, members).await),
                Some(Err(error @ ClusterError::AddressTaken { .. })) if limit.is_some() => return Err(error),
                Some(Err(error)) => {
                    let reason = error.to_string();
                    if reason != last {
                        tracing::info!(id = self.own.id.0, reason, "waiting for the cluster");
                        last = reason;
                    }
                }
                None => {}
            }
            let next = Instant::now() + pauses.take();
            match deadline {
                Some((limit, deadline)) if deadline <= next => {
                    return Err(ClusterError::TooLate { limit, last });
                }
                _ => sleep_until(next).await,
            }
        }
    }

    /// The leader and its members, of whom the server is one.
    async fn join_once(&self, known: &[Vec<u8>]) -> Result<(Client, Vec<Server>), ClusterError> {
        let mut leader = self.leader(known).await?;
        let mut members = leader.cluster().await?;
        if !self.listed(&members)? {
            leader.add(self.own.id, &self.own.address).await?;
            tracing::info!(id = self.own.id.0, "the cluster has taken the server in");
            members = leader.cluster().await?;
        }
        Ok((leader, members))
    }

    /// The members afterwards. Where it fails the leader's role management may see to it.
    async fn ask_for_vote(&self, leader: Client, members: Vec<Server>) -> Vec<Server> {
        if !self.lacks_vote(&members) {
            return members;
        }
        let mut leader = leader.with_timeout(config::SERVER_PROMOTE_TIMEOUT);
        let answered = match leader.assign(self.own.id, Role::Voter).await {
            Ok(()) => leader.with_timeout(config::CLIENT_REQUEST_TIMEOUT).cluster().await,
            Err(error) => Err(error),
        };
        answered.unwrap_or_else(|error| {
            tracing::warn!(id = self.own.id.0, %error, "no vote for the server yet");
            members
        })
    }

    /// The members as the leader knows them.
    ///
    /// # Errors
    /// No leader can be reached, or it does not answer.
    pub(super) async fn members(&self, known: &[Vec<u8>]) -> Result<Vec<Server>, ClusterError> {
        Ok(self.leader(known).await?.cluster().await?)
    }

    fn listed(&self, members: &[Server]) -> Result<bool, ClusterError> {
        if members.iter().any(|member| member.id == self.own.id) {
            return Ok(true);
        }
        match members.iter().find(|member| member.address == self.own.address) {
            None => Ok(false),
            Some(other) => Err(ClusterError::AddressTaken {
                address: String::from_utf8_lossy(&self.own.address).into_owned(),
                member: other.id,
                own: self.own.id,
            }),
        }
    }

    fn lacks_vote(&self, members: &[Server]) -> bool {
        let voters = members.iter().filter(|member| member.role == Role::Voter);
        let target = usize::try_from(config::TARGET_VOTERS).unwrap_or(0);
        let own = members.iter().find(|member| member.id == self.own.id);
        own.is_some_and(|own| own.role != Role::Voter) && voters.count() < target
    }

    /// Whom to ask: the leader that the node knows, then the members that it knows, then those of `known`.
    fn to_ask(&self, known: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let configuration = self.membership.configuration();
        let leader = self.membership.leader().map(|(_, address)| address);
        let members = configuration.servers().iter().map(|server| server.address.clone());
        let mut addresses: Vec<Vec<u8>> = Vec::new();
        for address in leader.into_iter().chain(members).chain(known.iter().cloned()) {
            if !address.is_empty() && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// A connection to the leader.
    async fn leader(&self, known: &[Vec<u8>]) -> Result<Client, ClusterError> {
        let addresses = self.to_ask(known);
        let questions: Vec<_> = addresses.iter().map(|address| self.ask(address)).collect();
        let mut answers = stream::iter(questions).buffer_unordered(config::SERVER_ASKS_AT_ONCE);
        let mut reasons = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(leader) => return Ok(leader),
                Err(reason) if reasons.len() < REASONS_SHOWN => reasons.push(reason),
                Err(_) => {}
            }
        }
        // In the order of asking they would come and go; sorted they make the same text each time.
        reasons.sort();
        Err(ClusterError::NoLeader { asked: addresses.len(), reasons: reasons.join("; ") })
    }

    /// A connection to the leader that the node at `address` names.
    async fn ask(&self, address: &[u8]) -> Result<Client, String> {
        let mut client = Client::connect(&self.dial, address).await.map_err(|error| error.to_string())?;
        match client.leader().await {
            Ok(Some((_, leader))) if leader == address => Ok(client),
            Ok(Some((_, leader))) => {
                Client::connect(&self.dial, &leader).await.map_err(|error| error.to_string())
            }
            Ok(None) => Err(format!("{} knows no leader", String::from_utf8_lossy(address))),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
