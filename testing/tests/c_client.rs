//! A client that speaks as upstream's C client does: schema 1 wherever there is one, no tuple without parameters, OPEN with the
//! VFS `test`, CLUSTER 1, DESCRIBE 0, ASSIGN of two words, a STMT of 24 bytes, 5 s for an exchange. Upstream tests whole nodes
//! through that client, in programs that are part of its sources and linked with its internals: they cannot run on another
//! library, and nothing of them is here. These tests are this project's, about the same things: statements, restarts,
//! snapshots, members, leadership. They run on this library in every run and on upstream's by `make check-upstream`. spec:
//! client-protocol 15.3.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dqlite::protocol::decode;
use dqlite::protocol::request::{Parameters, Request, Value};
use dqlite::protocol::response::{self, Kind};
use dqlite::protocol::rows::Marker;
use dqlite::types::Role;
use dqlite_testing::bed;
use dqlite_testing::client::{Client, ClientError};
use dqlite_testing::cluster::{Cluster, FIRST_ID};
use dqlite_testing::process::Library;
use dqlite_testing::upstream;

const DATABASE: &str = "test";
const OTHER: &str = "other";
/// Longest exchange.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A snapshot every 20 entries, and 30 entries stay behind it.
const ARGUMENTS: [&str; 3] = ["--latency-ms=50", "--snapshot-threshold=20", "--snapshot-trailing=30"];
/// Parameters of one statement: more than schema 0 can count.
const PARAMETERS: i64 = 300;
/// Rows that take several frames of any version.
const ROWS: i64 = 500;
/// A row that is longer than a frame and a page.
const HUGE_BYTES: usize = 300_000;
/// Not the leader.
const NOT_LEADER: u64 = 10250;
/// A constraint.
const CONSTRAINT_PRIMARY_KEY: u64 = 1555;

/// One connection.
struct CClient(Client);

fn text(text: &str) -> Value {
    Value::Text(Bytes::copy_from_slice(text.as_bytes()))
}

