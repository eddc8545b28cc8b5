//! Tests of the log writer and snapshots: what gets names, what goes, and a directory that has gone.

use std::sync::atomic::Ordering;

use super::tests::Bench;
use super::*;
use crate::types::tasks::LaterPool;

// conformance: disk-format 12
#[test]
fn trim_keeps_trailing_entries_and_two_snapshots() {
    let mut bench = Bench::new(4096);
    let requests = (1..=4).map(|index| bench.append(index, 1, 3000)).collect();
    bench.writer.process(requests);
    for name in ["snapshot-1-2-9", "snapshot-1-3-5"] {
        std::fs::write(bench.path.join(name), "x").unwrap();
        std::fs::write(bench.path.join(format!("{name}.meta")), "x").unwrap();
    }
    // One without data is none: it takes no other's place.
    std::fs::write(bench.path.join("snapshot-1-10-3.meta"), "x").unwrap();
    bench.writer.process(vec![bench.add_snapshot(4, 2, 9)]);

    let names = bench.names();
    assert!(!names.contains(&Bench::closed(2, 2)) && names.contains(&Bench::closed(3, 3)), "{names:?}");
    assert!(
        !names.contains(&"snapshot-1-2-9".to_owned()) && names.contains(&"snapshot-1-3-5.meta".to_owned())
    );
    assert!(names.contains(&"snapshot-1-4-7".to_owned()), "{names:?}");
}

#[test]
fn a_snapshot_that_replaces_the_log_leaves_no_segment_and_the_log_goes_on_behind_it() {
    let mut bench = Bench::new(65536);
    bench.writer.process(vec![bench.append(1, 3, 8), bench.replace(49, 0)]);
    assert_eq!(bench.answers(), [(1, true), (0, true)]);
    assert_eq!(bench.names(), ["snapshot-1-49-7", "snapshot-1-49-7.meta"]);

    bench.writer.process(vec![bench.append(50, 1, 8)]);
    bench.writer.close().unwrap();
    assert_eq!(bench.names()[..1], [Bench::closed(50, 50)]);
}

// Found with killed nodes: a snapshot that was named while its entries were in an open segment and none was closed made
// them count as other entries behind it.
#[test]
fn the_entries_of_a_snapshot_are_closed_before_it_gets_its_name() {
    let mut bench = Bench::new(65536);
    bench.writer.process(vec![bench.replace(49, 0), bench.append(50, 4, 8)]);
    assert!(!bench.names().contains(&Bench::closed(50, 53)));

    bench.writer.process(vec![bench.add_snapshot(53, 8192, 1), bench.append(54, 2, 8)]);

    assert!(bench.names().contains(&Bench::closed(50, 53)), "{:?}", bench.names());
    assert!(!bench.names().contains(&Bench::closed(54, 55)));
}

#[test]
fn a_trim_removes_after_the_segments_before_it_are_closed() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    bench.writer.process((1..=4).map(|index| bench.append(index, 1, 3000)).collect());
    bench.answers();
    bench.writer.process(vec![bench.add_snapshot(4, 2, 9)]);
    assert!(bench.answers().is_empty());

    bench.writer.process(vec![bench.append(5, 1, 8)]);
    assert_eq!(bench.answers(), [(5, true)]);
    pool.catch_up();

    assert_eq!(bench.answers(), [(9, true)]);
    let names = bench.names();
    assert!(!names.contains(&Bench::closed(2, 2)) && names.contains(&Bench::closed(3, 3)), "{names:?}");
}

#[test]
fn removed_segments_have_no_name_and_nobody_waits_for_their_bytes() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    bench.writer.process((1..=4).map(|index| bench.append(index, 1, 3000)).collect());
    bench.writer.process(vec![bench.add_snapshot(4, 0, 9)]);
    // A truncation needs the jobs done, here and now.
    let truncated = bench.done(10);
    bench.writer.process(vec![LogRequest::TruncateFrom { index: LogIndex(4), done: truncated }]);

    assert!(bench.answers().contains(&(10, true)));
    let names = bench.names();
    assert!(!names.contains(&Bench::closed(3, 3)), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("tmp-")), "{names:?}");
    bench.writer.close().unwrap();
}

