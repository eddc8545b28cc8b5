//! The procedures of docs/operations.md, with the programs that stand there.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dqlite::types::Role;
use dqlite_testing::bed;
use dqlite_testing::client::Client;
use dqlite_testing::cluster::Cluster;
use dqlite_testing::process::{Library, NodeOptions, NodeProcess, compile, free_address};

const DATABASE: &str = "test.db";
/// Elections start after 750 ms.
const LATENCY: &str = "--latency-ms=50";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Writes a program of the document to `folder`.
fn program_of_document(name: &str, folder: &Path) -> PathBuf {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = std::fs::read_to_string(document).unwrap();
    let begin = format!(" file={name}\n");
    let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("docs/operations.md has no {name}"));
    let path = folder.join(name);
    std::fs::write(&path, rest.split("\n```").next().unwrap().to_owned() + "\n").unwrap();
    path
}

/// The compiled program that looks at logs and makes members.
fn recover_program(folder: &Path, library: &Library) -> PathBuf {
    let output = folder.join("recover");
    compile(&program_of_document("recover.c", folder), &library.folders[0], &output).unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Index and term of the last entry, after the members were written if there are any.
fn recover(library: &Library, program: &Path, directory: &Path, members: &[(u64, &str, &str)]) -> (u64, u64) {
    let mut command = library.command(program);
    command.arg(directory);
    for (id, address, role) in members {
        command.args([&id.to_string(), *address, *role]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line = text(&output.stdout);
    let (index, term) = line.trim().split_once(' ').unwrap();
    (index.parse().unwrap(), term.parse().unwrap())
}

/// Replaces what is in `to` by the files of `from`.
fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(to).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn insert(client: &mut Client, count: usize) {
    for _ in 0..count {
        client.exec("INSERT INTO t (s) VALUES ('a row')", &[]).unwrap();
    }
}

#[test]
fn a_lost_majority_is_replaced_as_the_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let library = options.library;
    let program = recover_program(folder.path(), &library);
    let libraries = vec![library.clone(); 3];
    let nodes = folder.path().join("nodes");
    let mut cluster = Cluster::of_voters(&options.program, &nodes, &[LATENCY], &libraries).unwrap();
    cluster.join(4, &library, Role::StandBy).unwrap();
    let mut client = cluster.database(DATABASE).unwrap();
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)", &[]).unwrap();
    insert(&mut client, 20);
    cluster.wait_rows(DATABASE, "t", 20).unwrap();
    // The stand-by falls behind, then two of three voters are lost with their disks.
    cluster.stop(4).unwrap();
    insert(&mut client, 20);
    drop(client);
    cluster.wait_rows(DATABASE, "t", 40).unwrap();
    cluster.forget(1).unwrap();
    cluster.forget(2).unwrap();

    cluster.stop(3).unwrap();
    let directories = [3, 4].map(|id| cluster.directory(id).unwrap().to_owned());
    for (position, directory) in directories.iter().enumerate() {
        copy_directory(directory, &folder.path().join(format!("copy-{position}")));
    }
    let ends = [0, 1].map(|position| {
        let (index, term) = recover(&library, &program, &directories[position], &[]);
        (term, index)
    });
    assert!(ends[0] > ends[1], "node 3 has more: {ends:?}");
    let addresses = [3, 4].map(|id| cluster.address(id).unwrap().to_owned());
    let members = [(3, &addresses[0][..], "voter"), (4, &addresses[1][..], "voter")];
    let (index, term) = recover(&library, &program, &directories[0], &members);
    assert_eq!((index, term), (ends[0].1 + 1, 1));
    copy_directory(&directories[0], &directories[1]);
    cluster.start(3).unwrap();
    cluster.start(4).unwrap();

    cluster.wait_rows(DATABASE, "t", 40).unwrap();
    let found: Vec<u64> = cluster.members().unwrap().iter().map(|member| member.id.0).collect();
    assert_eq!(found, [3, 4]);
    cluster.join(5, &library, Role::Voter).unwrap();
    insert(&mut cluster.database(DATABASE).unwrap(), 10);
    cluster.wait_rows(DATABASE, "t", 50).unwrap();
    // Three voters again survive the loss of one.
    let leader = cluster.leader().unwrap();
    cluster.kill(leader).unwrap();
    insert(&mut cluster.database(DATABASE).unwrap(), 10);
    cluster.wait_rows(DATABASE, "t", 60).unwrap();
}

#[test]
fn members_are_refused_where_the_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let program = recover_program(folder.path(), &options.library);
    let node = NodeProcess::start(&options).unwrap();
    let run = |arguments: &[&str]| -> Output {
        let mut command = options.library.command(&program);
        command.arg(&options.directory).args(arguments).output().unwrap()
    };

    let in_use = run(&["1", "127.0.0.1:1", "voter"]);
    drop(node);
    let zero = run(&["0", "127.0.0.1:1", "voter"]);
    let twice = run(&["1", "127.0.0.1:1", "voter", "1", "127.0.0.1:2", "voter"]);
    let one_address = run(&["1", "127.0.0.1:1", "voter", "2", "127.0.0.1:1", "voter"]);

    for refused in [&in_use, &zero, &twice, &one_address] {
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
        assert!(refused.stdout.is_empty());
    }
    assert!(text(&zero.stderr).contains("server id 0"), "{}", text(&zero.stderr));
    assert!(text(&twice.stderr).contains("server id 1 occurs twice"), "{}", text(&twice.stderr));
    assert!(text(&one_address.stderr).contains("occurs twice"), "{}", text(&one_address.stderr));
}

