//! Reads the newest snapshot and the entries, and finds out what has to be repaired before the log is written on. Changes nothing, so
//! that it can be done beside a running node. What it gives is one run of entries: from the snapshot, or from 1.
//! spec: disk-format 4.4, 7.3, 7.4.

use std::sync::Arc;

use bytes::Bytes;

use super::catalogue::{Catalogue, ClosedSegment, FoundSnapshot, OpenFacts};
use super::directory::Directory;
use super::disk::OpenMode;
use super::error::{SegmentError, StorageError, StorageErrorKind};
use super::metadata::Metadata;
use super::plan::{FoundOpen, Plan, SetAside};
use super::segment::{OpenContent, decode_closed, decode_open};
use super::segment_content::{SegmentContent, SegmentFile};
use super::snapshot_meta::{SnapshotFile, SnapshotMeta, meta_name_of};
use super::vault::read_metadata;
use crate::types::clock::WallClock;
use crate::types::config::SURVEYS_MAX;
use crate::types::payload::PayloadStore;
use crate::types::{Entry, LogIndex};

/// How a directory is loaded.
#[derive(Clone)]
pub struct LoadOptions {
    /// Whether damaged segments are set aside (`dqlite_node_set_auto_recovery`).
    pub auto_recovery: bool,
    /// Names the files that are set aside.
    pub wall_clock: Arc<dyn WallClock>,
    /// Where payloads go that need not be in memory. Without it they stay there.
    pub payloads: Option<Arc<dyn PayloadStore>>,
}

/// Content of a data directory.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Term and vote.
    pub metadata: Metadata,
    /// Newest snapshot; its data is not read.
    pub snapshot: Option<SnapshotFile>,
    /// Index of the first of the entries, or of the next one if there are none.
    pub first_index: LogIndex,
    /// Entries behind the snapshot, and the newest of those that it contains: as many as a running node keeps in memory.
    pub entries: Vec<Entry>,
    /// What is not among them: this node may have acknowledged it.
    pub set_aside: Vec<SetAside>,
}

impl Loaded {
    /// Index of the last entry; that of the snapshot if there are no entries, 0 in an empty directory.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.first_index.plus(self.entries.len() as u64).previous()
    }
}

/// What a directory holds.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) loaded: Loaded,
    pub(super) plan: Plan,
    /// A file of the log, if there is one.
    pub(super) log: Option<String>,
}

/// Reads a directory, again if its names change meanwhile.
///
/// # Errors
/// Every damage that disk-format 7.5 answers with a failing start, and holes in the log.
pub(super) fn survey(directory: &Directory, options: &LoadOptions) -> Result<Survey, StorageError> {
    let mut surveys = 1;
    loop {
        let names = directory.list()?;
        let result = survey_once(directory, options, &names);
        let is_whole = result.as_ref().is_ok_and(|survey| survey.plan.set_aside.is_empty());
        // A node that runs closes segments and removes them: what is damage in one look is gone in the next.
        if is_whole || surveys == SURVEYS_MAX || directory.list()? == names {
            return result;
        }
        surveys += 1;
    }
}

fn survey_once(
    directory: &Directory,
    options: &LoadOptions,
    names: &[(String, u64)],
) -> Result<Survey, StorageError> {
    directory.check_names()?;
    let metadata = read_metadata(directory)?;
    let mut catalogue = Catalogue::of(names);
    let all_closed = catalogue.closed.clone();
    let snapshot = match &catalogue.snapshot {
        Some(found) => Some(read_meta(directory, found)?),
        None => None,
    };
    if let Some(snapshot) = &snapshot {
        catalogue.keep_log_of(snapshot.meta.index, &snapshot.data_name)?;
        catalogue.leave_out_covered(snapshot.meta.index);
    }
    let mut reading =
        Reading { directory, options, first_index: LogIndex(1), entries: Vec::new(), plan: Plan::default() };
    let open = reading.read_open(&catalogue.open)?;
    let has_entries = open.iter().find(|segment| !segment.facts.terms.is_empty());
    let log = snapshot.as_ref().map(|snapshot| snapshot.data_name.clone());
    let log = log.or_else(|| all_closed.first().map(|segment| segment.name.clone()));
    let log = log.or_else(|| has_entries.map(|segment| segment.facts.name.clone()));
    let log = log.or_else(|| reading.plan.set_aside.first().map(|segment| segment.name.clone()));
    reading.arrange(&catalogue, open, &all_closed)?;
    if let Some(snapshot) = &snapshot {
        reading.fit_to(snapshot, &all_closed)?;
    }
    let Reading { first_index, entries, mut plan, .. } = reading;
    plan.set_aside.sort_by_key(|segment| order_in_log(&segment.name, &all_closed, &catalogue.open));
    let set_aside = plan.set_aside.clone();
    let loaded = Loaded { metadata, snapshot, first_index, entries, set_aside };
    Ok(Survey { loaded, plan, log })
}

