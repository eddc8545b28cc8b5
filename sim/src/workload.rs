//! What clients of a simulated cluster do: registers, lists and rows; and whether what they were told can be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dqlite::protocol::request::Value;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use crate::client::ClusterClient;
use crate::history::{List, Operation, Outcome, Register, check_list, check_register, check_set};
use crate::scenario::Plant;

/// Clients that read and write everything.
pub(crate) const CLIENTS: u64 = 4;
/// Kinds of operations; the last is the insert of a row.
const KINDS: u32 = 6;
/// Registers and lists.
const KEYS: u64 = 4;

/// All that clients did.
#[derive(Default)]
pub(crate) struct Histories {
    registers: BTreeMap<u64, Vec<Operation<Register, u64>>>,
    lists: BTreeMap<u64, Vec<Operation<List, Vec<u64>>>>,
    rows: Vec<Operation<u64, ()>>,
}

/// The same for all clients.
pub(crate) type Shared = Arc<Mutex<Histories>>;

fn integer(rows: &[Vec<Value>]) -> u64 {
    match rows.first().and_then(|row| row.first()) {
        Some(Value::Integer(number)) => u64::try_from(*number).unwrap_or(u64::MAX),
        _ => u64::MAX,
    }
}

pub(crate) fn list(rows: &[Vec<Value>]) -> Vec<u64> {
    match rows.first().and_then(|row| row.first()) {
        Some(Value::Text(text)) => {
            String::from_utf8_lossy(text).split(',').filter_map(|number| number.parse().ok()).collect()
        }
        _ => vec![u64::MAX],
    }
}

fn map<T, U>(outcome: Outcome<T>, with: impl FnOnce(T) -> U) -> Outcome<U> {
    match outcome {
        Outcome::Done(value) => Outcome::Done(with(value)),
        Outcome::Failed => Outcome::Failed,
        Outcome::Unknown => Outcome::Unknown,
    }
}

/// Works until the time is over.
pub(crate) async fn work(
    mut client: ClusterClient,
    number: u64,
    seed: u64,
    (begin, time): (Instant, Duration),
    histories: Shared,
    plant: Option<Plant>,
) {
    let mut random = SmallRng::seed_from_u64(seed ^ number << 48);
    let mut count = 0;
    // What this client read last.
    let mut seen = BTreeMap::new();
    while begin.elapsed() < time {
        sleep(Duration::from_millis(random.random_range(0..150))).await;
        count += 1;
        let value = number * 1_000_000 + count;
        let key = random.random_range(0..KEYS);
        let started = begin.elapsed();
        let kind = if number > CLIENTS { KINDS - 1 } else { random.random_range(0..KINDS) };
        let record = |with: &mut dyn FnMut(&mut Histories, Duration)| {
            with(&mut histories.lock().unwrap_or_else(PoisonError::into_inner), begin.elapsed());
        };
        match kind {
            0 => {
                let outcome = client.exec(&format!("UPDATE register SET v = {value} WHERE k = {key}")).await;
                let outcome = map(outcome, |()| 0);
                record(&mut |all, end| {
                    let call = Register::Write(value);
                    let operation =
                        Operation { client: number, call, begin: started, end, outcome: outcome.clone() };
                    all.registers.entry(key).or_default().push(operation);
                });
            }
            1 => {
                let outcome = client.query(&format!("SELECT v FROM register WHERE k = {key}")).await;
                let mut outcome = map(outcome, |rows| integer(&rows));
                if let Outcome::Done(value) = &outcome {
                    let earlier = seen.insert(key, *value);
                    if plant == Some(Plant::StaleRead) && earlier.is_some() && random.random_range(0..5) == 0
                    {
                        outcome = Outcome::Done(earlier.unwrap_or_default());
                    }
                }
                record(&mut |all, end| {
                    let call = Register::Read;
                    let operation =
                        Operation { client: number, call, begin: started, end, outcome: outcome.clone() };
                    all.registers.entry(key).or_default().push(operation);
                });
            }
            2 => {
                let sql = format!("UPDATE list SET v = v || ',' || {value} WHERE k = {key}");
                let outcome = map(client.exec(&sql).await, |()| Vec::new());
                record(&mut |all, end| {
                    let call = List::Append(value);
                    let operation =
                        Operation { client: number, call, begin: started, end, outcome: outcome.clone() };
                    all.lists.entry(key).or_default().push(operation);
                });
            }
            3 => {
                let outcome = client.query(&format!("SELECT v FROM list WHERE k = {key}")).await;
                let outcome = map(outcome, |rows| list(&rows));
                record(&mut |all, end| {
                    let call = List::Read;
                    let operation =
                        Operation { client: number, call, begin: started, end, outcome: outcome.clone() };
                    all.lists.entry(key).or_default().push(operation);
                });
            }
            4 => {
                // A commit that changes no page.
                let _ = client.exec("PRAGMA user_version = 0").await;
            }
            _ => {
                let padding = random.random_range(0..600);
                let sql = format!("INSERT INTO row(v, pad) VALUES({value}, hex(zeroblob({padding})))");
                let outcome = client.exec(&sql).await;
                record(&mut |all, end| {
                    let operation = Operation {
                        client: number,
                        call: value,
                        begin: started,
                        end,
                        outcome: outcome.clone(),
                    };
                    all.rows.push(operation);
                });
            }
        }
    }
}

