//! One history of the machine: a cluster, clients, trouble, and what must hold when all of it is over.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Once};
use std::time::Duration;

use dqlite::protocol::request::Value;
use dqlite::raft::{SnapshotPace, SnapshotPolicy};
use dqlite::types::fault::{self, Fault};
use dqlite::types::tasks::SqlSection;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use super::client::{Client, Surroundings};
use super::model;
use super::observer::Observer;
use super::recipe::Sizes;
use super::record::{Final, Records};
use super::schema::Schema;
use super::shared::{Counts, Shared};
use super::trouble::{Trouble, Troubles};
use crate::baton::{Baton, Pauses};
use crate::cluster::Cluster;
use crate::network::{CALM, Weather};
use crate::node::SqlSettings;

/// Fewest clients.
const CLIENTS_MIN: u64 = 20;
/// Most clients.
const CLIENTS_MAX: u64 = 28;
/// Longest time for anything that must happen once all is well.
const WELL_MAX: Duration = Duration::from_secs(60);
/// Longest time for clients to end: each may wait for an answer.
const LEAVE_MAX: Duration = Duration::from_secs(60);
/// Longest time until nothing is held any more once all clients have gone: statements of clients that closed their
/// sending side go on for ten seconds.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// Longest time for which a turn may be held by no transaction of a client: a leader without a majority steps down before.
const TURN_MAX: Duration = Duration::from_secs(10);
/// The same where SQL pauses.
const TURN_MAX_WITH_PAUSES: Duration = Duration::from_secs(40);
/// In one history of so many leadership goes to and fro, and SQL is inside for long.
const RESTLESS_ONE_IN: u64 = 8;
/// Which one it is.
const RESTLESS_AT: u64 = 3;
/// How SQL pauses there.
const RESTLESS_PAUSES: Pauses = Pauses {
    one_in: 10,
    usual_max: Duration::from_millis(40),
    long_one_in: 100,
    long_max: Duration::from_millis(300),
};
/// SQL that pauses at one point in so many pauses often.
const PAUSES_OFTEN: u32 = 50;
/// What must be possible when nobody is there any more.
const CANARY: [&str; 2] = ["CREATE TABLE IF NOT EXISTS canary(n)", "INSERT INTO canary VALUES(1)"];
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// What a history showed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seed.
    pub seed: u64,
    /// Nodes.
    pub nodes: u64,
    /// Clients.
    pub clients: u64,
    /// What clients did.
    pub counts: Counts,
    /// What happened to nodes.
    pub troubles: Troubles,
    /// Time from the end of all clients until nothing was held.
    pub quiet_in: Duration,
    /// Pauses inside SQLite.
    pub pauses: u64,
    /// Tags in all journals.
    pub journal: usize,
    /// Digest of what passed between nodes and of everything that clients were told.
    pub digest: u64,
}

/// What a seed decides.
struct Plan {
    nodes: u64,
    clients: u64,
    policy: SnapshotPolicy,
    sql_threads: usize,
    busy_timeout_ms: u32,
    /// None: SQL runs through without a pause.
    pauses: Option<Pauses>,
    databases: Vec<String>,
    sizes: Sizes,
    work: Duration,
    leaves_one_in: u32,
    weather: Weather,
    /// Longest time for which a turn may be held by no transaction of a client.
    turn_max: Duration,
    client_pause_max: Duration,
    /// None: nothing happens to nodes.
    trouble_pause_max: Option<Duration>,
    /// Nothing but transfers happens to them.
    only_transfers: bool,
}

impl Plan {
    /// The plan of a seed.
    fn of_seed(seed: u64, random: &mut SmallRng) -> Plan {
        let mut plan = Plan::of(random);
        if plan.is_calm() {
            // A network that needs longer than an election timeout for what is on its way does cost the leadership.
            plan.weather = CALM;
        }
        if seed % RESTLESS_ONE_IN != RESTLESS_AT {
            return plan;
        }
        Plan {
            nodes: 3,
            sql_threads: 4,
            pauses: Some(RESTLESS_PAUSES),
            turn_max: TURN_MAX_WITH_PAUSES,
            client_pause_max: Duration::from_millis(random.random_range(20..100)),
            trouble_pause_max: Some(Duration::from_millis(random.random_range(150..300))),
            only_transfers: true,
            ..plan
        }
    }

