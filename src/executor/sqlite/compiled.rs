//! What is known of a statement from its compilation: which databases it writes to and whether it may end a transaction. SQLite
//! tells its authorizer.

use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};

use libsqlite3_sys as sqlite;

const WRITES_MAIN: u8 = 1;
const WRITES_TEMPORARY: u8 = 2;
const ENDS_TRANSACTION: u8 = 4;
const CHANGES_SCHEMA: u8 = 8;
const CREATES: u8 = 16;
/// The table of the schema is updated: by the statement itself, or since a virtual table was declared, which SQLite tells alike.
const UPDATES_SCHEMA: u8 = 32;

/// The tables of the schema, by all their names.
const SCHEMA_TABLES: [&[u8]; 4] =
    [b"sqlite_master", b"sqlite_schema", b"sqlite_temp_master", b"sqlite_temp_schema"];

/// How a statement may add to the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemaChange {
    /// It makes one object, which its text describes.
    Creates,
    /// In any way.
    Any,
}

/// What was noted of one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compiled(u8);

impl Compiled {
    /// It writes to temporary tables and to nothing else. What SQLite does not tell of, such as a PRAGMA, is not among them.
    #[must_use]
    pub const fn writes_only_temporary(self) -> bool {
        self.0 & (WRITES_MAIN | WRITES_TEMPORARY) == WRITES_TEMPORARY
    }

    /// How it may add to the schema, if it writes anything.
    pub(super) const fn schema_change(self) -> Option<SchemaChange> {
        match (self.0 & CHANGES_SCHEMA != 0, self.0 & CREATES != 0) {
            (false, _) => None,
            (true, true) => Some(SchemaChange::Creates),
            (true, false) => Some(SchemaChange::Any),
        }
    }

    /// COMMIT, END or RELEASE: a transaction that is open may be committed.
    #[must_use]
    pub const fn ends_transaction(self) -> bool {
        self.0 & ENDS_TRANSACTION != 0
    }
}

/// Where the authorizer notes it.
#[derive(Debug, Default)]
pub(super) struct Noted {
    flags: AtomicU8,
    /// The statement that runs and was not compiled to change the schema, if there is one.
    runs: AtomicPtr<sqlite::sqlite3_stmt>,
    /// SQLite has compiled that statement anew, since the schema is another one, and now it would change the schema.
    is_outdated: AtomicBool,
}

impl Noted {
    /// What was noted while this text was compiled.
    pub(super) fn take(&self, sql: &[u8]) -> Compiled {
        let noted = self.flags.swap(0, Ordering::Relaxed);
        // Who writes to the table of the schema by hand has to name it.
        let by_hand = noted & UPDATES_SCHEMA != 0 && names_schema(sql);
        Compiled(if by_hand { noted | CHANGES_SCHEMA | WRITES_MAIN } else { noted })
    }

    /// Runs a statement that was not compiled to change the schema. Whether it was outdated: then it has not begun.
    pub(super) fn run<T>(
        &self,
        statement: NonNull<sqlite::sqlite3_stmt>,
        work: impl FnOnce() -> T,
    ) -> (T, bool) {
        self.runs.store(statement.as_ptr(), Ordering::Relaxed);
        let result = work();
        self.runs.store(ptr::null_mut(), Ordering::Relaxed);
        (result, self.is_outdated.swap(false, Ordering::Relaxed))
    }

    /// Whether an action is that of a statement which runs, is compiled anew, and was not compiled to do this. A virtual table
    /// that makes its own tables while the statement is under way is another matter.
    pub(super) fn is_unforeseen(&self, action: c_int, first: Option<&[u8]>, in_trigger: bool) -> bool {
        let runs = self.runs.load(Ordering::Relaxed);
        if runs.is_null() || flags_of(action, first, None, in_trigger) & CHANGES_SCHEMA == 0 {
            return false;
        }
        // SAFETY: a live statement of the connection whose authorizer asks, for as long as it runs.
        let is_unforeseen = unsafe { sqlite::sqlite3_stmt_busy(runs) } == 0;
        self.is_outdated.fetch_or(is_unforeseen, Ordering::Relaxed);
        is_unforeseen
    }

    /// Notes an action, and whether a trigger takes it. SQLite reference: "Authorizer Action Codes".
    pub(super) fn note(
        &self,
        action: c_int,
        first: Option<&[u8]>,
        database: Option<&[u8]>,
        in_trigger: bool,
    ) {
        self.flags.fetch_or(flags_of(action, first, database, in_trigger), Ordering::Relaxed);
    }
}

fn names_schema(sql: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    sql.split(|byte| !is_word(byte))
        .any(|word| SCHEMA_TABLES.iter().any(|table| table.eq_ignore_ascii_case(word)))
}

