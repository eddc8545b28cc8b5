//! Whether what the clients of one database were told can be told of a database that does one thing after the other: the
//! journal says in which order, and plain SQLite what each statement does.
//!
//! Found are a dirty read, a lost write, one that happened twice or only in part, one that was said not to have happened, a
//! stale read, a transaction that saw two versions, and every answer that plain SQLite would not have given.

use std::collections::BTreeMap;

use dqlite::protocol::request::Value;

use super::plain::Plain;
use super::record::{Bond, Effect, Final, Moment, Outcome, Read, Records, Write};
use super::schema::{Schema, chain};

/// How many bytes of a text a violation shows.
const SHOWN: usize = 300;

fn shown(text: &impl std::fmt::Debug) -> String {
    let mut text = format!("{text:?}");
    if text.len() > SHOWN {
        text = text.chars().take(SHOWN).chain("...".chars()).collect();
    }
    text
}

/// Where the tags are.
struct Order<'a> {
    records: &'a Records,
    journal: &'a [(i64, i64)],
    /// Place of each tag, from 1.
    places: BTreeMap<i64, usize>,
}

/// Checks one database.
///
/// # Errors
/// What was violated.
pub fn check(schema: &Schema, records: &Records, state: &Final) -> Result<(), String> {
    let order = Order::new(records, &state.journal)?;
    order.check_outcomes()?;
    order.check_bonds()?;
    let placed = records.reads.iter().map(|read| order.place(read)).collect::<Result<Vec<_>, _>>()?;
    order.check_gone()?;
    order.check_snapshots(&placed)?;
    order.check_times(&placed)?;
    order.replay(schema, state, &placed)
}

/// Where in the journal a read was.
struct Placed<'a> {
    read: &'a Read,
    /// Committed tags that it saw.
    base: usize,
    /// The place at which plain SQLite has its state; None: inside a transaction that is not there.
    at: Option<usize>,
}

