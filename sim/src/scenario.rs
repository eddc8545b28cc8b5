//! One simulated history: clients work, a nemesis disturbs them, then everything is healed and looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dqlite::protocol::request::Value;
use dqlite::raft::{SnapshotPace, SnapshotPolicy};
use dqlite::storage::log::LogRequest;
use dqlite::types::Role;
use dqlite::types::fault::{self, Fault};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use crate::c_node;
use crate::client::ClusterClient;
use crate::cluster::Cluster;
use crate::history::{List, Operation, Outcome, Register, check_list, check_register, check_set};
use crate::mixed::{self, Mixed};
use crate::nemesis::disturb;
use crate::network::CALM;
use crate::node::Tamper;

/// Clients that read and write everything.
const CLIENTS: u64 = 4;
/// Clients in a crowd; those beyond `CLIENTS` only insert rows.
const CROWD: u64 = 16;
/// One history in so many has a crowd.
const CROWDED: u32 = 4;
/// Kinds of operations; the last is the insert of a row.
const KINDS: u32 = 6;
/// Registers and lists.
const KEYS: u64 = 4;
/// How long they work.
const WORK: Duration = Duration::from_secs(12);
/// How long on a mixed cluster, where leadership is to go to and fro.
const MIXED_WORK: Duration = Duration::from_secs(30);
/// Longest time from healing to the first acknowledged write; a bound that is never waited out.
const HEAL_MAX: Duration = Duration::from_secs(60);
/// Longest time for all nodes to catch up after that.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// A fault that the checks must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Disks forget what they synced.
    LostWrite,
    /// Some reads are answered with what was read before.
    StaleRead,
    /// Votes are not persisted.
    ForgottenVote,
    /// One entry of the log never reaches the state machine of a node.
    Gap,
    /// Writes are acknowledged, and seen, before they are applied.
    EarlyReply,
    /// A commit without pages leaves its version's number to the next writer.
    VersionTwice,
    /// Modelled C nodes forget whom they voted for.
    ForgottenVoteOfC,
    /// Some entries never reach the databases of modelled C nodes.
    GapOfC,
}

impl Plant {
    /// All faults.
    pub const ALL: [Plant; 8] = [
        Plant::LostWrite,
        Plant::StaleRead,
        Plant::ForgottenVote,
        Plant::Gap,
        Plant::EarlyReply,
        Plant::VersionTwice,
        Plant::ForgottenVoteOfC,
        Plant::GapOfC,
    ];

    /// The fault of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Plant> {
        Plant::ALL.into_iter().find(|plant| format!("{plant:?}") == name)
    }
}

/// What a history showed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What it was made of.
    pub seed: u64,
    /// Clients that worked.
    pub clients: u64,
    /// Operations with a sure outcome.
    pub acknowledged: usize,
    /// Operations whose outcome is not known.
    pub unknown: usize,
    /// Nodes whose power was cut, leaders among them.
    pub kills: usize,
    /// Leaders whose power was cut.
    pub leader_kills: usize,
    /// Partitions.
    pub partitions: usize,
    /// Changes of roles.
    pub changes: usize,
    /// Time from healing to the first acknowledged write.
    pub healed_in: Duration,
    /// Digest of everything that passed over the network.
    pub digest: u64,
    /// What only a mixed cluster shows.
    pub mixed: Mixed,
}

impl Report {
    /// Leaders whose power was cut while a crowd wrote.
    #[must_use]
    pub fn crowded_leader_kills(&self) -> usize {
        if self.clients == CROWD { self.leader_kills } else { 0 }
    }
}

#[derive(Default)]
struct Histories {
    registers: BTreeMap<u64, Vec<Operation<Register, u64>>>,
    lists: BTreeMap<u64, Vec<Operation<List, Vec<u64>>>>,
    rows: Vec<Operation<u64, ()>>,
}

type Shared = Arc<Mutex<Histories>>;

