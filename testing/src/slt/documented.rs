//! Where the answer of a node differs from SQLite's because the protocol says so, in one table. Each difference is applied to what plain
//! SQLite says before the two are compared, so that a node that does not have it is reported as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::answer::Cell;

/// A difference that the documents tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Documented {
    /// See `reason`.
    Refused,
    /// See `reason`.
    TextEndsAtNul,
    /// See `reason`.
    DateIsNull,
    /// See `reason`.
    BooleanIsNull,
    /// See `reason`.
    RowThroughExec,
    /// See `reason`.
    CountersOfTheUndone,
    /// See `reason`.
    SecondStatement,
    /// See `reason`.
    NoStatement,
    /// See `reason`.
    TooManyParameters,
    /// See `reason`.
    CountersOfTheUnrun,
    /// See `reason`.
    NothingToDo,
    /// See `reason`.
    RowidByChance,
    /// See `reason`.
    SnapshotLeftOver,
    /// See `reason`.
    SchemaOfBefore,
}

/// All of them.
pub const ALL: [Documented; 14] = [
    Documented::Refused,
    Documented::TextEndsAtNul,
    Documented::DateIsNull,
    Documented::BooleanIsNull,
    Documented::RowThroughExec,
    Documented::CountersOfTheUndone,
    Documented::SecondStatement,
    Documented::NoStatement,
    Documented::TooManyParameters,
    Documented::CountersOfTheUnrun,
    Documented::NothingToDo,
    Documented::RowidByChance,
    Documented::SnapshotLeftOver,
    Documented::SchemaOfBefore,
];

impl Documented {
    /// What differs, and why.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Documented::Refused => {
                "23: ATTACH of a file (VACUUM INTO is one), journal_mode=, page_size=, synchronous=, wal_autocheckpoint=, wal_checkpoint, \
                 busy_timeout, locking_mode, read_uncommitted: they would harm what is replicated (protocol.md, Transactions)"
            }
            Documented::TextEndsAtNul => {
                "a text in a row ends at its first zero byte: texts of the protocol end with one (protocol.md, Types)"
            }
            Documented::DateIsNull => {
                "NULL in a column of a date is an empty text: what clients in Go expect (protocol.md, Types)"
            }
            Documented::BooleanIsNull => {
                "NULL in a column of booleans is 0: what clients in Go expect (protocol.md, Types)"
            }
            Documented::RowThroughExec => {
                "1: a row through EXEC or EXEC_SQL, and the statement is undone: RESULT has no rows (protocol.md, Running statements)"
            }
            Documented::CountersOfTheUndone => {
                "after that, changes() of a statement that was undone is not compared until the next one sets it: no document says it"
            }
            Documented::SecondStatement => {
                "1: a second statement where one is allowed (protocol.md, Running statements)"
            }
            Documented::NoStatement => "0: a query without a statement (protocol.md, Running statements)",
            Documented::TooManyParameters => {
                "1: more parameters than the statement has, and it does not run (protocol.md, Parameters)"
            }
            Documented::CountersOfTheUnrun => {
                "after a write that got 5 or 517, changes() is not compared until the next one sets it: it waited in line and never ran \
                 (protocol.md, Transactions)"
            }
            Documented::NothingToDo => {
                "5: IF EXISTS and IF NOT EXISTS wait for another client's transaction though nothing is to be done: SQLite says that they \
                 write (protocol.md, Transactions)"
            }
            Documented::SnapshotLeftOver => {
                "SQLite keeps a snapshot after a rollback that met an FTS5 table: it would read an old version, or get 517, outside of a \
                 transaction (protocol.md, Transactions: a read sees every write that was acknowledged)"
            }
            Documented::SchemaOfBefore => {
                "1: a text with several mistakes, beside another's change of the schema: which one is told depends on when a connection has \
                 read the schema; both sides agree once they have read it"
            }
            Documented::RowidByChance => {
                "a row behind the largest rowid gets one that SQLite draws: the script ends there"
            }
        }
    }
}

/// How often each difference was needed.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; ALL.len()]);

impl Tally {
    /// Counts one.
    pub fn count(&self, documented: Documented) {
        self.0[documented as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often.
    #[must_use]
    pub fn of(&self, documented: Documented) -> u64 {
        self.0[documented as usize].load(Ordering::Relaxed)
    }
}

/// PRAGMAs that are refused with and without a value.
const REFUSED: [&str; 4] = ["wal_checkpoint", "busy_timeout", "locking_mode", "read_uncommitted"];
/// PRAGMAs that are refused with a value.
const REFUSED_SETTERS: [&str; 4] = ["journal_mode", "page_size", "wal_autocheckpoint", "synchronous"];

/// What a node refuses, as an authorizer of plain SQLite.
pub fn refuse(context: AuthContext<'_>, tally: &Arc<Tally>) -> Authorization {
    let one_of = |name: &str, names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let refused = match context.action {
        AuthAction::Attach { filename } => !filename.is_empty(),
        // An expression as the name of a file.
        AuthAction::Unknown { code, .. } => code == rusqlite::ffi::SQLITE_ATTACH,
        AuthAction::Pragma { pragma_name, pragma_value } => {
            one_of(pragma_name, &REFUSED) || (pragma_value.is_some() && one_of(pragma_name, &REFUSED_SETTERS))
        }
        _ => false,
    };
    if refused {
        tally.count(Documented::Refused);
        return Authorization::Deny;
    }
    Authorization::Allow
}

/// A value of a row as a node sends it; `declared` is the type that its column was declared with.
#[must_use]
pub fn sent(cell: Cell, declared: Option<&str>, tally: &Tally) -> Cell {
    let is = |names: &[&str]| {
        declared.is_some_and(|found| names.iter().any(|name| name.eq_ignore_ascii_case(found)))
    };
    match cell {
        Cell::Text(mut text) => {
            if let Some(end) = text.iter().position(|byte| *byte == 0) {
                tally.count(Documented::TextEndsAtNul);
                text.truncate(end);
            }
            Cell::Text(text)
        }
        Cell::Null if is(&["DATETIME", "DATE", "TIMESTAMP"]) => {
            tally.count(Documented::DateIsNull);
            Cell::Text(Vec::new())
        }
        Cell::Null if is(&["BOOLEAN"]) => {
            tally.count(Documented::BooleanIsNull);
            Cell::Integer(0)
        }
        cell => cell,
    }
}
