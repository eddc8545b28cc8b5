use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::executor::inside::{Attempt, Needs, Rest};
use crate::executor::request::{Proving, Request};
use crate::executor::sqlite::Step;
use crate::executor::turn::Turn;
use crate::types::config::KEPT_STATEMENTS_MAX;
use crate::vfs::{Vfs, VfsOptions};

/// A seat with a table `t`, and a full-text index `f`.
fn seat() -> Seat {
    let store = PageStore::new();
    let report = Box::new(|text: &str| panic!("{text}"));
    let vfs = Vfs::register(Arc::clone(&store), VfsOptions::default(), report).unwrap();
    let ended = Ended::new(Arc::clone(&store));
    let connection = Connection::open_with(&mut Inside::alone(), &vfs, b"test", &ended).unwrap();
    connection.view().set_use_head(true);
    connection.view().set_turn(true);
    let epoch = store.epoch();
    let mut seat = Seat::new(connection, Turn::new(), store, ended, epoch);
    assert_eq!(seat.database.name(), b"test");
    for sql in ["CREATE TABLE t(a UNIQUE)", "CREATE VIRTUAL TABLE f USING fts5(x)", "INSERT INTO t VALUES(1)"]
    {
        assert!(matches!(run(&mut seat, sql), Rest::Done), "{sql}");
    }
    take_commits(&seat);
    seat
}

/// One body, from its beginning to where its statement goes home.
fn enter<T>(seat: &mut Seat, sql: &str, run: impl FnOnce(&mut Seat, &mut Inside) -> T) -> T {
    let mut inside = Inside::alone();
    let source = source(sql);
    seat.fetch(&source).unwrap();
    seat.begin_entry(&mut inside);
    let all = Needs { turn: true, room: true };
    let attempt = seat.attempt(&mut inside, &source, all, |_| Ok(()), run);
    seat.end_entry(&inside);
    seat.put_home();
    let Attempt::Ran(came_to) = attempt else { panic!("{sql} did not run") };
    came_to
}

fn source(sql: &str) -> Source {
    let mut text = Text::new(Bytes::copy_from_slice(sql.as_bytes()));
    text.terminate().unwrap();
    Source::Text(text, 0)
}

fn run(seat: &mut Seat, sql: &str) -> Rest {
    enter(seat, sql, |seat, inside| seat.execute_once(inside, &[]))
}

/// How many transactions were committed since.
fn take_commits(seat: &Seat) -> usize {
    let commits = seat.view.take_commits();
    let count = commits.len();
    commits.into_iter().for_each(|commit| assert!(commit.propose(|_| true)));
    count
}

fn close(seat: Seat) {
    seat.close(&mut Inside::alone());
}

#[test]
fn a_proof_counts_as_long_as_the_transaction_whose_snapshot_it_was_given_for() {
    let mut seat = seat();
    for (sql, given, counts) in [
        ("SELECT 1 WHERE 0", true, false),
        ("BEGIN", true, false),
        ("SELECT a FROM t WHERE 0", true, true),
        ("SELECT a FROM t WHERE 0", false, false),
        ("INSERT INTO t VALUES(2)", true, true),
        ("INSERT INTO t VALUES(3)", false, false),
        ("ROLLBACK", true, false),
    ] {
        run(&mut seat, sql);
        seat.proven = given;
        seat.begin_request();
        assert_eq!(seat.proven, counts, "{sql}");
    }
    close(seat);
}

#[test]
fn what_a_request_looked_at_needs_a_proof_of_its_own_or_that_of_its_transaction() {
    let mut seat = seat();
    let mut request = Request::new(seat.epoch, Arc::clone(&seat.database));
    for (sql, proven, request_proven, unproven) in [
        ("SELECT 1 WHERE 0", false, false, false),
        ("SELECT a FROM t WHERE 0", false, false, true),
        ("SELECT a FROM t WHERE 0", false, true, false),
        ("BEGIN", false, false, false),
        ("SELECT a FROM t WHERE 0", false, false, true),
        ("SELECT a FROM t WHERE a", true, true, false),
        ("SELECT a FROM t WHERE a", false, true, true),
        ("SELECT 1 WHERE 0", true, false, false),
        ("SELECT 1 WHERE 0", false, false, true),
        ("ROLLBACK", false, false, false),
    ] {
        seat.view.clear_seen();
        run(&mut seat, sql);
        seat.proven = proven;
        request.proving = if request_proven { Proving::Proven } else { Proving::Unasked };
        assert_eq!(seat.is_unproven(&request), unproven, "{sql}, {proven}, {request_proven}");
    }
    close(seat);
}

