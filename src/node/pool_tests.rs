//! Work is done whatever threads can be had, and an end waits for it.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Longest wait for what should come at once.
const SOON: Duration = Duration::from_secs(20);

/// A pool whose runtime has gone and makes no thread, as when the operating system gives none.
fn without_threads() -> Pool {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let pool = Pool::start(runtime.handle().clone(), "test", || {}).unwrap();
    drop(runtime);
    pool
}

fn with_threads() -> (Pool, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    (Pool::start(runtime.handle().clone(), "test", || {}).unwrap(), runtime)
}

/// Work that waits until it is let go, and then says its number.
fn waits(number: usize, said: &Sender<usize>) -> (Work, Sender<()>) {
    let (go, gone) = channel::<()>();
    let said = said.clone();
    let work = move || {
        gone.recv().unwrap();
        said.send(number).unwrap();
    };
    (Box::new(work), go)
}

fn numbers(said: &Receiver<usize>, count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).map(|_| said.recv_timeout(SOON).unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn the_thread_made_ahead_does_everything_when_no_other_can_be_had() {
    let pool = without_threads();
    let (says, said) = channel();
    let (first, go) = waits(0, &says);
    pool.run(first);
    for number in 1..100 {
        let says = says.clone();
        pool.run(Box::new(move || says.send(number).unwrap()));
    }

    go.send(()).unwrap();

    assert_eq!(numbers(&said, 100), (0..100).collect::<Vec<_>>());
    assert_eq!(pool.end(None), 0);
}

#[test]
fn works_that_wait_hold_up_no_others() {
    let (pool, _runtime) = with_threads();
    let (says, said) = channel();
    let waiting: Vec<_> = (0..5).map(|number| waits(number, &says)).collect();
    let mut gates = Vec::new();
    for (work, go) in waiting {
        pool.run(work);
        gates.push(go);
    }

    pool.run(Box::new(move || says.send(5).unwrap()));

    assert_eq!(said.recv_timeout(SOON).unwrap(), 5);
    gates.iter().for_each(|go| go.send(()).unwrap());
    assert_eq!(numbers(&said, 5), [0, 1, 2, 3, 4]);
    assert_eq!(pool.end(None), 0);
}

#[test]
fn an_end_waits_for_all_work_and_says_what_is_left_after_its_time() {
    let (pool, _runtime) = with_threads();
    let (says, said) = channel();
    let (work, go) = waits(1, &says);
    pool.run(work);
    let (behind, go_behind) = waits(2, &says);
    pool.run_behind(behind);

    assert_eq!(pool.end(Some(Instant::now() + Duration::from_millis(50))), 2);

    let refused = says.clone();
    pool.run(Box::new(move || refused.send(3).unwrap()));
    go.send(()).unwrap();
    go_behind.send(()).unwrap();
    assert_eq!(pool.end(None), 0);
    assert_eq!(numbers(&said, 2), [1, 2]);
    drop(says);
    assert!(said.recv_timeout(SOON).is_err(), "work after the end was done");
}

#[test]
fn a_work_that_panics_takes_no_thread_with_it() {
    let pool = without_threads();
    let (says, said) = channel();
    pool.run(Box::new(|| panic!("on purpose")));
    pool.run_behind(Box::new(|| panic!("on purpose")));

    pool.run(Box::new(move || says.send(1).unwrap()));

    assert_eq!(said.recv_timeout(SOON), Ok(1));
    assert_eq!(pool.end(None), 0);
}
