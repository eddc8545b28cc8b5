//! When openraft's timers run, on a clock that moves by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::peers::message::Message;
use crate::raft::testing::bench::{Bench, append, change, elected, follower, node, servers};
use crate::types::Role;

/// Counts what openraft says when it looks at its timers.
#[derive(Clone, Default)]
struct Ticks(Arc<AtomicUsize>);

impl Ticks {
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

struct IsTick(bool);

impl Visit for IsTick {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 |= field.name() == "message" && format!("{value:?}").starts_with("received tick");
    }
}

impl tracing::Subscriber for Ticks {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("openraft")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut tick = IsTick(false);
        event.record(&mut tick);
        self.0.fetch_add(usize::from(tick.0), Ordering::Relaxed);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// How long it takes until the node asks for votes.
async fn until_it_campaigns(node: &mut Bench) -> Duration {
    let began = Instant::now();
    while !matches!(node.answer().await, (_, Message::RequestVote(_))) {}
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn openraft_rests_while_a_leader_is_heard_and_replaces_it_in_time_when_it_is_silent() {
    let ticks = Ticks::default();
    let _counting = tracing::subscriber::set_default(ticks.clone());
    let mut node = follower().await;
    sleep(milliseconds(1000)).await;
    assert!(ticks.take() >= 5, "nobody leads: the timers run");

    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    sleep(milliseconds(1000)).await;
    ticks.take();
    for _ in 0..60 {
        append(&mut leader, 2, (1, 1), 0, &[]).await;
        sleep(milliseconds(500)).await;
    }
    assert_eq!(ticks.take(), 0, "nothing can be due");

    // The lease is one election timeout of 3 s, openraft's own at least half of one and at most a whole one.
    let waited = until_it_campaigns(&mut node).await + milliseconds(500);
    assert!(waited >= milliseconds(4500) && waited <= milliseconds(6200), "{waited:?}");
    assert!(ticks.take() >= 5);

    // It is back.
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    sleep(milliseconds(1000)).await;
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    ticks.take();
    sleep(milliseconds(2000)).await;
    assert_eq!(ticks.take(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_leader_sends_heartbeats_at_their_interval_without_openrafts_timers() {
    let ticks = Ticks::default();
    let node = node(vec![change(1, &servers(&[Role::Voter; 2]))], 1).await;
    let (mut node, _follower) = elected(node).await;
    let _counting = tracing::subscriber::set_default(ticks.clone());
    let began = Instant::now();
    let mut heartbeats = Vec::new();

    // It gives up after an election timeout of 3 s without an answer.
    while let Ok((_, message)) =
        timeout(milliseconds(2900).saturating_sub(began.elapsed()), node.answer()).await
    {
        if matches!(message, Message::AppendEntries(append) if append.entries.is_empty()) {
            heartbeats.push(began.elapsed().as_millis() / 100);
        }
    }

    heartbeats.dedup();
    let expected: Vec<u128> = (1..=5).map(|interval| interval * 5).collect();
    assert!(expected.iter().all(|at| heartbeats.contains(at)), "{heartbeats:?}");
    assert_eq!(ticks.take(), 0);
}
