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
            let is_voter = configuration.get(NodeId(*id)).is_some_and(|server| server.role == Role::Voter);
            if is_voter && own.0 != *id { Ok(()) } else { Err(ID_INVALID) }
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