fn order_in_log(name: &str, closed: &[ClosedSegment], open: &[String]) -> usize {
    let position = closed.iter().position(|segment| segment.name == name);
    let in_open = || open.iter().position(|other| other == name).map(|position| closed.len() + position);
    position.or_else(in_open).unwrap_or(usize::MAX)
}

fn read_meta(directory: &Directory, found: &FoundSnapshot) -> Result<SnapshotFile, StorageError> {
    let meta_name = meta_name_of(&found.data_name);
    let meta = SnapshotMeta::decode(found.name, &directory.read(&meta_name)?)
        .map_err(|error| StorageError::SnapshotMeta { name: meta_name, error })?;
    Ok(SnapshotFile { meta, data_name: found.data_name.clone(), data_bytes: found.bytes })
}

/// An open segment that was read.
struct OpenSegment {
    facts: OpenFacts,
    entries: Vec<Entry>,
    end: usize,
}

/// A load under way.
struct Reading<'a> {
    directory: &'a Directory,
    options: &'a LoadOptions,
    first_index: LogIndex,
    entries: Vec<Entry>,
    plan: Plan,
}

impl Reading<'_> {
    /// Index of the entry that would come next.
    fn next_index(&self) -> LogIndex {
        self.first_index.plus(self.entries.len() as u64)
    }

    /// Reads the open segments, up to one that is damaged as a whole: it and those behind it are set aside.
    fn read_open(&mut self, names: &[String]) -> Result<Vec<OpenSegment>, StorageError> {
        let mut read = Vec::new();
        for (position, name) in names.iter().enumerate() {
            let error = match self.read_one_open(name)? {
                Ok(segment) => {
                    read.push(segment);
                    continue;
                }
                Err(error) => error,
            };
            if error.kind() != StorageErrorKind::Corrupt || !self.options.auto_recovery {
                return Err(StorageError::OpenSegment { name: name.clone(), error });
            }
            self.set_aside(name, None, None, &error.to_string());
            for later in &names[position + 1..] {
                let entries = self.read_one_open(later)?.ok();
                let first = entries.as_ref().and_then(|segment| segment.facts.first);
                let count = entries.map(|segment| segment.entries.len() as u64);
                if count == Some(0) {
                    self.plan.close.push(FoundOpen { name: later.clone(), entries: None, end: 0, bytes: 0 });
                } else {
                    self.set_aside(later, count, first, &format!("it follows {name}"));
                }
            }
            break;
        }
        Ok(read)
    }

    fn read_one_open(&self, name: &str) -> Result<Result<OpenSegment, SegmentError>, StorageError> {
        let (bytes, decoded) = match self.open_content(name)? {
            Content::Memory(content) => {
                (content.len(), decode_open(&content).and_then(|good| release_tail(&content, good)))
            }
            Content::File(content) => (content.length(), decode_open(&content)),
        };
        Ok(decoded.map(|good| {
            let facts = OpenFacts {
                name: name.to_owned(),
                bytes: bytes as u64,
                first: good.first,
                terms: good.entries.iter().map(|entry| entry.term).collect(),
                is_torn: good.is_torn,
            };
            OpenSegment { facts, entries: good.entries, end: good.end }
        }))
    }

    /// The content of a segment: in memory, or where it lies.
    fn open_content(&self, name: &str) -> Result<Content, StorageError> {
        let Some(payloads) = &self.options.payloads else {
            return Ok(Content::Memory(self.directory.read(name)?));
        };
        let file = self.directory.open_file(name, OpenMode::Read)?;
        let content = SegmentFile::new(file, Arc::clone(payloads));
        content.map(Content::File).map_err(|source| StorageError::io("read", name, source))
    }

    fn set_aside(&mut self, name: &str, entries: Option<u64>, first: Option<LogIndex>, reason: &str) {
        let (name, reason) = (name.to_owned(), reason.to_owned());
        self.plan.set_aside.push(SetAside { name, entries, first, reason });
    }

    /// Puts the segments in their places and reads the closed ones.
    fn arrange(
        &mut self,
        catalogue: &Catalogue,
        open: Vec<OpenSegment>,
        all_closed: &[ClosedSegment],
    ) -> Result<(), StorageError> {
        let facts: Vec<&OpenFacts> = open.iter().map(|segment| &segment.facts).collect();
        let arrangement = catalogue.arrange(&facts)?;
        let mut end = open.len();
        let mut reason = String::new();
        if let Some((position, error)) = arrangement.hole {
            if !self.options.auto_recovery {
                return Err(error);
            }
            (end, reason) = (position, error.to_string());
        }
        self.first_index = arrangement.open_first;
        if arrangement.closed_is_stale {
            self.plan.stale = all_closed.iter().map(|segment| segment.name.clone()).collect();
        } else {
            let first = catalogue.closed.first().map_or(arrangement.open_first, |segment| segment.first);
            // Without a snapshot the log begins with 1.
            self.first_index = if catalogue.snapshot.is_some() { first } else { LogIndex(1) };
            if let Some((damaged, error)) = self.read_closed(&catalogue.closed)? {
                // What follows a damaged segment goes with it.
                (end, reason) = (0, format!("it follows {}", damaged.name));
                self.set_aside(&damaged.name, Some(damaged.count()), Some(damaged.first), &error.to_string());
            }
        }
        for (position, segment) in open.into_iter().enumerate() {
            self.place(segment, position < end, &reason);
        }
        Ok(())
    }

    /// Reads closed segments. The last one may be damaged.
    fn read_closed<'b>(
        &mut self,
        closed: &'b [ClosedSegment],
    ) -> Result<Option<(&'b ClosedSegment, SegmentError)>, StorageError> {
        for (position, segment) in closed.iter().enumerate() {
            let expected = self.next_index();
            if segment.first != expected {
                return Err(StorageError::UnexpectedSegment { name: segment.name.clone(), expected });
            }
            let count = segment.count();
            let decoded = match self.open_content(&segment.name)? {
                Content::Memory(content) => decode_closed(&content, count),
                Content::File(content) => decode_closed(&content, count),
            };
            let error = match decoded {
                Ok(entries) => {
                    self.entries.extend(entries);
                    continue;
                }
                Err(error) => error,
            };
            let is_last = position + 1 == closed.len();
            if error.kind() == StorageErrorKind::Corrupt && self.options.auto_recovery && is_last {
                return Ok(Some((segment, error)));
            }
            return Err(StorageError::ClosedSegment { name: segment.name.clone(), error });
        }
        Ok(None)
    }

    /// Takes an open segment behind the entries, or sets it aside.
    fn place(&mut self, segment: OpenSegment, follows: bool, reason: &str) {
        let OpenSegment { facts, entries, end } = segment;
        let count = entries.len() as u64;
        if count > 0 && !follows {
            return self.set_aside(&facts.name, Some(count), facts.first, reason);
        }
        let first = self.next_index();
        let range = (count > 0).then(|| (first, first.plus(count).previous()));
        let bytes = usize::try_from(facts.bytes).unwrap_or(usize::MAX);
        self.plan.close.push(FoundOpen { name: facts.name, entries: range, end, bytes });
        self.entries.extend(entries);
    }

    /// Compares the entries with the newest snapshot, which is right wherever they differ.
    fn fit_to(&mut self, snapshot: &SnapshotFile, all_closed: &[ClosedSegment]) -> Result<(), StorageError> {
        let index = snapshot.meta.index;
        let last = self.next_index().previous();
        let at = index.0.checked_sub(self.first_index.0).and_then(|offset| usize::try_from(offset).ok());
        let found = at.and_then(|at| self.entries.get(at)).map(|entry| entry.term);
        if last < index {
            if self.plan.close.iter().any(|open| open.entries.is_some()) {
                return Err(StorageError::BehindSnapshot { last, snapshot: index });
            }
        } else {
            let Some(found) = found.filter(|found| *found != snapshot.meta.term) else { return Ok(()) };
            if last > index {
                let snapshot = snapshot.data_name.clone();
                let contradiction = StorageError::Contradiction { snapshot, index, found, last };
                if !self.options.auto_recovery {
                    return Err(contradiction);
                }
                self.set_aside_behind(index, all_closed, &contradiction.to_string());
            }
        }
        // Nothing of the log is left but what the snapshot covers.
        self.entries.clear();
        self.first_index = index.next();
        let filled: Vec<FoundOpen> = self.plan.close.extract_if(.., |open| open.entries.is_some()).collect();
        let closed = all_closed.iter().map(|segment| segment.name.clone());
        let all = closed.chain(filled.into_iter().map(|open| open.name));
        let is_aside = |name: &String| self.plan.set_aside.iter().any(|segment| segment.name == *name);
        self.plan.stale = all.filter(|name| !is_aside(name)).collect();
        Ok(())
    }

    /// Sets those segments aside that have entries behind `index`.
    fn set_aside_behind(&mut self, index: LogIndex, all_closed: &[ClosedSegment], reason: &str) {
        let closed = all_closed.iter().map(|segment| (segment.name.clone(), segment.first, segment.last));
        let open = self.plan.close.iter().filter_map(|open| {
            let (first, last) = open.entries?;
            Some((open.name.clone(), first, last))
        });
        let behind: Vec<_> = closed.chain(open).filter(|(_, _, last)| *last > index).collect();
        for (name, first, last) in behind {
            self.set_aside(&name, Some(last.next().0.saturating_sub(first.0)), Some(first), reason);
        }
    }
}

enum Content {
    Memory(Bytes),
    File(SegmentFile),
}

/// The entries without the memory of the unused rest of the file, if that is the larger part.
fn release_tail(content: &Bytes, good: OpenContent) -> Result<OpenContent, SegmentError> {
    match content.get(..good.end) {
        Some(used) if good.end < content.len() / 2 => {
            let OpenContent { entries, end, .. } = decode_open(&Bytes::copy_from_slice(used))?;
            Ok(OpenContent { entries, end, ..good })
        }
        _ => Ok(good),
    }
}
