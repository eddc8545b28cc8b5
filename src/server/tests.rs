//! Servers with their threads and sockets, on loopback.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::{Duration, Instant};

use super::*;
use crate::node::opening::BOOTSTRAP_ID;
use crate::types::Role;

/// Longest wait for what a cluster does by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// An address that stays free while its server is down: below the ports of outgoing connections, on a loopback address of
/// this process.
fn free_address() -> String {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(9001);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    loop {
        let address =
            format!("127.{}.{middle}.{low}:{}", 64 | high, NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

struct Place {
    folder: tempfile::TempDir,
    address: String,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), address: free_address() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    /// A server here without an address.
    fn server(&self) -> Server {
        Server::new(self.path().to_owned())
    }

    fn addressed(&self) -> Server {
        let server = self.server();
        server.change(|settings| settings.address = Some(self.address.as_bytes().to_vec())).unwrap();
        server
    }

    fn founder(&self) -> Server {
        let server = self.addressed();
        server.change(|settings| settings.auto_bootstrap = true).unwrap();
        server
    }

    fn joining(&self, members: &[&Place]) -> Server {
        let server = self.addressed();
        let addresses = members.iter().map(|place| place.address.as_bytes().to_vec());
        server.add_auto_join(addresses.collect()).unwrap();
        server
    }

    fn info(&self, server: &Server) -> String {
        format!("v1\n{}\n{}\n", self.address, server.id())
    }

    fn entry(&self, server: &Server, role: &str) -> String {
        format!("{}\n{}\n{role}\n", self.address, server.id())
    }
}

fn error(server: &Server) -> String {
    server.start().unwrap_err().to_string()
}

fn members(server: &Server) -> Vec<crate::types::Server> {
    let held = server.keeper.lock();
    let background = held.running().unwrap().background().unwrap();
    background.membership.configuration().servers().to_vec()
}

fn leads(server: &Server) -> bool {
    let held = server.keeper.lock();
    let Some(background) = held.running().and_then(Running::background) else { return false };
    background.membership.serving()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_server_that_is_destroyed_while_it_runs_is_stopped_and_may_be_freed() {
    let place = Place::new();
    let server = Arc::new(place.founder());
    server.start().unwrap();
    let (sender, ended) = std::sync::mpsc::channel();
    let ending = Arc::clone(&server);
    std::thread::spawn(move || sender.send(ending.finish()));

    assert_eq!(ended.recv_timeout(PATIENCE), Ok(Ending::Free));
    assert!(server.keeper.lock().running().is_none());
}

// conformance: c-api 66
#[test]
fn a_founder_starts_again_without_settings_and_its_file_wins_over_them() {
    let place = Place::new();
    let server = place.founder();
    assert_eq!(server.id(), NodeId(0));

    server.start().unwrap();
    assert_eq!(server.id(), BOOTSTRAP_ID);
    assert_eq!(server.start().unwrap_err().to_string(), "the server has been started");
    assert!(matches!(server.handover(), Err(ServerError::Handover(_))), "nobody else is there");
    server.stop().unwrap();
    assert_eq!(server.stop().unwrap_err().to_string(), "the server has not been started");
    assert_eq!(server.handover().unwrap_err().to_string(), "the server has not been started");
    assert_eq!(server.id(), BOOTSTRAP_ID);
    let (info, store) = (place.info(&server), format!("v1\n{}", place.entry(&server, "voter")));
    assert_eq!((place.text("server-info"), place.text("node-store")), (info.clone(), store.clone()));

    server.start().unwrap();
    server.stop().unwrap();
    let again = place.server();
    again.change(|settings| settings.address = Some(b"192.0.2.1:1".to_vec())).unwrap();
    again.start().unwrap();
    drop(again);
    assert_eq!((place.text("server-info"), place.text("node-store")), (info, store));
}

// conformance: c-api 66
// conformance: c-api 67
#[test]
fn a_start_that_makes_no_sense_is_refused_at_once_and_says_why() {
    let place = Place::new();
    let start = Instant::now();
    assert_eq!(error(&place.server()), "no address has been set, and there is no server-info");
    assert_eq!(
        error(&place.addressed()),
        "neither auto bootstrap nor a member to join has been set, and there is no node-store"
    );
    let both = place.founder();
    both.add_auto_join(vec![b"127.0.0.1:1".to_vec()]).unwrap();
    assert_eq!(error(&both), "auto bootstrap and auto join exclude each other");
    let missing = Server::new(place.path().join("missing"));
    assert_eq!(
        error(&missing),
        format!("directory '{}' does not exist", place.path().join("missing").display())
    );
    for address in [&b"no address"[..], b"", b"\xff:1"] {
        let server = place.founder();
        server.change(|settings| settings.bind_address = Some(address.to_vec())).unwrap();
        server.start().unwrap_err();
        assert_eq!(server.id(), NodeId(0));
    }
    let taken = TcpListener::bind(&place.address).unwrap();
    assert!(error(&place.founder()).contains(&place.address));
    drop(taken);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "a refused start leaves nothing");

    for (name, text, expected) in [
        ("node-store", "v1\na\n1\nvoter\n", "node-store has members, but server-info is missing or empty"),
        ("server-info", "v1\na\n1", "server-info: line 3: '1' has no end of line"),
        (
            "node-store",
            "v1\na\n1\nking\n",
            "node-store: line 4: role 'king' is none of voter, standby, spare",
        ),
    ] {
        fs::write(place.path().join(name), text).unwrap();
        assert_eq!(error(&place.founder()), expected);
        fs::write(place.path().join("server-info"), "v1\n127.0.0.1:1\n7\n").unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(matches!(
        place.addressed().add_auto_join(vec![Vec::new(); 4097]),
        Err(ServerError::TooManyAddresses)
    ));
}

#[test]
fn a_directory_of_a_running_server_is_refused_and_stays_as_it_is() {
    let place = Place::new();
    let server = place.founder();
    server.start().unwrap();
    let other = place.server();
    other.change(|settings| settings.bind_address = Some(free_address().into_bytes())).unwrap();

    assert_eq!(error(&other), "node: couldn't lock the raft directory");

    assert_eq!(place.text("server-info"), place.info(&server));
    server.stop().unwrap();
    assert!(other.start().is_ok());
}

#[test]
fn a_founder_that_cannot_reach_its_own_address_fails_and_may_try_again() {
    let place = Place::new();
    let server = place.founder();
    server.change(|settings| settings.bind_address = Some(free_address().into_bytes())).unwrap();

    let text = error(&server);

    assert!(
        text.starts_with("the cluster did not take the server in within 5s: no leader among 1 asked"),
        "{text}"
    );
    assert!(text.contains(&place.address), "{text}");
    server.change(|settings| settings.bind_address = None).unwrap();
    server.start().unwrap();
    assert_eq!(place.text("node-store"), format!("v1\n{}", place.entry(&server, "voter")));
}

// conformance: c-api 66
#[test]
fn three_servers_vote_survive_any_of_them_and_a_restart_of_all_at_once() {
    let places = [Place::new(), Place::new(), Place::new()];
    let [a, b, c] = &places;
    let servers = [a.founder(), b.joining(&[a]), c.joining(&[b])];
    for server in &servers {
        server.start().unwrap();
    }
    let store = places.iter().zip(&servers).map(|(place, server)| place.entry(server, "voter"));
    let store = format!("v1\n{}", store.collect::<String>());
    assert_eq!(c.text("node-store"), store, "who joins votes when its start returns");
    for (place, server) in places.iter().zip(&servers) {
        assert_eq!(place.text("server-info"), place.info(server));
    }

    // The leader goes; the others go on, and it comes back without settings.
    let leader = servers.iter().position(leads).unwrap();
    servers[leader].stop().unwrap();
    wait_for("another leader", || servers.iter().any(leads));
    let back = places[leader].server();
    back.start().unwrap();
    assert_eq!(back.id(), servers[leader].id());
    back.stop().unwrap();

    // All of them at once, then one after the other, which waits for the second.
    let stop = |servers: &[Server; 3]| servers.iter().for_each(|server| drop(server.stop()));
    stop(&servers);
    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| server.start().unwrap());
        }
    });
    wait_for("a leader", || servers.iter().any(leads));
    stop(&servers);
    for server in &servers {
        server.start().unwrap();
    }
    wait_for("a leader and three voters", || {
        servers.iter().any(leads)
            && members(&servers[0]).iter().filter(|member| member.role == Role::Voter).count() == 3
    });
    for (place, server) in places.iter().zip(&servers) {
        assert_eq!(place.text("server-info"), place.info(server));
    }
}

