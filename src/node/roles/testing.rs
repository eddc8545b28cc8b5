//! Members, consensus and other nodes as a test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;

use super::Membership;
use crate::client::Description;
use crate::client::testing::{Reply, ScriptedNodes};
use crate::protocol::request::Request;
use crate::protocol::response;
use crate::types::{Configuration, NodeId, Role, Server};

/// Members and who is online, from words `role`, `role@domain`, `role@domain/weight`; `V`, `B`, `S` are voter, stand-by and spare, in
/// small letters offline. Ids count from 1, which is this node.
pub(super) fn cluster(text: &str) -> (Configuration, BTreeMap<NodeId, Description>) {
    let (mut servers, mut online) = (Vec::new(), BTreeMap::new());
    for (position, word) in text.split_whitespace().enumerate() {
        let id = NodeId(position as u64 + 1);
        let (letter, place) = word.split_once('@').unwrap_or((word, "0"));
        let (domain, weight) = place.split_once('/').unwrap_or((place, "0"));
        let role = match letter.to_ascii_uppercase().as_str() {
            "V" => Role::Voter,
            "B" => Role::StandBy,
            "S" => Role::Spare,
            other => panic!("{other}"),
        };
        servers.push(Server { id, address: address(id), role });
        if letter.chars().all(char::is_uppercase) {
            let description =
                Description { failure_domain: domain.parse().unwrap(), weight: weight.parse().unwrap() };
            online.insert(id, description);
        }
    }
    (Configuration::new(servers).unwrap(), online)
}

/// Address of a member.
pub(super) fn address(id: NodeId) -> Vec<u8> {
    format!("a:{id}").into_bytes()
}

/// This node.
pub(super) const OWN: NodeId = NodeId(1);

/// How consensus takes a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Works {
    Yes,
    No,
    Never,
}

struct State {
    configuration: Arc<Configuration>,
    leader: Option<NodeId>,
    /// Who leads after a transfer.
    heir: Option<NodeId>,
    assigning: Works,
    transferring: Works,
    /// Failures with which the leader answers before it does as it is told.
    failures: Vec<u64>,
    calls: Vec<String>,
}

/// A cluster whose consensus is a variable; consensus of node 1 and client ports of all nodes.
pub(super) struct TestCluster {
    pub(super) nodes: Arc<ScriptedNodes>,
    state: Mutex<State>,
}

impl TestCluster {
    /// See `cluster`; nodes in small letters refuse connections. Node 1 leads.
    pub(super) fn new(text: &str) -> Arc<TestCluster> {
        let (configuration, online) = cluster(text);
        let state = State {
            configuration: Arc::new(configuration),
            leader: Some(OWN),
            heir: None,
            assigning: Works::Yes,
            transferring: Works::Yes,
            failures: Vec::new(),
            calls: Vec::new(),
        };
        let made = Arc::new(TestCluster { nodes: Arc::default(), state: Mutex::new(state) });
        for (id, description) in online {
            made.bring_up(id, description);
        }
        made
    }

    /// The node answers from now on.
    pub(super) fn bring_up(self: &Arc<Self>, id: NodeId, description: Description) {
        let cluster = Arc::downgrade(self);
        let script = move |request| {
            let Some(cluster) = cluster.upgrade() else { return Reply::Silence };
            Reply::Bytes(match request {
                Request::Describe { format: 0 } => {
                    response::metadata(description.failure_domain, description.weight)
                }
                Request::Assign { id: member, role } => cluster.answer_assign(id, NodeId(member), role),
                other => panic!("{other:?}"),
            })
        };
        self.nodes.answer(&String::from_utf8(address(id)).unwrap(), script);
    }

    /// The node refuses connections from now on.
    pub(super) fn take_down(&self, id: u64) {
        self.nodes.refuse(&String::from_utf8(address(NodeId(id))).unwrap());
    }

    fn answer_assign(&self, asked: NodeId, id: NodeId, role: u64) -> Vec<u8> {
        let mut state = self.state.lock().unwrap();
        if state.leader != Some(asked) {
            return response::failure(10250, b"not leader");
        }
        if let Some(code) = state.failures.pop() {
            state.calls.push(format!("refused {code}"));
            return response::failure(code, b"no");
        }
        state.apply(id, Role::from_client_number(role).unwrap());
        response::empty()
    }

    pub(super) fn lead(&self, leader: Option<u64>) {
        self.state.lock().unwrap().leader = leader.map(NodeId);
    }

    pub(super) fn inherit(&self, heir: u64) {
        self.state.lock().unwrap().heir = Some(NodeId(heir));
    }

    pub(super) fn set_assigning(&self, works: Works) {
        self.state.lock().unwrap().assigning = works;
    }

    pub(super) fn set_transferring(&self, works: Works) {
        self.state.lock().unwrap().transferring = works;
    }

    pub(super) fn set_failures(&self, codes: &[u64]) {
        self.state.lock().unwrap().failures = codes.to_vec();
    }

    /// Changes a role as if another leader had.
    pub(super) fn change(&self, id: u64, role: Role) {
        self.state.lock().unwrap().apply(NodeId(id), role);
    }

    /// What was done, and forgets it.
    pub(super) fn calls(&self) -> String {
        std::mem::take(&mut self.state.lock().unwrap().calls).join(", ")
    }

    /// Roles in order of joining.
    pub(super) fn roles(&self) -> String {
        let state = self.state.lock().unwrap();
        state.configuration.servers().iter().map(|server| letter(server.role)).collect()
    }

    pub(super) fn leader_id(&self) -> Option<u64> {
        self.state.lock().unwrap().leader.map(|id| id.0)
    }
}

impl State {
    fn apply(&mut self, id: NodeId, role: Role) {
        self.calls.push(format!("{id}{}", letter(role)));
        let mut servers = self.configuration.servers().to_vec();
        servers.iter_mut().find(|server| server.id == id).unwrap().role = role;
        self.configuration = Arc::new(Configuration::new(servers).unwrap());
    }
}

/// Letter of a role.
pub(super) fn letter(role: Role) -> char {
    match role {
        Role::Voter => 'V',
        Role::StandBy => 'B',
        Role::Spare => 'S',
    }
}

impl Membership for TestCluster {
    fn serving(&self) -> bool {
        self.state.lock().unwrap().leader == Some(OWN)
    }

    fn leader(&self) -> Option<(NodeId, Vec<u8>)> {
        self.state.lock().unwrap().leader.map(|id| (id, address(id)))
    }

    fn configuration(&self) -> Arc<Configuration> {
        Arc::clone(&self.state.lock().unwrap().configuration)
    }

    fn assign(&self, id: NodeId, role: Role) -> BoxFuture<'static, Result<(), String>> {
        let mut state = self.state.lock().unwrap();
        match state.assigning {
            Works::Yes => {
                state.apply(id, role);
                Box::pin(async { Ok(()) })
            }
            Works::No => {
                state.calls.push(format!("{id}{} refused", letter(role)));
                Box::pin(async { Err("no".to_owned()) })
            }
            Works::Never => {
                state.calls.push(format!("{id}{} hangs", letter(role)));
                Box::pin(std::future::pending())
            }
        }
    }

    fn transfer(&self, target: Option<NodeId>) -> BoxFuture<'static, Result<(), String>> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(format!("transfer {target:?}"));
        match state.transferring {
            Works::Yes => {
                state.leader = state.heir;
                Box::pin(async { Ok(()) })
            }
            Works::No => Box::pin(async { Err("no".to_owned()) }),
            Works::Never => Box::pin(std::future::pending()),
        }
    }
}
