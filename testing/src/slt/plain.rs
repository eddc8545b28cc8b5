//! Plain SQLite: the side that is right. One connection to a file in WAL mode, whose isolation is that of the protocol, with the
//! settings that a node gives its connections and what the documents tell of requests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Batch, Connection, Error, Statement, ToSql};

use super::answer::{Answer, Cell};
use super::documented::{Documented, Tally, refuse, sent};

/// Looks at the schema, and at nothing else.
pub const READ_SCHEMA: &str = "SELECT count(*) FROM sqlite_schema";
/// SQLite's SQLITE_BUSY_SNAPSHOT.
pub const BUSY_SNAPSHOT: u64 = 517;
/// The savepoint that takes a statement back whose row nobody wants.
const SAVEPOINT: &str = "taken_back";

/// One connection.
#[derive(Debug)]
pub struct Plain {
    connection: Connection,
    tally: Arc<Tally>,
    /// A statement outside of a transaction is being taken back.
    refuses_commits: Arc<AtomicBool>,
    /// The last write was taken back or did not run: `changes()` is not what a node says.
    pub counters_unknown: bool,
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Integer(number) => ValueRef::Integer(*number),
            Cell::Real(bits) => ValueRef::Real(f64::from_bits(*bits)),
            Cell::Text(text) => ValueRef::Text(text),
            Cell::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Real(number) => Cell::Real(number.to_bits()),
        ValueRef::Text(text) => Cell::Text(text.to_vec()),
        ValueRef::Blob(blob) => Cell::Blob(blob.to_vec()),
    }
}

fn failure(error: &Error) -> Answer {
    match error {
        Error::SqliteFailure(error, text) => Answer::Failure {
            code: u64::from(error.extended_code.cast_unsigned()),
            text: text.clone().unwrap_or_default(),
        },
        other => Answer::Broken(format!("plain SQLite: {other}")),
    }
}