/// Reads everything when nothing is under way any more.
pub(crate) async fn final_state(client: &mut ClusterClient) -> Option<(BTreeMap<u64, Vec<u64>>, Vec<u64>)> {
    let mut lists = BTreeMap::new();
    for key in 0..KEYS {
        let Outcome::Done(rows) = client.query(&format!("SELECT v FROM list WHERE k = {key}")).await else {
            return None;
        };
        lists.insert(key, list(&rows));
    }
    let query = "SELECT coalesce(group_concat(v), '') FROM row";
    let Outcome::Done(rows) = client.query(query).await else { return None };
    Some((lists, list(&rows)))
}

/// Makes what clients work on.
pub(crate) async fn make_tables(client: &mut ClusterClient, patience: Duration) -> Result<(), String> {
    let mut tables = vec![
        "CREATE TABLE register(k INTEGER PRIMARY KEY, v)".to_owned(),
        "CREATE TABLE list(k INTEGER PRIMARY KEY, v TEXT)".to_owned(),
        "CREATE TABLE row(v INTEGER, pad TEXT)".to_owned(),
    ];
    for key in 0..KEYS {
        tables.push(format!("INSERT INTO register VALUES({key}, 0)"));
        tables.push(format!("INSERT INTO list VALUES({key}, '')"));
    }
    for sql in tables {
        client.insist(&sql, patience).await.ok_or_else(|| format!("not done in calm weather: {sql}"))?;
    }
    Ok(())
}

impl Histories {
    /// Reads what is there, and looks whether all that clients were told can be. Operations that were acknowledged, and that were not.
    pub(crate) async fn check(
        &self,
        client: &mut ClusterClient,
        patience: Duration,
    ) -> Result<(usize, usize), String> {
        let reading = async {
            loop {
                if let Some(state) = final_state(client).await {
                    return state;
                }
            }
        };
        let (lists, rows) =
            timeout(patience, reading).await.map_err(|_| "the final state cannot be read".to_owned())?;
        for (key, operations) in &self.registers {
            check_register(operations).map_err(|error| format!("register {key}: {error}"))?;
        }
        for (key, operations) in &self.lists {
            check_list(operations, &lists[key]).map_err(|error| format!("list {key}: {error}"))?;
        }
        check_set(&self.rows, &rows).map_err(|error| format!("rows: {error}"))?;
        let registers = self.registers.values().flatten();
        let registers = registers.map(|operation| matches!(operation.outcome, Outcome::Done(_)));
        let lists = self.lists.values().flatten();
        let lists = lists.map(|operation| matches!(operation.outcome, Outcome::Done(_)));
        let rows = self.rows.iter().map(|operation| matches!(operation.outcome, Outcome::Done(())));
        let outcomes: Vec<bool> = registers.chain(lists).chain(rows).collect();
        let acknowledged = outcomes.iter().filter(|done| **done).count();
        Ok((acknowledged, outcomes.len() - acknowledged))
    }

    /// The longest time without an acknowledged write between two times.
    pub(crate) fn longest_gap(&self, from: Duration, to: Duration) -> Duration {
        let registers = self.registers.values().flatten().filter_map(|operation| {
            let is_done =
                matches!(operation.call, Register::Write(_)) && matches!(operation.outcome, Outcome::Done(_));
            is_done.then_some(operation.end)
        });
        let lists = self.lists.values().flatten().filter_map(|operation| {
            let is_done =
                matches!(operation.call, List::Append(_)) && matches!(operation.outcome, Outcome::Done(_));
            is_done.then_some(operation.end)
        });
        let rows = self.rows.iter().filter(|operation| operation.outcome == Outcome::Done(()));
        let mut ends: Vec<Duration> =
            registers.chain(lists).chain(rows.map(|operation| operation.end)).collect();
        ends.push(Duration::ZERO);
        ends.push(to);
        ends.sort_unstable();
        let gaps = ends.windows(2).filter(|pair| pair[1] > from && pair[0] < to);
        gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}