impl<'a> Order<'a> {
    fn new(records: &'a Records, journal: &'a [(i64, i64)]) -> Result<Order<'a>, String> {
        let mut places = BTreeMap::new();
        let mut before = 0;
        for (place, (tag, stored)) in (1..).zip(journal) {
            if let Some(first) = places.insert(*tag, place) {
                return Err(format!("a write happened twice: tag {tag} at {first} and {place}"));
            }
            if chain(before, *tag) != *stored {
                return Err(format!(
                    "the journal is broken at {place}: tag {tag} does not follow what is before it"
                ));
            }
            before = *stored;
            if !records.writes.contains_key(tag) {
                return Err(format!("the journal has tag {tag} at {place}, which nobody wrote here"));
            }
        }
        Ok(Order { records, journal, places })
    }

    fn chain_at(&self, place: usize) -> Option<i64> {
        match place {
            0 => Some(0),
            place => self.journal.get(place - 1).map(|(_, chain)| *chain),
        }
    }

    fn check_outcomes(&self) -> Result<(), String> {
        for write in self.records.writes.values() {
            let place = self.places.get(&write.tag);
            let told = || format!("tag {} ({}), {}", write.tag, write.note, shown(&write.sql));
            match (write.outcome, place) {
                (Outcome::Done, None) => return Err(format!("an acknowledged write is lost: {}", told())),
                (Outcome::Absent, Some(place)) => {
                    return Err(format!(
                        "a write that was said not to have happened is at {place}: {}",
                        told()
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_bonds(&self) -> Result<(), String> {
        for (bond, tags) in &self.records.bonds {
            let places: Vec<Option<usize>> = tags.iter().map(|tag| self.places.get(tag).copied()).collect();
            let there = places.iter().take_while(|place| place.is_some()).count();
            let found: Vec<usize> = places.iter().flatten().copied().collect();
            let broken = match bond {
                Bond::Ordered => there != found.len() || found.windows(2).any(|pair| pair[0] >= pair[1]),
                Bond::Atomic => {
                    (there != 0 && there != tags.len())
                        || there != found.len()
                        || found.windows(2).any(|pair| pair[0] + 1 != pair[1])
                }
            };
            if broken {
                return Err(format!("{bond:?} writes {} are at {}", shown(tags), shown(&places)));
            }
        }
        Ok(())
    }

    /// Finds out what a read saw.
    fn place(&self, read: &'a Read) -> Result<Placed<'a>, String> {
        let told = |what: &str| format!("{what}: {} of {}", shown(&read.rows.first()), shown(&read.sql));
        let seen = |row: &Vec<Value>| match row[..] {
            [Value::Integer(length), Value::Integer(chain), ..] => Some((length, chain)),
            _ => None,
        };
        let first = read.rows.first().and_then(seen).ok_or_else(|| told("a row without length and chain"))?;
        if read.rows.iter().any(|row| seen(row) != Some(first)) {
            return Err(told("one statement saw several versions"));
        }
        let length = usize::try_from(first.0).map_err(|_| told("a length below zero"))?;
        let Some(base) = length.checked_sub(read.own.len()) else {
            return Err(told("a transaction does not see its own writes"));
        };
        let own = |before| read.own.iter().fold(before, |before, tag| chain(before, *tag));
        if self.chain_at(base).map(own) != Some(first.1) {
            return Err(told(&format!(
                "a dirty read, of what was never committed: own tags {:?}, the journal's chain at {base} is {:?}",
                read.own,
                self.chain_at(base)
            )));
        }
        let at = (self.chain_at(length) == Some(first.1)).then_some(length);
        Ok(Placed { read, base, at })
    }

    fn check_snapshots(&self, placed: &[Placed<'_>]) -> Result<(), String> {
        let mut bases = BTreeMap::new();
        for (snapshot, tag) in &self.records.snapshots {
            if let Some(place) = self.places.get(tag) {
                bases.insert(*snapshot, place - 1);
            }
        }
        for Placed { read, base, .. } in placed {
            let Some(snapshot) = read.snapshot else { continue };
            let known = *bases.entry(snapshot).or_insert(*base);
            if known != *base {
                return Err(format!(
                    "a transaction saw two versions, {known} and {base}: {}",
                    shown(&read.sql)
                ));
            }
        }
        Ok(())
    }

    /// What a client has asked for that has gone since is not done long afterwards.
    fn check_gone(&self) -> Result<(), String> {
        for (tag, over) in &self.records.gone {
            let Some(place) = self.places.get(tag) else { continue };
            let later =
                self.journal.iter().take(place - 1).find(|(other, _)| {
                    self.records.writes.get(other).is_some_and(|write| write.begin > *over)
                });
            if let Some((later, _)) = later {
                return Err(format!(
                    "tag {tag} was written behind tag {later}, which began long after the client of the first had gone"
                ));
            }
        }
        Ok(())
    }

    /// What was over before something began is seen by it.
    fn check_times(&self, placed: &[Placed<'_>]) -> Result<(), String> {
        // At each moment: what is to be seen from then on.
        let mut known: Vec<(Moment, usize)> = Vec::new();
        for write in self.records.writes.values().filter(|write| write.outcome == Outcome::Done) {
            known.extend(self.places.get(&write.tag).map(|place| (write.end, *place)));
        }
        known.extend(placed.iter().map(|placed| (placed.read.end, placed.base)));
        known.sort_unstable();
        let mut newest = 0;
        for (_, place) in &mut known {
            newest = newest.max(*place);
            *place = newest;
        }
        let floor = |moment: Moment| {
            let before = known.partition_point(|(end, _)| *end < moment);
            before.checked_sub(1).map_or(0, |last| known[last].1)
        };
        for placed in placed {
            let floor = floor(placed.read.begin);
            if placed.base < floor {
                return Err(format!(
                    "a stale read: it saw {} writes when {floor} were known: {}",
                    placed.base,
                    shown(&placed.read.sql)
                ));
            }
        }
        // Nobody sees what has not begun: the newest tag of a place tells for all before it.
        let mut latest = 0;
        let begins: Vec<Moment> = std::iter::once(0)
            .chain(self.journal.iter().map(|(tag, _)| {
                latest = self.records.writes.get(tag).map_or(latest, |write| latest.max(write.begin));
                latest
            }))
            .collect();
        for placed in placed {
            if begins.get(placed.base).is_some_and(|begin| *begin > placed.read.end) {
                return Err(format!("a read saw the future: {}", shown(&placed.read.sql)));
            }
        }
        for (tag, place) in &self.places {
            let Some(write) = self.records.writes.get(tag) else { continue };
            let floor = floor(write.begin);
            if *place <= floor {
                return Err(format!(
                    "tag {tag} is at {place}, but began when {floor} were known: {}",
                    shown(&write.sql)
                ));
            }
        }
        Ok(())
    }

    /// Does everything again with plain SQLite.
    fn replay(&self, schema: &Schema, state: &Final, placed: &[Placed<'_>]) -> Result<(), String> {
        let failed = |error| format!("plain SQLite: {error:?}");
        let mut plain = Plain::new().map_err(failed)?;
        for sql in &schema.statements {
            plain.run(sql, &[]).map_err(failed)?;
        }
        let mut reads: BTreeMap<usize, Vec<&Placed<'_>>> = BTreeMap::new();
        for placed in placed {
            reads.entry(placed.at.unwrap_or(placed.base)).or_default().push(placed);
        }
        for place in 0..=self.journal.len() {
            if let Some(before) = place.checked_sub(1) {
                let write = self.journal.get(before).and_then(|(tag, _)| self.records.writes.get(tag));
                let write = write.ok_or("a tag of nobody")?;
                self.replay_write(&mut plain, write, place)?;
            }
            for placed in reads.get(&place).into_iter().flatten() {
                self.replay_read(&mut plain, placed)?;
            }
        }
        for (query, rows) in schema.state.iter().zip(&state.tables) {
            let expected = plain.run(query, &[]).map_err(failed)?.rows;
            if expected != *rows {
                return Err(format!(
                    "the final state differs from plain SQLite's: {}",
                    differ(rows, &expected, query)
                ));
            }
        }
        Ok(())
    }

    fn replay_write(&self, plain: &mut Plain, write: &Write, place: usize) -> Result<(), String> {
        let told = || format!("tag {} at {place}, {}", write.tag, shown(&write.sql));
        let ran = plain
            .run(&write.sql, &write.values)
            .map_err(|error| format!("plain SQLite refuses {}: {error:?}", told()))?;
        match &write.effect {
            Some(Effect::Result { changes, rowid }) => {
                let wrong_row = rowid.is_some_and(|rowid| rowid != ran.rowid);
                if *changes != ran.changes || wrong_row {
                    return Err(format!(
                        "{changes} changes and row {rowid:?}, in plain SQLite {} and {}: {}",
                        ran.changes,
                        ran.rowid,
                        told()
                    ));
                }
            }
            Some(Effect::Rows(rows)) => {
                // RETURNING promises no order.
                let sorted = |rows: &[Vec<Value>]| {
                    let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
                    rows.sort_unstable();
                    rows
                };
                if *rows != ran.rows && sorted(rows) != sorted(&ran.rows) {
                    return Err(format!(
                        "other rows than in plain SQLite: {}",
                        differ(rows, &ran.rows, &told())
                    ));
                }
            }
            None => {}
        }
        let query = "SELECT count(*), (SELECT chain FROM journal ORDER BY n DESC LIMIT 1) FROM journal";
        let seen = plain.run(query, &[]).map_err(|error| format!("{error:?}"))?.rows;
        let length = i64::try_from(place).unwrap_or(i64::MAX);
        let chain = self.chain_at(place).unwrap_or_default();
        if seen != [[Value::Integer(length), Value::Integer(chain)]] {
            return Err(format!("plain SQLite does not change what it changed here: {}", told()));
        }
        Ok(())
    }

    fn replay_read(&self, plain: &mut Plain, placed: &Placed<'_>) -> Result<(), String> {
        let read = placed.read;
        let failed = |error| format!("plain SQLite at {:?}, {}: {error:?}", placed.at, shown(&read.sql));
        let inside = placed.at.is_none();
        if inside {
            plain.run("BEGIN", &[]).map_err(failed)?;
            for tag in &read.own {
                let write = self.records.writes.get(tag).ok_or("a tag of nobody")?;
                plain.run(&write.sql, &write.values).map_err(failed)?;
            }
        }
        let ran = plain.run(&read.sql, &read.values).map_err(failed)?;
        if inside {
            plain.run("ROLLBACK", &[]).map_err(failed)?;
        }
        let agree = if read.complete { read.rows == ran.rows } else { ran.rows.starts_with(&read.rows) };
        if !agree {
            return Err(format!(
                "a read at {} has other rows than plain SQLite: {}",
                placed.base,
                differ(&read.rows, &ran.rows, &read.sql)
            ));
        }
        Ok(())
    }
}

/// The first row that differs.
fn differ(rows: &[Vec<Value>], expected: &[Vec<Value>], what: &str) -> String {
    let first = rows.iter().zip(expected).position(|(row, other)| row != other);
    let first = first.unwrap_or(rows.len().min(expected.len()));
    format!(
        "row {first} of {} is {}, of {} {}: {}",
        rows.len(),
        shown(&rows.get(first)),
        expected.len(),
        shown(&expected.get(first)),
        shown(&what)
    )
}
