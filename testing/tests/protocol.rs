//! What clients of a cluster are answered: by followers, stand-bys and spares, while members change, while leadership moves, and
//! when it is lost. spec: client-protocol 5, 10, 12.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use dqlite::protocol::request::{Parameters, Request};
use dqlite::protocol::response::Kind;
use dqlite::types::Role;
use dqlite_testing::bed::Bed;
use dqlite_testing::client::{Client, ClientError};
use dqlite_testing::cluster::Cluster;
use dqlite_testing::process::free_address;

const DATABASE: &str = "test.db";
/// Elections start after 750 ms.
const SHORT: &str = "--latency-ms=50";
/// Elections start after 3 s: there is time to do something before.
const LONG: &str = "--latency-ms=200";
/// Longest wait for a node to change its mind.
const CHANGE_WAIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

fn others(cluster: &Cluster, leader: u64) -> Vec<u64> {
    cluster.live().into_iter().filter(|id| *id != leader).collect()
}

/// Code and text of the FAILURE that a request gets.
fn refusal(client: &mut Client, request: &Request) -> (u64, String) {
    client.send(request).unwrap();
    match client.receive() {
        Err(ClientError::Failure { code, message }) => (code, message),
        other => panic!("{request:?}: {other:?}"),
    }
}

/// The type of the answer that a request gets.
fn answer(client: &mut Client, request: &Request) -> u8 {
    client.send(request).unwrap();
    client.receive().unwrap_or_else(|error| panic!("{request:?}: {error}")).0
}

fn exec_sql(sql: &'static str) -> Request {
    Request::ExecSql { db: 0, sql: Bytes::from_static(sql.as_bytes()), parameters: Parameters::default() }
}

fn query_sql(sql: &'static str) -> Request {
    Request::QuerySql { db: 0, sql: Bytes::from_static(sql.as_bytes()), parameters: Parameters::default() }
}

fn open() -> Request {
    Request::Open { name: Bytes::from_static(DATABASE.as_bytes()), flags: 0, vfs: Bytes::new() }
}

/// Everything that only a leader does.
fn for_leaders() -> Vec<Request> {
    let parameters = Parameters::default();
    vec![
        open(),
        Request::Prepare { schema: 0, db: 0, sql: Bytes::from_static(b"SELECT 1") },
        Request::Exec { db: 0, stmt: 0, parameters: parameters.clone() },
        Request::Query { db: 0, stmt: 0, parameters },
        exec_sql("SELECT 1"),
        query_sql("SELECT 1"),
        Request::Add { id: 9, address: Bytes::from_static(b"127.0.0.1:1") },
        Request::Assign { id: 1, role: 1 },
        Request::Promote { id: 1 },
        Request::Remove { id: 1 },
        Request::Transfer { id: 1 },
    ]
}

// conformance: client-protocol N1, N2, N3, K22
// conformance: state-machine 21
#[test]
fn a_follower_names_the_leader_and_does_what_needs_none() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(3, &[SHORT]);
    let leader = cluster.leader().unwrap();
    let mut writer = cluster.database(DATABASE).unwrap();
    writer.exec("CREATE TABLE t(n); INSERT INTO t VALUES(1)", &[]).unwrap();
    let follower = others(&cluster, leader)[0];
    cluster.wait_follow(&[follower]).unwrap();
    let mut client = cluster.client(follower).unwrap();

    assert_eq!(client.leader().unwrap(), (leader, cluster.address(leader).unwrap().to_owned()));
    for request in for_leaders() {
        assert_eq!(refusal(&mut client, &request), (10250, "not leader".into()), "{request:?}");
    }
    let finalize = Request::Finalize { db: 0, stmt: 0 };
    assert_eq!(refusal(&mut client, &finalize), (12, "no database opened".into()));
    assert_eq!(answer(&mut client, &Request::Client { id: 1 }), Kind::Welcome as u8);
    assert_eq!(answer(&mut client, &Request::Interrupt { db: 0 }), Kind::Empty as u8);
    assert_eq!(client.cluster().unwrap(), writer.cluster().unwrap());
    client.weight(3).unwrap();
    assert_eq!(client.describe().unwrap(), (0, 3));
    writer.exec("BEGIN; INSERT INTO t VALUES(2)", &[]).unwrap();
    let image = cluster.wait_equal(&cluster.live(), DATABASE).unwrap();
    assert!(image == cluster.image(follower, DATABASE).unwrap());
    assert!(client.dump("nothing").is_err_and(|error| error.code() == Some(1002)));
}

