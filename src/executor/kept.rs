//! Statements that a connection sent as text and is likely to send again, compiled.

use std::collections::VecDeque;

use super::sqlite::Statement;
use crate::types::config::{KEPT_STATEMENT_MAX_BYTES, KEPT_STATEMENTS_MAX};

/// First words of statements whose compilation has no effect of its own.
const WORDS: [&[u8]; 12] = [
    b"SELECT",
    b"VALUES",
    b"WITH",
    b"INSERT",
    b"REPLACE",
    b"UPDATE",
    b"DELETE",
    b"BEGIN",
    b"COMMIT",
    b"END",
    b"ROLLBACK",
    b"RELEASE",
];

/// Statements of one connection by their text, those used last in front. They are at rest.
#[derive(Debug, Default)]
pub(super) struct Kept {
    statements: VecDeque<(Key, Statement)>,
}

impl Kept {
    /// The statement of this text with its key, if it is there. It is to be given back by `put`.
    pub(super) fn take(&mut self, text: &[u8]) -> Option<(Key, Statement)> {
        let place = self.statements.iter().position(|(kept, _)| *kept.0 == *text)?;
        self.statements.remove(place)
    }

    /// Keeps a statement whose text was nothing but this one; another one may go.
    pub(super) fn put(&mut self, key: Key, statement: Statement) {
        self.statements.truncate(KEPT_STATEMENTS_MAX - 1);
        self.statements.push_front((key, statement));
    }
}

/// Text of a statement that may be kept.
#[derive(Debug)]
pub(super) struct Key(Box<[u8]>);

impl Key {
    /// The key of a text that is nothing but one statement, if that is worth keeping.
    pub(super) fn of(text: &[u8]) -> Option<Key> {
        (text.len() <= KEPT_STATEMENT_MAX_BYTES && is_worth_keeping(text)).then(|| Key(text.into()))
    }
}

fn is_worth_keeping(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(&text[..end]))
}

#[cfg(test)]
mod tests {
    use super::{KEPT_STATEMENT_MAX_BYTES, Key, is_worth_keeping};

    #[test]
    fn texts_up_to_a_bound_are_kept() {
        let text = |length: usize| format!("{:length$}", "SELECT 1");
        for (length, is_kept) in
            [(8, true), (KEPT_STATEMENT_MAX_BYTES, true), (KEPT_STATEMENT_MAX_BYTES + 1, false)]
        {
            assert_eq!(Key::of(text(length).as_bytes()).is_some(), is_kept, "{length}");
        }
    }

    #[test]
    fn what_may_act_when_it_is_compiled_is_not_kept() {
        for text in
            ["SELECT 1", " insert into t values(1)", "COMMIT", "with x(a) as (select 1) select * from x"]
        {
            assert!(is_worth_keeping(text.as_bytes()), "{text}");
        }
        for text in [
            "PRAGMA user_version",
            "CREATE TABLE t(a)",
            "EXPLAIN SELECT 1",
            "SELECTED",
            "",
            "/* x */ SELECT 1",
        ] {
            assert!(!is_worth_keeping(text.as_bytes()), "{text}");
        }
    }
}
