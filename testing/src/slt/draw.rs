//! How a record is asked: by which requests, and with which of its literals as parameters.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::answer::Cell;
use super::literals::bind_literals;
use super::node::{Manner, Way};
use super::script::{Expected, Kind, Step};

/// A record as it is asked.
pub(super) struct Asked {
    /// The text, with what parameters it has.
    pub(super) sql: String,
    /// Their values.
    pub(super) values: Vec<Cell>,
    /// The requests.
    pub(super) manner: Manner,
}

/// How a record is asked, and the text and parameters that are left of it.
pub(super) fn draw(step: &Step, random: &mut SmallRng) -> Asked {
    // Its own generator: a record replays however many draws those before it took.
    let mut random = SmallRng::seed_from_u64(random.random::<u64>() ^ u64::from(step.line));
    let statement =
        [Way::ExecSql, Way::ExecSql, Way::PrepareExec, Way::KeptExec, Way::QuerySql, Way::PrepareQuery];
    let query =
        [Way::QuerySql, Way::QuerySql, Way::PrepareQuery, Way::KeptQuery, Way::KeptQuery, Way::PrepareQuery];
    // A script that knows what comes out must not have its writes refused for their rows.
    let may_be_refused = matches!(step.expected, Expected::Anything) || step.sql.starts_with("SELECT");
    let exceptional = may_be_refused && random.random_ratio(1, 24);
    let way = match step.kind {
        Kind::Query if exceptional => [Way::ExecSql, Way::PrepareExec][random.random_range(0..2)],
        Kind::Query => query[random.random_range(0..query.len())],
        Kind::Statement => statement[random.random_range(0..statement.len())],
    };
    // A text of several statements is for EXEC_SQL alone; a trigger only looks like one.
    let several = step.kind == Kind::Statement
        && step.sql.trim_end().trim_end_matches(';').contains(';')
        && !["CREATE TRIGGER", "CREATE TEMP TRIGGER"].iter().any(|begin| step.sql.starts_with(begin));
    let way = if several { Way::ExecSql } else { way };
    let manner = Manner { way, schema: random.random_range(0..2), probes: random.random_ratio(7, 8) };
    let share = [0, 0, 1, 2][random.random_range(0..4)];
    if step.values.is_empty() && share > 0 && !several {
        let bound = bind_literals(&step.sql, || share == 2 || random.random());
        if let Some((sql, values)) = bound {
            return Asked { sql, values, manner };
        }
    }
    Asked { sql: step.sql.clone(), values: step.values.clone(), manner }
}
