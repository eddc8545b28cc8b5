//! Hand-made histories: right ones pass, and each kind of wrong one is told by its name.

use dqlite::protocol::request::Value;

use super::model::check;
use super::plain::Plain;
use super::record::{Bond, Effect, Final, Outcome, Read, Records, Write};
use super::schema::{SEEN, Schema, chain};

fn insert(tag: i64, key: i64) -> String {
    format!("INSERT INTO item(k, tag, value) VALUES({key}, {tag}, 7)")
}

fn write(tag: i64, key: i64, (begin, end): (u64, u64), outcome: Outcome) -> Write {
    let effect = (outcome == Outcome::Done).then_some(Effect::Result { changes: 1, rowid: None });
    Write { tag, sql: insert(tag, key), values: Vec::new(), begin, end, outcome, effect, note: "" }
}

/// Reads how many items there are, as somebody who saw these tags.
fn read(tags: &[i64], (begin, end): (u64, u64)) -> Read {
    let seen = tags.iter().fold(0, |before, tag| chain(before, *tag));
    let count = Value::Integer(tags.len() as i64);
    Read {
        sql: format!("SELECT {SEEN}, count(*) FROM item"),
        values: Vec::new(),
        begin,
        end,
        rows: vec![vec![count.clone(), Value::Integer(seen), count]],
        complete: true,
        own: Vec::new(),
        snapshot: None,
    }
}

struct History {
    schema: Schema,
    records: Records,
    /// Statements that the database has run.
    ran: Vec<String>,
}

impl History {
    /// Writes that are there and known to be, one after the other at 10, 20, 30.
    fn of(tags: &[i64]) -> History {
        let mut history = History {
            schema: Schema::new().expect("a schema"),
            records: Records::default(),
            ran: tags.iter().map(|tag| insert(*tag, *tag)).collect(),
        };
        for (place, tag) in (1..).zip(tags) {
            history.add(write(*tag, *tag, (place * 10, place * 10 + 5), Outcome::Done));
        }
        history
    }

    fn add(&mut self, write: Write) {
        self.records.writes.insert(write.tag, write);
    }

    fn state(&self) -> Final {
        let mut plain = Plain::new().expect("a database");
        for sql in self.schema.statements.iter().chain(&self.ran) {
            plain.run(sql, &[]).expect("a statement");
        }
        let rows = plain.run("SELECT tag, chain FROM journal ORDER BY n", &[]).expect("a journal").rows;
        let journal = rows
            .into_iter()
            .map(|row| match row[..] {
                [Value::Integer(tag), Value::Integer(chain)] => (tag, chain),
                _ => panic!("{row:?}"),
            })
            .collect();
        let tables =
            self.schema.state.iter().map(|query| plain.run(query, &[]).expect("rows").rows).collect();
        Final { journal, tables }
    }

    fn check(&self) -> Result<(), String> {
        check(&self.schema, &self.records, &self.state())
    }

