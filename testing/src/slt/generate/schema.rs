//! Definitions: tables of every kind, indexes, views, triggers, and what alters and drops them.

use rand::Rng;

use super::{Column, Generator, Table};

/// Tables and views of a script at most.
const TABLES_MAX: usize = 6;
const TYPES: [&str; 14] = [
    "INTEGER",
    "INT",
    "REAL",
    "TEXT",
    "BLOB",
    "NUMERIC",
    "",
    "VARCHAR(10)",
    "DATETIME",
    "DATE",
    "BOOLEAN",
    "TIMESTAMP",
    "DOUBLE",
    "ANY THING",
];
const STRICT_TYPES: [&str; 6] = ["INTEGER", "INT", "REAL", "TEXT", "BLOB", "ANY"];

impl Generator {
    fn column_definition(&mut self, name: &str, strict: bool, position: usize) -> String {
        let kind = if strict { self.one_of(&STRICT_TYPES) } else { self.one_of(&TYPES) };
        let mut text = format!("{name} {kind}");
        match self.random.random_range(0..14) {
            0 => text.push_str(" NOT NULL"),
            1 => text.push_str(" COLLATE NOCASE"),
            2 => text.push_str(" COLLATE RTRIM"),
            3 => text.push_str(&format!(" DEFAULT {}", self.random.random_range(0..9))),
            4 => text.push_str(" DEFAULT ('d' || 1)"),
            5 => text.push_str(&format!(" CHECK({name} IS NULL OR {name} <> 13)")),
            6 => text.push_str(" UNIQUE"),
            7 if position > 0 => text.push_str(" NOT NULL ON CONFLICT IGNORE"),
            8 => text.push_str(" NOT NULL DEFAULT 5"),
            _ => {}
        }
        text
    }

    pub(super) fn create_table(&mut self) {
        let name = self.name("t");
        let (strict, without_rowid) = (self.chance(8), self.chance(6));
        let count = self.random.random_range(2..6);
        let mut columns: Vec<Column> =
            (0..count).map(|number| Column { name: format!("c{number}"), is_written: true }).collect();
        let mut parts: Vec<String> = columns
            .clone()
            .iter()
            .enumerate()
            .map(|(position, column)| self.column_definition(&column.name, strict, position))
            .collect();
        let mut unique = None;
        match self.random.random_range(0..5) {
            0 | 1 if !without_rowid => {
                let more = self.one_of(&["", "", " AUTOINCREMENT", " ON CONFLICT REPLACE"]);
                parts[0] = format!("c0 INTEGER PRIMARY KEY{more}");
                unique = Some("c0".to_owned());
            }
            2 => {
                parts.push("PRIMARY KEY(c0, c1)".to_owned());
                unique = Some("c0, c1".to_owned());
            }
            _ if without_rowid => {
                parts.push("PRIMARY KEY(c1 DESC)".to_owned());
                unique = Some("c1".to_owned());
            }
            3 => {
                parts.push("UNIQUE(c1)".to_owned());
                unique = Some("c1".to_owned());
            }
            _ => {}
        }
        if self.chance(4) {
            let stored = self.one_of(&["VIRTUAL", "STORED"]);
            let kind = if strict { "ANY" } else { "" };
            let at = count;
            parts
                .insert(at, format!("g {kind} GENERATED ALWAYS AS (typeof(c0) || coalesce(c1, 0)) {stored}"));
            columns.push(Column { name: "g".to_owned(), is_written: false });
        }
        if self.chance(4)
            && let Some(parent) = self.tables.iter().find(|table| table.unique.as_deref() == Some("c0"))
        {
            let parent = parent.name.clone();
            let action = self.one_of(&[
                "",
                " ON DELETE CASCADE",
                " ON DELETE SET NULL ON UPDATE CASCADE",
                " DEFERRABLE INITIALLY DEFERRED",
                " ON DELETE RESTRICT",
            ]);
            parts.push(format!("FOREIGN KEY(c1) REFERENCES {parent}(c0){action}"));
        }
        let mut options = Vec::new();
        options.extend(strict.then_some("STRICT"));
        options.extend(without_rowid.then_some("WITHOUT ROWID"));
        let sql = format!("CREATE TABLE {name}({}) {}", parts.join(", "), options.join(", "));
        self.statement(0, &sql);
        let has_rowid = !without_rowid;
        self.tables.push(Table { name, columns, is_view: false, unique, has_rowid });
    }

    pub(super) fn definition(&mut self, connection: usize) {
        match self.random.random_range(0..12) {
            0 if self.tables.len() < TABLES_MAX => self.create_table(),
            1 | 2 => self.create_index(connection),
            3 => self.create_view(connection),
            4 | 5 => self.create_trigger(connection),
            6 => {
                let number = self.random.random_range(1..=self.names.max(1));
                let kind = self.one_of(&["INDEX IF EXISTS i", "TRIGGER IF EXISTS r"]);
                let sql = format!("DROP {kind}{number}");
                self.statement(connection, &sql);
            }
            7 => self.temporary(connection),
            8 | 9 => self.alter(connection),
            10 => self.drop_table(connection),
            _ => {
                // A plan is made of the schema that was read last, which this one reads.
                self.query(connection, "SELECT count(*) FROM sqlite_schema");
                let table = self.table(false).name;
                let sql = format!(
                    "EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE {}",
                    self.condition(&Vec::new(), 1)
                );
                self.query(connection, &sql);
            }
        }
    }

