//! Correct histories pass, each planted fault is found.

#![allow(clippy::unwrap_used)]

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn op<C, T>(call: C, begin: u64, end: u64, outcome: Outcome<T>) -> Operation<C, T> {
    Operation { client: 0, call, begin: ms(begin), end: ms(end), outcome }
}

/// A run of a real register: operations take effect at a random time between their ends.
fn run(seed: u64) -> Vec<Operation<Register, u64>> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut effects: Vec<(u64, u64, u64, Register, u8)> = (0..200)
        .map(|number| {
            let at = random.random_range(0..4000);
            let (begin, end) = (at - random.random_range(0..=at.min(60)), at + random.random_range(0..60));
            let call = if random.random() { Register::Write(number + 1) } else { Register::Read };
            (at, begin, end, call, random.random_range(0..10))
        })
        .collect();
    effects.sort_by_key(|effect| effect.0);
    let mut value = 0;
    let mut operations = Vec::new();
    for (_, begin, end, call, fate) in effects {
        let outcome = match (call, fate) {
            (Register::Write(_), 0) => Outcome::Failed,
            (Register::Write(_), 1) => Outcome::Unknown,
            (Register::Write(written), 2) => {
                value = written;
                Outcome::Unknown
            }
            (Register::Write(written), _) => {
                value = written;
                Outcome::Done(0)
            }
            (Register::Read, _) => Outcome::Done(value),
        };
        operations.push(op(call, begin, end, outcome));
    }
    operations
}

#[test]
fn a_real_register_passes_and_a_changed_read_does_not() {
    let mut found = 0;
    for seed in 0..60 {
        let operations = run(seed);
        check_register(&operations).unwrap();
        // A read that sees a value from long ago.
        let mut stale = operations;
        let read = stale.iter().rposition(|operation| operation.call == Register::Read).unwrap();
        if stale[read].outcome != Outcome::Done(0) {
            stale[read].outcome = Outcome::Done(0);
            found += usize::from(check_register(&stale).is_err());
        }
    }
    assert!(found > 50, "{found}");
}

#[test]
fn planted_faults_of_a_register_are_found() {
    use Register::{Read, Write};
    let lost = [op(Write(1), 0, 10, Outcome::Done(0)), op(Read, 20, 30, Outcome::Done(0))];
    let stale = [
        op(Write(1), 0, 10, Outcome::Done(0)),
        op(Write(2), 11, 20, Outcome::Done(0)),
        op(Read, 21, 30, Outcome::Done(1)),
    ];
    let back = [
        op(Write(1), 0, 100, Outcome::Unknown),
        op(Read, 10, 20, Outcome::Done(1)),
        op(Read, 30, 40, Outcome::Done(0)),
    ];
    let failed = [op(Write(1), 0, 10, Outcome::Failed), op(Read, 0, 30, Outcome::Done(1))];
    let never = [op(Read, 0, 30, Outcome::Done(7))];
    for history in [&lost[..], &stale, &back, &failed, &never] {
        assert!(check_register(history).is_err(), "{history:?}");
    }
    let late = [
        op(Write(1), 0, 10, Outcome::Unknown),
        op(Read, 20, 30, Outcome::Done(0)),
        op(Read, 40, 50, Outcome::Done(1)),
    ];
    check_register(&late).unwrap();
}

#[test]
fn planted_faults_of_a_list_are_found() {
    use List::{Append, Read};
    let done = || Outcome::Done(Vec::new());
    let one = op(Append(1), 0, 10, done());
    let two = op(Append(2), 20, 30, done());
    let read = |begin, seen: &[u64]| op(Read, begin, begin + 5, Outcome::Done(seen.to_vec()));
    check_list(&[one.clone(), two.clone(), read(12, &[1]), read(40, &[1, 2])], &[1, 2]).unwrap();
    for (history, last, text) in [
        (vec![one.clone()], vec![], "lost"),
        (vec![one.clone()], vec![1, 1], "twice"),
        (vec![one.clone(), two.clone()], vec![2, 1], "comes behind"),
        (vec![one.clone(), read(12, &[])], vec![1], "stale"),
        (vec![one.clone(), two.clone(), read(40, &[2])], vec![1, 2], "no beginning"),
        (vec![one.clone(), two.clone(), read(12, &[1, 2])], vec![1, 2], "began later"),
        (vec![op(Append(1), 0, 10, Outcome::Failed)], vec![1], "surely failed"),
        (vec![], vec![9], "never appended"),
    ] {
        let error = check_list(&history, &last).unwrap_err();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn planted_faults_of_a_set_are_found() {
    let done = op(1, 0, 10, Outcome::Done(()));
    check_set(&[done.clone(), op(2, 0, 1, Outcome::Unknown)], &[1]).unwrap();
    for (history, last) in [
        (vec![done.clone()], vec![]),
        (vec![done.clone()], vec![1, 1]),
        (vec![op(1, 0, 1, Outcome::Failed)], vec![1]),
        (vec![done], vec![1, 2]),
    ] {
        assert!(check_set(&history, &last).is_err());
    }
}
