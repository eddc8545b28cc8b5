//! Scripts from a seed, in the spirit of SQLite's own random tests: schemas, changes and queries of every kind, transactions of two
//! connections, a share of wrong ones. What is right is whatever plain SQLite says. Nothing depends on time or chance.

mod change;
mod expression;
mod query;
mod schema;

use std::fmt::Write;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::script::GENERATED;

/// Most rows that a table is filled with.
const ROWS_MAX: usize = 30;

/// A column as queries see it.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    /// Whether a value may be given for it.
    is_written: bool,
}

/// A table or view.
#[derive(Clone, Debug)]
struct Table {
    name: String,
    columns: Vec<Column>,
    is_view: bool,
    /// Columns of a unique constraint, for upserts.
    unique: Option<String>,
    has_rowid: bool,
}

impl Table {
    /// Names of the columns that statements may write.
    fn written_columns(&self) -> Vec<String> {
        self.columns.iter().filter(|column| column.is_written).map(|column| column.name.clone()).collect()
    }
}

/// Makes one script.
#[derive(Debug)]
struct Generator {
    random: SmallRng,
    tables: Vec<Table>,
    /// Number of the next name.
    names: usize,
    /// Transactions open on the two connections, as far as one can tell.
    open: [bool; 2],
    text: String,
    records: usize,
}

/// A script of at least `records` records.
#[must_use]
pub fn script(seed: u64, records: usize) -> String {
    let mut generator = Generator {
        random: SmallRng::seed_from_u64(seed),
        tables: Vec::new(),
        names: 0,
        open: [false; 2],
        text: format!("{GENERATED} from seed {seed}, {records} records\n\n"),
        records: 0,
    };
    for _ in 0..generator.random.random_range(2..=3) {
        generator.create_table();
    }
    generator.fill();
    while generator.records < records {
        generator.any();
    }
    for connection in 0..2 {
        generator.statement(connection, "ROLLBACK");
    }
    generator.text
}

impl Generator {
    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    fn one_of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices.choose(&mut self.random).expect("there are choices")
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    fn statement(&mut self, connection: usize, sql: &str) {
        self.record(connection, "statement ok", sql);
    }

    fn query(&mut self, connection: usize, sql: &str) {
        self.record(connection, "query T", sql);
    }

    fn record(&mut self, connection: usize, kind: &str, sql: &str) {
        self.records += 1;
        if connection > 0 {
            self.text.push_str("connection second\n");
        }
        // A blank line would end the record. Writing to a String cannot fail.
        let _ = writeln!(self.text, "{kind}\n{}\n", sql.replace("\n\n", "\n"));
    }

    /// A table that is not a view, if `stored`.
    fn table(&mut self, stored: bool) -> Table {
        let found: Vec<&Table> = self.tables.iter().filter(|table| !(stored && table.is_view)).collect();
        found.choose(&mut self.random).map(|table| (*table).clone()).expect("there is always a table")
    }

    fn fill(&mut self) {
        for table in self.tables.clone() {
            for _ in 0..self.random.random_range(ROWS_MAX / 3..ROWS_MAX) {
                let sql = self.insert_into(&table);
                self.statement(0, &sql);
            }
        }
    }

    /// One record of any kind, or a few that belong together.
    fn any(&mut self) {
        let connection = usize::from(self.chance(8));
        match self.random.random_range(0..100) {
            0..=54 => {
                let sql = self.select(2);
                self.query(connection, &sql);
            }
            55..=58 => self.text_of_several(connection),
            59..=61 => self.full_text(),
            62..=84 => {
                let sql = self.change();
                let kind = if sql.contains("RETURNING") { "query T" } else { "statement ok" };
                self.record(connection, kind, &sql);
            }
            85..=91 => self.transaction(connection),
            92..=96 => self.definition(connection),
            97 => self.maintenance(connection),
            98 => self.pragma(connection),
            _ => self.wrong(connection),
        }
    }

    /// Several changes in one text, in a transaction or not.
    fn text_of_several(&mut self, connection: usize) {
        let changes: Vec<String> = (0..self.random.random_range(2..8)).map(|_| self.change()).collect();
        let text = changes.join("; ");
        let sql = match self.random.random_range(0..4) {
            0 => format!("BEGIN; {text}; COMMIT"),
            1 => format!("SAVEPOINT several; {text}; RELEASE several;"),
            _ => text,
        };
        self.statement(connection, &sql);
        if sql.starts_with("BEGIN") || sql.starts_with("SAVEPOINT") {
            // What fails leaves the transaction open.
            self.statement(connection, "ROLLBACK");
            self.open[connection] = false;
        }
    }