    fn create_index(&mut self, connection: usize) {
        let (table, name) = (self.table(true), self.name("i"));
        let own = vec![(table.name.clone(), table.clone())];
        let unique = self.one_of(&["", "", "", "UNIQUE "]);
        let column = |generator: &mut Generator| {
            let at = generator.random.random_range(0..table.columns.len());
            table.columns[at].name.clone()
        };
        let order = self.one_of(&["", " DESC", " COLLATE NOCASE"]);
        let key = match self.random.random_range(0..4) {
            0 => format!("{}, {}", column(self), column(self)),
            1 => format!("abs(length({}))", column(self)),
            _ => format!("{}{order}", column(self)),
        };
        let partial = match self.chance(4) {
            true => format!(" WHERE {} IS NOT NULL", self.column(&own).rsplit('.').next().unwrap_or("1")),
            false => String::new(),
        };
        let sql = format!("CREATE {unique}INDEX {name} ON {}({key}){partial}", table.name);
        self.statement(connection, &sql);
    }

    fn create_view(&mut self, connection: usize) {
        if self.tables.len() >= TABLES_MAX {
            return;
        }
        let (table, name) = (self.table(true), self.name("v"));
        let own = vec![("b".to_owned(), table.clone())];
        let (first, second, place) = (self.column(&own), self.expression(&own, 2), self.condition(&own, 1));
        let sql = format!(
            "CREATE VIEW {name}(c0, c1) AS SELECT {first}, {second} FROM {} AS b WHERE {place}",
            table.name
        );
        self.statement(connection, &sql);
        if !self.open[0] && !self.open[1] {
            let columns =
                ["c0", "c1"].map(|name| Column { name: name.to_owned(), is_written: false }).to_vec();
            self.tables.push(Table { name, columns, is_view: true, unique: None, has_rowid: false });
        }
    }

    fn create_trigger(&mut self, connection: usize) {
        let (table, target, name) = (self.table(true), self.table(true), self.name("r"));
        if table.name == target.name {
            return;
        }
        let time = self.one_of(&["BEFORE", "AFTER"]);
        let event = self.one_of(&["INSERT", "UPDATE", "DELETE"]);
        let row = if event == "DELETE" { "old" } else { "new" };
        let when = self.one_of(&["", " WHEN 1", " WHEN typeof(NULL) = 'null'"]);
        let column = target.columns[0].name.clone();
        let body = match self.random.random_range(0..4) {
            0 => format!("UPDATE {} SET {column} = {column} WHERE {column} = {row}.c0", target.name),
            1 => format!("INSERT OR IGNORE INTO {}({column}) VALUES({row}.c0)", target.name),
            2 => format!("DELETE FROM {} WHERE {column} = {row}.c0 AND {row}.c1 = 3", target.name),
            _ => {
                let raise = self.one_of(&["ABORT", "FAIL", "ROLLBACK", "ABORT"]);
                format!("SELECT CASE WHEN {row}.c0 = 31 THEN RAISE({raise}, 'not 31') END")
            }
        };
        let sql = format!("CREATE TRIGGER {name} {time} {event} ON {}{when} BEGIN {body}; END", table.name);
        self.statement(connection, &sql);
    }

    fn temporary(&mut self, connection: usize) {
        let (source, name) = (self.table(false), self.name("temporary"));
        let sql = format!("CREATE TEMP TABLE {name} AS SELECT * FROM {} LIMIT 5", source.name);
        self.statement(connection, &sql);
        let sql = format!("UPDATE {name} SET rowid = rowid + 10");
        self.statement(connection, &sql);
        let sql = format!("SELECT * FROM temp.{name} ORDER BY rowid");
        self.query(connection, &sql);
        let sql = format!("DROP TABLE {name}");
        self.statement(connection, &sql);
    }

    /// What is altered inside a transaction may come back: then the rest of the script has wrong names, which is fine.
    fn alter(&mut self, connection: usize) {
        let table = self.table(true);
        let column = self.name("n");
        let sql = match self.random.random_range(0..4) {
            0 => format!("ALTER TABLE {} ADD COLUMN {column} DEFAULT 7", table.name),
            1 => format!("ALTER TABLE {} RENAME COLUMN c1 TO {column}", table.name),
            2 => format!("ALTER TABLE {} DROP COLUMN c1", table.name),
            _ => format!("ALTER TABLE {} RENAME TO {column}", table.name),
        };
        self.statement(connection, &sql);
        let Some(known) = self.tables.iter_mut().find(|known| known.name == table.name) else { return };
        if sql.contains("ADD COLUMN") {
            known.columns.push(Column { name: column, is_written: true });
        } else if sql.contains("RENAME TO") {
            known.name = column;
        } else if sql.contains("RENAME COLUMN")
            && let Some(renamed) = known.columns.iter_mut().find(|known| known.name == "c1")
        {
            renamed.name = column;
        }
    }

    fn drop_table(&mut self, connection: usize) {
        if self.tables.iter().filter(|table| !table.is_view).count() < 3 {
            self.create_table();
            return;
        }
        let table = self.table(false);
        let kind = if table.is_view { "VIEW" } else { "TABLE" };
        let sql = format!("DROP {kind} {}", table.name);
        self.statement(connection, &sql);
        self.tables.retain(|known| known.name != table.name);
    }
}