fn sql(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The tuple of schema 1; none for no values.
fn tuple(values: &[Value]) -> Parameters {
    let mut bytes = BytesMut::new();
    if !values.is_empty() {
        bytes.extend_from_slice(&u32::try_from(values.len()).unwrap().to_le_bytes());
        let code = |value: &Value| match value {
            Value::Integer(_) => 1,
            Value::Float(_) => 2,
            Value::Text(_) => 3,
            Value::Blob(_) => 4,
            Value::Null => 5,
        };
        bytes.extend(values.iter().map(code));
        pad(&mut bytes, 0);
    }
    for value in values {
        match value {
            Value::Integer(number) => bytes.extend_from_slice(&number.to_le_bytes()),
            Value::Float(number) => bytes.extend_from_slice(&number.to_bits().to_le_bytes()),
            Value::Text(text) => {
                bytes.extend_from_slice(text);
                pad(&mut bytes, 1);
            }
            Value::Blob(blob) => {
                bytes.extend_from_slice(&(blob.len() as u64).to_le_bytes());
                bytes.extend_from_slice(blob);
                pad(&mut bytes, 0);
            }
            Value::Null => bytes.extend_from_slice(&[0; 8]),
        }
    }
    Parameters { schema: 1, bytes: bytes.freeze() }
}

/// Zeros, at least so many, up to a whole word.
fn pad(bytes: &mut BytesMut, least: usize) {
    bytes.resize((bytes.len() + least).next_multiple_of(8), 0);
}

impl CClient {
    fn connect(address: &str) -> CClient {
        CClient(Client::connect(address, TIMEOUT).unwrap())
    }

    /// A connection to the leader, with a database.
    fn of(cluster: &Cluster, database: &str) -> CClient {
        let mut client = CClient::connect(cluster.address(cluster.leader().unwrap()).unwrap());
        client.open(database);
        client
    }

    fn call(&mut self, request: &Request, kind: Kind) -> Result<Bytes, ClientError> {
        self.0.send(request)?;
        let (found, body) = self.0.receive()?;
        assert_eq!(found, kind as u8, "{request:?}");
        Ok(body)
    }

    fn open(&mut self, database: &str) {
        let request = Request::Open { name: sql(database), flags: 0, vfs: Bytes::from_static(b"test") };
        assert_eq!(self.call(&request, Kind::Db).unwrap()[..], [0; 8]);
    }

    /// Id of the statement, number of its parameters, begin of the rest of the text.
    fn prepare(&mut self, text: &str) -> Result<(u32, u64, u64), ClientError> {
        let body = self.call(&Request::Prepare { schema: 1, db: 0, sql: sql(text) }, Kind::Stmt)?;
        assert_eq!(body.len(), 24);
        let [ids, parameters, tail] = response::decode_words(&body)?;
        Ok(((ids >> 32) as u32, parameters, tail))
    }

    fn exec(&mut self, stmt: u32, values: &[Value]) -> Result<[u64; 2], ClientError> {
        let body = self.call(&Request::Exec { db: 0, stmt, parameters: tuple(values) }, Kind::Result)?;
        Ok(response::decode_words(&body)?)
    }

    fn exec_sql(&mut self, text: &str, values: &[Value]) -> Result<[u64; 2], ClientError> {
        let request = Request::ExecSql { db: 0, sql: sql(text), parameters: tuple(values) };
        Ok(response::decode_words(&self.call(&request, Kind::Result)?)?)
    }

    /// Names of the columns, and the rows of all frames.
    fn rows(&mut self, request: &Request) -> Result<(Vec<Bytes>, Vec<Vec<Value>>), ClientError> {
        self.0.send(request)?;
        let mut all = Vec::new();
        loop {
            let (kind, body) = self.0.receive()?;
            assert_eq!(kind, Kind::Rows as u8);
            let part = decode::rows(&body)?;
            all.extend(part.rows);
            if part.marker == Marker::Done {
                return Ok((part.columns, all));
            }
        }
    }

    fn query(&mut self, stmt: u32, values: &[Value]) -> Result<Vec<Vec<Value>>, ClientError> {
        Ok(self.rows(&Request::Query { db: 0, stmt, parameters: tuple(values) })?.1)
    }

    fn query_sql(&mut self, text: &str) -> Result<Vec<Vec<Value>>, ClientError> {
        let request = Request::QuerySql { db: 0, sql: sql(text), parameters: tuple(&[]) };
        Ok(self.rows(&request)?.1)
    }

    fn number(&mut self, text: &str) -> i64 {
        match self.query_sql(text).unwrap()[..] {
            [ref row] => match row[..] {
                [Value::Integer(number)] => number,
                _ => panic!("{row:?}"),
            },
            ref rows => panic!("{rows:?}"),
        }
    }

    fn finalize(&mut self, stmt: u32) {
        self.call(&Request::Finalize { db: 0, stmt }, Kind::Empty).unwrap();
    }

    fn interrupt(&mut self) {
        self.call(&Request::Interrupt { db: 0 }, Kind::Empty).unwrap();
    }

    fn insert(&mut self, count: i64) {
        let (stmt, ..) = self.prepare("INSERT INTO t(b) VALUES(?)").unwrap();
        for _ in 0..count {
            assert_eq!(self.exec(stmt, &[text("row")]).unwrap()[1], 1);
        }
        self.finalize(stmt);
    }
}

/// What the scenarios need: a program, a folder for each cluster, the library that all nodes run on.
struct Stage<'a> {
    program: &'a Path,
    folder: &'a Path,
    library: &'a Library,
}

