//! A cluster in calm weather, besieged by strangers and forgers until the end: whoever reaches a port can say what a node says.
//! They never get what nodes send, and they forge no granted votes, which nothing but the host's TLS can tell from real ones. Which
//! kinds of them there are is drawn for each history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dqlite::peers::FENCE_BASE;
use dqlite::peers::link::connect_bytes;
use dqlite::peers::message::{
    AppendEntries, AppendEntriesResult, InstallSnapshot, Message, RequestVote, RequestVoteResult,
};
use dqlite::raft::{SnapshotPace, SnapshotPolicy};
use dqlite::types::{Configuration, LogIndex, NodeId, Role, Server, Term};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::client::ClusterClient;
use crate::cluster::{Cluster, address};
use crate::history::{Operation, Outcome, check_set};
use crate::network::Network;
use crate::scenario::Report;

const NODES: u64 = 3;
/// How long the cluster is besieged while clients write.
const SIEGE: Duration = Duration::from_secs(12);
/// Longest time to the first write and for all nodes to catch up at the end, under siege.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// Longest time without an acknowledged write while nobody may be deposed.
const GAP_MAX: Duration = Duration::from_secs(1);
/// The same when strangers may claim later terms, each of which costs an election, or a node was down.
const GAP_WITH_ELECTIONS_MAX: Duration = Duration::from_secs(20);
/// Nobody is there, and nobody says so.
const SILENT: &[u8] = b"silent";

/// What strangers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Answers in the names of members, also to fences that are guessed.
    Answers,
    /// A heartbeat of somebody who says that he leads in the current term, from a connection that is closed at once.
    Claims,
    /// Messages of terms that no election leads to.
    FarTerms,
    /// Many connections, which ask for something and leave addresses that do not answer.
    Flood,
    /// A snapshot of a later term that never ends.
    Drip,
    /// A vote in a later term that says that the leader wants it.
    LaterTerm,
}

const DEEDS: [Deed; 6] =
    [Deed::Answers, Deed::Claims, Deed::FarTerms, Deed::Flood, Deed::Drip, Deed::LaterTerm];

impl Deed {
    /// Whether it may cost an election.
    fn may_depose(self) -> bool {
        matches!(self, Deed::Drip | Deed::LaterTerm)
    }
}

/// All strangers.
struct Strangers {
    network: Network,
    random: SmallRng,
    deeds: Vec<Deed>,
    term: Arc<AtomicU64>,
    /// The node that has started last, until somebody has gone there.
    fresh: Arc<AtomicU64>,
    next_id: u64,
    /// What stays open, the oldest first.
    open: Vec<DuplexStream>,
}

impl Strangers {
    async fn run(mut self) {
        loop {
            let next = Instant::now() + Duration::from_millis(self.random.random_range(20..400));
            // A node that has just started is flooded before it knows anybody.
            let floods = self.deeds.contains(&Deed::Flood);
            while Instant::now() < next && !(floods && self.fresh.load(Ordering::Relaxed) > 0) {
                sleep(Duration::from_millis(5)).await;
            }
            let mut deed = self.deeds[self.random.random_range(0..self.deeds.len())];
            if floods && Instant::now() < next {
                deed = Deed::Flood;
            }
            let target = self.random.random_range(1..=NODES);
            match deed {
                Deed::Answers => self.answer(target).await,
                Deed::Claims => {
                    let heartbeat = self.heartbeat(self.term());
                    let connection = self.say(target, self.next_id, &address(90), &heartbeat).await;
                    sleep(Duration::from_millis(5)).await;
                    drop(connection);
                }
                Deed::FarTerms => self.far_terms(target).await,
                Deed::Flood => self.flood(target).await,
                Deed::Drip => self.drip().await,
                Deed::LaterTerm => {
                    let step = self.random.random_range(1..5);
                    let vote = self.vote(self.term() + step, true, false);
                    drop(self.say(target, self.next_id, SILENT, &vote).await);
                    // Each of them costs an election.
                    sleep(Duration::from_secs(5)).await;
                }
            }
            self.open.drain(..self.open.len().saturating_sub(300));
        }
    }

    fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    /// A connection in somebody's name, and what it says first.
    async fn say(&mut self, to: u64, id: u64, from: &[u8], message: &Message) -> Option<DuplexStream> {
        self.next_id += 1;
        let dialer = self.network.dialer(b"stranger");
        let mut stream = timeout(Duration::from_secs(1), dialer.connect(&address(to))).await.ok()?.ok()?;
        stream.write_all(&connect_bytes(NodeId(id), from)).await.ok()?;
        stream.write_all(&message.encode()).await.ok()?;
        Some(stream)
    }