impl Plain {
    /// A connection to the database of this file.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open(file: &Path, tally: &Arc<Tally>) -> rusqlite::Result<Plain> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(Duration::ZERO)?;
        for pragma in ["page_size=4096", "journal_mode=WAL", "synchronous=OFF", "foreign_keys=ON"] {
            connection.prepare(&format!("PRAGMA {pragma}"))?.raw_query().next()?;
        }
        let counted = Arc::clone(tally);
        connection
            .authorizer(Some(move |context: rusqlite::hooks::AuthContext<'_>| refuse(context, &counted)))?;
        let refuses_commits = Arc::new(AtomicBool::new(false));
        let refused = Arc::clone(&refuses_commits);
        connection.commit_hook(Some(move || refused.load(Ordering::Relaxed)))?;
        Ok(Plain { connection, tally: Arc::clone(tally), refuses_commits, counters_unknown: false })
    }

    /// `last_insert_rowid()` and `changes()`.
    #[must_use]
    pub fn counters(&self) -> (i64, i64) {
        (self.connection.last_insert_rowid(), self.connection.changes().cast_signed())
    }

    /// Whether a transaction is open.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// The same, looked for as on a node: an empty transaction has effects of its own.
    pub fn probe(&mut self) -> bool {
        let open = self.in_transaction();
        if !open {
            // An empty transaction does not fail.
            let _ = self.command("BEGIN").and_then(|()| self.command("COMMIT"));
        }
        open
    }

    /// Version and source of SQLite.
    ///
    /// # Errors
    /// SQLite's.
    pub fn version(&self) -> rusqlite::Result<String> {
        self.connection.query_row(super::run::VERSION, [], |row| row.get(0))
    }

    /// The connection, for looking at what is stored.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A write met another transaction: a node does not run it at all.
    pub fn busy(&mut self) {
        self.tally.count(Documented::CountersOfTheUnrun);
        self.counters_unknown = true;
    }

    /// Whether the answer stems from a snapshot that was held outside of a transaction, which is then ended.
    fn leaves_snapshot(&self, answer: &Answer) -> bool {
        let is_old = matches!(answer, Answer::Failure { code: BUSY_SNAPSHOT, .. }) && !self.in_transaction();
        if is_old {
            self.tally.count(Documented::SnapshotLeftOver);
            // Its end is what matters.
            let _ = self.command(READ_SCHEMA);
        }
        is_old
    }

    /// Reads the schema anew, if it has changed.
    pub fn read_schema(&mut self) {
        // A schema that cannot be read shows in the next answer.
        let _ = self.command(READ_SCHEMA);
    }

    fn documented(&self, documented: Documented) -> Answer {
        self.tally.count(documented);
        match documented {
            Documented::RowThroughExec => {
                Answer::failure(1, "rows yielded when none expected for EXEC request")
            }
            Documented::SecondStatement => Answer::failure(1, "nonempty statement tail"),
            Documented::NoStatement => Answer::failure(0, "empty statement"),
            _ => Answer::failure(1, "bind parameters"),
        }
    }

    /// What EXEC_SQL answers; with `single`, what PREPARE and EXEC do.
    pub fn exec(&mut self, sql: &str, values: &[Cell], single: bool) -> Answer {
        let mut ran = 0;
        let mut result = self.exec_statements(sql, values, single, &mut ran);
        if ran == 0 && result.as_ref().is_err_and(|answer| self.leaves_snapshot(answer)) {
            result = self.exec_statements(sql, values, single, &mut ran);
        }
        match result {
            Ok(()) => {
                let (last_insert_id, changes) = self.counters();
                Answer::Done { last_insert_id, changes: changes.cast_unsigned() }
            }
            Err(answer) => answer,
        }
    }

    /// Runs the statements of a text, and counts those that were carried out.
    fn exec_statements(
        &mut self,
        sql: &str,
        values: &[Cell],
        single: bool,
        ran: &mut usize,
    ) -> Result<(), Answer> {
        let (mut batch, mut rest, mut undone) = (Batch::new(&self.connection, sql), values, false);
        let mut next = batch.next().map_err(|error| failure(&error))?;
        if single && next.is_none() {
            return Err(self.documented(Documented::NoStatement));
        }
        let mut result = Ok(());
        while let Some(mut statement) = next.take() {
            let count = statement.parameter_count().min(rest.len());
            bind(&mut statement, &rest[..count])?;
            rest = &rest[count..];
            // Only where it matters: what follows may need what this statement makes.
            if single || !rest.is_empty() {
                let further = batch.next();
                if single && !matches!(further, Ok(None)) {
                    return Err(self.documented(Documented::SecondStatement));
                }
                if !rest.is_empty() && matches!(further, Ok(None)) {
                    return Err(self.documented(Documented::TooManyParameters));
                }
                result = self.exec_one(statement, &mut undone);
                next = further.map_err(|error| failure(&error))?;
            } else {
                result = self.exec_one(statement, &mut undone);
                if result.is_ok() {
                    next = batch.next().map_err(|error| failure(&error))?;
                }
            }
            if result.is_err() {
                break;
            }
            *ran += 1;
        }
        self.counters_unknown |= undone;
        result
    }

    /// Runs a statement that must not yield a row, and takes it back if it does.
    fn exec_one(&self, mut statement: Statement<'_>, undone: &mut bool) -> Result<(), Answer> {
        let may_have_rows = !statement.readonly() && statement.column_count() > 0;
        let marked =
            may_have_rows && self.in_transaction() && self.command(&format!("SAVEPOINT {SAVEPOINT}")).is_ok();
        let stepped = {
            let mut rows = statement.raw_query();
            let stepped = rows.next().map(|row| row.is_some());
            // Outside of a transaction the statement commits as it is given up.
            self.refuses_commits.store(matches!(stepped, Ok(true)), Ordering::Relaxed);
            stepped
        };
        drop(statement);
        self.refuses_commits.store(false, Ordering::Relaxed);
        let release = format!("RELEASE {SAVEPOINT}");
        if marked && !matches!(stepped, Ok(true)) {
            // What a failure leaves behind, it leaves behind: OR FAIL does. After one that ended the transaction there is no savepoint.
            let released = self.command(&release);
            if let (Ok(false), Err(error)) = (&stepped, &released) {
                // The statement's own commit has failed.
                self.take_back(&release);
                return Err(failure(error));
            }
        } else if marked {
            self.take_back(&release);
        }
        match stepped {
            Ok(true) => {
                if may_have_rows {
                    self.tally.count(Documented::CountersOfTheUndone);
                    *undone = true;
                }
                Err(self.documented(Documented::RowThroughExec))
            }
            Ok(false) => Ok(()),
            Err(error) => Err(failure(&error)),
        }
    }

    fn take_back(&self, release: &str) {
        // Neither fails: the savepoint is there.
        let _ = self.command(&format!("ROLLBACK TO {SAVEPOINT}"));
        let _ = self.command(release);
    }

    fn command(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare(sql)?.raw_query().next().map(drop)
    }

    /// What QUERY_SQL answers.
    pub fn query(&mut self, sql: &str, values: &[Cell]) -> Answer {
        let mut result = self.query_rows(sql, values);
        if result.as_ref().is_err_and(|answer| self.leaves_snapshot(answer)) {
            result = self.query_rows(sql, values);
        }
        result.unwrap_or_else(|answer| answer)
    }

    fn query_rows(&self, sql: &str, values: &[Cell]) -> Result<Answer, Answer> {
        let mut batch = Batch::new(&self.connection, sql);
        let Some(mut statement) = batch.next().map_err(|error| failure(&error))? else {
            return Err(self.documented(Documented::NoStatement));
        };
        if !matches!(batch.next(), Ok(None)) {
            return Err(self.documented(Documented::SecondStatement));
        }
        if values.len() > statement.parameter_count() {
            return Err(self.documented(Documented::TooManyParameters));
        }
        bind(&mut statement, values)?;
        let mut columns = None;
        let mut found = statement.raw_query();
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(|error| failure(&error))? {
            // The first step may have found another schema than the compiler.
            let columns = columns.get_or_insert_with(|| columns_of(row.as_ref()));
            let mut cells = Vec::with_capacity(columns.len());
            for (position, (_, declared)) in columns.iter().enumerate() {
                let value = row.get_ref(position).map_err(|error| failure(&error))?;
                cells.push(sent(cell(value), declared.as_deref(), &self.tally));
            }
            rows.push(cells);
        }
        drop(found);
        let columns = columns.unwrap_or_else(|| columns_of(&statement));
        Ok(Answer::Rows { columns: columns.into_iter().map(|(name, _)| name).collect(), rows })
    }
}

/// Names, and the types that columns of tables were declared with.
fn columns_of(statement: &Statement<'_>) -> Vec<(Vec<u8>, Option<String>)> {
    let columns = statement.columns();
    columns
        .iter()
        .map(|column| (column.name().as_bytes().to_vec(), column.decl_type().map(str::to_owned)))
        .collect()
}

fn bind(statement: &mut Statement<'_>, values: &[Cell]) -> Result<(), Answer> {
    for (position, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(position + 1, value).map_err(|error| failure(&error))?;
    }
    Ok(())
}