#[test]
fn a_statement_that_is_given_up_commits_nothing_and_one_that_comes_to_rest_commits_what_it_did() {
    let mut seat = seat();
    let to_its_row = |seat: &mut Seat, inside: &mut Inside| {
        assert!(matches!(seat.step(inside), Ok(Step::Row)));
        assert!(seat.running.as_ref().is_some_and(|running| running.has_changed && running.started));
    };
    let insert = "INSERT INTO t VALUES(2), (3) RETURNING a";

    enter(&mut seat, insert, |seat, inside| {
        to_its_row(seat, inside);
        seat.give_up(inside);
        assert!(seat.running.as_ref().is_some_and(|running| !running.has_changed && !running.started));
    });
    assert_eq!(take_commits(&seat), 0);
    assert!(seat.noted.autocommit && seat.noted.transaction == TransactionState::None);

    enter(&mut seat, insert, |seat, inside| {
        to_its_row(seat, inside);
        seat.come_to_rest(inside);
    });
    assert_eq!((take_commits(&seat), seat.noted.changes), (1, 2));

    // In a transaction the client decides.
    run(&mut seat, "BEGIN");
    enter(&mut seat, "INSERT INTO t VALUES(4) RETURNING a", |seat, inside| {
        to_its_row(seat, inside);
        seat.come_to_rest(inside);
    });
    assert!(matches!(run(&mut seat, "COMMIT"), Rest::Done));
    assert_eq!(take_commits(&seat), 1);
    close(seat);
}

#[test]
fn a_snapshot_that_is_left_behind_is_ended_and_an_open_transaction_is_not() {
    let mut seat = seat();
    for sql in ["BEGIN", "INSERT INTO f VALUES('one')", "SELECT a FROM t WHERE 0"] {
        assert!(matches!(run(&mut seat, sql), Rest::Done), "{sql}");
        assert!(!seat.is_spoilt && !seat.noted.autocommit, "{sql}");
    }
    assert_eq!(seat.noted.transaction, TransactionState::Write);

    // Without the read that is thrown away the state is Read from here on.
    assert!(matches!(run(&mut seat, "INSERT OR ROLLBACK INTO t VALUES(1)"), Rest::Failed(_)));
    assert!(!seat.is_spoilt && seat.noted.autocommit);
    assert_eq!(seat.noted.transaction, TransactionState::None);
    assert!(matches!(run(&mut seat, "INSERT INTO t VALUES(5)"), Rest::Done));
    assert_eq!(take_commits(&seat), 1);

    // A statement that nobody brings to rest keeps the snapshot, whatever is read beside it.
    let prepared = seat.connection().unwrap().prepare(&mut Inside::alone(), b"SELECT a FROM t\0");
    let mut forgotten = prepared.unwrap().0.unwrap();
    assert_eq!(forgotten.step(&mut Inside::alone()).unwrap(), Step::Row);
    for _ in 0..2 {
        run(&mut seat, "SELECT 1 WHERE 0");
        assert!(seat.is_spoilt);
    }
    forgotten.finalize(&mut Inside::alone());
    close(seat);
}

#[test]
fn what_a_statement_needs_follows_from_what_it_writes_and_what_is_held() {
    let mut seat = seat();
    run(&mut seat, "CREATE TEMP TABLE own(a)");
    let asks = |seat: &mut Seat, table: &[(&str, bool, bool)]| {
        for (sql, turn, room) in table {
            let prepared = seat.connection().unwrap().prepare(&mut Inside::alone(), sql.as_bytes());
            let statement = prepared.unwrap().0.unwrap();
            assert_eq!(seat.needs(&statement), Needs { turn: *turn, room: *room }, "{sql}");
            statement.finalize(&mut Inside::alone());
        }
    };
    asks(
        &mut seat,
        &[
            ("SELECT * FROM t", false, false),
            ("INSERT INTO t VALUES(2)", true, true),
            ("EXPLAIN INSERT INTO t VALUES(2)", false, false),
            ("INSERT INTO own VALUES(2)", false, false),
            ("COMMIT", false, false),
        ],
    );
    run(&mut seat, "BEGIN");
    asks(
        &mut seat,
        &[("INSERT INTO t VALUES(2)", true, false), ("COMMIT", false, false), ("SELECT 1", false, false)],
    );
    seat.turn = Turn::new().acquire(std::time::Duration::ZERO).now_or_never().and_then(Result::ok);
    assert!(seat.turn.is_some());
    asks(
        &mut seat,
        &[
            ("INSERT INTO t VALUES(2)", true, false),
            ("COMMIT", false, true),
            ("END", false, true),
            ("RELEASE s", false, true),
            ("SELECT 1", false, false),
        ],
    );
    close(seat);
}

