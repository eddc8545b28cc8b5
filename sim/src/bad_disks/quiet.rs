//! One disk is bad in one way, and nothing else happens; or one thing more, to see what its node does.

use std::time::Duration;

use dqlite::types::NodeId;
use rand::Rng;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Gap, Play, WORK};
use crate::disk::schedule::{Spell, Trouble};
use crate::workload::Shared;

/// Longest time in which a node whose vote can be stored is in the term of a new leader.
const LEARNED_MAX: Duration = Duration::from_millis(2500);
/// How long a disk is bad before something else happens.
const BEFORE: Duration = Duration::from_millis(700);

impl Play {
    /// Until clients have worked. Kinds take turns, so that a few seeds have all of them.
    pub(super) async fn quiet(&mut self, turn: u64, histories: &Shared) -> Result<(), String> {
        let kinds = Trouble::ALL.len() as u64;
        let trouble = Trouble::ALL[(turn % kinds) as usize];
        let (of_leader, looks) =
            ((turn / kinds).is_multiple_of(2), turn / kinds % 4 == 3 && trouble.spares_votes());
        let leader = self.cluster.leader().ok_or("nobody leads in calm weather")?;
        let others: Vec<u64> = self.cluster.ids().into_iter().filter(|id| *id != leader).collect();
        let victim = if of_leader { leader } else { self.pick(&others) };
        let from = Duration::from_millis(self.random.random_range(1000..2000));
        let lasts = Duration::from_millis(self.random.random_range(5000..8000));
        let stays = !looks && trouble != Trouble::ErrorOnce && self.random.random_range(0..3) == 0;
        let until = (!stays).then_some(from + lasts);
        let slow_max = Duration::from_millis(self.random.random_range(20..800));
        let spell = Spell { trouble, from, until, slow_max };
        let begin = Instant::now();
        self.go_bad(victim, vec![spell]);
        if looks {
            sleep_until(begin + from + BEFORE).await;
            self.look_at(trouble, victim, leader).await?;
        }
        sleep_until(self.begin + WORK).await;
        if !looks {
            let all = histories.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let since = begin - self.begin;
            let longest = all.longest_gap(since + from, (since + from + lasts).min(WORK));
            self.report.disks.gap = Some(Gap { trouble, of_leader, longest });
        }
        Ok(())
    }

    /// Another node leads, and this one must follow it; or nobody does, and this one must not lead.
    async fn look_at(&mut self, trouble: Trouble, victim: u64, leader: u64) -> Result<(), String> {
        let others: Vec<u64> =
            self.cluster.live().into_iter().filter(|id| ![victim, leader].contains(id)).collect();
        let heir = self.pick(&others);
        if trouble == Trouble::HangingLog && self.random.random() {
            self.report.kills += 1;
            self.report.leader_kills += 1;
            self.cluster.crash(leader);
            let end = Instant::now() + LEARNED_MAX;
            while Instant::now() < end {
                sleep(Duration::from_millis(20)).await;
                let status = self.cluster.core(victim).map(|core| core.engine().status().borrow().clone());
                let leads = status.and_then(|status| status.leader).is_some_and(|(id, _)| id.0 == victim);
                if leads && self.cluster.leader().is_none_or(|leader| leader == victim) {
                    return Err(format!("node {victim} leads, and its log is not durable"));
                }
            }
            return self.start(leader).await;
        }
        let engine = self.cluster.core(leader).ok_or("the leader has gone")?.engine().clone();
        // Whoever has not got all of the log in time does not lead.
        let _ = timeout(Duration::from_secs(1), engine.transfer(Some(NodeId(heir)))).await;
        sleep(LEARNED_MAX).await;
        let term = |id| self.cluster.core(id).map(|core| core.engine().current_term());
        let Some(leader) = self.cluster.leader() else { return Ok(()) };
        if term(victim) < term(leader) {
            let (theirs, own) = (term(leader), term(victim));
            return Err(format!(
                "node {victim} is deaf: in term {own:?}, node {leader} leads in term {theirs:?}"
            ));
        }
        Ok(())
    }
}
