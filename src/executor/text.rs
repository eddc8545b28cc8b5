//! SQL text of a client, and how SQLite gets it.

use bytes::Bytes;

use super::blank::is_blank;
use super::failure::Failure;

/// A text of one or more statements; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Text {
    sql: Bytes,
    /// The same with a NUL at its end, made when SQLite is to compile it.
    terminated: Option<Bytes>,
}

impl Text {
    pub(super) fn new(sql: Bytes) -> Text {
        Text { sql, terminated: None }
    }

    pub(super) fn sql(&self) -> &Bytes {
        &self.sql
    }

    /// Makes what SQLite compiles: without a NUL it would copy all that is left of the text for each of its statements.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn terminate(&mut self) -> Result<(), Failure> {
        if self.terminated.is_some() {
            return Ok(());
        }
        let mut terminated = Vec::new();
        terminated.try_reserve_exact(self.sql.len() + 1).map_err(|_| Failure::no_memory())?;
        terminated.extend_from_slice(&self.sql);
        terminated.push(0);
        let terminated = Bytes::from(terminated);
        // One copy is enough.
        self.sql = terminated.slice(..self.sql.len());
        self.terminated = Some(terminated);
        Ok(())
    }

    /// What SQLite compiles, from an offset on: with a NUL if it was terminated.
    pub(super) fn to_compile(&self, at: usize) -> &[u8] {
        self.terminated.as_ref().unwrap_or(&self.sql).get(at..).unwrap_or_default()
    }

    /// Whether nothing but blanks follows.
    pub(super) fn is_blank_from(&self, at: usize) -> bool {
        is_blank(self.sql.get(at..).unwrap_or_default())
    }
}