    fn is_told(&self, what: &str) {
        let error = self.check().expect_err(what);
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_history_as_it_should_be_passes() {
    let mut history = History::of(&[1, 2, 3]);
    history.add(write(9, 9, (11, 40), Outcome::Unknown));
    history.add(write(8, 8, (11, 14), Outcome::Absent));
    history.records.bonds.push((Bond::Atomic, vec![1, 2]));
    history.records.bonds.push((Bond::Ordered, vec![3, 9]));
    // Beside the second write: it may see it or not.
    history.records.reads.push(read(&[1], (21, 23)));
    history.records.reads.push(read(&[1, 2], (21, 24)));
    history.records.reads.push(read(&[1, 2, 3], (40, 41)));

    history.check().unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn an_acknowledged_write_that_is_not_there_is_told() {
    let mut history = History::of(&[1]);
    history.add(write(2, 2, (20, 25), Outcome::Done));
    history.is_told("an acknowledged write is lost");
}

#[test]
fn a_write_that_did_not_happen_and_is_there_is_told() {
    let mut history = History::of(&[1, 2]);
    history.add(write(2, 2, (20, 25), Outcome::Absent));
    history.is_told("said not to have happened");
}

#[test]
fn a_write_that_happened_twice_is_told() {
    let mut history = History::of(&[1, 2]);
    history.ran.push("INSERT INTO item(tag, value) VALUES(1, 7)".to_owned());
    history.is_told("happened twice");
}

#[test]
fn a_write_that_is_done_long_after_its_client_has_gone_is_told() {
    let mut history = History::of(&[1, 2]);
    history.add(write(2, 2, (3, 5), Outcome::Unknown));
    history.records.gone.push((2, 12));
    history.check().unwrap_or_else(|error| panic!("{error}"));

    history.records.gone = vec![(2, 8)];
    history.is_told("long after the client");
}

#[test]
fn a_write_of_nobody_is_told() {
    let mut history = History::of(&[1, 2]);
    history.records.writes.remove(&2);
    history.is_told("which nobody wrote here");
}

#[test]
fn a_read_of_what_was_discarded_is_told() {
    let mut history = History::of(&[1, 2]);
    history.add(write(9, 9, (11, 40), Outcome::Unknown));
    history.records.reads.push(read(&[1, 9], (12, 14)));
    history.is_told("a dirty read");

    // Longer than all that was ever committed.
    history.records.reads = vec![read(&[1, 2, 9], (30, 34))];
    history.is_told("a dirty read");
}

#[test]
fn a_read_of_the_past_is_told() {
    let mut history = History::of(&[1, 2]);
    history.records.reads.push(read(&[1], (30, 34)));
    history.is_told("a stale read");

    // What somebody has read is known, too, though its writer knows nothing.
    let mut history = History::of(&[1, 2]);
    history.add(write(2, 2, (20, 90), Outcome::Unknown));
    history.records.reads = vec![read(&[1, 2], (21, 23)), read(&[1], (30, 34))];
    history.is_told("a stale read");
}

#[test]
fn a_read_of_the_future_is_told() {
    let mut history = History::of(&[1, 2]);
    history.records.reads.push(read(&[1, 2], (16, 18)));
    history.is_told("saw the future");
}

#[test]
fn a_write_that_took_place_before_it_began_is_told() {
    let mut history = History::of(&[1, 2]);
    history.add(write(1, 1, (30, 35), Outcome::Done));
    history.is_told("but began when 2 were known");
}

#[test]
fn a_transaction_in_parts_is_told() {
    let mut history = History::of(&[1, 2, 3]);
    history.records.bonds.push((Bond::Atomic, vec![1, 3]));
    history.is_told("Atomic writes");

    let mut history = History::of(&[1, 2]);
    history.add(write(5, 5, (11, 40), Outcome::Unknown));
    history.records.bonds.push((Bond::Atomic, vec![2, 5]));
    history.is_told("Atomic writes");
}

#[test]
fn a_text_with_a_hole_or_out_of_order_is_told() {
    let mut history = History::of(&[1, 2]);
    history.add(write(5, 5, (11, 40), Outcome::Unknown));
    history.records.bonds.push((Bond::Ordered, vec![5, 2]));
    history.is_told("Ordered writes");

    let mut history = History::of(&[1, 2]);
    history.records.bonds.push((Bond::Ordered, vec![2, 1]));
    history.is_told("Ordered writes");
}

#[test]
fn a_transaction_that_saw_two_versions_is_told() {
    let mut history = History::of(&[1, 2]);
    for tags in [&[1][..], &[1, 2]] {
        let mut read = read(tags, (21, 24));
        read.snapshot = Some(4);
        history.records.reads.push(read);
    }
    history.is_told("a transaction saw two versions");

    // It wrote on another version than it had read.
    let mut history = History::of(&[1, 2]);
    let mut read = read(&[], (11, 24));
    read.snapshot = Some(4);
    history.add(write(1, 1, (10, 50), Outcome::Unknown));
    history.records.reads.push(read);
    history.records.snapshots.push((4, 2));
    history.is_told("a transaction saw two versions");
}

#[test]
fn a_transaction_sees_its_own_writes_also_if_it_is_rolled_back() {
    let mut history = History::of(&[1]);
    history.add(write(9, 9, (11, 40), Outcome::Absent));
    let mut inside = read(&[1, 9], (20, 24));
    inside.own = vec![9];
    history.records.reads.push(inside);
    history.check().unwrap_or_else(|error| panic!("{error}"));

    let mut blind = read(&[], (5, 24));
    blind.own = vec![9];
    history.records.reads.push(blind);
    history.is_told("does not see its own writes");
}

#[test]
fn other_answers_than_those_of_plain_sqlite_are_told() {
    let mut history = History::of(&[1, 2]);
    let mut wrong = write(2, 2, (20, 25), Outcome::Done);
    wrong.effect = Some(Effect::Result { changes: 3, rowid: None });
    history.add(wrong.clone());
    history.is_told("3 changes");

    wrong.effect = Some(Effect::Result { changes: 1, rowid: Some(7) });
    history.add(wrong.clone());
    history.is_told("row Some(7)");

    wrong.effect = Some(Effect::Rows(vec![vec![Value::Null]]));
    history.add(wrong);
    history.is_told("other rows than in plain SQLite");

    let mut history = History::of(&[1, 2]);
    let mut read = read(&[1, 2], (30, 34));
    read.rows[0][2] = Value::Integer(5);
    history.records.reads.push(read);
    history.is_told("a read at 2 has other rows");
}

#[test]
fn rows_that_were_cut_off_are_a_beginning() {
    let mut history = History::of(&[1, 2]);
    let mut part = read(&[1, 2], (30, 34));
    part.sql = format!("SELECT {SEEN}, k FROM item ORDER BY k");
    part.rows[0][2] = Value::Integer(1);
    part.complete = false;
    history.records.reads.push(part.clone());
    history.check().unwrap_or_else(|error| panic!("{error}"));

    part.complete = true;
    history.records.reads.push(part);
    history.is_told("has other rows");
}

#[test]
fn one_statement_that_saw_two_versions_is_told() {
    let mut history = History::of(&[1, 2]);
    let mut torn = read(&[1], (21, 24));
    torn.rows.extend(read(&[1, 2], (21, 24)).rows);
    history.records.reads.push(torn);
    history.is_told("one statement saw several versions");
}

#[test]
fn a_final_state_that_no_journal_explains_is_told() {
    let mut history = History::of(&[1, 2]);
    history.ran.push("DELETE FROM item WHERE k = 1".to_owned());
    history.is_told("the final state differs");

    let mut history = History::of(&[1, 2]);
    history.ran.push("UPDATE journal SET chain = 5 WHERE n = 1".to_owned());
    history.is_told("the journal is broken");
}
