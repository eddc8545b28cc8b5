//! Loads on a running cluster: rates, latencies and what a transaction costs.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::contender::Contender;
use super::results::Results;
use super::{Failure, Settings};
use crate::cluster::Cluster;
use crate::load::run::{Outcome, Plan, make_tables, run};
use crate::load::workload::Workload;
use crate::sample::{Machine, Process};

/// Clients that insert.
const INSERTERS: [usize; 5] = [1, 4, 16, 64, 256];
/// Clients whose inserts are counted in syncs and bytes, too.
const COUNTED: [usize; 2] = [16, 64];
/// Clients of the other loads.
const CLIENTS: usize = 16;
/// Clients of range reads, which cost much.
const RANGE_CLIENTS: usize = 4;
/// Rows that reads choose from.
const ROWS: u64 = 20_000;
/// Databases when there are several.
const DATABASES: usize = 4;
/// Inserts a second beside readers, about as many as upstream's nodes do there when all is written that can be.
const FEW_INSERTS: f64 = 300.0;
/// Open loop: so many times as long as the others, since the tail is what it is for.
const OPEN_LOOP_TIMES: u32 = 4;
/// Time in which an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(4);
/// After setting up, until what it left behind is done.
const SETTLE: Duration = Duration::from_millis(1500);
const MAIN: &str = "bench.db";
/// Statements of one long text, and the bytes of each.
const TEXT_STATEMENTS: usize = 40_000;
const TEXT_STATEMENT_BYTES: usize = 200;

/// A cluster under measurement.
struct Bench<'a> {
    cluster: &'a Cluster,
    leader: String,
    processes: Vec<u32>,
    folder: std::path::PathBuf,
    contender: &'a str,
    nodes: usize,
    settings: &'a Settings,
    results: &'a mut Results,
}

/// All loads, one after the other.
pub(super) fn measure(
    cluster: &Cluster,
    contender: &Contender,
    nodes: usize,
    settings: &Settings,
    results: &mut Results,
) -> Result<(), Failure> {
    let leader = cluster.leader()?;
    let processes =
        cluster.live().iter().filter_map(|id| cluster.process(*id)).map(|node| node.id()).collect();
    let mut bench = Bench {
        cluster,
        leader: cluster.address(leader)?.to_owned(),
        processes,
        folder: cluster.directory(leader)?.to_owned(),
        contender: &contender.name,
        nodes,
        settings,
        results,
    };
    bench.fill()?;
    bench.inserts()?;
    bench.reads()?;
    bench.reads_beside_writers()?;
    bench.several_databases()?;
    bench.open_loop()?;
    bench.idle()?;
    if let Err(error) = bench.long_text() {
        // Upstream's 1.11.1 does not survive it: what else was measured counts all the same.
        eprintln!("{}: no long text on {nodes} nodes: {error}", contender.name);
    }
    Ok(())
}