// conformance: c-api 68
#[test]
fn a_fourth_server_is_a_spare_hands_over_at_once_and_replaces_a_voter_that_leaves() {
    let places = [Place::new(), Place::new(), Place::new(), Place::new()];
    let [a, b, c, d] = &places;
    let servers = [a.founder(), b.joining(&[a]), c.joining(&[a]), d.joining(&[a, b, c])];
    for server in &servers {
        server.start().unwrap();
    }
    let roles = || members(&servers[0]).iter().map(|member| member.role).collect::<Vec<_>>();
    assert_eq!(roles(), [Role::Voter, Role::Voter, Role::Voter, Role::Spare]);

    let start = Instant::now();
    servers[3].handover().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(roles(), [Role::Voter, Role::Voter, Role::Voter, Role::Spare]);

    servers[0].handover().unwrap();
    wait_for("the roles are swapped", || {
        let members = members(&servers[3]);
        let roles: Vec<Role> = members.iter().map(|member| member.role).collect();
        roles == [Role::Spare, Role::Voter, Role::Voter, Role::Voter]
    });
    assert!(!leads(&servers[0]));
}

#[test]
fn a_server_whose_address_belongs_to_another_is_told_whom_to_remove() {
    let (a, b) = (Place::new(), Place::new());
    let (first, second) = (a.founder(), b.joining(&[&a]));
    first.start().unwrap();
    second.start().unwrap();
    let id = second.id();
    second.stop().unwrap();
    // One voter of two is gone, so the other leads no more; both are needed to answer. The second comes back.
    second.start().unwrap();
    let wiped = Place { folder: tempfile::tempdir().unwrap(), address: b.address.clone() };
    let server = wiped.joining(&[&a]);
    server.change(|settings| settings.bind_address = Some(free_address().into_bytes())).unwrap();

    let text = error(&server);

    let own = server.id();
    assert_eq!(
        text,
        format!("address {} belongs to member {id}: remove that one before server {own} joins", b.address)
    );
    assert_eq!(wiped.text("server-info"), wiped.info(&server), "the next start has the same id");
}

#[test]
fn stop_and_drop_end_the_task_that_asks_for_members_at_once() {
    let place = Place::new();
    let server = place.founder();
    for _ in 0..3 {
        server.start().unwrap();
        let start = Instant::now();
        server.stop().unwrap();
        assert!(start.elapsed() < Duration::from_secs(3));
    }
    server.start().unwrap();
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(3));
}

/// Connects nowhere, and asks the server for its id as a host may.
struct Asking(Arc<Server>);

impl crate::transport::dial::Connector for Asking {
    fn connect(&self, _: &str) -> std::io::Result<crate::transport::dial::Socket> {
        assert_ne!(self.0.id(), NodeId(0));
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }
}

#[test]
fn a_connect_function_may_ask_for_the_id_while_the_server_starts() {
    let place = Place::new();
    let server = Arc::new(place.founder());
    let connector = Arc::new(Asking(Arc::clone(&server)));
    server.change(|settings| settings.connector = connector).unwrap();

    let text = error(&server);

    assert!(text.contains("connection refused"), "{text}");
    // The settings hold the server that holds them.
    server.change(|settings| settings.connector = Arc::new(crate::transport::dial::IpConnector)).unwrap();
}
