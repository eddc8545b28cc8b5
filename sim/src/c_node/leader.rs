//! Leading. spec: raft-wire 7.

use std::collections::BTreeMap;
use std::time::Duration;

use dqlite::pages::PageRef;
use dqlite::peers::Sender;
use dqlite::peers::message::{AppendEntries, AppendEntriesResult, EntryHeader, InstallSnapshot, Message};
use dqlite::state_machine::frames::encode_frames;
use dqlite::types::config::PAGE_SIZE;
use dqlite::types::{Entry, EntryData, EntryKind, LogIndex, NodeId, PageNumber, Role};
use dqlite::vfs::empty_page;
use rand::Rng;
use tokio::time::Instant;

use super::log::Write;
use super::members::{Promotion, Transfer};
use super::{CNode, ELECTION, HEARTBEAT, State};

/// Longest wait for a snapshot to be installed.
const INSTALL: Duration = Duration::from_secs(30);
/// Database that only C nodes write.
const OWN_DATABASE: &[u8] = b"of-c-nodes.db";
/// Pages of it.
const OWN_PAGES: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Probe,
    Pipeline,
    Snapshot { index: u64, since: Instant },
}

/// What a leader knows of a member.
#[derive(Debug)]
pub(super) struct Progress {
    mode: Mode,
    next: u64,
    pub(super) matched: u64,
    sent: Option<Instant>,
    /// An answer came since contacts were last counted.
    heard: bool,
}

/// What only a leader has.
pub(super) struct Leading {
    pub(super) progress: BTreeMap<NodeId, Progress>,
    contacts_counted: Instant,
    /// When it begins to hand leadership over.
    pub(super) until: Instant,
    pub(super) promotion: Option<Promotion>,
    pub(super) transfer: Option<Transfer>,
}

impl CNode {
    pub(super) fn leading(&mut self) -> Option<&mut Leading> {
        if let State::Leader(leading) = &mut self.state { Some(leading) } else { None }
    }

    /// Begins its term with a barrier.
    pub(super) fn lead(&mut self) {
        let now = Instant::now();
        let until = now + Duration::from_millis(self.random.random_range(300..5000));
        self.observed().leads(self.term(), self.me.id);
        let progress = BTreeMap::new();
        self.state = State::Leader(Leading {
            progress,
            contacts_counted: now,
            until,
            promotion: None,
            transfer: None,
        });
        self.watch_members();
        self.propose(vec![Entry::barrier(self.term())]);
    }

    /// Progress of every other member, kept where there is some.
    fn watch_members(&mut self) {
        let next = self.log.last() + 1;
        let others = self.others(|_| true);
        let Some(leading) = self.leading() else { return };
        let mut old = std::mem::take(&mut leading.progress);
        leading.progress = others
            .into_iter()
            .map(|other| {
                let new = Progress { mode: Mode::Probe, next, matched: 0, sent: None, heard: false };
                (other.id, old.remove(&other.id).unwrap_or(new))
            })
            .collect();
    }

    /// Appends entries and sends them before they are on the disk.
    pub(super) fn propose(&mut self, entries: Vec<Entry>) {
        let first = self.log.last() + 1;
        for (index, entry) in (first..).zip(&entries) {
            self.log.push(entry.clone());
            if entry.kind == EntryKind::Change {
                self.adopt(index, &entry.data);
                self.watch_members();
            }
        }
        self.queue(Write::Append { first, entries, request: None });
        self.replicate_all(false);
    }

    /// Voters, stand-bys and who is being promoted.
    fn targets(&mut self) -> Vec<Sender> {
        let promoted =
            self.leading().and_then(|leading| leading.promotion.as_ref()).map(|promotion| promotion.id);
        let mut targets = self.others(|role| role != Role::Spare);
        targets.extend(
            self.others(|role| role == Role::Spare).into_iter().filter(|one| Some(one.id) == promoted),
        );
        targets
    }

    fn replicate_all(&mut self, heartbeat: bool) {
        for target in self.targets() {
            self.replicate(&target, heartbeat);
        }
    }