// conformance: client-protocol K3, K4, K7
#[test]
fn a_member_has_each_role_in_turn_and_only_a_voter_names_the_leader() {
    let bed = Bed::new();
    let mut cluster = bed.own_cluster(1, &[SHORT]);
    cluster.join(2, &bed.library, Role::Spare).unwrap();
    assert_eq!(cluster.role(2).unwrap(), Some(Role::Spare));
    let mut admin = cluster.leader_client().unwrap();
    let mut member = cluster.client(2).unwrap();
    assert_eq!(member.leader().unwrap(), (0, String::new()), "a spare");

    for role in [Role::StandBy, Role::Voter, Role::Spare, Role::StandBy] {
        admin.assign(2, role.client_number()).unwrap();
        assert_eq!(cluster.role(2).unwrap(), Some(role));
        assert_eq!(
            refusal(&mut admin, &Request::Assign { id: 2, role: role.client_number() }),
            (1, "server role is not valid".into())
        );
        if role == Role::Voter {
            cluster.wait_follow(&[2]).unwrap();
        }
        if role == Role::StandBy {
            cluster.wait_no_leader(2).unwrap();
        }
    }
    assert_eq!(answer(&mut admin, &Request::Promote { id: 2 }), Kind::Empty as u8);
    assert_eq!(cluster.role(2).unwrap(), Some(Role::Voter));
    cluster.wait_follow(&[2]).unwrap();
    assert_eq!(refusal(&mut admin, &Request::Promote { id: 2 }), (1, "server role is not valid".into()));
}

// conformance: client-protocol K5
#[test]
fn one_change_of_the_cluster_at_a_time() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(1, &[SHORT]);
    let mut first = cluster.leader_client().unwrap();
    let mut second = cluster.leader_client().unwrap();
    // Nobody is there, so that its promotion does not end.
    first.add(2, &free_address().unwrap()).unwrap();
    first.send(&Request::Assign { id: 2, role: 0 }).unwrap();

    let begun =
        cluster.wait("the promotion to begin", CHANGE_WAIT, LOOK_AGAIN, |cluster| match cluster.role(2) {
            Ok(Some(Role::StandBy)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    begun.unwrap();
    let in_progress = (5, "a configuration change is already in progress".to_owned());
    for request in [
        Request::Add { id: 3, address: Bytes::from_static(b"127.0.0.1:1") },
        Request::Remove { id: 2 },
        Request::Assign { id: 2, role: 0 },
    ] {
        assert_eq!(refusal(&mut second, &request), in_progress, "{request:?}");
    }
}

// conformance: client-protocol K6 (better: writes wait for the end of the transfer, and the node says that it leads while it does)
#[test]
fn a_transfer_to_a_node_that_does_not_answer_fails_after_one_election_timeout() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(3, &[LONG]);
    let leader = cluster.leader().unwrap();
    let mut writer = cluster.database(DATABASE).unwrap();
    writer.exec("CREATE TABLE t(n)", &[]).unwrap();
    let target = others(&cluster, leader)[0];
    cluster.wait_equal(&cluster.live(), DATABASE).unwrap();
    let mut admin = cluster.leader_client().unwrap();
    cluster.signal(target, "STOP").unwrap();

    let mut second = cluster.client(leader).unwrap();
    let pending = (10250, "server is not the leader".to_owned());
    let mut begin = Instant::now();
    admin.send(&Request::Transfer { id: target }).unwrap();
    while refusal(&mut second, &Request::Transfer { id: target }) != pending {
        // The second was first.
        assert_eq!(admin.receive().unwrap_err().code(), Some(10250));
        begin = Instant::now();
        admin.send(&Request::Transfer { id: target }).unwrap();
    }
    writer.send(&exec_sql("INSERT INTO t VALUES(1)")).unwrap();
    let mut reader = cluster.database(DATABASE).unwrap();
    assert_eq!(reader.number("SELECT count(*) FROM t").unwrap(), 0);
    assert_eq!(second.leader().unwrap().0, leader);
    for request in [Request::Remove { id: target }, Request::Assign { id: target, role: 2 }] {
        assert_eq!(refusal(&mut second, &request), pending, "{request:?}");
    }
    let Err(ClientError::Failure { code, message }) = admin.receive() else { panic!("it has moved") };

    assert_eq!((code, &message[..]), (1, "leadership transfer failed"));
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(2500) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!(writer.receive().unwrap().0, Kind::Result as u8);
    assert_eq!(cluster.leader().unwrap(), leader);
    assert_eq!(reader.number("SELECT count(*) FROM t").unwrap(), 1);
}

// conformance: client-protocol K10, K11, K14
// conformance: state-machine 21
#[test]
fn a_connection_outlives_the_leadership_of_its_node_and_its_database_does_not() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(3, &[SHORT]);
    let first = cluster.leader().unwrap();
    let mut client = cluster.database(DATABASE).unwrap();
    client.exec("CREATE TABLE t(n)", &[]).unwrap();
    let statement = client.prepare("INSERT INTO t VALUES(1)").unwrap();
    client.exec("BEGIN; INSERT INTO t VALUES(2)", &[]).unwrap();
    let next = others(&cluster, first)[0];

    cluster.transfer(next).unwrap();

    cluster.wait_follow(&[first]).unwrap();
    let not_leader = (10250, "not leader".to_owned());
    let parameters = Parameters::default();
    let exec = Request::Exec { db: 0, stmt: statement, parameters };
    let prepare = Request::Prepare { schema: 0, db: 0, sql: Bytes::from_static(b"SELECT 1") };
    for request in [&exec, &prepare, &exec_sql("COMMIT"), &query_sql("SELECT n FROM t")] {
        assert_eq!(refusal(&mut client, request), not_leader, "{request:?}");
    }
    let no_database = (12, "no database opened".to_owned());
    assert_eq!(refusal(&mut client, &Request::Finalize { db: 0, stmt: statement }), no_database);
    assert_eq!(client.leader().unwrap().0, next);
    let mut there = cluster.database(DATABASE).unwrap();
    there.exec("INSERT INTO t VALUES(4)", &[]).unwrap();
    assert_eq!(there.number("SELECT sum(n) FROM t").unwrap(), 4, "the open transaction is gone");

    cluster.transfer(first).unwrap();
    for request in [&exec, &prepare, &exec_sql("SELECT 1"), &query_sql("SELECT n FROM t")] {
        assert_eq!(refusal(&mut client, request), no_database, "{request:?}");
    }
    client.open(DATABASE).unwrap();
    assert_eq!(client.number("SELECT sum(n) FROM t").unwrap(), 4);
    client.exec("INSERT INTO t VALUES(8)", &[]).unwrap();
}

