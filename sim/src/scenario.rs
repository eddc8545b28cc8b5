//! One simulated history: clients work, a nemesis disturbs them, then everything is healed and looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dqlite::pages::fault::{self, Fault};
use dqlite::protocol::request::Value;
use dqlite::raft::{SnapshotPace, SnapshotPolicy};
use dqlite::storage::log::LogRequest;
use dqlite::types::Role;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use crate::client::ClusterClient;
use crate::cluster::{Cluster, address};
use crate::history::{List, Operation, Outcome, Register, check_list, check_register, check_set};
use crate::network::{CALM, Weather};
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
}

impl Plant {
    /// All faults.
    pub const ALL: [Plant; 6] = [
        Plant::LostWrite,
        Plant::StaleRead,
        Plant::ForgottenVote,
        Plant::Gap,
        Plant::EarlyReply,
        Plant::VersionTwice,
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
    begin: Instant,
    histories: Shared,
    plant: Option<Plant>,
) {
    let mut random = SmallRng::seed_from_u64(seed ^ number << 48);
    let mut count = 0;
    // What this client read last.
    let mut seen = BTreeMap::new();
    while begin.elapsed() < WORK {
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

/// Disturbs the cluster until `WORK` is over.
async fn disturb(
    cluster: &mut Cluster,
    random: &mut SmallRng,
    begin: Instant,
    report: &mut Report,
) -> Result<(), String> {
    let pick = |random: &mut SmallRng, ids: &[u64]| ids[random.random_range(0..ids.len())];
    while begin.elapsed() < WORK {
        sleep(Duration::from_millis(random.random_range(50..1500))).await;
        let ids = cluster.ids();
        match random.random_range(0..13) {
            12 => {
                // The whole room goes dark.
                for id in cluster.live() {
                    report.kills += 1;
                    report.leader_kills += usize::from(cluster.leader() == Some(id));
                    cluster.crash(id);
                }
            }
            0..=2 => {
                let leader = cluster.leader();
                let live = cluster.live();
                // Most of the time the leader; always so that a majority can come back.
                let victim = match leader {
                    Some(leader) if random.random_range(0..4) > 0 => Some(leader),
                    _ if live.is_empty() => None,
                    _ => Some(pick(random, &live)),
                };
                if let Some(victim) = victim {
                    report.kills += 1;
                    report.leader_kills += usize::from(leader == Some(victim));
                    cluster.crash(victim);
                }
            }
            3..=5 => {
                for id in ids {
                    if cluster.core(id).is_none() && random.random_range(0..4) > 0 {
                        cluster
                            .start(id)
                            .await
                            .map_err(|error| format!("node {id} does not start: {error:?}"))?;
                    }
                }
            }
            6 => {
                report.partitions += 1;
                let alone = cluster.leader().unwrap_or_else(|| pick(random, &ids));
                let one_way = random.random_range(0..3);
                for other in ids.into_iter().filter(|id| *id != alone) {
                    if one_way != 1 {
                        cluster.network.block(&address(alone), &address(other));
                    }
                    if one_way != 2 {
                        cluster.network.block(&address(other), &address(alone));
                    }
                }
            }
            7 => {
                report.partitions += 1;
                let (one, other) = (pick(random, &ids), pick(random, &ids));
                cluster.network.block(&address(one), &address(other));
                if random.random() {
                    cluster.network.block(&address(other), &address(one));
                }
            }
            8 => cluster.network.heal(),
            9 => cluster.network.pause(&address(pick(random, &ids))),
            10 => {
                let weather = Weather {
                    delay_max: Duration::from_micros(random.random_range(100..30_000)),
                    slow_per_10000: random.random_range(0..500),
                    break_per_10000: random.random_range(0..100),
                    ..CALM
                };
                cluster.network.set_weather(weather);
            }
            _ => {
                let id = pick(random, &ids);
                let leader = cluster.leader().and_then(|leader| cluster.core(leader));
                let Some(engine) = leader.map(|core| core.engine().clone()) else { continue };
                report.changes += 1;
                let role = if random.random() { Role::StandBy } else { Role::Spare };
                let change = async {
                    if random.random_range(0..3) == 0 {
                        // It may be the leader itself, or gone.
                        let _ = engine.transfer(None).await;
                    } else {
                        let _ = cluster.assign(id, role).await;
                        let _ = cluster.assign(id, Role::Voter).await;
                    }
                };
                let _ = timeout(Duration::from_secs(3), change).await;
            }
        }
    }
    Ok(())
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

async fn run(seed: u64, plant: Option<Plant>) -> Result<Report, String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let nodes = if random.random_range(0..4) == 0 { 5 } else { 3 };
    let policy = SnapshotPolicy {
        threshold_entries: random.random_range(8..120),
        trailing_entries: random.random_range(4..60),
        pace: SnapshotPace::Entries,
    };
    let mut cluster = Cluster::new(seed, nodes, policy);
    cluster.tamper = (plant == Some(Plant::ForgottenVote)).then(forgets_votes);
    cluster.skips = (plant == Some(Plant::Gap)).then_some(61);
    cluster.form().await?;
    if plant == Some(Plant::LostWrite) {
        cluster.forget();
    }
    let addresses = cluster.addresses();
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
    let begin = Instant::now();
    let mut workers = Vec::new();
    let clients = if random.random_range(0..CROWDED) == 0 { CROWD } else { CLIENTS };
    for number in 1..=clients {
        let client = ClusterClient::new(&cluster.network, number, &addresses);
        workers.push(tokio::spawn(work(client, number, seed, begin, histories.clone(), plant)));
    }
    let mut report = Report { clients, ..Report::default() };
    disturb(&mut cluster, &mut random, begin, &mut report).await?;

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
    cluster.compare(CATCH_UP_MAX).await?;
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
    let report = runtime.block_on(run(seed, plant));
    drop(runtime);
    report.map_err(|error| format!("seed {seed}: {error}"))
}
