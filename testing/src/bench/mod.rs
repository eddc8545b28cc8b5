//! `make bench`: this library and upstream's on one machine in one run: the same C program as the node, the same client, one
//! library after the other in every round.

pub mod contender;
pub mod floor;
mod footprint;
mod load;
mod mute;
pub mod report;
pub mod results;

use std::path::Path;
use std::time::Duration;

use self::contender::Contender;
use self::results::Results;

/// Any failure: a benchmark ends with the first.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is measured, and how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Measured time of each load.
    pub time: Duration,
    /// Time before it that is not measured.
    pub warm_up: Duration,
    /// Sizes of clusters.
    pub nodes: Vec<usize>,
    /// Only measurements whose name holds this.
    pub only: Option<String>,
    /// Arguments of all nodes beside each contender's own.
    pub node_arguments: Vec<String>,
    /// Requests per second of the open loop; half of what closed loops reach if there is none.
    pub rate: Option<f64>,
    /// Size of the large database in MiB; none is made if it is 0.
    pub large_mib: u64,
}

impl Settings {
    /// Whether a measurement is asked for.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

/// One round of one contender. `work` is made and removed.
///
/// # Errors
/// A node or a client failed.
pub fn measure(
    program: &Path,
    work: &Path,
    contender: &Contender,
    settings: &Settings,
    results: &mut Results,
) -> Result<(), Failure> {
    for nodes in &settings.nodes {
        let cluster = contender.cluster(program, work, *nodes, &settings.node_arguments)?;
        load::measure(&cluster, contender, *nodes, settings, results)?;
    }
    if settings.large_mib > 0 {
        footprint::measure(program, work, contender, settings, results)?;
    }
    Ok(())
}