#[test]
fn a_snapshot_of_durable_entries_passes_what_finds_no_space() {
    let mut bench = Bench::new(4096);
    bench.writer.process((1..=3).map(|index| bench.append(index, 1, 3000)).collect());
    bench.answers();
    let (snapshot, early) = (bench.add_snapshot(3, 0, 9), bench.add_snapshot(5, 0, 10));
    bench.full.store(true, Ordering::Relaxed);

    // The last one's entries are not durable: it waits for them.
    let requests = vec![bench.append(4, 1, 3000), bench.append(5, 1, 3000), snapshot, early];
    assert!(matches!(bench.writer.process(requests), Progress::RetryAfter(_)));

    assert_eq!(bench.answers(), [(9, true)]);
    assert!(!bench.names().contains(&Bench::closed(2, 2)), "{:?}", bench.names());
    bench.full.store(false, Ordering::Relaxed);
    assert_eq!(bench.writer.process(Vec::new()), Progress::Idle);
    assert_eq!(bench.answers(), [(4, true), (5, true), (10, true)]);
}

#[test]
fn a_log_whose_directory_is_removed_ends_and_says_so() {
    let mut bench = Bench::new(4096);
    bench.writer.process(vec![bench.append(1, 1, 3000)]);
    std::fs::remove_dir_all(&bench.path).unwrap();

    // The segment that is open already can be written to; what needs a name cannot.
    bench.writer.process((2..=5).map(|index| bench.append(index, 1, 3000)).collect());

    let troubles = std::mem::take(&mut *bench.troubles.lock().unwrap());
    assert!(matches!(troubles.as_slice(), [LogTrouble::Ended { error }] if error.contains("was removed")));
    assert_eq!(bench.answers().last(), Some(&(5, false)));
    bench.writer.process(vec![bench.append(9, 1, 8)]);
    assert_eq!(bench.answers(), [(9, false)]);
}

#[test]
fn a_log_whose_lock_is_gone_changes_nothing_any_more() {
    type Ask = fn(&Bench) -> LogRequest;
    let asks: [Ask; 4] = [
        |bench| bench.append(4, 1, 3000),
        |bench| LogRequest::TruncateFrom { index: LogIndex(2), done: bench.done(4) },
        |bench| bench.add_snapshot(2, 0, 4),
        |bench| bench.replace(9, 4),
    ];
    for (number, ask) in asks.iter().enumerate() {
        let mut bench = Bench::new(4096);
        bench.writer.process((1..=3).map(|index| bench.append(index, 1, 3000)).collect());
        assert_eq!(bench.answers().len(), 3);
        let request = ask(&bench);
        bench.take_lock_away();
        let before = bench.names();

        bench.writer.process(vec![request]);
        bench.writer.prepare_ahead();
        let closed = bench.writer.close();

        assert_eq!(bench.answers(), [(4, false)], "request {number}");
        assert_eq!(bench.names(), before, "request {number}");
        assert!(closed.unwrap_err().to_string().contains("dqlite-lock was replaced by another"));
        let troubles = std::mem::take(&mut *bench.troubles.lock().unwrap());
        assert!(matches!(troubles.as_slice(), [LogTrouble::Ended { .. }]), "request {number}: {troubles:?}");
    }
}

#[test]
fn a_snapshot_under_way_gets_no_name_when_the_lock_is_gone() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    bench.writer.process((1..=3).map(|index| bench.append(index, 1, 3000)).collect());
    let snapshot = bench.add_snapshot(2, 0, 9);
    bench.writer.process(vec![snapshot]);
    bench.take_lock_away();
    let before = bench.names();

    pool.catch_up();

    assert_eq!(bench.answers(), [(1, true), (2, true), (3, true)]);
    assert_eq!(bench.names(), before);
}
