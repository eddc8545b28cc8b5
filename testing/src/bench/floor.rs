//! What disk and SQLite take without any library (`tests-c/floor.c`), and what clients and loopback take without a node.

use std::path::Path;
use std::process::Command;

use super::results::Results;
use super::{Failure, Settings, mute};

/// Name of the column.
pub const NAME: &str = "floor";

/// Runs the program in `work`, then clients on a node that does nothing.
///
/// # Errors
/// It fails, or prints something else than numbers.
pub fn measure(
    program: &Path,
    work: &Path,
    settings: &Settings,
    results: &mut Results,
) -> Result<(), Failure> {
    let seconds = (settings.time.as_secs_f64() * 2.0).to_string();
    let output = Command::new(program).arg(work).arg(seconds).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    for line in String::from_utf8(output.stdout)?.lines() {
        let (name, value) = line.rsplit_once(": ").ok_or("a line without a value")?;
        results.add(NAME, 0, name, value.parse()?);
    }
    mute::measure(settings, results)
}