// conformance: client-protocol K15
#[test]
fn the_first_read_of_a_leader_sees_what_the_last_one_has_acknowledged() {
    let bed = Bed::new();
    let mut cluster = bed.own_cluster(3, &[SHORT]);
    cluster.database(DATABASE).unwrap().exec("CREATE TABLE t(n)", &[]).unwrap();
    let mut rows = 0;
    let mut write_and_count = |cluster: &Cluster| {
        let mut client = cluster.database(DATABASE).unwrap();
        assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), rows);
        for _ in 0..20 {
            client.exec("INSERT INTO t VALUES(1)", &[]).unwrap();
            rows += 1;
        }
    };
    for round in 0..6 {
        write_and_count(&cluster);
        let leader = cluster.leader().unwrap();
        cluster.transfer(others(&cluster, leader)[round % 2]).unwrap();
    }
    write_and_count(&cluster);
    let leader = cluster.leader().unwrap();
    cluster.kill(leader).unwrap();
    write_and_count(&cluster);
}

/// One that does not end and yields nothing.
const ENDLESS_COUNT: &str =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";

// conformance: client-protocol Q6 (better: a statement without rows is stopped at once)
#[test]
fn an_interrupt_right_behind_a_query_stops_it() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(3, &[SHORT]);
    let mut client = cluster.database(DATABASE).unwrap();
    client.set_timeout(CHANGE_WAIT).unwrap();
    for _ in 0..20 {
        // The node proves that it leads before it runs the query; the interrupt comes meanwhile.
        client.send(&query_sql(ENDLESS_COUNT)).unwrap();
        assert_eq!(answer(&mut client, &Request::Interrupt { db: 0 }), Kind::Empty as u8);
        assert_eq!(client.number("SELECT 5").unwrap(), 5);
    }
    for _ in 0..20 {
        client.send(&Request::Client { id: 1 }).unwrap();
        client.send(&query_sql(ENDLESS_COUNT)).unwrap();
        client.send(&Request::Interrupt { db: 0 }).unwrap();
        assert_eq!(client.receive().unwrap().0, Kind::Welcome as u8);
        assert_eq!(client.receive().unwrap().0, Kind::Empty as u8);
    }
}

