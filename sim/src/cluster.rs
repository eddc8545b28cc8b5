//! A cluster of whole nodes in one process: each on a disk of its own, over one simulated network. Some of them may be
//! models of upstream's nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use dqlite::node::core::Core;
use dqlite::pages::PageStore;
use dqlite::peers::Sender;
use dqlite::raft::{ChangeError, SnapshotPolicy};
use dqlite::types::{NodeId, PageNumber, Role};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::c_node::log::Stored;
use crate::c_node::observed::Observed;
use crate::c_node::task::Running;
use crate::c_node::{CNode, Event, Fault, Options};
use crate::disk::SimDisk;
use crate::disk_worker::DiskWorker;
use crate::network::Network;
use crate::node::{DIRECTORY, Member, NodeSettings, SqlSettings, StartError, Tamper, start_member};

/// Longest time for a node to end.
const STOP_MAX: Duration = Duration::from_secs(60);

/// A node that runs.
struct Life {
    core: Core,
    dead: CancellationToken,
}

/// What a modelled C node has on its disk, and the node while it runs.
#[derive(Default)]
struct Modelled {
    disk: Stored,
    life: Option<Running>,
}

/// One place for a node.
struct Place {
    id: u64,
    address: Vec<u8>,
    disk: SimDisk,
    life: Option<Life>,
    starts: u64,
    /// It makes the cluster.
    founds: bool,
    /// Instead of a node of this library.
    modelled: Option<Modelled>,
}

impl Place {
    fn model(&self) -> Option<&Running> {
        self.modelled.as_ref()?.life.as_ref()
    }

    fn runs(&self) -> bool {
        self.life.is_some() || self.model().is_some()
    }
}

/// The cluster.
pub struct Cluster {
    /// What the nodes and clients talk over.
    pub network: Network,
    seed: u64,
    policy: SnapshotPolicy,
    places: BTreeMap<u64, Place>,
    /// Fault planted in the log of each node.
    pub tamper: Option<Tamper>,
    /// Whether votes are acknowledged and not stored.
    pub forgets_votes: bool,
    /// Fault planted in the state of node 2.
    pub skips: Option<u64>,
    /// How nodes that start run SQL.
    pub sql: SqlSettings,
    /// Who calls the disks of nodes that start.
    pub disk_worker: DiskWorker,
    /// Nodes do not start when entries were set aside.
    pub is_careful: bool,
    /// Fault planted in modelled C nodes.
    pub c_fault: Option<Fault>,
    observed: Arc<Mutex<Observed>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Address of a node.
#[must_use]
pub fn address(id: u64) -> Vec<u8> {
    format!("10.0.0.{id}:9000").into_bytes()
}

/// Pages of every database, with the index up to which entries are applied.
type Image = (u64, Vec<Pages>);

/// Name of a database and digests of its pages.
type Pages = (Vec<u8>, Vec<Option<u64>>);

impl Cluster {
    /// `nodes` places, nobody runs.
    #[must_use]
    pub fn new(seed: u64, nodes: u64, policy: SnapshotPolicy) -> Cluster {
        let places = (1..=nodes)
            .map(|id| {
                let disk = SimDisk::new(Path::new(DIRECTORY));
                let (address, founds) = (address(id), id == 1);
                (id, Place { id, address, disk, life: None, starts: 0, founds, modelled: None })
            })
            .collect();
        let observed = Arc::default();
        let network = Network::new(seed);
        Cluster {
            network,
            seed,
            policy,
            places,
            tamper: None,
            forgets_votes: false,
            skips: None,
            sql: SqlSettings::default(),
            disk_worker: DiskWorker::default(),
            is_careful: false,
            c_fault: None,
            observed,
        }
    }

    /// These places are for models of upstream's nodes. Node 1, which bootstraps, is none.
    pub fn model(&mut self, ids: &[u64]) {
        for place in self.places.values_mut() {
            place.modelled = ids.contains(&place.id).then(Modelled::default);
        }
    }

    /// What the modelled nodes have seen.
    pub fn observed(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a place is for a modelled node.
    #[must_use]
    pub fn is_modelled(&self, id: u64) -> bool {
        self.places.get(&id).is_some_and(|place| place.modelled.is_some())
    }

    /// Whether any place is.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        self.places.values().any(|place| place.modelled.is_some())
    }

