//! What a leader does whose disk is bad: the hand plays two voters that store all they get, or only answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::time::{Instant, timeout};

use crate::peers::message::Message;
use crate::raft::propose::Proposed;
use crate::raft::testing::bench::{Bench, answer, change, elected, node, servers};
use crate::types::{EntryData, Role};

/// What the other voters do with entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    Store,
    /// They are there, and their disks are no better.
    OnlyAnswer,
}

/// What was seen of the leader.
#[derive(Debug, Default)]
struct Seen {
    /// Who was asked to take over, and when.
    asked: Vec<(String, Duration)>,
    /// When anything was sent last.
    last_sent: Duration,
}

struct Scene {
    node: Bench,
    followers: Vec<DuplexStream>,
    stored: Vec<u64>,
    began: Instant,
}

impl Scene {
    async fn new(voters: usize) -> Scene {
        let entries = vec![change(1, &servers(&vec![Role::Voter; voters]))];
        let (node, second) = elected(node(entries, 1).await).await;
        let mut followers = vec![second];
        followers.extend((3..=voters as u64).map(|id| node.connect(id)));
        let stored = vec![1; followers.len()];
        let mut scene = Scene { node, followers, stored, began: Instant::now() };
        scene.play(Others::Store, 200).await;
        assert!(scene.node.engine.serving().is_some(), "it does not serve");
        scene.began = Instant::now();
        scene
    }

    fn propose(&self, number: u64) {
        let data = EntryData::from_bytes(number.to_le_bytes().to_vec().into());
        self.node.engine.propose(0, Proposed { data, merges: true }, |_| true).unwrap();
    }

    /// For so many milliseconds.
    async fn play(&mut self, others: Others, milliseconds: u64) -> Seen {
        let mut seen = Seen::default();
        let end = Instant::now() + Duration::from_millis(milliseconds);
        while let Ok(sent) = timeout(end - Instant::now(), self.node.sent.recv()).await {
            let (to, received) = sent.unwrap();
            let to = String::from_utf8(to).unwrap();
            seen.last_sent = self.began.elapsed();
            let at = to.parse::<usize>().unwrap() - 2;
            match received.message {
                Message::TimeoutNow(_) if seen.asked.last().is_none_or(|(asked, _)| *asked != to) => {
                    seen.asked.push((to, self.began.elapsed()));
                }
                Message::AppendEntries(append) if append.previous_index.0 >= 1 << 63 => {
                    answer(&mut self.followers[at], append.term.0, append.previous_index.0, self.stored[at])
                        .await;
                }
                Message::AppendEntries(append) => {
                    let last = append.previous_index.0 + append.entries.len() as u64;
                    if append.previous_index.0 > self.stored[at] {
                        let rejected = append.previous_index.0;
                        answer(&mut self.followers[at], append.term.0, rejected, self.stored[at]).await;
                    } else if others == Others::Store || append.entries.is_empty() {
                        self.stored[at] = self.stored[at].max(last);
                        answer(&mut self.followers[at], append.term.0, 0, last).await;
                    }
                }
                _ => {}
            }
        }
        seen
    }
}

fn times(seen: &Seen) -> Vec<u64> {
    seen.asked.iter().map(|(_, at)| at.as_millis() as u64).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_majority_of_the_others_has_is_applied_while_the_own_disk_hangs_and_leadership_goes_to_them() {
    let mut scene = Scene::new(3).await;
    scene.node.disk.lock().held = true;
    scene.propose(7);

    let seen = scene.play(Others::Store, 900).await;
    assert_eq!(scene.node.numbers(), [7], "others have it");
    assert!(seen.asked.is_empty(), "too early: {seen:?}");

    let seen = scene.play(Others::Store, 4000).await;
    let asked = times(&seen);
    assert!(asked.len() == 2 && (1000..1400).contains(&asked[0]), "{seen:?}");
    assert!(
        (900..1200).contains(&(asked[1] - asked[0])),
        "the next one is asked when the first does nothing"
    );
    // Nobody takes it over.
    assert_eq!(scene.node.engine.serving(), None);
    assert!(seen.last_sent < Duration::from_millis(3500), "it is silent: {seen:?}");
    let status = scene.node.engine.status().borrow().clone();
    assert_eq!((status.leader, scene.node.disk.lock().votes.last().copied()), (None, Some((3, 0))));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_costs_leadership_after_a_while_and_only_where_others_work() {
    for (others, milliseconds, expected) in
        [(Others::Store, 400, 0), (Others::Store, 1200, 1), (Others::OnlyAnswer, 4000, 0)]
    {
        let mut scene = Scene::new(3).await;
        scene.node.disk.lock().held = true;
        scene.node.disk.lock().fails.send_replace(true);
        scene.propose(7);
        let seen = scene.play(others, milliseconds).await;
        assert_eq!(seen.asked.len(), expected, "{seen:?}");
        assert!(times(&seen).iter().all(|at| (500..800).contains(at)), "{seen:?}");
        scene.node.disk.lock().held = false;
        scene.node.disk.flush();
        scene.node.disk.lock().fails.send_replace(false);
        if expected == 0 {
            let seen = scene.play(Others::Store, 3000).await;
            assert!(seen.asked.is_empty() && scene.node.engine.serving().is_some(), "{seen:?}");
            assert_eq!(scene.node.numbers(), [7]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_voters_one_with_a_bad_disk_stays_and_answers_that_nobody_knows() {
    let mut scene = Scene::new(2).await;
    scene.node.disk.lock().held = true;
    scene.propose(7);

    let seen = scene.play(Others::Store, 4500).await;
    assert!(seen.asked.is_empty() && scene.node.engine.serving().is_some(), "{seen:?}");
    let seen = scene.play(Others::Store, 1000).await;
    assert!(seen.asked.is_empty(), "{seen:?}");
    assert_eq!(scene.node.engine.serving(), None, "who waits is told");
    assert_eq!(scene.node.engine.status().borrow().leader.as_ref().map(|(id, _)| id.0), Some(1));

    scene.node.disk.lock().held = false;
    scene.node.disk.flush();
    scene.play(Others::Store, 200).await;
    assert!(scene.node.engine.serving().is_some());
    assert_eq!(scene.node.numbers(), [7]);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_costs_leadership_only_if_an_entry_made_for_it_shows_that_others_have_space() {
    for (others, expected) in [(Others::Store, 2), (Others::OnlyAnswer, 0)] {
        let mut scene = Scene::new(3).await;
        scene.node.disk.lock().space.0.store(true, Ordering::Relaxed);
        let before = scene.node.terms().len();

        let seen = scene.play(others, 4000).await;

        assert_eq!(seen.asked.len(), expected, "{seen:?}");
        assert!(times(&seen).first().is_none_or(|at| (500..1000).contains(at)), "{seen:?}");
        assert_eq!(scene.node.terms().len(), before + 1, "one entry, out of the reserve");
        // It can lead, and is not asked for it again and again.
        assert!(scene.node.engine.serving().is_some());
        let seen = scene.play(Others::Store, 20_000).await;
        assert!(seen.asked.is_empty(), "{seen:?}");
    }
}
