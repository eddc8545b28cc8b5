//! ADD, ASSIGN, PROMOTE, REMOVE, TRANSFER: what is wrong with them is said here; what is right goes to the engine.
//! spec: client-protocol 12.

use crate::executor::Failure;
use crate::protocol::request::Request;
use crate::protocol::response;
use crate::raft::{ChangeError, Engine};
use crate::types::{Configuration, NodeId, Role};

const ID_INVALID: Failure = Failure::new(1, "server ID is not valid");
const ID_IN_USE: Failure = Failure::new(1, "server ID already in use");
const ADDRESS_IN_USE: Failure = Failure::new(1, "server address already in use");
const ROLE_INVALID: Failure = Failure::new(1, "server role is not valid");
const NOT_FOUND: Failure = Failure::new(1, "Resource not found");
const NOT_POSSIBLE: Failure = Failure::new(1, "operation can't be performed at this time");
const NO_CONNECTION: Failure = Failure::new(1, "no connection to remote server available");
const IN_PROGRESS: Failure = Failure::new(5, "a configuration change is already in progress");
const TRANSFER_FAILED: Failure = Failure::new(1, "leadership transfer failed");
const SERVER_NOT_LEADER: Failure = Failure::new(10250, "server is not the leader");
const SERVER_LOST_LEADERSHIP: Failure = Failure::new(10506, "server has lost leadership");

/// Answers a change of the membership or of the leadership, when it is committed or leadership has moved.
///
/// # Errors
/// Those of client-protocol 12.
pub(super) async fn answer(engine: &Engine, request: &Request) -> Result<Vec<u8>, Failure> {
    if engine.serving().is_none() {
        return Err(Failure::not_leader());
    }
    let configuration = engine.configuration().configuration;
    check(&configuration, engine.id(), request)?;
    let changed = match request {
        Request::Add { id, address } => engine.add(NodeId(*id), address.to_vec()).await,
        Request::Assign { id, role } => {
            let role = Role::from_client_number(*role).ok_or(ROLE_INVALID)?;
            engine.assign(NodeId(*id), role).await
        }
        Request::Promote { id } => engine.assign(NodeId(*id), Role::Voter).await,
        Request::Remove { id } => engine.remove(NodeId(*id)).await,
        Request::Transfer { id } => engine.transfer((*id != 0).then_some(NodeId(*id))).await,
        _ => return Err(NOT_POSSIBLE),
    };
    match changed {
        Ok(()) => Ok(response::empty()),
        Err(error) => Err(failure(&error)),
    }
}

fn failure(error: &ChangeError) -> Failure {
    match error {
        ChangeError::NotLeader => SERVER_NOT_LEADER,
        ChangeError::InProgress | ChangeError::NotCommittedYet => IN_PROGRESS,
        ChangeError::LeadershipLost | ChangeError::Stopped(_) => SERVER_LOST_LEADERSHIP,
        ChangeError::NoConnection(_) => NO_CONNECTION,
        ChangeError::NotFound(_) => NOT_FOUND,
        ChangeError::Duplicate(_) => ID_IN_USE,
        ChangeError::NotAllowed(_) => NOT_POSSIBLE,
        ChangeError::TransferFailed => TRANSFER_FAILED,
    }
}

fn check(configuration: &Configuration, own: NodeId, request: &Request) -> Result<(), Failure> {
    match request {
        Request::Add { id: 0, .. } => Err(ID_INVALID),
        Request::Add { id, address } => {
            if configuration.get(NodeId(*id)).is_some() {
                return Err(ID_IN_USE);
            }
            let taken = configuration.servers().iter().any(|server| server.address[..] == address[..]);
            if taken { Err(ADDRESS_IN_USE) } else { Ok(()) }
        }
        Request::Assign { id, role } => {
            let role = Role::from_client_number(*role).ok_or(ROLE_INVALID)?;
            check_role(configuration, NodeId(*id), role)
        }
        Request::Promote { id } => check_role(configuration, NodeId(*id), Role::Voter),
        Request::Remove { id } => {
            let server = configuration.get(NodeId(*id)).ok_or(ID_INVALID)?;
            if configuration.is_only_voter(server.id) { Err(NOT_POSSIBLE) } else { Ok(()) }
        }
        Request::Transfer { id: 0 } => {
            if configuration.voters().count() > 1 {
                Ok(())
            } else {
                Err(NOT_FOUND)
            }
        }
        Request::Transfer { id } => {
            if configuration.is_voter(NodeId(*id)) && own.0 != *id {
                Ok(())
            } else {
                Err(ID_INVALID)
            }
        }
        _ => Ok(()),
    }
}