impl Bench<'_> {
    fn add(&mut self, name: &str, value: f64) {
        self.results.add(self.contender, self.nodes, name, value);
    }

    fn plan(&self, workload: Workload, clients: usize) -> Plan {
        Plan {
            address: self.leader.clone(),
            databases: vec![MAIN.to_owned()],
            workload,
            clients,
            warm_up: self.settings.warm_up,
            time: self.settings.time,
            rate: None,
            rows: ROWS,
        }
    }

    fn fill(&mut self) -> Result<(), Failure> {
        make_tables(&self.leader, &[MAIN.to_owned()])?;
        let mut client = self.cluster.database(MAIN)?;
        client.exec(
            &format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
                 INSERT INTO t(v) SELECT randomblob(1024) FROM n"
            ),
            &[],
        )?;
        sleep(SETTLE);
        Ok(())
    }

    fn inserts(&mut self) -> Result<(), Failure> {
        for clients in INSERTERS {
            let name = format!("insert 1 KiB, {clients} clients");
            if self.settings.wants(&name) {
                self.closed_loop(&name, Workload::Insert, clients)?;
            }
        }
        let name = format!("transactions of 10 inserts, {CLIENTS} clients");
        if self.settings.wants(&name) {
            self.closed_loop(&name, Workload::Transaction, CLIENTS)?;
        }
        Ok(())
    }

    fn rate_and_latency(&mut self, name: &str, outcome: &Outcome) {
        self.add(&format!("{name}: per second"), outcome.per_second());
        self.add(&format!("{name}: p50 us"), outcome.quantile_us(0.5));
        self.add(&format!("{name}: p99 us"), outcome.quantile_us(0.99));
    }

    /// Clients that ask as fast as they are answered, and what a request costs meanwhile.
    fn closed_loop(&mut self, name: &str, workload: Workload, clients: usize) -> Result<(), Failure> {
        let count = |folder: &Path, ids: &[u32]| (Machine::read(folder), Process::sum(ids));
        let (mut before, mut after) = (None, None);
        let (folder, ids) = (self.folder.clone(), self.processes.clone());
        let outcome = run(
            &self.plan(workload, clients),
            || before = Some(count(&folder, &ids)),
            || after = Some(count(&folder, &ids)),
        )?;
        self.rate_and_latency(name, &outcome);
        let (Some(before), Some(after)) = (before, after) else { return Ok(()) };
        let (machine_before, machine) = (before.0?, after.0?);
        let (nodes_before, nodes) = (before.1?, after.1?);
        let each = |count: u64| count as f64 / outcome.done as f64;
        let cpu = nodes.cpu_seconds - nodes_before.cpu_seconds;
        self.add(&format!("{name}: CPU us of the nodes each"), cpu * 1e6 / outcome.done as f64);
        let switches = nodes.context_switches.saturating_sub(nodes_before.context_switches);
        self.add(&format!("{name}: context switches of the nodes each"), each(switches));
        if workload == Workload::Insert && COUNTED.contains(&clients) {
            let machine = machine.since(&machine_before);
            self.add(&format!("{name}: disk bytes each"), each(machine.disk_bytes));
            self.add(&format!("{name}: disk flushes each"), each(machine.disk_flushes));
            self.add(&format!("{name}: loopback bytes each"), each(machine.loopback_bytes));
            let share = outcome.cpu_seconds / (outcome.cpu_seconds + cpu) * 100.0;
            self.add(&format!("{name}: client's share of the CPU, %"), share);
        }
        Ok(())
    }

    fn reads(&mut self) -> Result<(), Failure> {
        let loads = [
            (Workload::PointRead, 1),
            (Workload::PointRead, CLIENTS),
            (Workload::RangeRead, RANGE_CLIENTS),
            (Workload::Mixed, CLIENTS),
        ];
        for (workload, clients) in loads {
            let name = format!("{}, {clients} clients", workload.name());
            if self.settings.wants(&name) {
                self.closed_loop(&name, workload, clients)?;
            }
        }
        Ok(())
    }

    /// Beside writers that write all they can, and beside as many inserts as every contender gets through.
    fn reads_beside_writers(&mut self) -> Result<(), Failure> {
        let loads = [
            (None, format!("point read, {CLIENTS} clients beside {CLIENTS} writers")),
            (
                Some(FEW_INSERTS),
                format!("point read, {CLIENTS} clients beside {FEW_INSERTS} inserts a second"),
            ),
        ];
        for (rate, name) in loads {
            if self.settings.wants(&name) {
                self.reads_beside(rate, &name)?;
            }
        }
        Ok(())
    }

    fn reads_beside(&mut self, rate: Option<f64>, name: &str) -> Result<(), Failure> {
        let writers = Plan { rate, ..self.plan(Workload::Insert, CLIENTS) };
        let (read, written) = std::thread::scope(|scope| {
            let writing = scope.spawn(|| run(&writers, || {}, || {}));
            let read = self.closed_loop(name, Workload::PointRead, CLIENTS);
            (read, writing.join())
        });
        let written = written.map_err(|_| "the writers panicked")??;
        read?;
        self.add(&format!("{name}: inserts per second"), written.per_second());
        Ok(())
    }

    fn several_databases(&mut self) -> Result<(), Failure> {
        let clients = CLIENTS * DATABASES;
        let name = format!("insert 1 KiB, {clients} clients over {DATABASES} databases");
        if !self.settings.wants(&name) {
            return Ok(());
        }
        let databases: Vec<String> = (1..=DATABASES).map(|number| format!("several-{number}.db")).collect();
        make_tables(&self.leader, &databases)?;
        let outcome = run(&Plan { databases, ..self.plan(Workload::Insert, clients) }, || {}, || {})?;
        self.rate_and_latency(&name, &outcome);
        Ok(())
    }

    /// A dump that is restored: many statements in one text, and the memory that they take.
    fn long_text(&mut self) -> Result<(), Failure> {
        let name = format!("text of {TEXT_STATEMENTS} statements of {TEXT_STATEMENT_BYTES} bytes");
        if !self.settings.wants(&name) {
            return Ok(());
        }
        let mut client = self.cluster.database(MAIN)?;
        client.exec("CREATE TABLE IF NOT EXISTS restored(v TEXT)", &[])?;
        let text = long_text();
        sleep(SETTLE);
        let leader = self.cluster.process(self.cluster.leader()?).ok_or("the leader has gone")?.id();
        Process::forget_peak(leader)?;
        let before = Process::read(leader)?;
        let begin = Instant::now();
        client.exec(&text, &[])?;
        let took = begin.elapsed();
        let after = Process::read(leader)?;
        self.add(&format!("{name}: ms"), took.as_secs_f64() * 1e3);
        let more = after.peak_bytes.saturating_sub(before.resident_bytes) as f64;
        self.add(&format!("{name}: most memory of the leader beside it / text"), more / text.len() as f64);
        Ok(())
    }

    /// The tail at half of what 64 clients get through, or at the rate that was asked for.
    fn open_loop(&mut self) -> Result<(), Failure> {
        let name = match self.settings.rate {
            Some(rate) => format!("insert 1 KiB at {rate} a second, 64 clients"),
            None => "insert 1 KiB at half of the most, 64 clients".to_owned(),
        };
        if !self.settings.wants(&name) {
            return Ok(());
        }
        let plan = self.plan(Workload::Insert, 64);
        let rate = match self.settings.rate {
            Some(rate) => rate,
            None => run(&plan, || {}, || {})?.per_second() / 2.0,
        };
        if rate < 1.0 {
            // Nothing got through: there is no half of it.
            self.add(&format!("{name}: per second"), 0.0);
            return Ok(());
        }
        let time = plan.time * OPEN_LOOP_TIMES;
        let outcome = run(&Plan { rate: Some(rate), time, ..plan }, || {}, || {})?;
        self.add(&format!("{name}: per second"), outcome.per_second());
        for (share, text) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "longest")] {
            self.add(&format!("{name}: {text} us"), outcome.quantile_us(share));
        }
        self.add(&format!("{name}: p99.9 / p50"), outcome.quantile_us(0.999) / outcome.quantile_us(0.5));
        self.add(&format!("{name}: longest / p50"), outcome.max_us() / outcome.quantile_us(0.5));
        Ok(())
    }

    fn idle(&mut self) -> Result<(), Failure> {
        let name = "idle: CPU of all nodes, % of one core";
        if !self.settings.wants(name) {
            return Ok(());
        }
        sleep(SETTLE);
        let before = Process::sum(&self.processes)?;
        sleep(IDLE);
        let used = Process::sum(&self.processes)?.cpu_seconds - before.cpu_seconds;
        self.add(name, used / IDLE.as_secs_f64() * 100.0);
        Ok(())
    }
}

/// One transaction of inserts, each as long as the others.
fn long_text() -> String {
    let mut text = String::from("BEGIN;");
    for number in 0..TEXT_STATEMENTS {
        let begin = format!("INSERT INTO restored VALUES('{number} ");
        let end = "');";
        let filling = TEXT_STATEMENT_BYTES - begin.len() - end.len();
        text.push_str(&begin);
        text.extend(std::iter::repeat_n('x', filling));
        text.push_str(end);
    }
    text.push_str("COMMIT");
    text
}