    /// Sends what there is for a member: entries, a snapshot, or a heartbeat when one is due.
    fn replicate(&mut self, to: &Sender, heartbeat: bool) {
        let last = self.log.last();
        let Some(progress) = self.leading().and_then(|leading| leading.progress.get_mut(&to.id)) else {
            return;
        };
        let due = progress.sent.is_none_or(|sent| sent.elapsed() >= HEARTBEAT);
        if matches!(progress.mode, Mode::Snapshot { since, .. } if since.elapsed() >= INSTALL) {
            progress.mode = Mode::Probe;
        }
        let (mode, next, heard) = (progress.mode, progress.next, progress.heard);
        let news = next <= last;
        match mode {
            Mode::Probe if !due => return,
            Mode::Pipeline if !(news || heartbeat && due) => return,
            Mode::Snapshot { .. } if !(heartbeat && due) => return,
            _ => {}
        }
        let compacted = if next == 1 { self.log.before() > 0 } else { self.log.term(next - 1).is_none() };
        if matches!(mode, Mode::Snapshot { .. }) || compacted && !heard {
            self.send_entries(to, last, false);
        } else if compacted {
            self.send_snapshot(to);
        } else {
            self.send_entries(to, next - 1, true);
        }
    }

    fn sent(&mut self, to: NodeId) -> Option<&mut Progress> {
        let progress = self.leading()?.progress.get_mut(&to)?;
        progress.sent = Some(Instant::now());
        Some(progress)
    }

    /// All entries behind `previous`, without any bound, or none.
    fn send_entries(&mut self, to: &Sender, previous: u64, with_entries: bool) {
        let entries: Vec<Entry> = if with_entries {
            self.log.from(previous + 1).map(|(_, entry)| entry.clone()).collect()
        } else {
            Vec::new()
        };
        let headers = entries.iter().map(|entry| EntryHeader {
            term: entry.term,
            kind: entry.kind,
            bytes: entry.data.len() as u32,
        });
        let append = AppendEntries {
            term: self.term(),
            previous_index: LogIndex(previous),
            previous_term: self.log.term(previous).unwrap_or_default(),
            commit: LogIndex(self.commit),
            entries: headers.collect(),
        };
        let payloads: Vec<&EntryData> = entries.iter().map(|entry| &entry.data).collect();
        self.send(to, &Message::AppendEntries(append), &payloads);
        let next = self.log.last() + 1;
        if let Some(progress) = self.sent(to.id)
            && progress.mode == Mode::Pipeline
        {
            progress.next = next;
        }
    }

    fn send_snapshot(&mut self, to: &Sender) {
        let Some(snapshot) = self.disk.snapshot.clone() else {
            return self.fail(format!("node {} needs a snapshot and there is none", to.id));
        };
        let install = InstallSnapshot {
            term: self.term(),
            index: LogIndex(snapshot.index),
            last_term: snapshot.term,
            configuration_index: LogIndex(snapshot.configuration_index),
            configuration: snapshot.configuration.clone(),
            content_bytes: snapshot.content.len() as u64,
        };
        let content = EntryData::from_bytes(snapshot.content.clone());
        self.send(to, &Message::InstallSnapshot(install), &[&content]);
        if let Some(progress) = self.sent(to.id) {
            progress.mode = Mode::Snapshot { index: snapshot.index, since: Instant::now() };
        }
    }

    pub(super) fn send_failed(&mut self, id: NodeId) {
        if let Some(progress) = self.leading().and_then(|leading| leading.progress.get_mut(&id))
            && progress.mode == Mode::Pipeline
        {
            progress.mode = Mode::Probe;
            progress.next = progress.matched + 1;
        }
    }

