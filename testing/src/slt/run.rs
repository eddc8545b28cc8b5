//! Scripts on a node and in plain SQLite, side by side.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::answer::{Answer, Cell, Outcome};
use super::content;
use super::documented::{ALL, Documented, Tally};
use super::draw::{Asked, draw};
use super::node::{Manner, NodeConnection, WAYS, Way};
use super::plain::{BUSY_SNAPSHOT, Plain};
use super::script::{Expected, Script, Step};
use crate::client::Client;

/// Version and source of the SQLite that runs.
pub const VERSION: &str = "SELECT sqlite_version() || ' ' || sqlite_source_id()";
/// Longest answer: a node that does not give one in this time gives none.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// SQLite's SQLITE_BUSY.
const BUSY: u64 = 5;
/// SQLite's SQLITE_ERROR.
const ERROR: u64 = 1;
/// Statements that set `changes()`.
const COUNTING: [&str; 4] = ["INSERT", "UPDATE", "DELETE", "REPLACE"];

/// What came of the scripts.
#[derive(Debug, Default)]
pub struct Report {
    /// Records that both sides ran and that were compared.
    pub records: u64,
    /// The same by the requests that asked them.
    pub by_way: [u64; WAYS.len()],
    /// Records whose literals were bound as parameters.
    pub bound: u64,
    /// Records that were refused, by both sides alike.
    pub refused: u64,
    /// Databases whose dump was compared in the end.
    pub dumps: u64,
    /// What differs: one for each script at most, since what follows it says nothing.
    pub differences: Vec<String>,
    /// Documented differences that were needed.
    pub tally: Arc<Tally>,
}

impl Report {
    /// The figures in words.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!("{} records", self.records);
        for (way, count) in WAYS.iter().zip(self.by_way) {
            // Writing to a String cannot fail.
            let _ = write!(text, ", {count} by {way:?}");
        }
        let _ = write!(
            text,
            "; {} with bound literals; {} refused; {} dumps; {} differences\ndocumented differences:",
            self.bound,
            self.refused,
            self.dumps,
            self.differences.len()
        );
        for documented in ALL {
            let _ = write!(text, "\n{:8}  {}", self.tally.of(documented), documented.reason());
        }
        for difference in &self.differences {
            let _ = write!(text, "\n\n{difference}");
        }
        text
    }

    fn add(&mut self, other: Report) {
        self.records += other.records;
        for (sum, count) in self.by_way.iter_mut().zip(other.by_way) {
            *sum += count;
        }
        self.bound += other.bound;
        self.refused += other.refused;
        self.dumps += other.dumps;
        self.differences.extend(other.differences);
    }
}

/// A node to run scripts on, and a folder for plain SQLite's files.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Where the node listens; it leads.
    pub address: &'a str,
    /// An empty folder.
    pub folder: &'a Path,
    /// Whether what is stored is compared after every record, to find where two databases part.
    pub looks_always: bool,
}