    /// Nothing happens to nodes.
    fn is_calm(&self) -> bool {
        self.trouble_pause_max.is_none()
    }

    fn pauses_often(&self) -> bool {
        self.pauses.is_some_and(|pauses| pauses.one_in <= PAUSES_OFTEN)
    }

    fn of(random: &mut SmallRng) -> Plan {
        let one_in = |random: &mut SmallRng, number: u32| random.random_range(0..number) == 0;
        let pauses = (!one_in(random, 2)).then(|| Pauses {
            one_in: [10, 10, 50, 300][random.random_range(0..4)],
            usual_max: Duration::from_millis(random.random_range(1..20)),
            long_one_in: random.random_range(20..200),
            long_max: Duration::from_millis(random.random_range(50..1500)),
        });
        let nodes = if one_in(random, 3) { 1 } else { 3 };
        let databases = random.random_range(1..=3);
        let sizes = Sizes {
            value_max: if one_in(random, 12) { 40 << 20 } else { 100_000 },
            rows_max: if one_in(random, 5) { 3000 } else { 100 },
            text_max: if one_in(random, 5) { 2500 } else { 100 },
        };
        Plan {
            nodes,
            clients: random.random_range(CLIENTS_MIN..=CLIENTS_MAX),
            policy: SnapshotPolicy {
                threshold_entries: random.random_range(20..400),
                trailing_entries: random.random_range(4..200),
                pace: SnapshotPace::Entries,
            },
            sql_threads: random.random_range(1..=4),
            busy_timeout_ms: [0, 20, 500, 5000][random.random_range(0..4)],
            pauses,
            databases: (0..databases).map(|number| format!("test{number}.db")).collect(),
            sizes,
            work: Duration::from_millis(random.random_range(1500..5000)),
            leaves_one_in: [3, 8, 20, 60][random.random_range(0..4)],
            weather: Weather {
                delay_max: Duration::from_micros([500, 3000, 12_000][random.random_range(0..3)]),
                ..CALM
            },
            turn_max: if pauses.is_some() { TURN_MAX_WITH_PAUSES } else { TURN_MAX },
            client_pause_max: Duration::from_millis(random.random_range(20..400)),
            trouble_pause_max: (!one_in(random, 4))
                .then(|| Duration::from_millis(random.random_range(150..1500))),
            only_transfers: false,
        }
    }
}

thread_local! {
    /// Panics on this thread.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Has panics counted on the thread on which they happen.
fn count_panics() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}

/// Runs the history of a seed, with a fault of the library if one is planted.
///
/// # Errors
/// What was violated.
pub fn history(seed: u64, planted: Option<Fault>) -> Result<Report, String> {
    count_panics();
    fault::plant(planted);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().map_err(|error| error.to_string())?;
    let report = runtime.block_on(run(seed));
    drop(runtime);
    fault::plant(None);
    let report = match PANICS.replace(0) {
        0 => report,
        // A task that panics takes nothing else with it, and nobody hears of it.
        panics => Err(format!("{panics} panics; {}", report.err().unwrap_or_default())),
    };
    report.map_err(|error| format!("seed {seed}: {error}"))
}

