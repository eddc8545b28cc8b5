//! Which segments and snapshots a directory has, and which of them are its log: from names and lengths alone. No I/O.
//! spec: disk-format 4.4, 7.3.

use super::error::StorageError;
use super::segment::{SegmentName, parse_name};
use super::snapshot_meta::{SnapshotName, meta_name_of};
use crate::types::LogIndex;
use crate::types::config::LOG_TRAILING_MAX_BYTES;

/// A closed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClosedSegment {
    pub(super) first: LogIndex,
    pub(super) last: LogIndex,
    pub(super) name: String,
    pub(super) bytes: u64,
}

impl ClosedSegment {
    /// The closed segment with this name; none if it is no such name.
    pub(super) fn parse(name: &str, bytes: u64) -> Option<ClosedSegment> {
        match parse_name(name)? {
            SegmentName::Closed { first, last } => {
                Some(ClosedSegment { first, last, name: name.to_owned(), bytes })
            }
            SegmentName::Open { .. } => None,
        }
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

impl Catalogue {
    /// What these files are: names and lengths, sorted by name.
    pub(super) fn of(files: &[(String, u64)]) -> Catalogue {
        let mut closed = Vec::new();
        let mut open = Vec::new();
        let mut snapshot: Option<FoundSnapshot> = None;
        for (name, bytes) in files {
            closed.extend(ClosedSegment::parse(name, *bytes));
            if let Some(SegmentName::Open { counter }) = parse_name(name) {
                open.push((counter, name.clone()));
            }
            let Some(parsed) = SnapshotName::parse(name) else {
                continue;
            };
            let meta_name = meta_name_of(name);
            let has_meta = files.binary_search_by(|(other, _)| other.as_str().cmp(&meta_name)).is_ok();
            if has_meta && *bytes > 0 && snapshot.as_ref().is_none_or(|newest| newest.name < parsed) {
                snapshot = Some(FoundSnapshot { name: parsed, data_name: name.clone(), bytes: *bytes });
            }
        }
        closed.sort_by_key(|segment| (segment.first, segment.last));
        open.sort();
        Catalogue { snapshot, closed, open: open.into_iter().map(|(_, name)| name).collect() }
    }

    /// Keeps the closed segments that belong to the log of the snapshot that ends at `index`. spec: disk-format 7.3 step 3.
    ///
    /// # Errors
    /// Entries behind the snapshot are missing.
    pub(super) fn keep_log_of(&mut self, index: LogIndex, data_name: &str) -> Result<(), StorageError> {
        let Some(last) = self.closed.last() else {
            return Ok(());
        };
        if last.last < index && self.open.is_empty() {
            self.closed.clear();
            return Ok(());
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::data_driven;

    /// Which files of a listing a start reads. A line is a name and its length, in bytes or MiB.
    fn plan(listing: &str) -> String {
        let file = |line: &str| {
            let (name, length) = line.split_once(' ').expect("name and length");
            let bytes = match length.strip_suffix(" MiB") {
                Some(mib) => mib.parse::<u64>().unwrap() << 20,
                None => length.parse().unwrap(),
            };
            (name.to_owned(), bytes)
        };
        let mut files: Vec<(String, u64)> = listing.lines().map(file).collect();
        files.sort();
        let mut catalogue = Catalogue::of(&files);
        let mut out = String::new();
        if let Some(FoundSnapshot { name, data_name, .. }) = catalogue.snapshot.take() {
            out += &format!("snapshot {data_name}\n");
            if let Err(error) = catalogue.keep_log_of(name.index, &data_name) {
                return out + &format!("refused: {error}\n");
            }
            catalogue.leave_out_covered(name.index);
        }
        for segment in &catalogue.closed {
            out += &format!("closed {}\n", segment.name);
        }
        for name in &catalogue.open {
            out += &format!("open {name}\n");
        }
        if out.is_empty() { "nothing".to_owned() } else { out }
    }

    #[test]
    fn a_start_reads_the_newest_snapshot_and_the_segments_of_its_log() {
        data_driven::run("raft/catalogue.txt", plan);
    }
}
