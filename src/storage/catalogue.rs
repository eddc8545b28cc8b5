//! Which segments and snapshots a directory has, and which of them are its log: from names and lengths, and from what open segments
//! say of their entries. No I/O. spec: disk-format 4.4, 7.3.

use super::directory::is_listed;
use super::error::StorageError;
use super::segment::{SegmentName, parse_name};
use super::snapshot_meta::{SnapshotName, meta_name_of};
use crate::types::config::LOG_TRAILING_MAX_BYTES;
use crate::types::{LogIndex, Term};

/// A closed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClosedSegment {
    pub(super) first: LogIndex,
    pub(super) last: LogIndex,
    pub(super) name: String,
    pub(super) bytes: u64,
}

impl ClosedSegment {
    /// How many entries it has, by its name.
    pub(super) fn count(&self) -> u64 {
        self.last.next().0.saturating_sub(self.first.0)
    }
}

/// A snapshot that has both of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundSnapshot {
    pub(super) name: SnapshotName,
    pub(super) data_name: String,
    /// Length of its data.
    pub(super) bytes: u64,
}

/// What a directory holds of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Catalogue {
    /// The newest one that is complete.
    pub(super) snapshot: Option<FoundSnapshot>,
    /// By first index.
    pub(super) closed: Vec<ClosedSegment>,
    /// Names of the open segments, in the order of their counters.
    pub(super) open: Vec<String>,
}

/// What was read of an open segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OpenFacts {
    pub(super) name: String,
    /// Length of the file.
    pub(super) bytes: u64,
    /// Index of its first entry, if it says that.
    pub(super) first: Option<LogIndex>,
    /// Terms of its entries.
    pub(super) terms: Vec<Term>,
    /// Behind its entries is something that is no entry.
    pub(super) is_torn: bool,
}

/// Where the segments belong.
#[derive(Debug)]
pub(super) struct Arrangement {
    /// The closed segments are left over from before the snapshot was installed.
    pub(super) closed_is_stale: bool,
    /// Index of the first entry in an open segment.
    pub(super) open_first: LogIndex,
    /// Position of the first open segment whose entries cannot be applied, and why.
    pub(super) hole: Option<(usize, StorageError)>,
}

impl Catalogue {
    /// What these files are: names and lengths, sorted by name.
    pub(super) fn of(files: &[(String, u64)]) -> Catalogue {
        let mut closed = Vec::new();
        let mut open = Vec::new();
        let mut snapshot: Option<FoundSnapshot> = None;
        for (name, bytes) in files {
            match parse_name(name) {
                Some(SegmentName::Closed { first, last }) => {
                    closed.push(ClosedSegment { first, last, name: name.clone(), bytes: *bytes });
                }
                Some(SegmentName::Open { counter }) => open.push((counter, name.clone())),
                None => {}
            }
            let Some(parsed) = SnapshotName::parse(name) else {
                continue;
            };
            let has_meta = is_listed(files, &meta_name_of(name));
            if has_meta && *bytes > 0 && snapshot.as_ref().is_none_or(|newest| newest.name < parsed) {
                snapshot = Some(FoundSnapshot { name: parsed, data_name: name.clone(), bytes: *bytes });
            }
        }
        closed.sort_by_key(|segment| (segment.first, segment.last));
        open.sort();
        Catalogue { snapshot, closed, open: open.into_iter().map(|(_, name)| name).collect() }
    }

