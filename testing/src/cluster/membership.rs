//! Changes of the membership through whoever leads. A change is asked for again until the leader's list of members shows it:
//! a lost answer does not tell whether it was made.

use std::time::Duration;

use dqlite::protocol::decode::Member;
use dqlite::types::{NodeId, Role};

use super::{Cluster, ClusterError, Result};
use crate::client::{Client, ClientError};

/// Longest time until a change is made; a voter is brought up to date first.
pub const CHANGE_WAIT: Duration = Duration::from_secs(120);
/// Longest answer to one request for a change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two requests for a change.
const CHANGE_PAUSE: Duration = Duration::from_millis(50);
/// FAILURE codes of a request that may be made again: another change is under way, not the leader, leadership lost.
const AGAIN: [u64; 3] = [5, 10250, 10506];

impl Cluster {
    /// Makes a node a member, a spare at first.
    ///
    /// # Errors
    /// The leader refuses, or `CHANGE_WAIT` is over.
    pub fn add(&self, id: u64) -> Result<()> {
        let address = self.address(id)?.to_owned();
        let is_member = |members: &[Member]| members.iter().any(|member| member.id == NodeId(id));
        self.change(&format!("node {id} to be a member"), is_member, |leader| leader.add(id, &address))
    }

    /// Gives a member a role.
    ///
    /// # Errors
    /// The leader refuses, or `CHANGE_WAIT` is over.
    pub fn assign(&self, id: u64, role: Role) -> Result<()> {
        let has_role = |members: &[Member]| {
            members.iter().any(|member| member.id == NodeId(id) && member.role == Some(role))
        };
        self.change(&format!("node {id} to be a {role:?}"), has_role, |leader| {
            leader.assign(id, role.client_number())
        })
    }

    /// Takes a node out of the membership. Its process goes on; see `forget`.
    ///
    /// # Errors
    /// The leader refuses, or `CHANGE_WAIT` is over.
    pub fn remove(&self, id: u64) -> Result<()> {
        let is_gone = |members: &[Member]| members.iter().all(|member| member.id != NodeId(id));
        self.change(&format!("node {id} to be no member"), is_gone, |leader| leader.remove(id))
    }

    /// Makes a voter the leader and waits until it is.
    ///
    /// # Errors
    /// The leader refuses, or the node does not lead within `LEADER_WAIT`.
    pub fn transfer(&self, id: u64) -> Result<()> {
        if self.leader()? == id {
            return Ok(());
        }
        let asked = self.leader_client()?.transfer(id);
        asked.map_err(|source| ClusterError::Request { what: format!("transfer to node {id}"), source })?;
        self.wait_leader_is(id)
    }

    /// The members as the leader lists them.
    ///
    /// # Errors
    /// There is no leader, or it does not answer.
    pub fn members(&self) -> Result<Vec<Member>> {
        let members = self.leader_client()?.cluster();
        members.map_err(|source| ClusterError::Request { what: "list members".into(), source })
    }

    /// The role of a member as the leader lists it.
    ///
    /// # Errors
    /// There is no leader, or it does not answer.
    pub fn role(&self, id: u64) -> Result<Option<Role>> {
        let members = self.members()?;
        Ok(members.iter().find(|member| member.id == NodeId(id)).and_then(|member| member.role))
    }

    fn change(
        &self,
        what: &str,
        is_made: impl Fn(&[Member]) -> bool,
        request: impl Fn(&mut Client) -> std::result::Result<(), ClientError>,
    ) -> Result<()> {
        let refused = self.wait(what, CHANGE_WAIT, CHANGE_PAUSE, |cluster| {
            let mut leader = cluster.leader_client().map_err(|error| error.to_string())?;
            leader.set_timeout(CHANGE_TIMEOUT).map_err(|error| error.to_string())?;
            if is_made(&leader.cluster().map_err(|error| error.to_string())?) {
                return Ok(None);
            }
            match request(&mut leader) {
                Ok(()) => Ok(None),
                Err(error) if error.code().is_some_and(|code| !AGAIN.contains(&code)) => Ok(Some(error)),
                Err(error) => Err(error.to_string()),
            }
        })?;
        match refused {
            None => Ok(()),
            Some(source) => Err(ClusterError::Request { what: format!("ask for {what}"), source }),
        }
    }
}