    /// Full text of one connection: its index keeps statements and snapshots of its own.
    fn full_text(&mut self) {
        let word =
            |generator: &mut Generator| generator.one_of(&["one", "two", "three", "four", "tw*", "fo*"]);
        let (first, second, row) = (word(self), word(self), self.random.random_range(1..30));
        match self.random.random_range(0..9) {
            0 => {
                let module =
                    self.one_of(&["fts5(x, y)", "fts4(x, y)", "fts3(x, y)", "fts5(x, y, detail=column)"]);
                self.statement(0, "DROP TABLE IF EXISTS words");
                self.statement(0, &format!("CREATE VIRTUAL TABLE words USING {module}"));
            }
            1..=3 => {
                self.statement(0, &format!("INSERT INTO words(x, y) VALUES('{first} {second}', '{second}')"))
            }
            4 => self.statement(0, &format!("UPDATE words SET y = '{first}' WHERE rowid = {row}")),
            5 => self.statement(0, &format!("DELETE FROM words WHERE rowid = {row}")),
            6 => self.query(0, &format!("SELECT rowid, * FROM words WHERE words MATCH '{first} {second}'")),
            7 => self.query(0, "SELECT rowid, x, y FROM words"),
            _ => self.statement(0, "INSERT INTO words(words) VALUES('optimize')"),
        }
    }

    fn transaction(&mut self, connection: usize) {
        let open = self.open[connection];
        let choices: &[&str] = if open {
            &[
                "COMMIT",
                "COMMIT",
                "ROLLBACK",
                "SAVEPOINT s1",
                "ROLLBACK TO s1",
                "RELEASE s1",
                "SAVEPOINT s2",
                "ROLLBACK TO s2",
                "END",
            ]
        } else {
            &["BEGIN", "BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "SAVEPOINT s1", "BEGIN", "ROLLBACK"]
        };
        let sql = self.one_of(choices);
        self.statement(connection, sql);
        self.open[connection] = match sql {
            "COMMIT" | "ROLLBACK" | "END" => false,
            _ => open || sql.starts_with("BEGIN") || sql.starts_with("SAVEPOINT"),
        };
        if connection == 1 && self.open[1] {
            // The second one would keep the first from writing for ever.
            for _ in 0..self.random.random_range(0..3) {
                let sql = self.change();
                self.statement(1, &sql);
            }
            let end = self.one_of(&["COMMIT", "ROLLBACK"]);
            self.statement(1, end);
            self.open[1] = false;
        }
    }

    fn maintenance(&mut self, connection: usize) {
        let sql = self.one_of(&["ANALYZE", "REINDEX", "VACUUM", "PRAGMA optimize", "REINDEX NOCASE"]);
        self.statement(connection, sql);
    }

    fn pragma(&mut self, connection: usize) {
        let table = self.table(false).name;
        let sql = match self.random.random_range(0..10) {
            0 => format!("PRAGMA table_info({table})"),
            1 => format!("PRAGMA table_xinfo({table})"),
            2 => format!("PRAGMA index_list({table})"),
            3 => format!("PRAGMA foreign_key_list({table})"),
            4 => format!("PRAGMA foreign_key_check({table})"),
            5 => "PRAGMA integrity_check".to_owned(),
            6 => "PRAGMA user_version".to_owned(),
            7 => {
                let sql = format!("PRAGMA user_version = {}", self.random.random_range(0..1000));
                self.statement(connection, &sql);
                return;
            }
            8 => format!("SELECT name, type, \"notnull\", pk FROM pragma_table_info('{table}')"),
            _ => "SELECT type, name, tbl_name, sql FROM sqlite_schema".to_owned(),
        };
        self.query(connection, &sql);
    }

    /// What SQLite refuses.
    fn wrong(&mut self, connection: usize) {
        let table = self.table(false).name;
        let sql = match self.random.random_range(0..10) {
            0 => format!("SELECT no_such FROM {table}"),
            1 => "SELECT * FROM nowhere".to_owned(),
            2 => format!("SELECT FROM {table} WHERE"),
            3 => format!("INSERT INTO {table} VALUES(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)"),
            4 => "SELECT abs(-9223372036854775808)".to_owned(),
            5 => format!("SELECT sum(9223372036854775807) FROM {table}"),
            6 => format!("CREATE TABLE {table}(a)"),
            7 => "SELECT json('{wrong')".to_owned(),
            8 => format!("SELECT count(*) OVER w FROM {table}"),
            _ => "SELECT 1 UNION SELECT 1, 2".to_owned(),
        };
        self.query(connection, &sql);
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::Script;
    use super::*;

    #[test]
    fn a_seed_makes_the_same_script_every_time_and_it_has_the_format() {
        for seed in 0..50 {
            let text = script(seed, 200);
            assert_eq!(text, script(seed, 200));
            let steps = Script::parse("x", &text, seed).unwrap().steps;
            assert!(steps.len() >= 200);
        }
        assert_ne!(script(1, 100).replace("seed 1", ""), script(2, 100).replace("seed 2", ""));
    }
}