fn integer(rows: &[Vec<Value>]) -> u64 {
    match rows.first().and_then(|row| row.first()) {
        Some(Value::Integer(number)) => u64::try_from(*number).unwrap_or(u64::MAX),
        _ => u64::MAX,
    }
}

fn list(rows: &[Vec<Value>]) -> Vec<u64> {
    match rows.first().and_then(|row| row.first()) {
        Some(Value::Text(text)) => {
            String::from_utf8_lossy(text).split(',').filter_map(|number| number.parse().ok()).collect()
        }
        _ => vec![u64::MAX],
    }
}

fn map<T, U>(outcome: Outcome<T>, with: impl FnOnce(T) -> U) -> Outcome<U> {
    match outcome {
        Outcome::Done(value) => Outcome::Done(with(value)),
        Outcome::Failed => Outcome::Failed,
        Outcome::Unknown => Outcome::Unknown,
    }
}

async fn work(
    mut client: ClusterClient,
    number: u64,
    seed: u64,
    (begin, time): (Instant, Duration),
    histories: Shared,
    plant: Option<Plant>,
) {
    let mut random = SmallRng::seed_from_u64(seed ^ number << 48);
    let mut count = 0;
    // What this client read last.
    let mut seen = BTreeMap::new();
    while begin.elapsed() < time {
        sleep(Duration::from_millis(random.random_range(0..150))).await;
        count += 1;
        let value = number * 1_000_000 + count;
        let key = random.random_range(0..KEYS);
        let started = begin.elapsed();
        let kind = if number > CLIENTS { KINDS - 1 } else { random.random_range(0..KINDS) };
        let record = |with: &mut dyn FnMut(&mut Histories, Duration)| {
            with(&mut histories.lock().unwrap_or_else(PoisonError::into_inner), begin.elapsed());
        };
        match kind {
            0 => {
                let outcome = client.exec(&format!("UPDATE register SET v = {value} WHERE k = {key}")).await;
                let outcome = map(outcome, |()| 0);
                record(&mut |all, end| {
                    let call = Register::Write(value);
                    let operation =
                        Operation { client: number, call, begin: started, end, outcome: outcome.clone() };
                    all.registers.entry(key).or_default().push(operation);
                });
            }
            1 => {
                let outcome = client.query(&format!("SELECT v FROM register WHERE k = {key}")).await;
                let mut outcome = map(outcome, |rows| integer(&rows));
                if let Outcome::Done(value) = &outcome {
                    let earlier = seen.insert(key, *value);
                    if plant == Some(Plant::StaleRead) && earlier.is_some() && random.random_range(0..5) == 0
                    {
                        outcome = Outcome::Done(earlier.unwrap_or_default());
                    }
                }
                record(&mut |all, end| {
                    let call = Register::Read;
                    let operation =
                        Operation { client: number, call, begin: started, end, outcome: outcome.clone() };
                    all.registers.entry(key).or_default().push(operation);
                });
            }
            2 => {
                let sql = format!("UPDATE list SET v = v || ',' || {value} WHERE k = {key}");
                let outcome = map(client.exec(&sql).await, |()| Vec::new());
                record(&mut |all, end| {
                    let call = List::Append(value);
                    let operation =
                        Operation { client: number, call, begin: started, end, outcome: outcome.clone() };
                    all.lists.entry(key).or_default().push(operation);
                });
            }
            3 => {
                let outcome = client.query(&format!("SELECT v FROM list WHERE k = {key}")).await;
                let outcome = map(outcome, |rows| list(&rows));
                record(&mut |all, end| {
                    let call = List::Read;
                    let operation =
                        Operation { client: number, call, begin: started, end, outcome: outcome.clone() };
                    all.lists.entry(key).or_default().push(operation);
                });
            }
            4 => {
                // A commit that changes no page.
                let _ = client.exec("PRAGMA user_version = 0").await;
            }
            _ => {
                let padding = random.random_range(0..600);
                let sql = format!("INSERT INTO row(v, pad) VALUES({value}, hex(zeroblob({padding})))");
                let outcome = client.exec(&sql).await;
                record(&mut |all, end| {
                    let operation = Operation {
                        client: number,
                        call: value,
                        begin: started,
                        end,
                        outcome: outcome.clone(),
                    };
                    all.rows.push(operation);
                });
            }
        }
    }
}