async fn run(seed: u64) -> Result<Report, String> {
    let plan = Plan::of_seed(seed, &mut SmallRng::seed_from_u64(seed ^ 0x5e55_1015));
    let schema = Schema::new().map_err(|error| format!("plain SQLite: {error:?}"))?;
    let baton = plan.pauses.map(|pauses| Baton::new(seed, pauses));
    let shared = Shared::new(plan.databases.len());
    let mut cluster = prepare(seed, &plan, baton.as_ref(), &shared).await?;
    let (network, addresses) = (cluster.network.clone(), cluster.addresses());
    let observer = Observer { network: &network, addresses: &addresses };
    for database in &plan.databases {
        for sql in &schema.statements {
            observer.exec(database, sql, WELL_MAX).await?;
        }
    }
    network.set_weather(plan.weather);
    let epochs = epochs(&cluster);
    let random = SmallRng::seed_from_u64(seed ^ 0x7472_6f75);
    let pause = plan.trouble_pause_max.unwrap_or(plan.work);
    let mut trouble = Trouble::new(&mut cluster, random, shared.clone(), pause);
    trouble.only_transfers = plan.only_transfers;
    work(seed, &plan, &schema, &shared, &mut trouble).await?;
    if plan.is_calm() && self::epochs(trouble.cluster) != epochs {
        return Err("an epoch has ended, though nothing happened".to_owned());
    }
    let quiet_in = quiet(trouble.cluster).await?;
    for database in &plan.databases {
        for canary in CANARY {
            observer.exec(database, canary, WELL_MAX).await?;
        }
        sound(&observer, database).await.map_err(|error| format!("before a restart: {error}"))?;
    }
    for id in trouble.cluster.ids() {
        trouble.stop(id).await?;
    }
    for id in trouble.cluster.ids() {
        trouble.start(id).await?;
    }
    let (records, counts) = shared.take();
    if !plan.pauses_often() && counts.unanswered > 0 {
        return Err(format!("{} requests got no answer", counts.unanswered));
    }
    let journal = explain(&plan, &schema, &observer, &records).await?;
    let troubles = trouble.troubles;
    end(&mut cluster, baton.as_ref()).await?;
    let digest = cluster.network.digest() ^ digest_of(&records);
    let pauses = baton.as_ref().map_or(0, Baton::pauses);
    let (nodes, clients) = (plan.nodes, plan.clients);
    Ok(Report { seed, nodes, clients, counts, troubles, quiet_in, pauses, journal, digest })
}

/// A cluster that runs.
async fn prepare(seed: u64, plan: &Plan, baton: Option<&Baton>, shared: &Shared) -> Result<Cluster, String> {
    let mut cluster = Cluster::new(seed, plan.nodes, plan.policy);
    let section = match baton {
        Some(baton) => SqlSection::Aside(Arc::new(baton.clone())),
        None => SqlSection::Inline,
    };
    cluster.sql = SqlSettings { section, threads: plan.sql_threads, busy_timeout_ms: plan.busy_timeout_ms };
    cluster.form().await?;
    for id in cluster.ids() {
        if let Some(core) = cluster.core(id) {
            shared.started(crate::cluster::address(id), core.executor().clone());
        }
    }
    Ok(cluster)
}

/// All clients come, work under trouble, and leave; then all nodes run, and the network is good.
async fn work(
    seed: u64,
    plan: &Plan,
    schema: &Schema,
    shared: &Shared,
    trouble: &mut Trouble<'_>,
) -> Result<(), String> {
    let around = Surroundings {
        network: trouble.cluster.network.clone(),
        addresses: trouble.cluster.addresses(),
        databases: plan.databases.clone(),
        full_text: schema.full_text.clone(),
        sizes: plan.sizes,
        leaves_one_in: plan.leaves_one_in,
        pause_max: plan.client_pause_max,
        is_calm: plan.is_calm(),
        has_endless: plan.pauses_often(),
        tells_when_gone: plan.is_calm() && plan.pauses.is_none(),
    };
    let auditor = tokio::spawn(audit(shared.clone(), plan.turn_max));
    let end = Instant::now() + plan.work;
    let clients: Vec<_> = (0..plan.clients)
        .map(|number| {
            let random = SmallRng::seed_from_u64(seed ^ (number + 1) << 40);
            tokio::spawn(Client::new(number, random, shared.clone(), around.clone()).work(end))
        })
        .collect();
    if !plan.is_calm() {
        trouble.disturb(end).await?;
    }
    trouble.cluster.network.heal();
    trouble.cluster.network.set_weather(CALM);
    for id in trouble.cluster.ids() {
        trouble.start(id).await?;
    }
    for client in clients {
        timeout(LEAVE_MAX, client)
            .await
            .map_err(|_| "a client never ended".to_owned())?
            .map_err(|error| error.to_string())?;
    }
    auditor.abort();
    let violations = shared.violations();
    if violations.is_empty() { Ok(()) } else { Err(violations.join("; ")) }
}

/// Explains what clients were told; how many writes there were.
async fn explain(
    plan: &Plan,
    schema: &Schema,
    observer: &Observer<'_>,
    records: &[Records],
) -> Result<usize, String> {
    let mut journal = 0;
    for (database, records) in plan.databases.iter().zip(records) {
        let state = state_of(observer, schema, database).await?;
        journal += state.journal.len();
        model::check(schema, records, &state).map_err(|error| format!("{database}: {error}"))?;
    }
    Ok(journal)
}

