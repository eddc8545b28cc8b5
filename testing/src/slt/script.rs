//! A script as steps to run. The format is that of the `sqllogictest` crate; of its directives, those that need a shell or wait are
//! refused. Two conventions are this project's:
//!
//! - `connection NAME` or `connection NAME@DATABASE` before a record: on a connection, and a database, of that name.
//! - a comment `#bind VALUE...` right before a record: its parameters, separated by blanks. A value is a literal of SQL without blanks,
//!   or `text:HEX`, the bytes of a text; `NaN`, `Inf` and `-Inf` are floats.

use sqllogictest::{
    Connection, DefaultColumnType, ExpectedError, QueryExpect, Record, SortMode, StatementExpect,
};

use super::answer::Cell;
use super::literals::bind_literals;

/// How a comment with parameters begins.
const BIND: &str = "bind ";
/// First line of a script whose outcomes are whatever plain SQLite says.
pub const GENERATED: &str = "# generated";

/// What a script says of an outcome.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Whatever plain SQLite says.
    Anything,
    /// It is carried out.
    Success,
    /// It is carried out and changes so many rows.
    Changes(u64),
    /// It is refused; with a pattern, `CODE TEXT` matches it.
    Failure(ExpectedError),
}

/// Whether a record asks for rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `statement`.
    Statement,
    /// `query`.
    Query,
}

/// One record.
#[derive(Clone, Debug)]
pub struct Step {
    /// Line in its script.
    pub line: u32,
    /// Name of the connection.
    pub connection: String,
    /// Name of the database; empty for the script's own.
    pub database: String,
    /// Statement or query.
    pub kind: Kind,
    /// The text.
    pub sql: String,
    /// Its parameters.
    pub values: Vec<Cell>,
    /// Whether the order of rows is not looked at.
    pub any_order: bool,
    /// What the script says of the outcome.
    pub expected: Expected,
}

/// A script.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its file, or its seed.
    pub name: String,
    /// Draws the ways that its records take.
    pub seed: u64,
    /// Its records.
    pub steps: Vec<Step>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// It is not in the format, or has a directive that is refused here; the line is in the text.
    pub fn parse(name: &str, text: &str, seed: u64) -> Result<Script, String> {
        let records = sqllogictest::parse_with_name::<DefaultColumnType>(text, name)
            .map_err(|error| error.to_string())?;
        let any = text.starts_with(GENERATED);
        let (mut steps, mut values, mut sort) = (Vec::new(), Vec::new(), false);
        for record in records {
            match record {
                Record::Comment(lines) => {
                    if let Some(bound) = lines.last().and_then(|line| line.strip_prefix(BIND)) {
                        values = bound.split_whitespace().map(parameter).collect::<Result<_, _>>()?;
                    }
                }
                Record::Newline
                | Record::Connection(_)
                | Record::HashThreshold { .. }
                | Record::Subtest { .. } => {}
                Record::Halt { .. } => break,
                Record::Control(sqllogictest::Control::SortMode(mode)) => sort = mode != SortMode::NoSort,
                record => {
                    let mut step =
                        step_of(record).ok_or_else(|| format!("{name}: a directive that is refused"))?;
                    step.values = std::mem::take(&mut values);
                    step.any_order |= sort;
                    if any {
                        step.expected = Expected::Anything;
                    }
                    steps.push(step);
                }
            }
        }
        Ok(Script { name: name.to_owned(), seed, steps })
    }
}

/// The step of a record that has SQL for SQLite; others have none.
fn step_of(record: Record<DefaultColumnType>) -> Option<Step> {
    let (loc, connection, sql, kind, expected, any_order) = match record {
        Record::Statement { loc, connection, sql, expected, .. } => {
            let expected = match &expected {
                StatementExpect::Ok => Expected::Success,
                StatementExpect::Count(count) => Expected::Changes(*count),
                StatementExpect::Error(error) => Expected::Failure(error.clone()),
            };
            (loc, connection, sql, Kind::Statement, expected, false)
        }
        Record::Query { loc, connection, sql, expected, .. } => match &expected {
            QueryExpect::Results { sort_mode, .. } => {
                let any_order = sort_mode.is_some_and(|mode| mode != SortMode::NoSort);
                (loc, connection, sql, Kind::Query, Expected::Success, any_order)
            }
            QueryExpect::Error(error) => {
                (loc, connection, sql, Kind::Query, Expected::Failure(error.clone()), false)
            }
        },
        _ => return None,
    };
    let name = match connection {
        Connection::Default => String::new(),
        Connection::Named(name) => name,
    };
    let (connection, database) = name.split_once('@').unwrap_or((&name, ""));
    let (connection, database) = (connection.to_owned(), database.to_owned());
    Some(Step { line: loc.line(), connection, database, kind, sql, values: Vec::new(), any_order, expected })
}

/// A value of `#bind`.
fn parameter(source: &str) -> Result<Cell, String> {
    let wrong = || format!("#bind: '{source}' is no value");
    match source {
        "NULL" => return Ok(Cell::Null),
        "NaN" => return Ok(Cell::Real(f64::NAN.to_bits())),
        "Inf" => return Ok(Cell::Real(f64::INFINITY.to_bits())),
        "-Inf" => return Ok(Cell::Real(f64::NEG_INFINITY.to_bits())),
        _ => {}
    }
    if let Some(digits) = source.strip_prefix("text:") {
        let blob = bind_literals(&format!("VALUES x'{digits}'"), || true).ok_or_else(wrong)?;
        return match blob.1.into_iter().next() {
            Some(Cell::Blob(bytes)) => Ok(Cell::Text(bytes)),
            _ => Err(wrong()),
        };
    }
    if let Ok(number) = source.parse() {
        return Ok(Cell::Integer(number));
    }
    if let Ok(number) = source.parse::<f64>() {
        return Ok(Cell::Real(number.to_bits()));
    }
    match bind_literals(&format!("VALUES {source}"), || true) {
        Some((text, values)) if text == "VALUES ?" && source.ends_with('\'') => {
            values.into_iter().next().ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_connections_parameters_and_expectations() {
        let text = "#bind 1 -2.5 'a' x'00' NULL text:ff61\nstatement ok\nINSERT INTO t VALUES(?,?,?,?,?,?)\n\n\
                    connection b@other\nquery error ^1 no such table\nSELECT * FROM\nu\n\n\
                    query IT rowsort\nSELECT 1\n";
        let script = Script::parse("x", text, 0).unwrap();

        let bound = [
            Cell::Integer(1),
            Cell::Real((-2.5f64).to_bits()),
            Cell::Text(b"a".to_vec()),
            Cell::Blob(vec![0]),
            Cell::Null,
            Cell::Text(vec![255, 0x61]),
        ];
        assert_eq!(script.steps[0].values, bound);
        let second = &script.steps[1];
        assert_eq!((&second.connection[..], &second.database[..]), ("b", "other"));
        assert_eq!((&second.sql[..], second.line), ("SELECT * FROM\nu", 6));
        assert!(
            matches!(&second.expected, Expected::Failure(ExpectedError::Inline(_)))
                && second.values.is_empty()
        );
        assert!(script.steps[2].any_order && script.steps[2].connection.is_empty());
    }

    #[test]
    fn directives_of_a_shell_are_refused() {
        assert!(Script::parse("x", "system ok\necho\n", 0).is_err());
        assert!(Script::parse("x", "#bind wrong\nstatement ok\nSELECT ?\n", 0).is_err());
    }
}