fn flags_of(action: c_int, first: Option<&[u8]>, database: Option<&[u8]>, in_trigger: bool) -> u8 {
    let written = |database: Option<&[u8]>| {
        if database == Some(b"temp") { WRITES_TEMPORARY } else { WRITES_MAIN }
    };
    let is_schema =
        first.is_some_and(|table| [&b"sqlite_master"[..], b"sqlite_temp_master"].contains(&table));
    match action {
        // Making a table, a view or a trigger is told as an INSERT into the schema, too.
        sqlite::SQLITE_INSERT if is_schema => written(database) | CHANGES_SCHEMA,
        sqlite::SQLITE_UPDATE if is_schema && in_trigger => written(database) | CHANGES_SCHEMA,
        sqlite::SQLITE_UPDATE if is_schema => UPDATES_SCHEMA,
        sqlite::SQLITE_TRANSACTION if first == Some(b"COMMIT") => ENDS_TRANSACTION,
        sqlite::SQLITE_SAVEPOINT if first == Some(b"RELEASE") => ENDS_TRANSACTION,
        sqlite::SQLITE_ALTER_TABLE => written(first) | CHANGES_SCHEMA,
        sqlite::SQLITE_CREATE_INDEX
        | sqlite::SQLITE_CREATE_TABLE
        | sqlite::SQLITE_CREATE_TEMP_INDEX
        | sqlite::SQLITE_CREATE_TEMP_TABLE
        | sqlite::SQLITE_CREATE_TEMP_TRIGGER
        | sqlite::SQLITE_CREATE_TEMP_VIEW
        | sqlite::SQLITE_CREATE_TRIGGER
        | sqlite::SQLITE_CREATE_VIEW => written(database) | CREATES,
        sqlite::SQLITE_INSERT
        | sqlite::SQLITE_UPDATE
        | sqlite::SQLITE_DELETE
        | sqlite::SQLITE_CREATE_VTABLE
        | sqlite::SQLITE_DROP_INDEX
        | sqlite::SQLITE_DROP_TABLE
        | sqlite::SQLITE_DROP_TEMP_INDEX
        | sqlite::SQLITE_DROP_TEMP_TABLE
        | sqlite::SQLITE_DROP_TEMP_TRIGGER
        | sqlite::SQLITE_DROP_TEMP_VIEW
        | sqlite::SQLITE_DROP_TRIGGER
        | sqlite::SQLITE_DROP_VIEW
        | sqlite::SQLITE_DROP_VTABLE
        | sqlite::SQLITE_REINDEX
        | sqlite::SQLITE_ANALYZE => written(database),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Action = (c_int, Option<&'static [u8]>, Option<&'static [u8]>);

    fn compiled(actions: &[Action]) -> Compiled {
        let noted = Noted::default();
        for (action, first, database) in actions {
            noted.note(*action, *first, *database, false);
        }
        noted.take(b"")
    }

    #[test]
    fn what_writes_to_temp_and_main_writes_to_main() {
        let temporary = (sqlite::SQLITE_INSERT, Some(&b"t"[..]), Some(&b"temp"[..]));
        let trigger = (sqlite::SQLITE_UPDATE, Some(&b"u"[..]), Some(&b"main"[..]));

        assert!(compiled(&[temporary]).writes_only_temporary());
        assert!(!compiled(&[temporary, trigger]).writes_only_temporary());
        assert!(!compiled(&[(sqlite::SQLITE_PRAGMA, Some(b"user_version"), None)]).writes_only_temporary());
        assert!(compiled(&[(sqlite::SQLITE_ALTER_TABLE, Some(b"temp"), None)]).writes_only_temporary());
        assert!(compiled(&[(sqlite::SQLITE_TRANSACTION, Some(b"COMMIT"), None)]).ends_transaction());
        assert!(!compiled(&[(sqlite::SQLITE_TRANSACTION, Some(b"BEGIN"), None)]).ends_transaction());
        assert!(compiled(&[(sqlite::SQLITE_SAVEPOINT, Some(b"RELEASE"), None)]).ends_transaction());
    }

    #[test]
    fn every_action_of_a_statement_is_noted_for_what_it_changes() {
        const MAIN: Option<&[u8]> = Some(b"main");
        const TEMPORARY: Option<&[u8]> = Some(b"temp");
        let creates = [
            sqlite::SQLITE_CREATE_INDEX,
            sqlite::SQLITE_CREATE_TABLE,
            sqlite::SQLITE_CREATE_TEMP_INDEX,
            sqlite::SQLITE_CREATE_TEMP_TABLE,
            sqlite::SQLITE_CREATE_TEMP_TRIGGER,
            sqlite::SQLITE_CREATE_TEMP_VIEW,
            sqlite::SQLITE_CREATE_TRIGGER,
            sqlite::SQLITE_CREATE_VIEW,
        ];
        let writes = [
            sqlite::SQLITE_INSERT,
            sqlite::SQLITE_UPDATE,
            sqlite::SQLITE_DELETE,
            sqlite::SQLITE_CREATE_VTABLE,
            sqlite::SQLITE_DROP_INDEX,
            sqlite::SQLITE_DROP_TABLE,
            sqlite::SQLITE_DROP_TEMP_INDEX,
            sqlite::SQLITE_DROP_TEMP_TABLE,
            sqlite::SQLITE_DROP_TEMP_TRIGGER,
            sqlite::SQLITE_DROP_TEMP_VIEW,
            sqlite::SQLITE_DROP_TRIGGER,
            sqlite::SQLITE_DROP_VIEW,
            sqlite::SQLITE_DROP_VTABLE,
            sqlite::SQLITE_REINDEX,
            sqlite::SQLITE_ANALYZE,
        ];
        let reads =
            [sqlite::SQLITE_SELECT, sqlite::SQLITE_READ, sqlite::SQLITE_PRAGMA, sqlite::SQLITE_FUNCTION];
        for (database, written) in [(MAIN, WRITES_MAIN), (TEMPORARY, WRITES_TEMPORARY), (None, WRITES_MAIN)] {
            for in_trigger in [false, true] {
                let flags = |action, first| flags_of(action, first, database, in_trigger);
                for action in creates {
                    assert_eq!(flags(action, Some(b"t")), written | CREATES, "{action}");
                }
                for action in writes {
                    assert_eq!(flags(action, Some(b"t")), written, "{action}");
                }
                for action in reads {
                    assert_eq!(flags(action, Some(b"t")), 0, "{action}");
                }
                for schema in [&b"sqlite_master"[..], b"sqlite_temp_master"] {
                    assert_eq!(flags(sqlite::SQLITE_INSERT, Some(schema)), written | CHANGES_SCHEMA);
                    let updates = if in_trigger { written | CHANGES_SCHEMA } else { UPDATES_SCHEMA };
                    assert_eq!(flags(sqlite::SQLITE_UPDATE, Some(schema)), updates);
                    assert_eq!(flags(sqlite::SQLITE_DELETE, Some(schema)), written);
                }
            }
        }
        let altered = flags_of(sqlite::SQLITE_ALTER_TABLE, MAIN, Some(b"t"), false);
        assert_eq!(altered, WRITES_MAIN | CHANGES_SCHEMA);
        for (action, word, ends) in [
            (sqlite::SQLITE_TRANSACTION, &b"COMMIT"[..], true),
            (sqlite::SQLITE_TRANSACTION, b"BEGIN", false),
            (sqlite::SQLITE_TRANSACTION, b"ROLLBACK", false),
            (sqlite::SQLITE_SAVEPOINT, b"RELEASE", true),
            (sqlite::SQLITE_SAVEPOINT, b"BEGIN", false),
        ] {
            let expected = if ends { ENDS_TRANSACTION } else { 0 };
            assert_eq!(flags_of(action, Some(word), None, false), expected);
        }
    }

    #[test]
    fn the_schema_is_changed_by_hand_only_in_a_text_that_names_it() {
        let (update, insert) = (sqlite::SQLITE_UPDATE, sqlite::SQLITE_INSERT);
        let (schema, main): (Option<&[u8]>, Option<&[u8]>) = (Some(b"sqlite_master"), Some(b"main"));
        let by_hand = UPDATES_SCHEMA | CHANGES_SCHEMA | WRITES_MAIN;
        for (actions, sql, expected) in [
            (&[(update, schema)][..], "UPDATE sqlite_master SET sql = 1", by_hand),
            (&[(update, schema)], "update main.[Sqlite_Schema]set sql = 1", by_hand),
            (&[(update, schema)], "UPDATE sqlite_temp_schema SET sql = 1", by_hand),
            (&[(update, schema), (insert, Some(b"t"))], "UPDATE sqlite_master SET sql = 1", by_hand),
            (&[(update, schema), (insert, schema)], "UPDATE sqlite_master SET sql = 1", by_hand),
            (&[(update, schema)], "SELECT * FROM pragma_table_info('t')", UPDATES_SCHEMA),
            (&[(update, schema)], "SELECT sqlite_master_, xsqlite_master", UPDATES_SCHEMA),
            (&[(insert, Some(b"t"))], "INSERT INTO t SELECT sql FROM sqlite_master", WRITES_MAIN),
        ] {
            let noted = Noted::default();
            for (action, first) in actions {
                noted.note(*action, *first, main, false);
            }
            assert_eq!(noted.take(sql.as_bytes()), Compiled(expected), "{sql}");
            assert_eq!(noted.take(sql.as_bytes()), Compiled(0), "it was taken");
        }
    }

    #[test]
    fn how_a_statement_may_add_to_the_schema() {
        for (flags, change) in [
            (0, None),
            (CREATES | WRITES_MAIN, None),
            (CHANGES_SCHEMA, Some(SchemaChange::Any)),
            (CHANGES_SCHEMA | CREATES, Some(SchemaChange::Creates)),
        ] {
            assert_eq!(Compiled(flags).schema_change(), change);
        }
    }
}
