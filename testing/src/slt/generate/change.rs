//! Changes: INSERT, UPDATE, DELETE, REPLACE, with conflict clauses, upserts and RETURNING.

use rand::Rng;

use super::{Generator, Table};

/// Longest text that a change makes of others, so that they do not grow without end.
const TEXT_MAX: usize = 40;

impl Generator {
    pub(super) fn change(&mut self) -> String {
        match self.random.random_range(0..10) {
            0..=4 => {
                let table = self.table(true);
                self.insert_into(&table)
            }
            5..=7 => self.update(),
            _ => self.delete(),
        }
    }

    fn conflict(&mut self) -> &'static str {
        self.one_of(&["", "", "", "", " OR ABORT", " OR FAIL", " OR IGNORE", " OR REPLACE", " OR ROLLBACK"])
    }

    fn returning(&mut self, table: &Table) -> String {
        if !self.chance(6) {
            return String::new();
        }
        let scope = vec![(table.name.clone(), table.clone())];
        match self.random.random_range(0..3) {
            0 => " RETURNING *".to_owned(),
            1 => format!(" RETURNING {}", self.expression(&scope, 1)),
            _ => format!(" RETURNING {} AS x, {}", self.column(&scope), self.literal()),
        }
    }

    pub(super) fn insert_into(&mut self, table: &Table) -> String {
        let written = table.written_columns();
        let conflict = self.conflict();
        if self.chance(30) || written.is_empty() {
            return format!("INSERT{conflict} INTO {} DEFAULT VALUES{}", table.name, self.returning(table));
        }
        let into = format!("INSERT{conflict} INTO {}({})", table.name, written.join(", "));
        if self.chance(10) {
            let source = self.table(false);
            let scope = vec![("s".to_owned(), source.clone())];
            let values: Vec<String> = written.iter().map(|_| self.short(&scope)).collect();
            let place = self.condition(&scope, 1);
            return format!(
                "{into} SELECT {} FROM {} AS s WHERE {place} LIMIT 4{}",
                values.join(", "),
                source.name,
                self.returning(table)
            );
        }
        let rows: Vec<String> = (0..[1, 1, 1, 2, 3][self.random.random_range(0..5)])
            .map(|_| {
                let values: Vec<String> = written.iter().map(|_| self.inserted()).collect();
                format!("({})", values.join(", "))
            })
            .collect();
        let upsert = match table.unique.clone() {
            Some(unique) if conflict.is_empty() && self.chance(3) => match self.random.random_range(0..3) {
                0 => format!(" ON CONFLICT({unique}) DO NOTHING"),
                1 => " ON CONFLICT DO NOTHING".to_owned(),
                _ => {
                    let column = &written[self.random.random_range(0..written.len())];
                    format!(" ON CONFLICT({unique}) DO UPDATE SET {column} = excluded.{column}")
                }
            },
            _ => String::new(),
        };
        format!("{into} VALUES {}{upsert}{}", rows.join(", "), self.returning(table))
    }

    /// A value for a column, most often a small one, so that constraints are met and broken.
    fn inserted(&mut self) -> String {
        match self.random.random_range(0..6) {
            0..=2 => self.random.random_range(0..60).to_string(),
            3 => format!("'{}'", ["a", "b", "B", "abc", "x y ", "12"][self.random.random_range(0..6)]),
            _ => self.literal(),
        }
    }

    /// An expression whose texts stay short.
    fn short(&mut self, scope: &super::expression::Scope) -> String {
        match self.random.random_range(0..3) {
            0 => self.column(scope),
            1 => self.inserted(),
            _ => format!("substr({}, 1, {TEXT_MAX})", self.expression(scope, 2)),
        }
    }

    fn update(&mut self) -> String {
        let table = self.table(true);
        let scope = vec![(table.name.clone(), table.clone())];
        let written = table.written_columns();
        let Some(column) = written.get(self.random.random_range(0..written.len().max(1))) else {
            return self.delete();
        };
        let conflict = self.conflict();
        let value = match self.random.random_range(0..3) {
            0 => format!("{column} + 1"),
            _ => self.short(&scope),
        };
        if self.chance(8) {
            let source = self.table(false);
            let from = vec![("s".to_owned(), source.clone()), (table.name.clone(), table.clone())];
            let place = self.condition(&from, 1);
            return format!(
                "UPDATE{conflict} {} SET {column} = {value} FROM {} AS s WHERE {place}",
                table.name, source.name
            );
        }
        let place = self.condition(&scope, 2);
        format!(
            "UPDATE{conflict} {} SET {column} = {value} WHERE {place}{}",
            table.name,
            self.returning(&table)
        )
    }

    fn delete(&mut self) -> String {
        let table = self.table(true);
        let scope = vec![(table.name.clone(), table.clone())];
        if self.chance(20) {
            return format!("DELETE FROM {}", table.name);
        }
        // Most of a table stays.
        let (column, bound, place) =
            (self.column(&scope), self.random.random_range(0..60), self.condition(&scope, 1));
        format!("DELETE FROM {} WHERE {column} = {bound} AND ({place}){}", table.name, self.returning(&table))
    }
}