    /// Whether a node runs.
    #[must_use]
    pub fn runs(&self, id: u64) -> bool {
        self.places.get(&id).is_some_and(Place::runs)
    }

    /// Addresses of this library's nodes.
    #[must_use]
    pub fn own_addresses(&self) -> Vec<Vec<u8>> {
        let own = self.places.values().filter(|place| place.modelled.is_none());
        own.map(|place| place.address.clone()).collect()
    }

    /// The modelled node that leads, if one does.
    #[must_use]
    pub fn c_leader(&self) -> Option<u64> {
        let leads = |place: &&Place| place.model().is_some_and(|running| running.node().leads());
        self.places.values().find(leads).map(|place| place.id)
    }

    /// A client asks the modelled node that leads for a change of a role.
    pub fn assign_by_c(&self, id: u64, role: Role) {
        let leader = self.c_leader().and_then(|leader| self.places.get(&leader)?.model());
        if let Some(running) = leader {
            // It runs, so it listens.
            let _ = running.events.send(Event::Assign(NodeId(id), role));
        }
    }

    fn start_model(&mut self, id: u64) {
        let heirs = self.places.values().filter(|place| place.modelled.is_none());
        let heirs = heirs.map(|place| NodeId(place.id)).collect();
        let Some(place) = self.places.get_mut(&id) else { return };
        let Some(modelled) = &mut place.modelled else { return };
        let me = Sender { id: NodeId(id), address: place.address.clone().into() };
        let options = Options {
            seed: self.seed.wrapping_mul(1000) % 1_000_000_007 + id * 100 + place.starts,
            policy: self.policy,
            heirs,
            fault: self.c_fault,
        };
        let node = CNode::load(me, options, Arc::clone(&self.observed), modelled.disk.clone());
        modelled.life = Some(Running::start(node, &self.network));
    }

    /// Disks forget what they sync from now on: a planted fault.
    pub fn forget(&self) {
        self.places.values().for_each(|place| place.disk.forget());
    }

    /// All addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<Vec<u8>> {
        self.places.values().map(|place| place.address.clone()).collect()
    }

    /// Nodes that run.
    #[must_use]
    pub fn live(&self) -> Vec<u64> {
        self.places.values().filter(|place| place.runs()).map(|place| place.id).collect()
    }

    /// All nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.places.keys().copied().collect()
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// The directory does not load, which it always must.
    pub async fn start(&mut self, id: u64) -> Result<(), StartError> {
        let forgets_votes = self.forgets_votes;
        let (network, seed, policy, tamper) =
            (self.network.clone(), self.seed, self.policy, self.tamper.clone());
        let skips = self.skips.filter(|_| id == 2);
        let Some(place) = self.places.get_mut(&id).filter(|place| !place.runs()) else {
            return Ok(());
        };
        place.starts += 1;
        if place.modelled.is_some() {
            self.start_model(id);
            return Ok(());
        }
        let settings = NodeSettings {
            seed: seed.wrapping_mul(1000) % 1_000_000_007 + id * 100 + place.starts,
            policy,
            compress: id.is_multiple_of(2),
            segment_bytes: 32 * 1024,
        };
        let dead = CancellationToken::new();
        let dial = Arc::new(network.dialer(&place.address));
        let address = place.address.clone();
        let member = Member {
            id,
            address,
            dial,
            dead: dead.clone(),
            tamper,
            forgets_votes,
            skips,
            sql: self.sql.clone(),
            disk_worker: self.disk_worker.clone(),
            founds: place.founds,
            is_careful: self.is_careful,
        };
        let core = start_member(&place.disk, settings, member).await?;
        let mut accepted = network.listen(&place.address);
        let gateway = Arc::clone(core.gateway());
        tokio::spawn(async move {
            while let Some(stream) = accepted.recv().await {
                let (read, write) = tokio::io::split(stream);
                gateway.serve((read, write));
            }
        });
        let mut entered = network.door(&place.address);
        let gateway = Arc::clone(core.gateway());
        tokio::spawn(async move {
            while let Some(stream) = entered.recv().await {
                gateway.serve(stream);
            }
        });
        place.life = Some(Life { core, dead });
        Ok(())
    }

