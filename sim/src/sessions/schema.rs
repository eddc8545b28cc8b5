//! What every database of the machine holds: tables whose rows carry the tag of the statement that wrote them, and a journal
//! into which triggers write each tag once, in the order of the commits, with a number that stands for all tags so far.

use super::plain::{Plain, PlainError};

/// The journal's number behind one more tag. The triggers reckon the same.
#[must_use]
pub fn chain(before: i64, tag: i64) -> i64 {
    (before * 1_000_003 + tag) % 2_147_483_647
}

/// Length and chain of the journal: the first two columns of every read.
pub const SEEN: &str =
    "(SELECT count(*) FROM journal), coalesce((SELECT chain FROM journal ORDER BY n DESC LIMIT 1), 0)";

/// What the statement of a trigger adds.
const JOURNAL: &str = "INSERT INTO journal(tag, chain)
    SELECT NEW.tag, (coalesce((SELECT chain FROM journal ORDER BY n DESC LIMIT 1), 0) * 1000003 + NEW.tag) % 2147483647
    WHERE NEW.tag IS NOT (SELECT tag FROM journal ORDER BY n DESC LIMIT 1);";

/// Full-text modules that SQLite may lack.
const FULL_TEXT: [&str; 3] = ["fts3", "fts4", "fts5"];

/// Statements that make a database, and what tells two of them apart.
#[derive(Clone, Debug)]
pub struct Schema {
    /// One after the other.
    pub statements: Vec<String>,
    /// Queries whose rows are equal if the databases are.
    pub state: Vec<String>,
    /// Full-text modules that this SQLite has.
    pub full_text: Vec<&'static str>,
}

impl Schema {
    /// What this process's SQLite can do.
    ///
    /// # Errors
    /// SQLite's.
    pub fn new() -> Result<Schema, PlainError> {
        let mut plain = Plain::new()?;
        let has = |module: &&str| {
            plain.run(&format!("CREATE VIRTUAL TABLE {module} USING {module}(x)"), &[]).is_ok()
        };
        let full_text: Vec<&str> = FULL_TEXT.into_iter().filter(has).collect();
        let mut statements = vec![
            "CREATE TABLE journal(n INTEGER PRIMARY KEY, tag INTEGER NOT NULL, chain INTEGER NOT NULL)".to_owned(),
            "CREATE TABLE item(id INTEGER PRIMARY KEY, k INTEGER UNIQUE, tag INTEGER NOT NULL, value)".to_owned(),
            "CREATE TABLE part(id INTEGER PRIMARY KEY, k INTEGER REFERENCES item(k) ON DELETE CASCADE ON UPDATE CASCADE,
                tag INTEGER NOT NULL, body CHECK(body IS NOT 'bad'))"
                .to_owned(),
            "CREATE TABLE word(id INTEGER PRIMARY KEY, tag INTEGER NOT NULL, body TEXT)".to_owned(),
            "CREATE VIEW erase AS SELECT 0 AS tag, 0 AS low, 0 AS high".to_owned(),
            format!(
                "CREATE TRIGGER erases INSTEAD OF INSERT ON erase BEGIN DELETE FROM item WHERE k BETWEEN NEW.low AND NEW.high; {JOURNAL} END"
            ),
            "CREATE TRIGGER refuses BEFORE INSERT ON item WHEN NEW.value IN ('abort', 'rollback', 'ignore') BEGIN
                SELECT CASE NEW.value WHEN 'abort' THEN RAISE(ABORT, 'aborted') WHEN 'rollback' THEN RAISE(ROLLBACK, 'rolled back')
                    ELSE RAISE(IGNORE) END; END"
                .to_owned(),
        ];
        for table in ["item", "part", "word"] {
            for event in ["INSERT", "UPDATE"] {
                statements.push(format!(
                    "CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN {JOURNAL} END"
                ));
            }
        }
        let mut state: Vec<String> = [
            "SELECT id, k, tag, typeof(value), length(value), substr(value, 1, 60) FROM item ORDER BY id",
            "SELECT id, k, tag, length(body), substr(body, 1, 60) FROM part ORDER BY id",
            "SELECT id, tag, body FROM word ORDER BY id",
        ]
        .map(str::to_owned)
        .to_vec();
        for module in &full_text {
            statements.push(format!("CREATE VIRTUAL TABLE {module} USING {module}(body)"));
            statements.push(format!(
                "CREATE TRIGGER word_{module} AFTER INSERT ON word BEGIN INSERT INTO {module}(rowid, body) VALUES(NEW.id, NEW.body); END"
            ));
            state.push(format!(
                "SELECT rowid, body FROM {module} WHERE {module} MATCH 'alpha' ORDER BY rowid"
            ));
        }
        Ok(Schema { statements, state, full_text })
    }
}
