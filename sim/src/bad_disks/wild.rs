//! Several disks are bad, and everything else happens, too.

use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use super::{Play, TROUBLE, WORK};
use crate::cluster::address;
use crate::disk::rot::Rot;
use crate::disk::schedule::{Spell, Trouble};
use crate::disk::{Fault, SimDisk};
use crate::nemesis;

/// Operations of a disk within which its power is cut.
const CUT_WITHIN: u64 = 120;
/// The same for a node that starts.
const CUT_AT_START_WITHIN: u64 = 80;
/// Most spells of a disk.
const SPELLS_MAX: usize = 3;

impl Play {
    /// Until clients have worked.
    pub(super) async fn wild(&mut self) -> Result<(), String> {
        let mut kinds: Vec<Trouble> = Trouble::ALL.into_iter().filter(|_| self.random.random()).collect();
        if kinds.is_empty() {
            kinds.push(Trouble::HangingSyncs);
        }
        for id in self.cluster.ids() {
            let count = self.random.random_range(0..=SPELLS_MAX);
            let stays = count > 0 && self.random.random_range(0..4) == 0 && self.may_lose(id);
            let spells = (0..count).map(|at| {
                let trouble = kinds[self.random.random_range(0..kinds.len())];
                Spell::draw(&mut self.random, trouble, TROUBLE, stays && at == 0)
            });
            let spells = spells.collect();
            self.go_bad(id, spells);
        }
        while Instant::now() < self.begin + WORK {
            sleep(Duration::from_millis(self.random.random_range(50..900))).await;
            self.sweep();
            self.move_on().await?;
        }
        Ok(())
    }

    async fn move_on(&mut self) -> Result<(), String> {
        let (ids, live) = (self.cluster.ids(), self.cluster.live());
        let leader = self.cluster.leader();
        match self.random.random_range(0..16) {
            0..=3 if !live.is_empty() => {
                let victim = leader.filter(|_| self.random.random()).unwrap_or_else(|| self.pick(&live));
                self.plan_cut(victim, CUT_WITHIN);
            }
            4 if !live.is_empty() => {
                let victim = self.pick(&live);
                self.report.kills += 1;
                self.report.leader_kills += usize::from(leader == Some(victim));
                self.cluster.kill(victim);
            }
            5..=9 => {
                for id in ids {
                    if !self.cluster.runs(id) && self.random.random_range(0..4) > 0 {
                        // What a start repairs is cut off as well.
                        if self.random.random_range(0..3) == 0 {
                            self.plan_cut(id, CUT_AT_START_WITHIN);
                        }
                        self.start(id).await?;
                    }
                }
            }
            10 => {
                self.report.partitions += 1;
                let alone = leader.unwrap_or_else(|| self.pick(&ids));
                for other in ids.into_iter().filter(|id| *id != alone) {
                    self.cluster.network.block(&address(alone), &address(other));
                    self.cluster.network.block(&address(other), &address(alone));
                }
            }
            11 => self.cluster.network.heal(),
            12 => self.be_heard_by_one().await,
            // A voter less is a majority less.
            13 if self.lost.is_empty() && self.rotten.is_empty() => {
                self.report.changes += usize::from(nemesis::change(&self.cluster, &mut self.random).await);
            }
            14 => self.rot(),
            15 => {
                for id in live {
                    self.report.kills += 1;
                    self.report.leader_kills += usize::from(leader == Some(id));
                    self.cluster.crash(id);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The power of a node goes at one of the next operations of its disk.
    fn plan_cut(&mut self, id: u64, within: u64) {
        let after = self.random.random_range(1..within);
        if let Some(disk) = self.cluster.disk(id) {
            disk.plan(disk.operations() + after, Fault::Cut);
        }
    }

    /// The leader reaches one follower for a while, whose log hangs, and then none; the follower reaches it all the time.
    async fn be_heard_by_one(&mut self) {
        let Some(leader) = self.cluster.leader() else { return };
        let others: Vec<u64> = self.cluster.live().into_iter().filter(|id| *id != leader).collect();
        if others.is_empty() {
            return;
        }
        let hears = self.pick(&others);
        self.report.partitions += 1;
        let lasts = Duration::from_millis(self.random.random_range(1500..3000));
        if let Some(disk) = self.cluster.disk(hears) {
            disk.go_bad_now(Trouble::HangingLog, lasts);
        }
        for other in self.cluster.ids().into_iter().filter(|id| ![leader, hears].contains(id)) {
            self.cluster.network.block(&address(leader), &address(other));
            self.cluster.network.block(&address(other), &address(leader));
        }
        sleep(Duration::from_millis(self.random.random_range(50..400))).await;
        self.cluster.network.block(&address(leader), &address(hears));
        sleep(lasts).await;
    }

    /// A node goes down, and something on its disk falls over.
    fn rot(&mut self) {
        let ids = self.cluster.ids();
        let id = self.pick(&ids);
        let is_whole = self.report.changes == 0 && !self.lost.contains(&id);
        if self.told.contains(&id) || !is_whole || !self.may_lose(id) {
            return;
        }
        if self.cluster.runs(id) {
            self.report.kills += 1;
            self.cluster.crash(id);
        }
        let at = self.random.random_range(0..Rot::ALL.len());
        let rots = |disk: &SimDisk| disk.rot(Rot::ALL[at], &mut self.random);
        if self.cluster.disk(id).and_then(rots).is_some() {
            self.report.disks.rotten[at] += 1;
            self.rotten.insert(id);
        }
    }
}