    /// The disk of a node.
    #[must_use]
    pub fn disk(&self, id: u64) -> Option<&SimDisk> {
        self.places.get(&id).map(|place| &place.disk)
    }

    /// A node that does not run, and has been removed from its cluster, gets an empty disk. What the old one was.
    pub fn replace_disk(&mut self, id: u64) -> Option<SimDisk> {
        let place = self.places.get_mut(&id).filter(|place| !place.runs())?;
        place.founds = false;
        Some(std::mem::replace(&mut place.disk, SimDisk::new(Path::new(DIRECTORY))))
    }

    /// The power of a node is cut: what was not synced is lost or kept at random.
    pub fn crash(&mut self, id: u64) {
        let seed = self.seed;
        let Some(place) = self.places.get_mut(&id) else { return };
        if let Some(modelled) = &mut place.modelled
            && let Some(running) = modelled.life.take()
        {
            modelled.disk = running.node().power_cut();
            self.network.crash(&place.address);
            running.dead.cancel();
            return;
        }
        let life = place.life.take();
        if life.is_some() || place.disk.is_off() {
            place.disk = place.disk.after_power_cut(seed ^ id << 32 ^ place.starts);
        }
        self.end(id, life);
    }

    /// The process of a node is killed, or has ended: the system keeps what it has written.
    pub fn kill(&mut self, id: u64) {
        let Some(place) = self.places.get_mut(&id) else { return };
        place.disk = place.disk.after_kill();
        let life = place.life.take();
        self.end(id, life);
    }

    fn end(&self, id: u64, life: Option<Life>) {
        let Some(life) = life else { return };
        self.network.crash(&address(id));
        life.dead.cancel();
        // Nothing of it reaches a disk or the network any more; this only frees it.
        tokio::spawn(life.core.stop());
    }

    /// Why a node has stopped by itself, if it has.
    #[must_use]
    pub fn stopped(&self, id: u64) -> Option<String> {
        self.core(id)?.engine().status().borrow().failed.clone()
    }

    /// A node ends cleanly; a modelled one as if its power were cut. Whether it ended in time.
    pub async fn stop(&mut self, id: u64) -> bool {
        if self.is_modelled(id) {
            self.crash(id);
            return true;
        }
        let Some(place) = self.places.get_mut(&id) else { return true };
        let Some(life) = place.life.take() else { return true };
        let stopped = timeout(STOP_MAX, life.core.stop()).await.is_ok_and(|stopped| stopped.is_quiet);
        self.network.crash(&place.address);
        sleep(Duration::from_millis(10)).await;
        life.dead.cancel();
        place.disk = place.disk.after_power_cut(self.seed ^ id);
        stopped
    }

    /// A running node.
    #[must_use]
    pub fn core(&self, id: u64) -> Option<&Core> {
        self.places.get(&id)?.life.as_ref().map(|life| &life.core)
    }