    fn heartbeat(&mut self, term: u64) -> Message {
        Message::AppendEntries(AppendEntries {
            term: Term(term),
            previous_index: LogIndex(FENCE_BASE + self.random.random_range(0..1000)),
            previous_term: Term(term),
            commit: LogIndex::NONE,
            entries: Vec::new(),
        })
    }

    fn vote(&self, term: u64, disrupts_leader: bool, is_pre_vote: bool) -> Message {
        Message::RequestVote(RequestVote {
            term: Term(term),
            candidate: NodeId(self.next_id),
            last_index: LogIndex(1 << 40),
            last_term: Term(term.saturating_sub(1)),
            disrupts_leader,
            is_pre_vote,
        })
    }

    async fn answer(&mut self, target: u64) {
        let name = self.random.random_range(1..=NODES);
        let term = Term(self.term());
        let index = LogIndex(self.random.random_range(1..1000));
        let fence = LogIndex(FENCE_BASE + self.random.random_range(0..1 << 56));
        let answer = match self.random.random_range(0..4) {
            0 => AppendEntriesResult { term, rejected: fence, last_index: index },
            1 => AppendEntriesResult { term, rejected: index, last_index: LogIndex::NONE },
            2 => AppendEntriesResult { term: Term(term.0 + 1), rejected: fence, last_index: index },
            _ => AppendEntriesResult { term, rejected: LogIndex::NONE, last_index: LogIndex(1 << 40) },
        };
        let connection = self.say(target, name, &address(name), &Message::AppendEntriesResult(answer)).await;
        if self.random.random() {
            self.open.extend(connection);
        }
    }

    async fn far_terms(&mut self, target: u64) {
        let term = if self.random.random() { u64::MAX } else { (1 << 62) + self.random.random_range(0..9) };
        let result =
            AppendEntriesResult { term: Term(term), rejected: LogIndex::NONE, last_index: LogIndex(1) };
        let refused = RequestVoteResult { term: Term(term), granted: false, is_pre_vote: Some(false) };
        let message = match self.random.random_range(0..5) {
            0 => self.heartbeat(term),
            1 => self.vote(term, true, false),
            2 => self.vote(term, false, true),
            3 => Message::RequestVoteResult(refused),
            _ => Message::AppendEntriesResult(result),
        };
        let name = if self.random.random() { self.next_id } else { self.random.random_range(1..=NODES) };
        drop(self.say(target, name, SILENT, &message).await);
    }

    async fn flood(&mut self, target: u64) {
        let fresh = self.fresh.swap(0, Ordering::Relaxed);
        let (target, most) = if fresh > 0 { (fresh, 80) } else { (target, self.random.random_range(1..80)) };
        for _ in 0..most {
            let vote = self.vote(self.term() + 1, false, true);
            let silent = format!("silent-{}", self.random.random_range(0..50)).into_bytes();
            self.network.pause(&silent);
            let connection = self.say(target, self.next_id, &silent, &vote).await;
            self.open.extend(connection);
        }
    }

    async fn drip(&mut self) {
        let term = self.term() + 1;
        let servers =
            (1..=NODES).map(|id| Server { id: NodeId(id), address: address(id), role: Role::Voter });
        let Ok(configuration) = Configuration::new(servers.collect()) else { return };
        let message = Message::InstallSnapshot(InstallSnapshot {
            term: Term(term),
            index: LogIndex(1 << 40),
            last_term: Term(1),
            configuration_index: LogIndex(1),
            configuration,
            content_bytes: 1 << 40,
        });
        let id = self.next_id;
        for target in 1..=NODES {
            let Some(mut connection) = self.say(target, id, SILENT, &message).await else { continue };
            tokio::spawn(async move {
                while connection.write_all(&[0]).await.is_ok() {
                    sleep(Duration::from_millis(500)).await;
                }
            });
        }
        // Each of them costs an election.
        sleep(Duration::from_secs(30)).await;
    }
}

/// Inserts rows until it is told to end; the longest time without a success.
async fn write(
    mut client: ClusterClient,
    mut end: oneshot::Receiver<()>,
) -> (Vec<Operation<u64, ()>>, Duration) {
    let (begin, mut operations, mut longest) = (Instant::now(), Vec::new(), Duration::ZERO);
    let mut acknowledged = begin;
    for value in 1.. {
        if end.try_recv() != Err(oneshot::error::TryRecvError::Empty) {
            break;
        }
        let started = begin.elapsed();
        let outcome = client.exec(&format!("INSERT INTO row VALUES({value})")).await;
        longest = longest.max(acknowledged.elapsed());
        if outcome == Outcome::Done(()) {
            acknowledged = Instant::now();
        }
        let end = begin.elapsed();
        operations.push(Operation { client: 1, call: value, begin: started, end, outcome });
        sleep(Duration::from_millis(40)).await;
    }
    (operations, longest)
}

