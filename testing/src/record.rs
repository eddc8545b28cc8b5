//! What writers saw, and whether a database agrees with it: every acknowledged key is there exactly once, a key of unknown
//! outcome at most once, and no other key is.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dqlite::protocol::request::Value;

use crate::client::{Client, ClientError};

/// The table of the writers. Nothing in it refuses a key that is there already: a duplicate must show.
pub const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS test(key INTEGER NOT NULL, value TEXT)";
/// Most keys of a kind that a text names.
const NAMED_MAX: usize = 5;

/// A row that a node says is written.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// Key of the row.
    pub key: u64,
    /// When the answer was there.
    pub at: Instant,
    /// From the request to the answer.
    pub took: Duration,
    /// The node that answered.
    pub address: Arc<str>,
}

/// What all writers saw.
#[derive(Debug, Default)]
pub struct Record {
    /// In the order of their answers.
    pub acknowledged: Vec<Acknowledged>,
    /// Keys whose write may or may not have happened.
    pub unknown: Vec<u64>,
    /// Every failed write by its text, with how many there were.
    pub failures: BTreeMap<String, u64>,
}

impl Record {
    /// The longest time between `begin` and `end` without an acknowledged row.
    #[must_use]
    pub fn longest_silence(&self, begin: Instant, end: Instant) -> Duration {
        let mut times: Vec<Instant> = self.acknowledged.iter().map(|row| row.at).collect();
        times.retain(|at| (begin..=end).contains(at));
        times.extend([begin, end]);
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// A record beside a database.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Rows in the table.
    pub rows: u64,
    /// Acknowledged keys.
    pub acknowledged: u64,
    /// Keys of unknown outcome, and how many of them are there.
    pub unknown: u64,
    /// Keys of unknown outcome that are there.
    pub unknown_found: u64,
    /// Acknowledged keys that are not there.
    pub missing: Vec<u64>,
    /// Keys that are there more than once.
    pub duplicates: Vec<u64>,
    /// Keys that are there and nobody wrote.
    pub foreign: Vec<u64>,
}

impl Verdict {
    /// Whether nothing is missing, double or foreign.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.duplicates.is_empty() && self.foreign.is_empty()
    }

    fn of(record: &Record, found: &HashMap<u64, u64>) -> Verdict {
        let mut verdict = Verdict {
            rows: found.values().sum(),
            acknowledged: record.acknowledged.len() as u64,
            unknown: record.unknown.len() as u64,
            ..Verdict::default()
        };
        let mut known: HashMap<u64, bool> = record.unknown.iter().map(|key| (*key, false)).collect();
        known.extend(record.acknowledged.iter().map(|row| (row.key, true)));
        for (key, is_acknowledged) in &known {
            match (found.contains_key(key), is_acknowledged) {
                (false, true) => verdict.missing.push(*key),
                (true, false) => verdict.unknown_found += 1,
                _ => {}
            }
        }
        for (key, count) in found {
            if !known.contains_key(key) {
                verdict.foreign.push(*key);
            }
            if *count > 1 {
                verdict.duplicates.push(*key);
            }
        }
        for keys in [&mut verdict.missing, &mut verdict.duplicates, &mut verdict.foreign] {
            keys.sort_unstable();
        }
        verdict
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { rows, acknowledged, unknown, unknown_found, .. } = self;
        write!(
            formatter,
            "{rows} rows, {acknowledged} acknowledged, {unknown} of unknown outcome of which {unknown_found} are there"
        )?;
        for (keys, what) in
            [(&self.missing, "missing"), (&self.duplicates, "duplicates"), (&self.foreign, "foreign")]
        {
            write!(formatter, ", {} {what}", keys.len())?;
            if !keys.is_empty() {
                write!(formatter, " (the first: {:?})", &keys[..keys.len().min(NAMED_MAX)])?;
            }
        }
        Ok(())
    }
}

/// Compares the table with what the writers saw. `client` is connected to the leader and has the database open.
///
/// # Errors
/// The table cannot be read.
pub fn verify(client: &mut Client, record: &Record) -> Result<Verdict, ClientError> {
    let table = client.query("SELECT key, count(*) FROM test GROUP BY key", &[])?;
    let mut found = HashMap::new();
    for row in &table.rows {
        if let [Value::Integer(key), Value::Integer(count)] = row.as_slice() {
            found.insert(key.cast_unsigned(), count.cast_unsigned());
        }
    }
    Ok(Verdict::of(record, &found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_measured_from_the_begin_to_the_end_and_not_outside() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let silence = |from, to, seconds: &[u64]| {
            let row = |second: &u64| Acknowledged {
                key: 1,
                at: at(*second),
                took: Duration::ZERO,
                address: "a".into(),
            };
            let acknowledged = seconds.iter().map(row).collect();
            Record { acknowledged, ..Record::default() }.longest_silence(at(from), at(to)).as_secs()
        };

        assert_eq!(silence(10, 20, &[1, 12, 16, 15, 19, 40]), 3);
        assert_eq!(silence(10, 20, &[1, 14, 16, 18]), 4);
        assert_eq!(silence(10, 20, &[11, 15]), 5);
        assert_eq!(silence(10, 20, &[]), 10);
    }

    #[test]
    fn missing_double_and_foreign_keys_are_told_apart() {
        let row = |key| Acknowledged { key, at: Instant::now(), took: Duration::ZERO, address: "a".into() };
        let record = Record {
            acknowledged: [1, 2, 3].map(row).to_vec(),
            unknown: vec![4, 5, 6],
            failures: BTreeMap::new(),
        };

        let verdict = Verdict::of(&record, &HashMap::from([(1, 1), (2, 2), (4, 1), (5, 2), (9, 1)]));

        assert_eq!(
            verdict,
            Verdict {
                rows: 7,
                acknowledged: 3,
                unknown: 3,
                unknown_found: 2,
                missing: vec![3],
                duplicates: vec![2, 5],
                foreign: vec![9],
            }
        );
        assert!(!verdict.is_sound());
    }
}
