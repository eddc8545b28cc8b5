//! Expressions over the columns in scope.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Generator, Table};

/// Values of every type and of every limit, as SQL writes them.
const LITERALS: [&str; 54] = [
    "NULL",
    "NULL",
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "10",
    "42",
    "100",
    "255",
    "-128",
    "65536",
    "2147483647",
    "-2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "0.0",
    "-0.0",
    "0.5",
    "1.5",
    "-2.25",
    "3.0",
    "1e10",
    "1e308",
    "9e999",
    "-9e999",
    "4.9e-324",
    "''",
    "'a'",
    "'A'",
    "'abc'",
    "'Abc '",
    "'b'",
    "'12'",
    "' 7 '",
    "'1e3'",
    "'0x10'",
    "'NULL'",
    "'it''s'",
    "'\u{e4}\u{20ac}\u{1f600}'",
    "'%a_'",
    "x''",
    "x'00'",
    "x'ff00'",
    "x'616263'",
    "CAST(x'ff61fe' AS TEXT)",
    "CAST(x'610062' AS TEXT)",
    "char(0, 98)",
    "zeroblob(5)",
];
const BINARY: [&str; 20] = [
    "+", "-", "*", "/", "%", "||", "&", "|", "<<", ">>", "=", "==", "<>", "<", "<=", ">", ">=", "IS",
    "IS NOT", "!=",
];
const UNARY: [&str; 5] = ["-", "+", "~", "NOT ", "- -"];
/// Functions of one argument.
const OF_ONE: [&str; 22] = [
    "abs",
    "typeof",
    "length",
    "upper",
    "lower",
    "hex",
    "quote",
    "trim",
    "ltrim",
    "rtrim",
    "unicode",
    "round",
    "sign",
    "likely",
    "json_quote",
    "json_valid",
    "date",
    "datetime",
    "julianday",
    "total",
    "count",
    "octet_length",
];
const OF_TWO: [&str; 11] = [
    "coalesce",
    "ifnull",
    "nullif",
    "instr",
    "min",
    "max",
    "round",
    "trim",
    "json_array",
    "likelihood_of",
    "iif",
];
const AGGREGATES: [&str; 9] =
    ["count", "sum", "total", "avg", "min", "max", "group_concat", "json_group_array", "count"];
const TYPES: [&str; 6] = ["INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC", "DATETIME"];
const COLLATIONS: [&str; 3] = ["BINARY", "NOCASE", "RTRIM"];

/// Tables by the names that a query gives them.
pub(super) type Scope = Vec<(String, Table)>;

impl Generator {
    pub(super) fn literal(&mut self) -> String {
        if self.chance(3) {
            return self.random.random_range(-20..100).to_string();
        }
        (*LITERALS.choose(&mut self.random).expect("there are literals")).to_owned()
    }

    pub(super) fn column(&mut self, scope: &Scope) -> String {
        let Some((alias, table)) = scope.choose(&mut self.random) else { return self.literal() };
        let columns = &table.columns;
        let column = columns.choose(&mut self.random).map(|column| column.name.clone());
        let (alias, rowid) = (alias.clone(), table.has_rowid && !table.is_view);
        match column {
            Some(_) if rowid && self.chance(12) => format!("{alias}.rowid"),
            Some(name) => format!("{alias}.{name}"),
            None => self.literal(),
        }
    }

    /// An expression of at most this depth.
    pub(super) fn expression(&mut self, scope: &Scope, depth: u32) -> String {
        if depth == 0 || self.chance(4) {
            return if self.chance(3) { self.literal() } else { self.column(scope) };
        }
        let inner = |generator: &mut Generator| generator.expression(scope, depth - 1);
        match self.random.random_range(0..18) {
            0..=4 => {
                let operator = self.one_of(&BINARY);
                format!("({} {operator} {})", inner(self), inner(self))
            }
            5 => {
                let operator = self.one_of(&UNARY);
                format!("({operator}{})", inner(self))
            }
            6 | 7 => {
                let function = self.one_of(&OF_ONE);
                match function {
                    // Aggregates have a place of their own.
                    "total" | "count" => format!("typeof({})", inner(self)),
                    _ => format!("{function}({})", inner(self)),
                }
            }
            8 => self.call_of_many(scope, depth),
            9 => format!("CASE WHEN {} THEN {} ELSE {} END", inner(self), inner(self), inner(self)),
            10 => format!("CASE {} WHEN {} THEN {} END", inner(self), self.literal(), inner(self)),
            11 => {
                let kind = self.one_of(&TYPES);
                format!("CAST({} AS {kind})", inner(self))
            }
            12 => {
                let collation = self.one_of(&COLLATIONS);
                format!("({} COLLATE {collation})", inner(self))
            }
            _ => self.condition(scope, depth),
        }
    }

