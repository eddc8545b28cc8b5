//! What clients did and what they were told, and whether a register, an append-only list and a set could have behaved so.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It took effect, with this result.
    Done(T),
    /// It surely had no effect.
    Failed,
    /// It may take effect at any later time, or never.
    Unknown,
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Operation<C, T> {
    /// Who.
    pub client: u64,
    /// What.
    pub call: C,
    /// When it began.
    pub begin: Duration,
    /// When the client learned the outcome.
    pub end: Duration,
    /// What came of it.
    pub outcome: Outcome<T>,
}

/// A call of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Sets a value that no other call sets.
    Write(u64),
    /// Reads; 0 is the value before the first write.
    Read,
}

/// Most states that are looked at for one register.
const STATES_MAX: usize = 4_000_000;

/// Whether the operations on one register are linearizable. The result of a write is not looked at.
///
/// # Errors
/// A description of what cannot be; or that there are too many possibilities to tell.
pub fn check_register(operations: &[Operation<Register, u64>]) -> Result<(), String> {
    // Reads that were not answered and what surely had no effect say nothing.
    let mut relevant: Vec<&Operation<Register, u64>> = operations
        .iter()
        .filter(|operation| match operation.outcome {
            Outcome::Done(_) => true,
            Outcome::Failed => false,
            Outcome::Unknown => operation.call != Register::Read,
        })
        .collect();
    relevant.sort_by_key(|operation| operation.begin);
    let failed: BTreeSet<u64> = operations
        .iter()
        .filter(|operation| operation.outcome == Outcome::Failed)
        .filter_map(|operation| if let Register::Write(value) = operation.call { Some(value) } else { None })
        .collect();
    for operation in &relevant {
        if let (Register::Read, Outcome::Done(value)) = (operation.call, &operation.outcome)
            && failed.contains(value)
        {
            return Err(format!("{operation:?} read what surely was not written"));
        }
    }
    // What nobody read and nobody was told of may as well not have been.
    let read: BTreeSet<u64> = relevant
        .iter()
        .filter_map(|operation| match (operation.call, &operation.outcome) {
            (Register::Read, Outcome::Done(value)) => Some(*value),
            _ => None,
        })
        .collect();
    relevant.retain(|operation| match operation.call {
        Register::Write(value) => operation.outcome != Outcome::Unknown || read.contains(&value),
        Register::Read => true,
    });
    search(&relevant)
}

/// Depth-first search for an order, with memory. Wing and Gong; Lowe.
fn search(operations: &[&Operation<Register, u64>]) -> Result<(), String> {
    let ends: Vec<Duration> = operations
        .iter()
        .map(|operation| if operation.outcome == Outcome::Unknown { Duration::MAX } else { operation.end })
        .collect();
    let words = operations.len().div_ceil(64);
    let must: usize = ends.iter().filter(|end| **end != Duration::MAX).count();
    let mut seen: HashSet<(Vec<u64>, u64)> = HashSet::new();
    let mut stack = vec![(vec![0u64; words], 0u64, 0usize)];
    let mut deepest = 0;
    let mut stuck = None;
    while let Some((taken, value, done)) = stack.pop() {
        if done == must {
            return Ok(());
        }
        if seen.len() > STATES_MAX {
            return Err(format!("undecided after {STATES_MAX} states of {} operations", operations.len()));
        }
        let is_taken = |place: usize| taken[place / 64] & (1 << (place % 64)) != 0;
        // Whatever has ended before another begins comes before it.
        let horizon = (0..operations.len()).filter(|place| !is_taken(*place)).map(|place| ends[place]).min();
        let horizon = horizon.unwrap_or(Duration::MAX);
        if done >= deepest {
            deepest = done;
            stuck = (0..operations.len()).find(|place| !is_taken(*place) && ends[*place] == horizon);
        }
        for place in (0..operations.len()).rev() {
            let operation = operations[place];
            if is_taken(place) || operation.begin > horizon {
                continue;
            }
            let next = match (operation.call, &operation.outcome) {
                (Register::Write(value), _) => value,
                (Register::Read, Outcome::Done(read)) if *read == value => value,
                (Register::Read, _) => continue,
            };
            let mut then = taken.clone();
            then[place / 64] |= 1 << (place % 64);
            if seen.insert((then.clone(), next)) {
                stack.push((then, next, done + usize::from(ends[place] != Duration::MAX)));
            }
        }
    }
    let text = stuck.map_or_else(String::new, |place| format!("{:?}", operations[place]));
    Err(format!("no order explains {} operations; at the latest it fails at {text}", operations.len()))
}