#[test]
fn the_statements_that_were_sent_last_are_kept_compiled() {
    let mut seat = seat();
    let sql = |number: usize| format!("SELECT {number} WHERE 0");
    for number in 0..=KEPT_STATEMENTS_MAX {
        run(&mut seat, &sql(number));
    }
    let mut is_kept = |sql: &str| {
        seat.fetch(&source(sql)).unwrap();
        let is_kept = seat.running.as_ref().is_some_and(|running| running.end == sql.len());
        seat.put_home();
        is_kept
    };
    let kept: Vec<usize> = (0..=KEPT_STATEMENTS_MAX).filter(|number| is_kept(&sql(*number))).collect();
    assert_eq!(kept, (1..=KEPT_STATEMENTS_MAX).collect::<Vec<_>>());
    assert!(!is_kept("SELECT 1 WHERE 1"));
    // What acts when it is compiled, or is followed by more, is not.
    for sql in ["PRAGMA user_version", "SELECT 1 WHERE 0; SELECT 2"] {
        run(&mut seat, sql);
        seat.fetch(&source(sql)).unwrap();
        assert!(seat.running.is_none(), "{sql}");
    }
    close(seat);
}

#[test]
fn numbers_of_statements_are_given_lowest_first_and_come_back() {
    let mut seat = seat();
    let prepare = |seat: &mut Seat| {
        let prepared = seat.connection().unwrap().prepare(&mut Inside::alone(), b"SELECT 1\0");
        seat.add_prepared(prepared.unwrap().0.unwrap()).unwrap()
    };
    assert_eq!([(); 4].map(|()| prepare(&mut seat)), [0, 1, 2, 3]);
    for id in [2, 0] {
        seat.remove_prepared(id).unwrap();
        assert_eq!(seat.remove_prepared(id), Err(Failure::no_statement()));
        assert_eq!(seat.fetch(&Source::Prepared(id)), Err(Failure::no_statement()));
    }
    assert_eq!([(); 3].map(|()| prepare(&mut seat)), [0, 2, 4]);
    for _ in 0..2 {
        seat.fetch(&Source::Prepared(3)).unwrap();
        assert!(seat.running.is_some());
        seat.put_home();
    }
    assert_eq!(seat.fetch(&Source::Prepared(5)), Err(Failure::no_statement()));
    close(seat);
}

#[test]
fn a_seat_that_is_dropped_and_not_closed_ends_its_epoch_and_a_closed_one_does_not() {
    let closed = seat();
    let (store, epoch) = (Arc::clone(&closed.store), closed.epoch);
    close(closed);
    assert_eq!(store.epoch(), epoch);

    let dropped = seat();
    let (store, epoch) = (Arc::clone(&dropped.store), dropped.epoch);
    drop(dropped);
    assert_ne!(store.epoch(), epoch);
}

#[test]
fn a_connection_that_cannot_be_closed_keeps_the_write_lock_no_longer_than_its_epoch() {
    for keeps_a_statement in [false, true] {
        let mut seat = seat();
        assert!(matches!(run(&mut seat, "BEGIN"), Rest::Done));
        assert!(matches!(run(&mut seat, "INSERT INTO t VALUES(2)"), Rest::Done));
        let (store, database, epoch) = (Arc::clone(&seat.store), Arc::clone(&seat.database), seat.epoch);
        assert!(database.is_reserved());
        let inside = &mut Inside::alone();
        let prepared = seat.connection().unwrap().prepare(inside, b"SELECT 1\0").unwrap();
        let kept = keeps_a_statement.then_some(prepared);

        seat.close(inside);

        assert!(!database.is_reserved());
        assert_eq!(store.epoch(), epoch + u64::from(keeps_a_statement));
        drop(kept);
    }
}