    /// Keeps the closed segments that may belong to the log of the snapshot that ends at `index`: the newest ones without a gap.
    /// spec: disk-format 7.3 step 3.
    ///
    /// # Errors
    /// Entries behind the snapshot are missing.
    pub(super) fn keep_log_of(&mut self, index: LogIndex, data_name: &str) -> Result<(), StorageError> {
        let is_gap = |pair: &[ClosedSegment]| matches!(pair, [a, b] if a.last.next() != b.first);
        let start = self.closed.windows(2).rposition(is_gap).map_or(0, |position| position + 1);
        self.closed.drain(..start);
        match self.closed.first() {
            Some(first) if first.first > index.next() => Err(StorageError::PastSnapshot {
                segment: first.name.clone(),
                snapshot: data_name.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Leaves out the oldest segments that nobody would keep in memory: the snapshot contains all their entries.
    pub(super) fn leave_out_covered(&mut self, snapshot: LogIndex) {
        let covered = self.closed.iter().take_while(|segment| segment.last <= snapshot).count();
        let mut bytes = 0;
        let newest_first = self.closed[..covered].iter().rev();
        let kept = newest_first.take_while(|segment| {
            bytes += segment.bytes;
            bytes <= LOG_TRAILING_MAX_BYTES as u64
        });
        // One is read in any case: the term of its last entry is asked for.
        let kept = kept.count().max(1).min(covered);
        self.closed.drain(..covered - kept);
    }

    /// Where the entries of the open segments belong, of which `open` tells what was read.
    ///
    /// # Errors
    /// Two places are possible and neither is proven.
    pub(super) fn arrange(&self, open: &[&OpenFacts]) -> Result<Arrangement, StorageError> {
        let behind_closed = self.closed.last().map(|segment| segment.last.next());
        let behind_snapshot = self.snapshot.as_ref().map(|snapshot| snapshot.name.index.next());
        let filled = open.iter().find(|segment| !segment.terms.is_empty());
        let closed_is_stale = match (behind_closed, &self.snapshot) {
            (Some(next), Some(snapshot)) if next <= snapshot.name.index => {
                filled.map_or(Ok(true), |filled| follows_snapshot(snapshot, next, filled, open))?
            }
            _ => false,
        };
        let counted_on = behind_closed.filter(|_| !closed_is_stale);
        let mut next = counted_on.or(behind_snapshot).unwrap_or(LogIndex(1));
        // Closed segments before it have gone: the snapshot covers them.
        let begins = filled.and_then(|segment| segment.first).filter(|first| *first != LogIndex::NONE);
        if let (None, Some(behind), Some(begins)) = (counted_on, behind_snapshot, begins) {
            next = begins.min(behind);
        }
        let open_first = next;
        let mut damaged = None;
        for (position, segment) in open.iter().copied().enumerate() {
            if !segment.terms.is_empty() {
                let follows = segment.first.map_or(damaged.is_none(), |first| first == next);
                if !follows {
                    let behind = damaged.map(|damaged: &OpenFacts| damaged.name.clone());
                    let hole = StorageError::Hole {
                        name: segment.name.clone(),
                        expected: next,
                        found: segment.first,
                        behind,
                    };
                    return Ok(Arrangement { closed_is_stale, open_first, hole: Some((position, hole)) });
                }
                damaged = None;
                next = next.plus(segment.terms.len() as u64);
            }
            // A prepared segment has its length before its name: an empty one has lost what it had.
            if segment.is_torn || segment.bytes == 0 {
                damaged = Some(segment);
            }
        }
        Ok(Arrangement { closed_is_stale, open_first, hole: None })
    }
}

/// Whether open segments with entries follow the snapshot and not the closed segments, which end before it, at `next` - 1. Those that
/// do not say where they begin were counted on from the closed segments if they reach the snapshot's last entry with its
/// term. If they do not, the installation of the snapshot was cut off before the old segments had gone.
fn follows_snapshot(
    snapshot: &FoundSnapshot,
    next: LogIndex,
    filled: &OpenFacts,
    open: &[&OpenFacts],
) -> Result<bool, StorageError> {
    if let Some(first) = filled.first {
        return Ok(first != next);
    }
    let mut terms = open.iter().flat_map(|segment| segment.terms.iter());
    let offset = usize::try_from(snapshot.name.index.0 - next.0).unwrap_or(usize::MAX);
    if terms.nth(offset) == Some(&snapshot.name.term) {
        return Ok(false);
    }
    if filled.terms.first().is_some_and(|first| *first >= snapshot.name.term) {
        return Ok(true);
    }
    Err(StorageError::Unplaceable { name: filled.name.clone(), snapshot: snapshot.data_name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::data_driven;

    /// A line is a name, its length in bytes or MiB, and for an open segment what is in it: `terms 2*30` are 30 entries of
    /// term 2, `first 61` is its mark, `torn` is damage.
    fn file(line: &str) -> (String, u64, OpenFacts) {
        let mut words = line.split(' ').peekable();
        let name = words.next().expect("a name").to_owned();
        let mut bytes: u64 = words.next().expect("a length").parse().unwrap();
        bytes <<= if words.next_if_eq(&"MiB").is_some() { 20 } else { 0 };
        let mut facts = OpenFacts { name: name.clone(), bytes, ..OpenFacts::default() };
        while let Some(word) = words.next() {
            match word {
                "torn" => facts.is_torn = true,
                "first" => facts.first = words.next().map(|index| LogIndex(index.parse().unwrap())),
                "terms" => {
                    for run in words.next().expect("terms").split(',') {
                        let (term, count) = run.split_once('*').expect("term*count");
                        let term = Term(term.parse().unwrap());
                        facts.terms.extend(std::iter::repeat_n(term, count.parse().unwrap()));
                    }
                }
                other => panic!("{other}?"),
            }
        }
        (name, bytes, facts)
    }

    /// Which files of a listing a start reads, and where the entries of the open segments belong.
    fn plan(listing: &str) -> String {
        let mut found: Vec<_> = listing.lines().map(file).collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        let files: Vec<(String, u64)> = found.iter().map(|(name, bytes, _)| (name.clone(), *bytes)).collect();
        let mut catalogue = Catalogue::of(&files);
        let mut out = String::new();
        if let Some(FoundSnapshot { name, data_name, .. }) = catalogue.snapshot.clone() {
            out += &format!("snapshot {data_name}\n");
            if let Err(error) = catalogue.keep_log_of(name.index, &data_name) {
                return out + &format!("refused: {error}\n");
            }
            catalogue.leave_out_covered(name.index);
        }
        let facts = |name: &String| &found.iter().find(|file| file.0 == *name).expect("it is listed").2;
        let open: Vec<&OpenFacts> = catalogue.open.iter().map(facts).collect();
        let arrangement = match catalogue.arrange(&open) {
            Ok(arrangement) => arrangement,
            Err(error) => return out + &format!("refused: {error}\n"),
        };
        for segment in &catalogue.closed {
            let what = if arrangement.closed_is_stale { "stale" } else { "closed" };
            out += &format!("{what} {}\n", segment.name);
        }
        let mut next = arrangement.open_first;
        let end = arrangement.hole.as_ref().map_or(open.len(), |(position, _)| *position);
        for segment in &open[..end] {
            let last = next.plus(segment.terms.len() as u64).previous();
            out += &match segment.terms.len() {
                0 => format!("open {}, empty\n", segment.name),
                _ => format!("open {}, {next} to {last}\n", segment.name),
            };
            next = last.next();
        }
        if let Some((_, error)) = arrangement.hole {
            out += &format!("hole: {error}\n");
        }
        if out.is_empty() { "nothing".to_owned() } else { out }
    }

    #[test]
    fn a_start_reads_the_newest_snapshot_and_the_segments_of_its_log() {
        data_driven::run("raft/catalogue.txt", plan);
    }
}
