//! ADD, ASSIGN, PROMOTE, REMOVE, TRANSFER: what is wrong with them is said here; what is right goes to the engine.
//! spec: client-protocol 12.

use crate::executor::Failure;
use crate::protocol::request::Request;
use crate::raft::engine::Engine;
use crate::types::{Configuration, NodeId, Role};

const ID_INVALID: Failure = Failure::new(1, "server ID is not valid");
const ID_IN_USE: Failure = Failure::new(1, "server ID already in use");
const ADDRESS_IN_USE: Failure = Failure::new(1, "server address already in use");
const ROLE_INVALID: Failure = Failure::new(1, "server role is not valid");
const NOT_FOUND: Failure = Failure::new(1, "Resource not found");
const NOT_POSSIBLE: Failure = Failure::new(1, "operation can't be performed at this time");

/// Answers a change of the membership or of the leadership.
///
/// # Errors
/// Those of client-protocol 12; a change that needs other nodes is refused while there is no way to reach them.
pub(super) fn answer(engine: &Engine, request: &Request) -> Result<Vec<u8>, Failure> {
    if engine.status().borrow().serving.is_none() {
        return Err(Failure::not_leader());
    }
    let configuration = engine.configuration().configuration;
    check(&configuration, request)?;
    Err(NOT_POSSIBLE)
}

fn check(configuration: &Configuration, request: &Request) -> Result<(), Failure> {
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
            if is_only_voter(configuration, server.id) { Err(NOT_POSSIBLE) } else { Ok(()) }
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
            if is_voter && configuration.voters().count() > 1 { Ok(()) } else { Err(ID_INVALID) }
        }
        _ => Ok(()),
    }
}

fn check_role(configuration: &Configuration, id: NodeId, role: Role) -> Result<(), Failure> {
    let server = configuration.get(id).ok_or(NOT_FOUND)?;
    if server.role == role {
        return Err(ROLE_INVALID);
    }
    if is_only_voter(configuration, id) { Err(NOT_POSSIBLE) } else { Ok(()) }
}

fn is_only_voter(configuration: &Configuration, id: NodeId) -> bool {
    configuration.voters().all(|voter| voter.id == id)
}