    /// The node that takes writes, if one does.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        self.live()
            .into_iter()
            .find(|id| self.core(*id).is_some_and(|core| core.engine().serving().is_some()))
    }

    /// Waits for a node that takes writes.
    pub async fn wait_leader(&self, patience: Duration) -> Option<u64> {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(leader) = self.leader() {
                return Some(leader);
            }
            sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// Starts all nodes and makes them voters.
    ///
    /// # Errors
    /// What did not work.
    pub async fn form(&mut self) -> Result<(), String> {
        for id in self.ids() {
            self.start(id).await.map_err(|error| format!("start of node {id}: {error:?}"))?;
        }
        for id in self.ids().into_iter().filter(|id| *id != 1) {
            let engine = self.core(1).ok_or("node 1 does not run")?.engine().clone();
            engine.add(NodeId(id), address(id)).await.map_err(|error| format!("add {id}: {error}"))?;
            let assigned = engine.assign(NodeId(id), Role::Voter).await;
            assigned.map_err(|error| format!("promote {id}: {error}"))?;
        }
        Ok(())
    }

    /// Changes a role through whoever leads.
    ///
    /// # Errors
    /// Nobody leads, or the change was refused.
    pub async fn assign(&self, id: u64, role: Role) -> Result<(), ChangeError> {
        let leader = self.leader().and_then(|leader| self.core(leader)).ok_or(ChangeError::NotLeader)?;
        let engine = leader.engine().clone();
        let assigned = timeout(Duration::from_secs(20), engine.assign(NodeId(id), role));
        assigned.await.unwrap_or(Err(ChangeError::LeadershipLost))
    }

    /// Why nodes have stopped by themselves.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let failed = |id: &u64| Some(format!("node {id} failed: {}", self.stopped(*id)?));
        let modelled = self.places.values().filter_map(|place| {
            let failed = place.model()?.node().failed().cloned()?;
            Some(format!("C node {} ended: {failed}", place.id))
        });
        let violation = self.observed().violation().cloned();
        let panics =
            self.disk_worker.panics().into_iter().map(|text| format!("panic beside the disk: {text}"));
        self.live().iter().filter_map(failed).chain(modelled).chain(violation).chain(panics).collect()
    }

    fn image(&self, id: u64) -> Option<Image> {
        if let Some(running) = self.places.get(&id).and_then(Place::model) {
            let node = running.node();
            let (applied, store) = node.databases();
            return Some(Cluster::image_of(applied, store));
        }
        let core = self.core(id)?;
        Some(Cluster::image_of(core.engine().last_applied().0, core.executor().store()))
    }

    fn image_of(applied: u64, store: &PageStore) -> Image {
        let databases = store.pin_committed();
        let digest = |bytes: &[u8]| {
            bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
            })
        };
        let pages = databases.into_iter().map(|(name, root)| {
            let pages = (1..=root.page_count())
                .map(|number| {
                    let page = root.get(PageNumber(number))?;
                    // Pages of a simulated node are in memory.
                    page.with(|bytes| digest(&bytes[..])).ok()
                })
                .collect();
            (name, pages)
        });
        (applied, pages.collect())
    }

    /// Waits until all running nodes have applied the same, and compares their pages.
    ///
    /// # Errors
    /// They do not get there, or they differ.
    pub async fn compare(&self, patience: Duration) -> Result<usize, String> {
        let end = Instant::now() + patience;
        loop {
            let images: BTreeMap<u64, Image> =
                self.live().into_iter().filter_map(|id| Some((id, self.image(id)?))).collect();
            let newest = images.values().map(|image| image.0).max();
            if images.values().all(|image| Some(image.0) == newest) {
                let Some((first, image)) = images.first_key_value() else { return Ok(0) };
                for (id, other) in &images {
                    if other.1 != image.1 {
                        let differ = differences(&image.1, &other.1);
                        return Err(format!(
                            "at index {} nodes {first} and {id} have other pages: {differ}",
                            image.0
                        ));
                    }
                }
                return Ok(images.len());
            }
            if Instant::now() > end {
                let applied: Vec<(u64, u64)> = images.iter().map(|(id, image)| (*id, image.0)).collect();
                return Err(format!("nodes do not catch up: (node, applied) {applied:?}"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Databases and pages that are not the same: what a violation is looked into with.
fn differences(one: &[Pages], other: &[Pages]) -> String {
    let names: BTreeSet<&[u8]> = one.iter().chain(other).map(|(name, _)| &name[..]).collect();
    let of = |databases: &[Pages], name: &[u8]| {
        databases.iter().find(|(other, _)| other == name).map(|(_, pages)| pages.clone())
    };
    let told = names.into_iter().filter_map(|name| {
        let (one, other) = (of(one, name), of(other, name));
        if one == other {
            return None;
        }
        let name = String::from_utf8_lossy(name);
        let (Some(one), Some(other)) = (&one, &other) else {
            return Some(format!("{name} is there: {}, {}", one.is_some(), other.is_some()));
        };
        let numbers: Vec<usize> = (0..one.len().max(other.len()))
            .filter(|at| one.get(*at) != other.get(*at))
            .map(|at| at + 1)
            .collect();
        let few = &numbers[..numbers.len().min(8)];
        Some(format!("{name} has {} and {} pages, {} differ: {few:?}", one.len(), other.len(), numbers.len()))
    });
    told.collect::<Vec<String>>().join("; ")
}
