//! A large database: memory, restart, and the time until an empty node has it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::contender::Contender;
use super::results::Results;
use super::{Failure, Settings};
use crate::client::{Client, ClientError};
use crate::cluster::{Cluster, FIRST_ID};
use crate::sample::Process;

const DATABASE: &str = "large.db";
/// Bytes of a row, which fills a page.
const ROW_BYTES: u64 = 4000;
const ROWS_AT_ONCE: u64 = 500;
/// Updates at the least: they bring the snapshot that is due.
const UPDATES: usize = 1100;
/// Longest wait for what is done in the background.
const PATIENCE: Duration = Duration::from_secs(600);
/// The node that joins late.
const NEW_ID: u64 = FIRST_ID + 1;

/// Fills a node, restarts it, adds another.
pub(super) fn measure(
    program: &Path,
    work: &Path,
    contender: &Contender,
    settings: &Settings,
    results: &mut Results,
) -> Result<(), Failure> {
    let mut cluster = contender.cluster(program, work, 1, &settings.node_arguments)?;
    let (size, updates_us) = fill(&cluster, settings.large_mib)?;
    let mib = settings.large_mib;
    let mut add =
        |name: &str, value: f64| results.add(&contender.name, 1, &format!("{mib} MiB: {name}"), value);
    let process = |cluster: &Cluster, id| {
        cluster.process(id).map_or(Ok(Process::default()), |node| Process::read(node.id()))
    };
    // A lone client while the snapshot is written.
    add("update until there is a snapshot: p50 us", updates_us[updates_us.len() / 2]);
    add("update until there is a snapshot: longest us", updates_us[updates_us.len() - 1]);
    let filled = process(&cluster, FIRST_ID)?;
    add("memory / database", filled.resident_bytes as f64 / size);
    add("most memory so far / database", filled.peak_bytes as f64 / size);

    cluster.stop(FIRST_ID)?;
    let begin = Instant::now();
    cluster.start(FIRST_ID)?;
    let mut client = first_answer(&cluster)?;
    add("restart, ms", begin.elapsed().as_secs_f64() * 1e3);
    add("memory after the restart / database", process(&cluster, FIRST_ID)?.resident_bytes as f64 / size);

    let rows = client.number("SELECT max(id) FROM t")?;
    let begin = Instant::now();
    if let Err(error) = cluster.join(NEW_ID, &contender.library, dqlite::types::Role::Voter) {
        // Upstream's 1.18.7 fails so with 1 GiB: what else was measured counts all the same.
        eprintln!("{}: no second voter for {mib} MiB: {error}", contender.name);
        return Ok(());
    }
    add("time until an empty node is a voter, ms", begin.elapsed().as_secs_f64() * 1e3);
    add("most memory of the new node / database", process(&cluster, NEW_ID)?.peak_bytes as f64 / size);
    add("most memory of the old node / database", process(&cluster, FIRST_ID)?.peak_bytes as f64 / size);
    if client.number("SELECT max(id) FROM t")? != rows {
        return Err("rows are missing".into());
    }
    Ok(())
}

/// Writes the database, and goes on until there is a snapshot: its size in bytes, and what the updates until then took in
/// microseconds, sorted.
fn fill(cluster: &Cluster, mib: u64) -> Result<(f64, Vec<f64>), Failure> {
    let mut client = cluster.database(DATABASE)?;
    client.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)", &[])?;
    let rows = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS_AT_ONCE}) \
         INSERT INTO t(b) SELECT randomblob({ROW_BYTES}) FROM n"
    );
    for _ in 0..(mib << 20) / 4096 / ROWS_AT_ONCE {
        client.exec(&rows, &[])?;
    }
    let end = Instant::now() + PATIENCE;
    let mut updates_us = Vec::new();
    while updates_us.len() < UPDATES || !cluster.has_snapshot(FIRST_ID)? {
        let begin = Instant::now();
        if begin > end {
            return Err("no snapshot was taken".into());
        }
        client.exec("UPDATE t SET b = randomblob(10) WHERE id = 1", &[])?;
        updates_us.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    updates_us.sort_by(f64::total_cmp);
    let size = client.number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?;
    Ok((size as f64, updates_us))
}

/// The first answer to a query of the restarted node.
fn first_answer(cluster: &Cluster) -> Result<Client, Failure> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut client = cluster.client(FIRST_ID)?;
        let asked = client.open(DATABASE).and_then(|()| client.number("SELECT max(id) FROM t"));
        match asked {
            Ok(_) => return Ok(client),
            // Upstream's leader answers before it serves.
            Err(ClientError::Failure { .. }) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