/// Runs scripts, `workers` of them at once; they come from `next`, which is asked until it has none.
///
/// # Errors
/// Plain SQLite's files; a node with another SQLite.
pub fn run_all(
    place: Place<'_>,
    workers: usize,
    next: &(dyn Fn(usize) -> Option<Script> + Sync),
) -> io::Result<Report> {
    let (report, asked) = (Mutex::new(Report::default()), AtomicUsize::new(0));
    let tally = Arc::new(Tally::default());
    check_versions(place, &tally)?;
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(script) = next(asked.fetch_add(1, Ordering::Relaxed)) {
                    match run_one(place, &script, &tally) {
                        Ok(one) => report.lock().unwrap_or_else(PoisonError::into_inner).add(one),
                        Err(error) => {
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.tally = tally;
    Ok(report)
}

/// Another version would answer otherwise, with right.
fn check_versions(place: Place<'_>, tally: &Arc<Tally>) -> io::Result<()> {
    let own = Plain::open(&place.folder.join("version.db"), tally).and_then(|plain| plain.version());
    let own = own.map_err(io::Error::other)?;
    let client = Client::of_sole_voter(place.address, "version", ANSWER_MAX);
    let rows = client.and_then(|mut client| client.query(VERSION, &[])).map_err(io::Error::other)?.rows;
    match rows.concat().as_slice() {
        [dqlite::protocol::request::Value::Text(text)] if *text == own.as_bytes() => Ok(()),
        other => Err(io::Error::other(format!("the node's SQLite is {other:?}, this program's {own}"))),
    }
}

/// Both sides of one connection of a script.
struct Pair {
    node: NodeConnection,
    plain: Plain,
    database: String,
}

/// What becomes of a difference.
enum Excuse {
    None,
    /// The record goes uncounted.
    Record(Documented),
    /// The script ends.
    Script(Documented),
}

/// A script that runs.
struct Run<'a> {
    place: Place<'a>,
    script: &'a Script,
    folder: PathBuf,
    /// Scripts of one name may run more than once.
    number: u64,
    pairs: HashMap<(String, String), Pair>,
    tally: Arc<Tally>,
    report: Report,
    /// What follows cannot be compared.
    ended: bool,
}

static RUNS: AtomicU64 = AtomicU64::new(0);

/// Runs one script until the first difference.
///
/// # Errors
/// Plain SQLite's files.
pub fn run_one(place: Place<'_>, script: &Script, tally: &Arc<Tally>) -> io::Result<Report> {
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder = place.folder.join(number.to_string());
    std::fs::create_dir(&folder)?;
    let (pairs, report) = (HashMap::new(), Report::default());
    let mut run =
        Run { place, script, folder, number, pairs, tally: Arc::clone(tally), report, ended: false };
    let mut random = SmallRng::seed_from_u64(script.seed);
    let mut difference = None;
    for step in &script.steps {
        difference = run.step(step, &mut random)?;
        if difference.is_none() && place.looks_always {
            difference = run.compare_content()?.map(|text| format!("after line {}: {text}", step.line));
        }
        if difference.is_some() || run.ended {
            break;
        }
    }
    if difference.is_none() && !run.ended {
        difference = run.compare_content()?;
    }
    run.report.differences.extend(difference);
    let (folder, report) = (run.folder.clone(), std::mem::take(&mut run.report));
    drop(run);
    std::fs::remove_dir_all(folder)?;
    Ok(report)
}

impl Run<'_> {
    /// Runs a record on both sides: what differs.
    fn step(&mut self, step: &Step, random: &mut SmallRng) -> io::Result<Option<String>> {
        let asked = draw(step, random);
        let is_bound = step.values != asked.values;
        self.report.bound += u64::from(is_bound);
        let pair = match self.pair(step)? {
            Ok(pair) => pair,
            Err(text) => return Ok(Some(format!("line {}: the connection: {text}", step.line))),
        };
        let (found, right) = pair.ask(&asked, step.any_order);
        let place = format!(
            "{}, line {}, connection '{}', {:?}\n    {}\n    {:?}",
            self.script.name, step.line, step.connection, asked.manner, asked.sql, asked.values
        );
        if found.as_ref() != Ok(&right) {
            return Ok(match self.excuse(step, &asked, &found, &right)? {
                Excuse::None => Some(format!("{place}\n  node:  {found:?}\n  plain: {right:?}")),
                Excuse::Record(documented) => {
                    self.tally.count(documented);
                    None
                }
                Excuse::Script(documented) => {
                    self.tally.count(documented);
                    self.ended = true;
                    None
                }
            });
        }
        if !is_bound && let Some(text) = unexpected(step, &right.answer) {
            return Ok(Some(format!("{place}\n  the script is wrong: {text}")));
        }
        self.report.records += 1;
        self.report.refused += u64::from(right.answer.refusal().is_some());
        self.report.by_way[asked.manner.way as usize] += 1;
        Ok(None)
    }

    /// Whether a difference is one that can be told only once it is seen.
    fn excuse(
        &mut self,
        step: &Step,
        asked: &Asked,
        found: &Result<Outcome, String>,
        right: &Outcome,
    ) -> io::Result<Excuse> {
        let Ok(found) = found else { return Ok(Excuse::None) };
        let sql = step.sql.to_ascii_uppercase();
        let may_do_nothing = sql.contains(" IF EXISTS") || sql.contains(" IF NOT EXISTS");
        let others_are_open = self.pairs.values().any(|pair| pair.plain.in_transaction());
        let is_busy = matches!(found.answer, Answer::Failure { code: BUSY, .. });
        if is_busy && right.answer.refusal().is_none() && may_do_nothing && others_are_open {
            return Ok(Excuse::Record(Documented::NothingToDo));
        }
        let is_mistake = |answer: &Answer| matches!(answer, Answer::Failure { code: ERROR, .. });
        if is_mistake(&found.answer)
            && is_mistake(&right.answer)
            && let Ok(pair) = self.pair(step)?
        {
            pair.node.read_schema();
            pair.plain.read_schema();
            let (again, right) = pair.ask(asked, step.any_order);
            if again == Ok(right) {
                return Ok(Excuse::Record(Documented::SchemaOfBefore));
            }
        }
        if self.pairs.values().any(|pair| content::has_largest_rowid(&pair.plain)) {
            return Ok(Excuse::Script(Documented::RowidByChance));
        }
        Ok(Excuse::None)
    }

    /// The connection of a record, made when it is needed first.
    fn pair(&mut self, step: &Step) -> io::Result<Result<&mut Pair, String>> {
        let entry = match self.pairs.entry((step.connection.clone(), step.database.clone())) {
            Entry::Occupied(entry) => return Ok(Ok(entry.into_mut())),
            Entry::Vacant(entry) => entry,
        };
        let database = format!("{}-{}.db", self.number, step.database);
        let plain = Plain::open(&self.folder.join(&database), &self.tally).map_err(io::Error::other)?;
        match NodeConnection::open(self.place.address, &database, ANSWER_MAX) {
            Ok(node) => Ok(Ok(entry.insert(Pair { node, plain, database }))),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Compares what every database of the script holds in the end.
    fn compare_content(&mut self) -> io::Result<Option<String>> {
        let databases: BTreeSet<&String> = self.pairs.values().map(|pair| &pair.database).collect();
        for name in databases {
            let mut client = Client::connect(self.place.address, ANSWER_MAX).map_err(io::Error::other)?;
            let files = client.dump(name).map_err(io::Error::other)?;
            let dump = files.first().map(|file| file.content.to_vec()).unwrap_or_default();
            if let Some(text) = content::compare(&dump, &self.folder.join(name), &self.folder)? {
                return Ok(Some(format!("{}, what is stored in {name}: {text}", self.script.name)));
            }
            self.report.dumps += 1;
        }
        Ok(None)
    }
}

impl Pair {
    /// Asks both sides at once; what they said, without what is not compared.
    fn ask(&mut self, asked: &Asked, any_order: bool) -> (Result<Outcome, String>, Outcome) {
        let Asked { sql, values, manner } = asked;
        let sent = self.node.send(sql, values, *manner);
        let right = right_outcome(&mut self.plain, sql, values, *manner);
        let found = match sent {
            Ok(sent) => self.node.receive(&sent),
            Err(refusal) => self.node.after_refusal(refusal, manner.probes),
        };
        let unknown = self.plain.counters_unknown;
        (found.map(|found| comparable(found, any_order, unknown)), comparable(right, any_order, unknown))
    }
}

fn right_outcome(plain: &mut Plain, sql: &str, values: &[Cell], manner: Manner) -> Outcome {
    let answer = match manner.way {
        Way::ExecSql => plain.exec(sql, values, false),
        Way::PrepareExec | Way::KeptExec => plain.exec(sql, values, true),
        _ => plain.query(sql, values),
    };
    let first = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if answer.refusal().is_none() && COUNTING.contains(&first.as_str()) {
        plain.counters_unknown = false;
    }
    if matches!(answer, Answer::Failure { code: BUSY | BUSY_SNAPSHOT, .. }) {
        plain.busy();
    }
    Outcome { answer, counters: plain.counters(), open: manner.probes.then(|| plain.probe()) }
}

/// An outcome without what is not compared.
fn comparable(mut outcome: Outcome, any_order: bool, counters_unknown: bool) -> Outcome {
    if any_order {
        outcome.answer = outcome.answer.sorted();
    }
    if counters_unknown {
        outcome.counters.1 = 0;
        if let Answer::Done { changes, .. } = &mut outcome.answer {
            *changes = 0;
        }
    }
    outcome
}

/// What a script says wrongly of its record.
fn unexpected(step: &Step, right: &Answer) -> Option<String> {
    // Rows that are refused, and texts of several statements that are, are the way's doing.
    let by_way = matches!(right, Answer::Failure { code: 0 | 1, text }
        if text.contains("rows yielded") || text == "nonempty statement tail" || text == "empty statement");
    match &step.expected {
        Expected::Anything => None,
        Expected::Success | Expected::Changes(_) if by_way => None,
        Expected::Success => right.refusal(),
        Expected::Changes(count) => match right {
            Answer::Done { changes, .. } if changes != count => Some(format!("{changes} rows are changed")),
            other => other.refusal(),
        },
        Expected::Failure(error) => match right.refusal() {
            Some(text) if by_way || error.is_match(&text, None) => None,
            Some(text) => Some(format!("it is refused with {text}")),
            None => Some("it is carried out".to_owned()),
        },
    }
}