/// A query that does not end.
const ENDLESS: &str = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c";

// conformance: client-protocol K13 (better: upstream aborts, is silent, or answers 9 behind rows)
#[test]
fn rows_that_are_cut_off_by_a_lost_leadership_end_with_10506() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(3, &[SHORT]);
    let leader = cluster.leader().unwrap();
    let mut reader = cluster.database(DATABASE).unwrap();
    reader.send(&query_sql(ENDLESS)).unwrap();
    assert_eq!(reader.receive().unwrap().0, Kind::Rows as u8);

    let mut counter = cluster.database(DATABASE).unwrap();
    counter.send(&query_sql(ENDLESS_COUNT)).unwrap();

    for id in others(&cluster, leader) {
        cluster.signal(id, "STOP").unwrap();
    }
    cluster.wait_no_leader(leader).unwrap();
    // It runs, or has not begun to.
    assert!(counter.receive().is_err_and(|error| [10250, 10506].map(Some).contains(&error.code())));
    let ended = loop {
        match reader.receive() {
            Ok((kind, _)) => assert_eq!(kind, Kind::Rows as u8),
            Err(ClientError::Failure { code, message }) => break (code, message),
            Err(error) => panic!("{error}"),
        }
    };

    assert_eq!(ended, (10506, "leadership lost".into()));
    assert_eq!(answer(&mut reader, &Request::Client { id: 1 }), Kind::Welcome as u8);
    assert_eq!(refusal(&mut reader, &query_sql("SELECT 1")), (10250, "not leader".into()));
}

/// Writers of the test below.
const WRITERS: i64 = 8;
/// How often it tries to catch a write in flight.
const ROUNDS: i64 = 20;

/// Writes rows of one writer until one fails: the first row that is not acknowledged, and its code.
fn write_until_failure(client: &mut Client, mut row: i64) -> (i64, u64) {
    loop {
        match client.exec(&format!("INSERT INTO t VALUES({row})"), &[]) {
            Ok(_) => row += 1,
            Err(ClientError::Failure { code, .. }) => return (row, code),
            Err(error) => panic!("{error}"),
        }
    }
}

// conformance: client-protocol K12
// conformance: state-machine 21, 22, 24
#[test]
fn a_write_without_a_majority_is_10506_if_it_may_come_and_10250_if_it_cannot() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(3, &[SHORT]);
    cluster.database(DATABASE).unwrap().exec("CREATE TABLE t(n)", &[]).unwrap();
    let mut unknown = 0;
    for round in 0..ROUNDS {
        let leader = cluster.leader().unwrap();
        let first = |writer: i64| (round * WRITERS + writer) << 32;
        let mut clients: Vec<Client> = (0..WRITERS).map(|_| cluster.database(DATABASE).unwrap()).collect();
        let ends: Vec<(i64, u64)> = std::thread::scope(|scope| {
            let writing: Vec<_> = (0..WRITERS)
                .zip(&mut clients)
                .map(|(writer, client)| scope.spawn(move || write_until_failure(client, first(writer))))
                .collect();
            for id in others(&cluster, leader) {
                cluster.signal(id, "STOP").unwrap();
            }
            writing.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        for id in others(&cluster, leader) {
            cluster.signal(id, "CONT").unwrap();
        }

        for (writer, (row, code)) in (0..).zip(ends) {
            let from = first(writer);
            let rows = |what: &str| format!("SELECT count({what}) FROM t WHERE n >= {from} AND n <= {row}");
            let there = cluster.number(DATABASE, &rows("DISTINCT n")).unwrap();
            assert_eq!(cluster.number(DATABASE, &rows("n")).unwrap(), there, "a row twice");
            match code {
                10250 => assert_eq!(there, row - from, "row {row} of writer {writer}"),
                10506 => {
                    assert!(there == row - from || there == row - from + 1, "{there} rows, {row} is unknown")
                }
                code => panic!("{code}"),
            }
            unknown += usize::from(code == 10506);
        }
        if unknown > 0 {
            println!("{unknown} writes in flight after {} rounds", round + 1);
            break;
        }
    }
    assert!(unknown > 0, "no write was in flight");
    cluster.wait_equal(&cluster.live(), DATABASE).unwrap();
}