/// A call of a list of unique numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Appends a number.
    Append(u64),
    /// Reads the whole list.
    Read,
}

/// Whether the operations on one list are linearizable. `last` is the list at the end, read when nothing was under way.
///
/// # Errors
/// A description of what cannot be.
pub fn check_list(operations: &[Operation<List, Vec<u64>>], last: &[u64]) -> Result<(), String> {
    let mut place = BTreeMap::new();
    for (position, value) in last.iter().enumerate() {
        if place.insert(*value, position).is_some() {
            return Err(format!("{value} is in the list twice: {last:?}"));
        }
    }
    let mut appends = BTreeMap::new();
    for operation in operations {
        if let List::Append(value) = operation.call {
            appends.insert(value, operation);
            match operation.outcome {
                Outcome::Done(_) if !place.contains_key(&value) => {
                    return Err(format!("acknowledged and lost: {operation:?}"));
                }
                Outcome::Failed if place.contains_key(&value) => {
                    return Err(format!("surely failed and there: {operation:?}"));
                }
                _ => {}
            }
        }
    }
    if let Some(value) = last.iter().find(|value| !appends.contains_key(value)) {
        return Err(format!("{value} was never appended"));
    }
    let mut reads: Vec<(&Operation<List, Vec<u64>>, usize)> = Vec::new();
    for operation in operations {
        if let (List::Read, Outcome::Done(seen)) = (operation.call, &operation.outcome) {
            if !last.starts_with(seen) {
                return Err(format!("{operation:?} is no beginning of {last:?}"));
            }
            reads.push((operation, seen.len()));
        }
    }
    for (operation, length) in &reads {
        for (value, append) in &appends {
            let position = place.get(value);
            let seen = position.is_some_and(|position| position < length);
            if !seen && append.end < operation.begin && matches!(append.outcome, Outcome::Done(_)) {
                return Err(format!("stale: {operation:?} does not see {append:?}"));
            }
            if seen && append.begin > operation.end {
                return Err(format!("{operation:?} sees {append:?}, which began later"));
            }
        }
        for (earlier, shorter) in &reads {
            if earlier.end < operation.begin && length < shorter {
                return Err(format!("stale: {operation:?} sees less than {earlier:?}"));
            }
        }
    }
    for (value, append) in &appends {
        for (other, later) in &appends {
            let ordered = append.end < later.begin && matches!(append.outcome, Outcome::Done(_));
            if let (true, Some(before), Some(after)) = (ordered, place.get(value), place.get(other))
                && before > after
            {
                return Err(format!("{append:?} ended before {later:?} and comes behind it"));
            }
        }
    }
    Ok(())
}

/// Whether a set at the end holds what it must, once, and nothing that it must not.
///
/// # Errors
/// A description of what cannot be.
pub fn check_set(operations: &[Operation<u64, ()>], last: &[u64]) -> Result<(), String> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for value in last {
        *counts.entry(*value).or_default() += 1;
    }
    if let Some((value, count)) = counts.iter().find(|(_, count)| **count > 1) {
        return Err(format!("{value} is there {count} times"));
    }
    for operation in operations {
        let there = counts.remove(&operation.call).is_some();
        match operation.outcome {
            Outcome::Done(()) if !there => return Err(format!("acknowledged and lost: {operation:?}")),
            Outcome::Failed if there => return Err(format!("surely failed and there: {operation:?}")),
            _ => {}
        }
    }
    match counts.first_key_value() {
        Some((value, _)) => Err(format!("{value} was never inserted")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