impl Stage<'_> {
    fn cluster(&self, label: &str, nodes: usize) -> Cluster {
        let libraries = vec![self.library.clone(); nodes];
        Cluster::of_voters(self.program, &self.folder.join(label), &ARGUMENTS, &libraries).unwrap()
    }

    fn statements(&self) {
        let cluster = self.cluster("statements", 1);
        let mut client = CClient::of(&cluster, DATABASE);
        let create = "CREATE TABLE t(a INTEGER PRIMARY KEY, b)";
        assert_eq!(client.prepare(&format!("{create};")).unwrap(), (0, 0, create.len() as u64 + 1));
        client.exec(0, &[]).unwrap();
        client.finalize(0);

        let values = [
            Value::Integer(i64::MIN),
            Value::Float(0.5),
            text("four"),
            Value::Blob(sql("\0\x01")),
            Value::Null,
        ];
        let (insert, parameters, _) = client.prepare("INSERT INTO t(b) VALUES(?)").unwrap();
        assert_eq!(parameters, 1);
        for (value, id) in values.iter().zip(1..) {
            assert_eq!(client.exec(insert, std::slice::from_ref(value)).unwrap(), [id, 1]);
        }
        let (select, ..) = client.prepare("SELECT b FROM t WHERE a >= ? ORDER BY a").unwrap();
        for first in [1, 3, 9] {
            let rows = client.query(select, &[Value::Integer(first)]).unwrap();
            let expected = values.iter().skip(first as usize - 1).map(|value| vec![value.clone()]);
            assert_eq!(rows, expected.collect::<Vec<_>>());
        }
        let request = Request::Query { db: 0, stmt: select, parameters: tuple(&[Value::Integer(9)]) };
        assert_eq!(client.rows(&request).unwrap().0, [sql("b")], "columns without rows");

        // More parameters than schema 0 can count.
        let marks = vec!["(?)"; PARAMETERS as usize].join(",");
        let numbers: Vec<Value> = (0..PARAMETERS).map(Value::Integer).collect();
        let (many, parameters, _) = client.prepare(&format!("VALUES{marks}")).unwrap();
        assert_eq!(parameters, PARAMETERS as u64);
        let expected: Vec<Vec<Value>> = numbers.iter().map(|number| vec![number.clone()]).collect();
        assert_eq!(client.query(many, &numbers).unwrap(), expected);
        let inserted = client.exec_sql(&format!("INSERT INTO t(b) VALUES{marks}"), &numbers).unwrap();
        assert_eq!(inserted[1], PARAMETERS as u64);

        client.exec_sql("DELETE FROM t; BEGIN", &[]).unwrap();
        client.insert(ROWS);
        client.exec_sql("COMMIT", &[]).unwrap();
        assert_eq!(client.query_sql("SELECT * FROM t").unwrap().len(), ROWS as usize, "several frames");
        let huge = Value::Blob(vec![7; HUGE_BYTES].into());
        client
            .exec_sql("UPDATE t SET b = ? WHERE a = (SELECT max(a) FROM t)", std::slice::from_ref(&huge))
            .unwrap();
        assert_eq!(client.query_sql("SELECT b FROM t ORDER BY a DESC LIMIT 1").unwrap(), [[huge]]);

        // What fails leaves everything as it was.
        let refused = client.exec_sql("INSERT INTO t(a) SELECT max(a) FROM t", &[]);
        assert_eq!(refused.unwrap_err().code(), Some(CONSTRAINT_PRIMARY_KEY));
        assert_eq!(client.prepare("SELECT nothing").unwrap_err().code(), Some(1));
        client.interrupt();
        client.exec_sql("BEGIN; DELETE FROM t; ROLLBACK", &[]).unwrap();
        assert_eq!(client.number("SELECT count(*) FROM t"), ROWS);
        // Statements that outlived all of this.
        assert_eq!(client.exec(insert, &[Value::Null]).unwrap()[1], 1);
        assert_eq!(client.query(select, &[Value::Integer(1)]).unwrap().len(), ROWS as usize + 1);
    }

    fn restarts_and_snapshots(&self) {
        let mut cluster = self.cluster("restarts", 3);
        let mut client = CClient::of(&cluster, DATABASE);
        client.exec_sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", &[]).unwrap();
        let mut second = CClient::of(&cluster, OTHER);
        second.exec_sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", &[]).unwrap();
        let mut rows = 0;
        // Behind no snapshot, a few entries behind one, many entries behind several.
        for count in [2, 25, 130] {
            client.insert(count);
            second.insert(1);
            rows += count;
            drop((client, second));
            let members = cluster.live();
            for id in &members {
                cluster.stop(*id).unwrap();
            }
            for id in &members {
                cluster.start(*id).unwrap();
            }
            client = CClient::of(&cluster, DATABASE);
            second = CClient::of(&cluster, OTHER);
            assert_eq!(client.number("SELECT count(*) FROM t"), rows);
        }
        assert_eq!(second.number("SELECT count(*) FROM t"), 3);

        // A node that has nothing gets a snapshot of both databases, and leads with it.
        drop((client, second));
        cluster.join(4, self.library, Role::Voter).unwrap();
        cluster.wait_equal(&cluster.live(), DATABASE).unwrap();
        cluster.transfer(4).unwrap();
        let mut client = CClient::connect(cluster.address(4).unwrap());
        client.open(DATABASE);
        assert_eq!(client.number("SELECT count(*) FROM t"), rows);
        client.insert(1);
        assert_eq!(CClient::of(&cluster, OTHER).number("SELECT count(*) FROM t"), 3);
        cluster.wait_equal(&cluster.live(), DATABASE).unwrap();
        cluster.wait_equal(&cluster.live(), OTHER).unwrap();
    }

    fn members_and_leadership(&self) {
        let mut cluster = self.cluster("members", 1);
        let mut client = CClient::of(&cluster, DATABASE);
        client.exec_sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", &[]).unwrap();
        for (id, role) in [(2, Role::Voter), (3, Role::Voter), (4, Role::StandBy)] {
            cluster.join(id, self.library, Role::Spare).unwrap();
            cluster.assign(id, role).unwrap();
        }
        let members = client.0.cluster().unwrap();
        let roles: Vec<Option<Role>> = members.iter().map(|member| member.role).collect();
        assert_eq!(roles, [Role::Voter, Role::Voter, Role::Voter, Role::StandBy].map(Some));
        assert_eq!(client.0.describe().unwrap(), (0, 0));

        // With an open transaction, which is gone then; there and back again.
        client.exec_sql("BEGIN; INSERT INTO t VALUES(1, 1)", &[]).unwrap();
        for (number, target) in [2, 3, FIRST_ID].into_iter().enumerate() {
            cluster.wait_follow(&[2, 3]).unwrap();
            cluster.transfer(target).unwrap();
            if number == 0 {
                assert_eq!(client.exec_sql("COMMIT", &[]).unwrap_err().code(), Some(NOT_LEADER));
                cluster.wait_follow(&[FIRST_ID]).unwrap();
                assert_eq!(client.0.leader().unwrap(), (target, cluster.address(target).unwrap().to_owned()));
            }
            let mut there = CClient::of(&cluster, DATABASE);
            assert_eq!(there.number("SELECT count(*) FROM t"), number as i64);
            there.insert(1);
        }

        cluster.remove(4).unwrap();
        cluster.remove(2).unwrap();
        let mut client = CClient::of(&cluster, DATABASE);
        assert_eq!(client.0.cluster().unwrap().len(), 2);
        client.insert(1);
        assert_eq!(client.number("SELECT count(*) FROM t"), 4);
        cluster.wait_equal(&[FIRST_ID, 3], DATABASE).unwrap();
    }

    fn everything(&self) {
        self.statements();
        self.restarts_and_snapshots();
        self.members_and_leadership();
    }
}

// conformance: client-protocol K26
#[test]
fn a_client_that_speaks_as_the_c_client_drives_nodes_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    Stage { program: &options.program, folder: folder.path(), library: &options.library }.everything();
}

// conformance: client-protocol K26
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn the_same_client_drives_nodes_of_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    // The oldest knows no schema 1.
    for root in upstream::later_roots() {
        let label = upstream::version_of(&root);
        println!("{label}");
        std::fs::create_dir(folder.path().join(&label)).unwrap();
        let library = Library::of_root(&root);
        Stage { program: &options.program, folder: &folder.path().join(&label), library: &library }
            .everything();
    }
}