fn check_role(configuration: &Configuration, id: NodeId, role: Role) -> Result<(), Failure> {
    let server = configuration.get(id).ok_or(NOT_FOUND)?;
    if server.role == role {
        return Err(ROLE_INVALID);
    }
    if configuration.is_only_voter(id) { Err(NOT_POSSIBLE) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Server;

    /// 1 and 2 vote, or 1 alone; 3 is a stand-by, 4 a spare.
    fn members(voters: u64) -> Configuration {
        let role = |id| match id {
            1 | 2 if id <= voters => Role::Voter,
            4 => Role::Spare,
            _ => Role::StandBy,
        };
        let server =
            |id| Server { id: NodeId(id), address: format!("127.0.0.1:{id}").into(), role: role(id) };
        Configuration::new((1..=4).map(server).collect()).unwrap()
    }

    #[test]
    fn a_change_that_makes_no_sense_is_refused_for_its_own_reason() {
        let add = |id, port: u64| Request::Add { id, address: Bytes::from(format!("127.0.0.1:{port}")) };
        let assign = |id, role| Request::Assign { id, role };
        let promote = |id| Request::Promote { id };
        let remove = |id| Request::Remove { id };
        let transfer = |id| Request::Transfer { id };
        let (two, one, ok) = (2, 1, Ok(()));
        for (voters, request, expected) in [
            (two, add(0, 9), Err(ID_INVALID)),
            (two, add(3, 9), Err(ID_IN_USE)),
            (two, add(5, 4), Err(ADDRESS_IN_USE)),
            (two, add(5, 5), ok.clone()),
            (two, assign(5, 0), Err(NOT_FOUND)),
            (two, assign(3, 3), Err(ROLE_INVALID)),
            (two, assign(1, 0), Err(ROLE_INVALID)),
            (two, assign(3, 1), Err(ROLE_INVALID)),
            (two, assign(3, 0), ok.clone()),
            (two, assign(1, 2), ok.clone()),
            (one, assign(1, 2), Err(NOT_POSSIBLE)),
            (one, assign(2, 0), ok.clone()),
            (two, promote(2), Err(ROLE_INVALID)),
            (two, promote(4), ok.clone()),
            (two, promote(5), Err(NOT_FOUND)),
            (two, remove(5), Err(ID_INVALID)),
            (two, remove(1), ok.clone()),
            (one, remove(1), Err(NOT_POSSIBLE)),
            (one, remove(2), ok.clone()),
            (two, transfer(0), ok.clone()),
            (one, transfer(0), Err(NOT_FOUND)),
            (two, transfer(1), Err(ID_INVALID)),
            (two, transfer(2), ok.clone()),
            (two, transfer(3), Err(ID_INVALID)),
            (two, transfer(5), Err(ID_INVALID)),
            (two, Request::Leader, ok),
        ] {
            assert_eq!(
                check(&members(voters), NodeId(1), &request),
                expected,
                "{request:?} of {voters} voters"
            );
        }
    }

    #[test]
    fn a_change_that_failed_is_told_with_its_own_code() {
        for (error, failed) in [
            (ChangeError::NotLeader, SERVER_NOT_LEADER),
            (ChangeError::InProgress, IN_PROGRESS),
            (ChangeError::NotCommittedYet, IN_PROGRESS),
            (ChangeError::LeadershipLost, SERVER_LOST_LEADERSHIP),
            (ChangeError::Stopped(String::new()), SERVER_LOST_LEADERSHIP),
            (ChangeError::NoConnection(NodeId(1)), NO_CONNECTION),
            (ChangeError::NotFound(NodeId(1)), NOT_FOUND),
            (ChangeError::Duplicate(String::new()), ID_IN_USE),
            (ChangeError::NotAllowed(String::new()), NOT_POSSIBLE),
            (ChangeError::TransferFailed, TRANSFER_FAILED),
        ] {
            assert_eq!(failure(&error), failed, "{error}");
        }
    }
}