    fn call_of_many(&mut self, scope: &Scope, depth: u32) -> String {
        let (first, second) = (self.expression(scope, depth - 1), self.expression(scope, depth - 1));
        match self.one_of(&OF_TWO) {
            "iif" => format!("iif({first}, {second}, 0)"),
            "likelihood_of" => format!(
                "substr({first}, {}, {})",
                self.random.random_range(-4..5),
                self.random.random_range(-3..6)
            ),
            "json_array" => {
                format!("json_array(CAST({first} AS INTEGER), {})", self.random.random_range(0..9))
            }
            "round" => format!("printf('%d %s %.3f %q', {first}, {second}, 1.5, {first})"),
            "trim" => format!("replace({first}, {second}, 'z')"),
            function => format!("{function}({first}, {second})"),
        }
    }

    /// An expression that is meant to be true or false.
    pub(super) fn condition(&mut self, scope: &Scope, depth: u32) -> String {
        let inner = |generator: &mut Generator| generator.expression(scope, depth.saturating_sub(1));
        match self.random.random_range(0..12) {
            0 | 1 => {
                let operator = self.one_of(&["=", "<>", "<", "<=", ">", ">=", "IS", "IS NOT"]);
                format!("{} {operator} {}", self.column(scope), self.literal())
            }
            2 => format!("{} BETWEEN {} AND {}", inner(self), self.literal(), self.literal()),
            3 => {
                let list: Vec<String> = (0..self.random.random_range(0..6)).map(|_| self.literal()).collect();
                let not = self.one_of(&["", "NOT "]);
                format!("{} {not}IN ({})", inner(self), list.join(", "))
            }
            4 => {
                let not = self.one_of(&["IS NULL", "IS NOT NULL", "NOTNULL", "ISNULL"]);
                format!("{} {not}", inner(self))
            }
            5 => {
                let pattern = self.one_of(&["'%a%'", "'A_c%'", "''", "'%'", "'a\\%' ESCAPE '\\'"]);
                format!("{} LIKE {pattern}", inner(self))
            }
            6 => {
                let pattern = self.one_of(&["'*a*'", "'[a-b]*'", "'?'", "'*'"]);
                format!("{} GLOB {pattern}", inner(self))
            }
            7 if depth > 0 => {
                let query = self.scalar_query(scope);
                let not = self.one_of(&["EXISTS", "NOT EXISTS"]);
                format!("{not} ({query})")
            }
            8 if depth > 0 => {
                let query = self.scalar_query(scope);
                format!("{} IN ({query})", inner(self))
            }
            9 => {
                let both = self.one_of(&["AND", "OR"]);
                format!("({} {both} {})", inner(self), inner(self))
            }
            10 => format!(
                "({}, {}) {} ({}, {})",
                inner(self),
                inner(self),
                ["<", "=", "IS"][self.random.random_range(0..3)],
                self.literal(),
                self.literal()
            ),
            _ => format!("NOT ({})", inner(self)),
        }
    }

    /// A subquery of one column, which may look at what is outside.
    pub(super) fn scalar_query(&mut self, outer: &Scope) -> String {
        let (table, alias) = (self.table(false), self.name("q"));
        let mut scope = outer.clone();
        scope.push((alias.clone(), table.clone()));
        let own = vec![(alias.clone(), table.clone())];
        let what = if self.chance(2) { self.aggregate(&own) } else { self.column(&own) };
        let place = self.condition(&scope, 1);
        format!("SELECT {what} FROM {} AS {alias} WHERE {place}", table.name)
    }

    pub(super) fn aggregate(&mut self, scope: &Scope) -> String {
        if self.chance(4) {
            return "count(*)".to_owned();
        }
        let function = self.one_of(&AGGREGATES);
        let distinct = if self.chance(4) { "DISTINCT " } else { "" };
        // JSON holds no blobs.
        let argument = match function {
            "json_group_array" => format!("CAST({} AS INTEGER)", self.column(scope)),
            _ => self.expression(scope, 1),
        };
        let filter = match self.chance(6) {
            true => format!(" FILTER (WHERE {})", self.condition(scope, 1)),
            false => String::new(),
        };
        format!("{function}({distinct}{argument}){filter}")
    }
}
