//! A cluster of scripted nodes as a server sees it from outside.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;

use super::cluster::Cluster;
use super::files::Info;
use crate::client::testing::{Reply, ScriptedNodes};
use crate::node::roles::Membership;
use crate::protocol::request::Request;
use crate::protocol::response;
use crate::transport::dial::Dial;
use crate::types::{Configuration, NodeId, Role, Server};

/// The server that joins.
pub(super) const OWN: NodeId = NodeId(9);

/// Its address.
pub(super) const OWN_ADDRESS: &str = "own";

/// What the nodes know together.
#[derive(Default)]
struct State {
    members: Vec<Server>,
    /// Address of the leader.
    leader: Option<String>,
    /// Codes with which the next changes are refused; 0 carries out and does not answer.
    refusals: VecDeque<u64>,
    log: Vec<String>,
}

/// Nodes that answer LEADER, CLUSTER, ADD and ASSIGN.
pub(super) struct TestNodes {
    pub(super) nodes: Arc<ScriptedNodes>,
    state: Arc<Mutex<State>>,
}

/// A member; its id is that of the server if its address is.
pub(super) fn member(address: &str, id: u64, role: Role) -> Server {
    Server { id: NodeId(id), address: address.into(), role }
}

impl TestNodes {
    /// Voters at these addresses with ids from 1 on, all of them online, the first leads.
    pub(super) fn new(addresses: &[&str]) -> TestNodes {
        let nodes = TestNodes { nodes: Arc::default(), state: Arc::default() };
        let members = addresses.iter().zip(1..).map(|(address, id)| member(address, id, Role::Voter));
        nodes.state.lock().unwrap().members = members.collect();
        nodes.lead(addresses.first().copied());
        for address in addresses {
            nodes.online(address);
        }
        nodes
    }

    /// This one answers.
    pub(super) fn online(&self, address: &str) {
        let state = Arc::clone(&self.state);
        let own = address.to_owned();
        self.nodes.answer(address, move |request| answer(&mut state.lock().unwrap(), &own, &request));
    }

    /// This one leads.
    pub(super) fn lead(&self, address: Option<&str>) {
        self.state.lock().unwrap().leader = address.map(str::to_owned);
    }

    /// The next changes end like this.
    pub(super) fn refuse(&self, codes: &[u64]) {
        self.state.lock().unwrap().refusals.extend(codes);
    }

    /// The members.
    pub(super) fn members(&self) -> Vec<Server> {
        self.state.lock().unwrap().members.clone()
    }

    /// Others change the members.
    pub(super) fn set_members(&self, members: Vec<Server>) {
        self.state.lock().unwrap().members = members;
    }

    /// Changes that were asked for, and of whom.
    pub(super) fn changes(&self) -> String {
        self.state.lock().unwrap().log.join(" ")
    }

    /// The way of the server; its own log says `configuration`.
    pub(super) fn cluster(&self, configuration: &[Server]) -> Arc<Cluster> {
        let own = Info { address: OWN_ADDRESS.into(), id: OWN };
        let membership = Arc::new(Log(Arc::new(Configuration::new(configuration.to_vec()).unwrap())));
        Arc::new(Cluster::new(own, Arc::clone(&self.nodes) as Arc<dyn Dial>, membership))
    }
}

fn answer(state: &mut State, own: &str, request: &Request) -> Reply {
    match request {
        Request::Leader => {
            let leader = state.leader.clone().unwrap_or_default();
            let id = state.members.iter().find(|member| member.address == leader.as_bytes());
            Reply::Bytes(response::server(id.map_or(0, |member| member.id.0), leader.as_bytes()))
        }
        Request::Cluster { format } => {
            let configuration = Configuration::new(state.members.clone()).unwrap();
            Reply::Bytes(response::servers(&configuration, *format))
        }
        Request::Add { id, address } => {
            let added = Server { id: NodeId(*id), address: address.to_vec(), role: Role::Spare };
            change(state, format!("{own}:ADD"), |members| members.push(added))
        }
        Request::Assign { id, role } => {
            let role = Role::from_client_number(*role).unwrap();
            change(state, format!("{own}:{role:?}"), |members| {
                members.iter_mut().find(|member| member.id.0 == *id).unwrap().role = role;
            })
        }
        other => panic!("{other:?}"),
    }
}

fn change(state: &mut State, name: String, carry_out: impl FnOnce(&mut Vec<Server>)) -> Reply {
    if state.leader.as_deref() != name.split(':').next() {
        return Reply::Bytes(response::failure(10250, b"not leader"));
    }
    match state.refusals.pop_front() {
        Some(code) if code != 0 => {
            state.log.push(format!("{name}={code}"));
            Reply::Bytes(response::failure(code, b"no"))
        }
        outcome => {
            state.log.push(name);
            carry_out(&mut state.members);
            if outcome.is_some() { Reply::Silence } else { Reply::Bytes(response::empty()) }
        }
    }
}

/// A node that knows this configuration and no leader.
struct Log(Arc<Configuration>);

impl Membership for Log {
    fn serving(&self) -> bool {
        false
    }

    fn leader(&self) -> Option<(NodeId, Vec<u8>)> {
        None
    }

    fn configuration(&self) -> Arc<Configuration> {
        Arc::clone(&self.0)
    }

    fn assign(&self, _: NodeId, _: Role) -> BoxFuture<'static, Result<(), String>> {
        unreachable!("a server asks over the network")
    }

    fn transfer(&self, _: Option<NodeId>) -> BoxFuture<'static, Result<(), String>> {
        unreachable!("a server transfers nothing")
    }
}