/// Who leads, and its term.
fn leads(cluster: &Cluster) -> Option<(u64, u64)> {
    let leader = cluster.leader()?;
    Some((leader, cluster.core(leader)?.engine().current_term().0))
}

/// The history of a seed, in a runtime with a paused clock.
pub(crate) async fn run(seed: u64) -> Result<Report, String> {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x7369_6567_6500_0000);
    let drawn: Vec<Deed> = DEEDS.into_iter().filter(|_| random.random()).collect();
    let alone = DEEDS[(seed / 2) as usize % DEEDS.len()];
    // Half of the histories have one kind alone.
    let deeds = if seed.is_multiple_of(2) || drawn.is_empty() { vec![alone] } else { drawn };
    // Who starts anew needs its links and its places.
    let restarts = deeds == [Deed::Flood] || random.random_range(0..3) == 0;
    let policy =
        SnapshotPolicy { threshold_entries: 200, trailing_entries: 100, pace: SnapshotPace::Entries };
    let mut cluster = Cluster::new(seed, NODES, policy);
    cluster.form().await?;
    let addresses = cluster.own_addresses();
    let mut client = ClusterClient::new(&cluster.network, 0, &addresses);
    client.insist("CREATE TABLE row(v INTEGER)", CATCH_UP_MAX).await.ok_or("no table in calm weather")?;
    let before = leads(&cluster).ok_or("nobody leads in calm weather")?;
    cluster.network.pause(SILENT);
    let term = Arc::new(AtomicU64::new(before.1));
    let fresh = Arc::new(AtomicU64::new(0));
    let strangers = Strangers {
        network: cluster.network.clone(),
        random: SmallRng::seed_from_u64(random.random()),
        deeds: deeds.clone(),
        term: term.clone(),
        fresh: fresh.clone(),
        next_id: 1000,
        open: Vec::new(),
    };
    let besieging = tokio::spawn(strangers.run());
    let (end, ended) = oneshot::channel();
    let writer = tokio::spawn(write(ClusterClient::new(&cluster.network, 1, &addresses), ended));
    let mut report = Report { seed, clients: 1, ..Report::default() };
    let began = Instant::now();
    while began.elapsed() < SIEGE {
        sleep(Duration::from_millis(100)).await;
        if let Some((_, now)) = leads(&cluster) {
            term.store(now, Ordering::Relaxed);
        }
        if restarts && random.random_range(0..30) == 0 {
            // Never the leader: elections have histories of their own.
            let is_follower = |id: &u64| cluster.leader().is_some_and(|leader| leader != *id);
            let Some(follower) = cluster.live().into_iter().find(is_follower) else { continue };
            report.kills += 1;
            cluster.crash(follower);
            sleep(Duration::from_millis(random.random_range(0..1000))).await;
            cluster
                .start(follower)
                .await
                .map_err(|error| format!("node {follower} does not start: {error:?}"))?;
            fresh.store(follower, Ordering::Relaxed);
        }
    }
    // Whoever has ended does not want it.
    let _ = end.send(());
    let (operations, longest) = writer.await.map_err(|error| error.to_string())?;
    let last = Instant::now();
    let written = client.insist("INSERT INTO row VALUES(0)", CATCH_UP_MAX).await;
    written.ok_or_else(|| format!("no write within {CATCH_UP_MAX:?} under siege by {deeds:?}"))?;
    report.healed_in = last.elapsed();
    let compared = cluster.compare(CATCH_UP_MAX).await;
    let failures = cluster.failures();
    if !failures.is_empty() {
        return Err(failures.join("; "));
    }
    compared.map_err(|error| format!("under siege by {deeds:?}: {error}"))?;
    let rows = loop {
        if let Outcome::Done(rows) =
            client.query("SELECT coalesce(group_concat(v), '') FROM row WHERE v > 0").await
        {
            break crate::workload::list(&rows);
        }
    };
    check_set(&operations, &rows).map_err(|error| format!("rows: {error}"))?;
    let may_depose = deeds.iter().any(|deed| deed.may_depose());
    let now = leads(&cluster);
    if !may_depose && now != Some(before) {
        return Err(format!("deposed by {deeds:?}: node {} led in term {}, now {now:?}", before.0, before.1));
    }
    let gap_max = if may_depose || restarts { GAP_WITH_ELECTIONS_MAX } else { GAP_MAX };
    if longest > gap_max {
        return Err(format!("no write for {longest:?} under siege by {deeds:?}"));
    }
    report.acknowledged =
        operations.iter().filter(|operation| operation.outcome == Outcome::Done(())).count();
    report.unknown = operations.len() - report.acknowledged;
    report.changes = usize::from(now != Some(before));
    report.digest = cluster.network.digest();
    besieging.abort();
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
    Ok(report)
}