/// Reads everything when nothing is under way any more.
async fn final_state(client: &mut ClusterClient) -> Option<(BTreeMap<u64, Vec<u64>>, Vec<u64>)> {
    let mut lists = BTreeMap::new();
    for key in 0..KEYS {
        let Outcome::Done(rows) = client.query(&format!("SELECT v FROM list WHERE k = {key}")).await else {
            return None;
        };
        lists.insert(key, list(&rows));
    }
    let query = "SELECT coalesce(group_concat(v), '') FROM row";
    let Outcome::Done(rows) = client.query(query).await else { return None };
    Some((lists, list(&rows)))
}

async fn run(seed: u64, plant: Option<Plant>, is_mixed: bool) -> Result<Report, String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let nodes = if random.random_range(0..4) == 0 { 5 } else { 3 };
    let mut policy = SnapshotPolicy {
        threshold_entries: random.random_range(8..120),
        trailing_entries: random.random_range(4..60),
        pace: SnapshotPace::Entries,
    };
    if is_mixed {
        // Whoever was away needs a snapshot.
        policy.threshold_entries = policy.threshold_entries / 3 + 2;
        policy.trailing_entries /= 4;
    }
    let mut cluster = Cluster::new(seed, nodes, policy);
    cluster.tamper = (plant == Some(Plant::ForgottenVote)).then(forgets_votes);
    cluster.skips = (plant == Some(Plant::Gap)).then_some(61);
    if is_mixed {
        cluster.model(&mixed::places(seed, nodes));
        cluster.c_fault = match plant {
            Some(Plant::ForgottenVoteOfC) => Some(c_node::Fault::ForgetsVote),
            Some(Plant::GapOfC) => Some(c_node::Fault::SkipsEntries),
            _ => None,
        };
    }
    cluster.form().await?;
    if plant == Some(Plant::LostWrite) {
        cluster.forget();
    }
    let addresses = cluster.own_addresses();
    let mut client = ClusterClient::new(&cluster.network, 0, &addresses);
    let mut tables = vec![
        "CREATE TABLE register(k INTEGER PRIMARY KEY, v)".to_owned(),
        "CREATE TABLE list(k INTEGER PRIMARY KEY, v TEXT)".to_owned(),
        "CREATE TABLE row(v INTEGER, pad TEXT)".to_owned(),
    ];
    for key in 0..KEYS {
        tables.push(format!("INSERT INTO register VALUES({key}, 0)"));
        tables.push(format!("INSERT INTO list VALUES({key}, '')"));
    }
    for sql in tables {
        client.insist(&sql, HEAL_MAX).await.ok_or_else(|| format!("not done in calm weather: {sql}"))?;
    }
    let histories = Shared::default();
    let (begin, time) = (Instant::now(), if is_mixed { MIXED_WORK } else { WORK });
    let mut workers = Vec::new();
    let clients = if random.random_range(0..CROWDED) == 0 { CROWD } else { CLIENTS };
    for number in 1..=clients {
        let client = ClusterClient::new(&cluster.network, number, &addresses);
        workers.push(tokio::spawn(work(client, number, seed, (begin, time), histories.clone(), plant)));
    }
    let mut report = Report { seed, clients, ..Report::default() };
    disturb(&mut cluster, &mut random, begin + time, &mut report).await?;

    cluster.network.heal();
    cluster.network.set_weather(CALM);
    for id in cluster.ids() {
        cluster.start(id).await.map_err(|error| format!("node {id} does not start: {error:?}"))?;
    }
    for worker in workers {
        timeout(HEAL_MAX, worker)
            .await
            .map_err(|_| "a client never ended".to_owned())?
            .map_err(|error| error.to_string())?;
    }
    cluster.observed().quiet = true;
    let healed = Instant::now();
    let written = client.insist("UPDATE list SET v = v WHERE k = 0", HEAL_MAX).await;
    let failures = cluster.failures();
    if !failures.is_empty() {
        return Err(failures.join("; "));
    }
    written.ok_or_else(|| format!("no write within {HEAL_MAX:?} after everything was healed"))?;
    report.healed_in = healed.elapsed();
    // Nodes that are no voters now get the entries as well.
    for id in cluster.ids() {
        let leader = cluster.wait_leader(HEAL_MAX).await.ok_or("nobody leads")?;
        let member = cluster.core(leader).and_then(|core| {
            core.engine()
                .configuration()
                .configuration
                .get(dqlite::types::NodeId(id))
                .map(|server| server.role)
        });
        if member != Some(Role::Voter) {
            let assigning = async {
                while let Err(error) = cluster.assign(id, Role::Voter).await {
                    if matches!(error, dqlite::raft::ChangeError::NotAllowed(_)) {
                        break;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            };
            timeout(CATCH_UP_MAX, assigning)
                .await
                .map_err(|_| format!("node {id} does not become a voter again"))?;
        }
    }
    let compared = cluster.compare(CATCH_UP_MAX).await;
    let failures = cluster.failures();
    if !failures.is_empty() {
        return Err(failures.join("; "));
    }
    compared?;
    let reading = async {
        loop {
            if let Some(state) = final_state(&mut client).await {
                return state;
            }
        }
    };
    let (lists, rows) =
        timeout(HEAL_MAX, reading).await.map_err(|_| "the final state cannot be read".to_owned())?;
    let all = std::mem::take(&mut *histories.lock().unwrap_or_else(PoisonError::into_inner));
    for (key, operations) in &all.registers {
        check_register(operations).map_err(|error| format!("register {key}: {error}"))?;
    }
    for (key, operations) in &all.lists {
        check_list(operations, &lists[key]).map_err(|error| format!("list {key}: {error}"))?;
    }
    check_set(&all.rows, &rows).map_err(|error| format!("rows: {error}"))?;
    let outcomes =
        all.registers.values().flatten().map(|operation| matches!(operation.outcome, Outcome::Done(_)));
    let outcomes =
        outcomes.chain(all.rows.iter().map(|operation| matches!(operation.outcome, Outcome::Done(_))));
    let outcomes: Vec<bool> = outcomes
        .chain(all.lists.values().flatten().map(|operation| matches!(operation.outcome, Outcome::Done(_))))
        .collect();
    report.acknowledged = outcomes.iter().filter(|done| **done).count();
    report.unknown = outcomes.len() - report.acknowledged;
    report.digest = cluster.network.digest();
    report.mixed = mixed::seen(&cluster);
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
    Ok(report)
}

/// Acknowledges votes without storing them.
fn forgets_votes() -> Tamper {
    Arc::new(|request| match request {
        LogRequest::SetVote { done, .. } => {
            done(Ok(()));
            None
        }
        other => Some(other),
    })
}

/// Runs the history of a seed.
///
/// # Errors
/// What was violated.
pub fn history(seed: u64, plant: Option<Plant>) -> Result<Report, String> {
    replay(seed, plant, false)
}

/// Runs the history of a seed on a cluster with models of upstream's nodes.
///
/// # Errors
/// What was violated.
pub fn mixed_history(seed: u64, plant: Option<Plant>) -> Result<Report, String> {
    replay(seed, plant, true)
}

fn replay(seed: u64, plant: Option<Plant>, is_mixed: bool) -> Result<Report, String> {
    fault::plant(match plant {
        Some(Plant::EarlyReply) => Some(Fault::ReplyBeforeApply),
        Some(Plant::VersionTwice) => Some(Fault::VersionTwice),
        _ => None,
    });
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().map_err(|error| error.to_string())?;
    let report = runtime.block_on(run(seed, plant, is_mixed));
    drop(runtime);
    report.map_err(|error| format!("seed {seed}: {error}"))
}