/// What nodes have to show at last.
async fn end(cluster: &mut Cluster, baton: Option<&Baton>) -> Result<(), String> {
    cluster.compare(WELL_MAX).await?;
    let failures = cluster.failures();
    if !failures.is_empty() {
        return Err(failures.join("; "));
    }
    for id in cluster.ids() {
        if !cluster.stop(id).await {
            return Err(format!("node {id} does not stop at last"));
        }
    }
    let panics = baton.map(Baton::panics).unwrap_or_default();
    if panics.is_empty() { Ok(()) } else { Err(format!("SQL panicked: {}", panics.join("; "))) }
}

/// The epochs of the nodes.
fn epochs(cluster: &Cluster) -> Vec<Option<u64>> {
    let epoch = |id: u64| cluster.core(id).map(|core| core.executor().store().epoch());
    cluster.ids().into_iter().map(epoch).collect()
}

/// Looks after the turns while clients work.
async fn audit(shared: Shared, turn_max: Duration) {
    loop {
        sleep(LOOK).await;
        let held_for = shared.turn_held_for();
        if held_for > turn_max {
            return shared.violation(format!(
                "a turn has been held for {held_for:?}, and by no transaction of a client"
            ));
        }
    }
}

/// Waits until no node holds anything for a client.
async fn quiet(cluster: &Cluster) -> Result<Duration, String> {
    let begin = Instant::now();
    loop {
        let failures = cluster.failures();
        if !failures.is_empty() {
            return Err(failures.join("; "));
        }
        let held: Vec<String> = cluster.ids().into_iter().filter_map(|id| held_by(cluster, id)).collect();
        if held.is_empty() {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > QUIET_MAX {
            return Err(format!("{QUIET_MAX:?} after the last client has gone: {}", held.join("; ")));
        }
        sleep(LOOK).await;
    }
}

/// What a node holds for clients, if anything.
fn held_by(cluster: &Cluster, id: u64) -> Option<String> {
    let core = cluster.core(id)?;
    let usage = core.executor().usage();
    let store = core.executor().store();
    let (reserved, in_flight) = store.databases().iter().fold((0, 0), |(reserved, in_flight), database| {
        (reserved + usize::from(database.is_reserved()), in_flight + database.in_flight_transactions())
    });
    let pinned = store.pages_kept_by_old_pins();
    let tasks = core.sql_tasks().running();
    let is_free =
        usage == dqlite::executor::Usage::default() && (reserved, in_flight, pinned, tasks) == (0, 0, 0, 0);
    (!is_free).then(|| {
        format!(
            "node {id} has {usage:?}, {reserved} write locks, {in_flight} versions under way, \
             {pinned} pages of old versions, {tasks} tasks"
        )
    })
}

/// Whether SQLite finds a database sound.
async fn sound(observer: &Observer<'_>, database: &str) -> Result<(), String> {
    let check = observer.rows(database, "PRAGMA integrity_check", WELL_MAX).await?;
    match &check[..] {
        [row] if matches!(&row[..], [Value::Text(text)] if &text[..] == b"ok") => Ok(()),
        _ => Err(format!("{database}: integrity_check: {check:?}")),
    }
}

async fn state_of(observer: &Observer<'_>, schema: &Schema, database: &str) -> Result<Final, String> {
    sound(observer, database).await?;
    let numbers = observer.rows(database, "SELECT n, tag, chain FROM journal ORDER BY n", WELL_MAX).await?;
    let mut journal = Vec::new();
    for (place, row) in (1..).zip(numbers) {
        match row[..] {
            [Value::Integer(n), Value::Integer(tag), Value::Integer(chain)] if n == place => {
                journal.push((tag, chain));
            }
            _ => return Err(format!("{database}: row {place} of the journal is {row:?}")),
        }
    }
    let mut tables = Vec::new();
    for query in &schema.state {
        tables.push(observer.rows(database, query, WELL_MAX).await?);
    }
    Ok(Final { journal, tables })
}

/// Stands for everything that was recorded.
fn digest_of(records: &[Records]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for records in records {
        for write in records.writes.values() {
            (write.tag, write.begin, write.end, write.outcome as u8).hash(&mut hasher);
        }
        for read in &records.reads {
            (read.begin, read.end, read.rows.len(), read.complete).hash(&mut hasher);
        }
    }
    hasher.finish()
}