/// A client of a node that is the only voter.
fn open(node: &NodeProcess) -> Client {
    Client::of_sole_voter(&node.address, DATABASE, TIMEOUT).unwrap()
}

fn python(program: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("python3")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn backups_are_made_and_restored_as_the_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let script = program_of_document("dqlite-database.py", folder.path());
    let mut node = NodeProcess::start(&options).unwrap();
    let mut client = open(&node);
    client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)", &[]).unwrap();
    insert(&mut client, 100);

    // DUMP, with the program of the document.
    let backup = folder.path().join("backup");
    std::fs::create_dir(&backup).unwrap();
    let made = python(&script, &["dump", &node.address, DATABASE, backup.to_str().unwrap()], "");
    assert!(made.status.success(), "{}", text(&made.stderr));
    for file in client.dump(DATABASE).unwrap() {
        let name = text(&file.name);
        assert_eq!(std::fs::read(backup.join(&name)).unwrap(), file.content, "{name}");
    }
    let unknown = python(&script, &["dump", &node.address, "other.db", backup.to_str().unwrap()], "");
    assert_eq!(text(&unknown.stderr).trim(), "database does not exists (1002)");

    // A copy of the stopped node's directory.
    drop(client);
    assert!(node.stop().unwrap().success());
    let copy = folder.path().join("restored");
    copy_directory(&options.directory, &copy);
    let address = free_address().unwrap();
    recover(
        &options.library,
        &recover_program(folder.path(), &options.library),
        &copy,
        &[(1, &address, "voter")],
    );
    let mut restored =
        NodeProcess::start(&NodeOptions { address: address.clone(), directory: copy, ..options.clone() })
            .unwrap();
    let mut client = open(&restored);
    assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), 100);
    let members = client.cluster().unwrap();
    assert_eq!((members.len(), text(&members[0].address)), (1, address));
    insert(&mut client, 1);
    drop(client);
    assert!(restored.stop().unwrap().success());

    // SQL into a new cluster, in the form of sqlite3's .dump.
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let address = free_address().unwrap();
    let fresh = NodeProcess::start(&NodeOptions { address, directory: empty, ..options }).unwrap();
    drop(open(&fresh));
    let sql = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT);\n\
               INSERT INTO t VALUES(1,'a row');\nINSERT INTO t VALUES(2,'another');\nCOMMIT;\n";
    let loaded = python(&script, &["load", &fresh.address, DATABASE], sql);
    assert!(loaded.status.success(), "{}", text(&loaded.stderr));
    assert_eq!(open(&fresh).number("SELECT count(*) FROM t").unwrap(), 2);
    let again = python(&script, &["load", &fresh.address, DATABASE], sql);
    assert_eq!(text(&again.stderr).trim(), "table t already exists (1)");
}

/// Rows of a database that is restored from SQL in one request: far more than transactions may be in flight.
const DUMPED_ROWS: usize = 10_000;
/// Longest restore, in seconds: a node that hangs does not end it.
const RESTORE_MAX_SECONDS: &str = "120";

#[test]
fn a_dump_of_ten_thousand_rows_is_restored_as_the_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let script = program_of_document("dqlite-database.py", folder.path());
    let node = NodeProcess::start(&options).unwrap();
    drop(open(&node));
    let schema = "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT);\n";
    let rows: String =
        (1..=DUMPED_ROWS).map(|row| format!("INSERT INTO t VALUES({row},'row {row}');\n")).collect();
    let index = "CREATE INDEX i ON t(s);\n";

    for (sql, database) in [
        // As sqlite3's .dump writes it, and without its transaction.
        (format!("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n{schema}{rows}{index}COMMIT;\n"), DATABASE),
        (format!("{schema}{rows}{index}"), "other.db"),
    ] {
        let file = folder.path().join("dump.sql");
        std::fs::write(&file, sql).unwrap();
        let loaded = Command::new("timeout")
            .args([RESTORE_MAX_SECONDS, "python3"])
            .arg(&script)
            .args(["load", &node.address, database])
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        assert!(loaded.status.success(), "{database}: {}: {}", loaded.status, text(&loaded.stderr));

        let mut client = Client::of_sole_voter(&node.address, database, TIMEOUT).unwrap();
        assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), DUMPED_ROWS as i64);
        let sound = client.query("PRAGMA integrity_check", &[]).unwrap();
        assert_eq!(sound.rows, vec![vec![dqlite::protocol::request::Value::Text("ok".into())]]);
    }
}
