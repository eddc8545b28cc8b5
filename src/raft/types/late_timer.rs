//! A timer that most waits do not live to see.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// One that is set wakes its thread, which has to look anew how long it may sleep: so one of an earlier wait is left as it is,
/// and set anew when it ends before its time has come.
#[derive(Debug, Default)]
pub(crate) struct LateTimer(Option<Pin<Box<Sleep>>>);

impl LateTimer {
    /// Waits until then. Whoever waits later waits for a later time.
    pub(crate) async fn until(&mut self, due: Instant) {
        while Instant::now() < due {
            self.0.get_or_insert_with(|| Box::pin(sleep_until(due))).as_mut().await;
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_in_time_whatever_became_of_earlier_ones() {
        let (began, mut timer) = (Instant::now(), LateTimer::default());
        for millisecond in 0..50 {
            let due = Instant::now() + Duration::from_millis(20);
            assert!(timeout(Duration::from_millis(1), timer.until(due)).await.is_err(), "{millisecond}");
        }
        let due = began + Duration::from_millis(75);
        timer.until(due).await;
        assert_eq!(Instant::now(), due);
    }
}
