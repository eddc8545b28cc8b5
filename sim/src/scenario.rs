//! One simulated history: clients work, a nemesis disturbs them, then everything is healed and looked at.

use std::sync::PoisonError;
use std::time::Duration;

use dqlite::raft::{SnapshotPace, SnapshotPolicy};
use dqlite::types::Role;
use dqlite::types::fault::{self, Fault};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use crate::bad_disks::{self, BadDisks};
use crate::c_node;
use crate::client::ClusterClient;
use crate::cluster::Cluster;
use crate::mixed::{self, Mixed};
use crate::nemesis::disturb;
use crate::network::CALM;
use crate::siege;
use crate::workload::{self, CLIENTS, Shared, work};

/// Clients in a crowd; those beyond `CLIENTS` only insert rows.
const CROWD: u64 = 16;
/// One history in so many has a crowd.
const CROWDED: u32 = 4;
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
    /// The newest connection in the name of a member silences the others.
    NewestSilences,
    /// Strangers take the links of members.
    SharedLinks,
    /// A snapshot keeps the belief in a leader however slowly it comes.
    DripRenews,
    /// Every term is believed.
    TermUnbounded,
    /// Whoever claims to lead in the current term is believed.
    SecondClaimantHeard,
    /// A stored vote counts as the sync of all entries before it.
    AckOnVoteFlush,
    /// A leader is told of what became durable after a vote in a later term.
    AckAfterLaterTerm,
    /// Who has entries that are not durable stands for elections.
    StandsUndurable,
    /// A vote waits for the entries before it.
    VoteBehindAppend,
}

impl Plant {
    /// All faults.
    pub const ALL: [Plant; 17] = [
        Plant::LostWrite,
        Plant::StaleRead,
        Plant::ForgottenVote,
        Plant::Gap,
        Plant::EarlyReply,
        Plant::VersionTwice,
        Plant::ForgottenVoteOfC,
        Plant::GapOfC,
        Plant::NewestSilences,
        Plant::SharedLinks,
        Plant::DripRenews,
        Plant::TermUnbounded,
        Plant::SecondClaimantHeard,
        Plant::AckOnVoteFlush,
        Plant::AckAfterLaterTerm,
        Plant::StandsUndurable,
        Plant::VoteBehindAppend,
    ];

    /// Those that a siege must find.
    pub const OF_SIEGES: [Plant; 5] = [
        Plant::NewestSilences,
        Plant::SharedLinks,
        Plant::DripRenews,
        Plant::TermUnbounded,
        Plant::SecondClaimantHeard,
    ];

    /// What the library itself does wrong.
    fn fault(self) -> Option<Fault> {
        match self {
            Plant::EarlyReply => Some(Fault::ReplyBeforeApply),
            Plant::VersionTwice => Some(Fault::VersionTwice),
            Plant::NewestSilences => Some(Fault::NewestSilences),
            Plant::SharedLinks => Some(Fault::SharedLinks),
            Plant::DripRenews => Some(Fault::DripRenews),
            Plant::TermUnbounded => Some(Fault::TermUnbounded),
            Plant::SecondClaimantHeard => Some(Fault::SecondClaimantHeard),
            Plant::AckOnVoteFlush => Some(Fault::AckOnVoteFlush),
            Plant::AckAfterLaterTerm => Some(Fault::AckAfterLaterTerm),
            Plant::StandsUndurable => Some(Fault::StandsUndurable),
            Plant::VoteBehindAppend => Some(Fault::VoteBehindAppend),
            _ => None,
        }
    }

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
    /// What only bad disks show.
    pub disks: BadDisks,
}

impl Report {
    /// Leaders whose power was cut while a crowd wrote.
    #[must_use]
    pub fn crowded_leader_kills(&self) -> usize {
        if self.clients == CROWD { self.leader_kills } else { 0 }
    }
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
    cluster.forgets_votes = plant == Some(Plant::ForgottenVote);
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
    workload::make_tables(&mut client, HEAL_MAX).await?;
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
    let all = std::mem::take(&mut *histories.lock().unwrap_or_else(PoisonError::into_inner));
    (report.acknowledged, report.unknown) = all.check(&mut client, HEAL_MAX).await?;
    report.digest = cluster.network.digest();
    report.mixed = mixed::seen(&cluster);
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
    Ok(report)
}

/// Runs the history of a seed.
///
/// # Errors
/// What was violated.
pub fn history(seed: u64, plant: Option<Plant>) -> Result<Report, String> {
    replay(seed, plant, run(seed, plant, false))
}

/// Runs the history of a seed on a cluster with models of upstream's nodes.
///
/// # Errors
/// What was violated.
pub fn mixed_history(seed: u64, plant: Option<Plant>) -> Result<Report, String> {
    replay(seed, plant, run(seed, plant, true))
}

/// Runs the history of a seed on a cluster that strangers besiege.
///
/// # Errors
/// What was violated.
pub fn besieged_history(seed: u64, plant: Option<Plant>) -> Result<Report, String> {
    replay(seed, plant, siege::run(seed))
}

/// Runs the history of a seed on a cluster with bad disks.
///
/// # Errors
/// What was violated.
pub fn disk_history(seed: u64, plant: Option<Plant>) -> Result<Report, String> {
    replay(seed, plant, bad_disks::run(seed, plant))
}

fn replay(
    seed: u64,
    plant: Option<Plant>,
    history: impl Future<Output = Result<Report, String>>,
) -> Result<Report, String> {
    fault::plant(plant.and_then(Plant::fault));
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().map_err(|error| error.to_string())?;
    let report = runtime.block_on(history);
    drop(runtime);
    report.map_err(|error| format!("seed {seed}: {error}"))
}
