//! Queries: joins, groups, windows, compounds, common tables.

use rand::Rng;

use super::Generator;
use super::expression::Scope;

impl Generator {
    /// A query that may hold others.
    pub(super) fn select(&mut self, depth: u32) -> String {
        match self.random.random_range(0..20) {
            0..=8 => self.plain_query(depth),
            9..=12 => self.grouped_query(),
            13 | 14 => self.compound_query(),
            15 | 16 => self.window_query(),
            17 => self.common_query(),
            18 => {
                let rows: Vec<String> = (0..self.random.random_range(1..4))
                    .map(|_| format!("({}, {})", self.literal(), self.expression(&Vec::new(), 3)))
                    .collect();
                format!("VALUES {}", rows.join(", "))
            }
            _ => format!("SELECT {}, {}", self.expression(&Vec::new(), 3), self.expression(&Vec::new(), 3)),
        }
    }

    /// FROM with one to three tables, and what is in scope then.
    fn from(&mut self) -> (String, Scope) {
        let (table, alias) = (self.table(false), self.name("a"));
        let mut text = format!("{} AS {alias}", table.name);
        let mut scope = vec![(alias, table)];
        for _ in 0..[0, 0, 1, 1, 2][self.random.random_range(0..5)] {
            let (table, alias) = (self.table(false), self.name("a"));
            let join =
                self.one_of(&["JOIN", "LEFT JOIN", "CROSS JOIN", "JOIN", ",", "LEFT JOIN", "NATURAL JOIN"]);
            let left = self.column(&scope);
            let own = vec![(alias.clone(), table.clone())];
            let right = self.column(&own);
            text.push_str(&format!(" {join} {} AS {alias}", table.name));
            scope.push((alias, table));
            // Without a condition three tables make too many rows.
            match join {
                "JOIN" | "LEFT JOIN" => text.push_str(&format!(" ON {left} = {right}")),
                _ => return (text, scope),
            }
        }
        (text, scope)
    }

    fn plain_query(&mut self, depth: u32) -> String {
        let (from, scope) = self.from();
        let columns: Vec<String> = (0..self.random.random_range(1..4))
            .map(|number| match self.random.random_range(0..12) {
                0 => "*".to_owned(),
                1 => format!("({})", self.scalar_query(&scope)),
                2 => format!("{} AS \"name {number}\"", self.expression(&scope, depth)),
                _ => self.expression(&scope, depth),
            })
            .collect();
        let distinct = self.one_of(&["", "", "", "DISTINCT "]);
        let place = match self.chance(3) {
            true => String::new(),
            false => format!(" WHERE {}", self.condition(&scope, depth)),
        };
        format!("SELECT {distinct}{} FROM {from}{place}{}", columns.join(", "), self.order(&scope))
    }

    fn order(&mut self, scope: &Scope) -> String {
        let mut text = String::new();
        if !self.chance(3) {
            let order =
                self.one_of(&["", " DESC", " ASC", " NULLS LAST", " DESC NULLS FIRST", " COLLATE NOCASE"]);
            text = format!(" ORDER BY {}{order}, {}", self.column(scope), self.expression(scope, 1));
        }
        let limit = self.random.random_range(0..12);
        match self.random.random_range(0..5) {
            0 => format!("{text} LIMIT {limit}"),
            1 => format!("{text} LIMIT {limit} OFFSET {}", self.random.random_range(0..4)),
            2 => format!("{text} LIMIT 100"),
            _ => format!("{text} LIMIT 50"),
        }
    }

    fn grouped_query(&mut self) -> String {
        let (from, scope) = self.from();
        let (key, first, second) =
            (self.expression(&scope, 1), self.aggregate(&scope), self.aggregate(&scope));
        let place = match self.chance(2) {
            true => String::new(),
            false => format!(" WHERE {}", self.condition(&scope, 1)),
        };
        if self.chance(4) {
            return format!("SELECT {first}, {second} FROM {from}{place}");
        }
        let having = match self.chance(3) {
            true => format!(" HAVING {} > 1", self.aggregate(&scope)),
            false => String::new(),
        };
        format!(
            "SELECT {key}, {first}, {second} FROM {from}{place} GROUP BY {key}{having} ORDER BY 1, 2 LIMIT 60"
        )
    }

    fn compound_query(&mut self) -> String {
        let mut parts = Vec::new();
        for _ in 0..self.random.random_range(2..4) {
            let (table, alias) = (self.table(false), self.name("a"));
            let scope = vec![(alias.clone(), table.clone())];
            let (column, place) = (self.column(&scope), self.condition(&scope, 1));
            parts.push(format!("SELECT {column} FROM {} AS {alias} WHERE {place}", table.name));
        }
        let operator = self.one_of(&[" UNION ", " UNION ALL ", " EXCEPT ", " INTERSECT "]);
        format!("{} ORDER BY 1 LIMIT 40", parts.join(operator))
    }

    fn window_query(&mut self) -> String {
        let (table, alias) = (self.table(false), self.name("w"));
        let scope = vec![(alias.clone(), table.clone())];
        let function = match self.random.random_range(0..9) {
            0 => "row_number()".to_owned(),
            1 => "rank()".to_owned(),
            2 => "dense_rank()".to_owned(),
            3 => "ntile(3)".to_owned(),
            4 => format!("lag({}, 1, 'none')", self.column(&scope)),
            5 => format!("first_value({})", self.column(&scope)),
            6 => format!("nth_value({}, 2)", self.column(&scope)),
            7 => format!("count({})", self.column(&scope)),
            _ => format!("max({})", self.column(&scope)),
        };
        let partition = match self.chance(2) {
            true => format!("PARTITION BY {} ", self.column(&scope)),
            false => String::new(),
        };
        let frame = self.one_of(&[
            "",
            "",
            " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
            " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW",
            " RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
            " GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE TIES",
        ]);
        let (shown, order) = (self.column(&scope), self.column(&scope));
        format!(
            "SELECT {shown}, {function} OVER ({partition}ORDER BY {order}{frame}) FROM {} AS {alias} ORDER BY 1, 2 LIMIT 60",
            table.name
        )
    }

    fn common_query(&mut self) -> String {
        let (table, name) = (self.table(false), self.name("c"));
        let scope = vec![("a".to_owned(), table.clone())];
        let (column, place) = (self.column(&scope), self.condition(&scope, 1));
        let limit = self.random.random_range(1..40);
        match self.random.random_range(0..3) {
            0 => format!(
                "WITH RECURSIVE {name}(n, x) AS (SELECT 1, '' UNION ALL SELECT n + 1, substr(x || n, -9) FROM {name} WHERE n < {limit}) \
                 SELECT n, x FROM {name} WHERE n % 3 = {}",
                self.random.random_range(0..3)
            ),
            1 => format!(
                "WITH {name}(v) AS MATERIALIZED (SELECT {column} FROM {} AS a WHERE {place}) \
                 SELECT v, count(*) FROM {name} GROUP BY v ORDER BY 2 DESC, 1 LIMIT 20",
                table.name
            ),
            _ => format!(
                "WITH {name} AS (SELECT {column} AS v FROM {} AS a LIMIT 9) SELECT x.v, y.v FROM {name} AS x, {name} AS y WHERE x.v IS y.v \
                 LIMIT {limit}",
                table.name
            ),
        }
    }
}