    /// spec: raft-wire 7.2.
    pub(super) fn append_result(&mut self, from: NodeId, result: AppendEntriesResult) {
        if self.leads() && result.term > self.term() {
            return self.raise_term(result.term);
        }
        let (term, last) = (self.term(), self.log.last());
        let Some(progress) = self.leading().and_then(|leading| leading.progress.get_mut(&from)) else {
            return;
        };
        if result.term < term {
            return;
        }
        progress.heard = true;
        let (rejected, matched) = (result.rejected.0, result.last_index.0.min(last));
        if rejected > 0 {
            match progress.mode {
                Mode::Snapshot { index, .. } if rejected == index => progress.mode = Mode::Probe,
                Mode::Pipeline if rejected > progress.matched => {
                    progress.mode = Mode::Probe;
                    progress.next = progress.matched + 1;
                }
                Mode::Probe if rejected == progress.next - 1 => {
                    progress.next = rejected.min(result.last_index.0 + 1).max(1);
                }
                _ => return,
            }
            return self.replicate_to(from);
        }
        if matched <= progress.matched {
            return;
        }
        let gained = matched - progress.matched;
        progress.matched = matched;
        progress.next = progress.next.max(matched + 1);
        let mut installed = false;
        match progress.mode {
            Mode::Snapshot { index, .. } if matched >= index => {
                progress.mode = Mode::Probe;
                progress.next = (matched + 1).max(index);
                installed = true;
            }
            Mode::Probe => progress.mode = Mode::Pipeline,
            _ => {}
        }
        if self.options.heirs.contains(&from) {
            let mut observed = self.observed();
            observed.snapshots_to_ours += usize::from(installed);
            observed.entries_to_ours += if installed { 0 } else { gained as usize };
        }
        self.look_at_promotion(from);
        self.count(matched);
        self.look_at_transfer();
        self.replicate_to(from);
    }

    fn replicate_to(&mut self, id: NodeId) {
        if let Some(target) = self.targets().into_iter().find(|target| target.id == id) {
            self.replicate(&target, false);
        }
    }

    pub(super) fn matched(&mut self, id: NodeId) -> u64 {
        if id == self.me.id {
            return self.stored;
        }
        let progress = self.leading().and_then(|leading| leading.progress.get(&id));
        progress.map_or(0, |progress| progress.matched)
    }

    /// Whether an index is committed now: an entry of the own term that a majority has on its disks.
    pub(super) fn count(&mut self, index: u64) {
        if !self.leads() || index <= self.commit || self.log.term(index) != Some(self.term()) {
            return;
        }
        let voters: Vec<NodeId> = self.configuration.voters().map(|voter| voter.id).collect();
        let have = voters.into_iter().filter(|voter| self.matched(*voter) >= index).count();
        if self.is_majority(have) {
            self.advance(index);
        }
    }

    pub(super) fn leader_tick(&mut self) {
        let voters: Vec<NodeId> = self.configuration.voters().map(|voter| voter.id).collect();
        let me = self.me.id;
        let Some(leading) = self.leading() else { return };
        if leading.contacts_counted.elapsed() >= ELECTION {
            leading.contacts_counted = Instant::now();
            let heard = |voter: &&NodeId| {
                **voter == me || leading.progress.get(voter).is_some_and(|progress| progress.heard)
            };
            let contacts = voters.iter().filter(heard).count();
            leading.progress.values_mut().for_each(|progress| progress.heard = false);
            if !self.is_majority(contacts) {
                return self.follow(None);
            }
        }
        self.look_at_time();
        self.hand_over();
        let transferring = self.leading().is_none_or(|leading| leading.transfer.is_some());
        let quiet = self.observed().quiet;
        if !transferring && !quiet && self.random.random() {
            let entries = (0..self.random.random_range(1..4)).map(|_| self.own_entry()).collect();
            self.propose(entries);
        }
        self.replicate_all(true);
    }

    /// A transaction on the database that only C nodes write: a page of it, or all if it is not known to be there.
    fn own_entry(&mut self) -> Entry {
        let mut pages = Vec::new();
        let changed = if self.store.get(OWN_DATABASE).is_some() {
            let number = self.random.random_range(2..=OWN_PAGES);
            number..=number
        } else {
            let mut first = [0; PAGE_SIZE];
            // Pages of a simulated node are in memory.
            let _ = empty_page().with(|bytes| first = *bytes);
            first[28..32].copy_from_slice(&OWN_PAGES.to_be_bytes());
            pages.push((PageNumber(1), PageRef::new(&first)));
            2..=OWN_PAGES
        };
        for number in changed {
            let mut image = [0; PAGE_SIZE];
            self.random.fill(&mut image[..]);
            pages.push((PageNumber(number), PageRef::new(&image)));
        }
        let data = encode_frames(OWN_DATABASE, &pages);
        // As a peer would receive it: in one piece.
        let data = data.contiguous().map_or(data, EntryData::from_bytes);
        Entry { term: self.term(), kind: EntryKind::Command, data, proposals: None }
    }
}
