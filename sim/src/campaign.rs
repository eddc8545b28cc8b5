//! Many histories at once, on all processors.

use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::scenario::{Plant, Report};

/// What runs the history of a seed.
pub type History = fn(u64, Option<Plant>) -> Result<Report, String>;

/// Runs the histories of `seeds`. A panic is a violation. `progress` is told each result and how many there are, one at a time.
pub fn run(
    seeds: Range<u64>,
    plant: Option<Plant>,
    history: History,
    progress: impl Fn(&Result<Report, String>, usize) + Sync,
) -> Vec<Result<Report, String>> {
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let result = catch_unwind(|| history(seed, plant))
                        .unwrap_or_else(|_| Err(format!("seed {seed}: panic")));
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    progress(&result, results.len() + 1);
                    results.push(result);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The faults that no history shows of those that may, tried one after the other.
pub fn unfound(
    plants: impl IntoIterator<Item = (Plant, impl IntoIterator<Item = u64>)>,
    history: History,
) -> Vec<Plant> {
    let mut unfound = Vec::new();
    for (plant, seeds) in plants {
        let found = seeds.into_iter().find_map(|seed| history(seed, Some(plant)).err());
        println!("{plant:?}: {found:?}");
        if found.is_none() {
            unfound.push(plant);
        }
    }
    unfound
}

/// Shows what nodes log, if RUST_LOG says so, such as RUST_LOG=dqlite=info; for one history at a time.
pub fn log_as_asked() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .without_time()
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .init();
    }
}

/// A number of the environment.
///
/// # Panics
/// The variable is set and no number.
#[must_use]
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| match text.parse() {
        Ok(number) => number,
        Err(_) => panic!("{name}={text} is no number"),
    })
}
