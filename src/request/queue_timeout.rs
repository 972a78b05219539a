//! The timeout of a request that waits for the quota. Only time without progress counts: the clock stops while a call
//! is under way and restarts with each page.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::wait_meter::WaitMeter;

/// The used part of a queue timeout, as one replica reports it to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueWait {
    /// Time without progress.
    pub time: Duration,
    /// Most pages that any attempt of the run had fetched.
    pub pages: u32,
}

/// The queue timeout of one request, shared by everything that the request waits for.
///
/// The clock stops while a call is under way for the request, because a slow upstream is not the quota, and restarts
/// with each page of its run. When a run starts over, because the leader has changed, only pages beyond those of the
/// furthest earlier attempt restart the clock. Otherwise repeated failures could extend the wait without bound.
#[derive(Debug)]
pub struct QueueTimeout {
    most: Duration,
    state: watch::Sender<State>,
    begun: Instant,
    meter: WaitMeter,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Time without progress up to `since`.
    waited: Duration,
    since: Instant,
    /// Number of calls under way for the request. The clock stands still while there are any.
    under_way: u32,
    /// Pages of this attempt, and of the furthest attempt.
    pages: u32,
    furthest: u32,
}

impl State {
    fn waited(&self, now: Instant) -> Duration {
        let since = if self.under_way == 0 { now.saturating_duration_since(self.since) } else { Duration::ZERO };
        self.waited.saturating_add(since)
    }

    fn settle(&mut self) {
        let now = Instant::now();
        (self.waited, self.since) = (self.waited(now), now);
    }
}

impl QueueTimeout {
    /// A timeout of `limit` that starts now.
    pub fn new(most: Duration) -> Self {
        Self::of(most, QueueWait::default())
    }

    /// Starts with `waited` already used.
    pub fn of(most: Duration, QueueWait { time, pages }: QueueWait) -> Self {
        let state = State { waited: time, since: Instant::now(), under_way: 0, pages: 0, furthest: pages };
        Self { most, state: watch::Sender::new(state), begun: Instant::now(), meter: WaitMeter::default() }
    }

    /// The same timeout, which adds the queueing times of calls to `meter`.
    #[must_use]
    pub fn metered(self, meter: WaitMeter) -> Self {
        Self { meter, ..self }
    }

    /// A call that the request waits for was queued for `waited`, of which the time since the request began counts.
    pub(crate) fn record_queued(&self, waited: Duration) {
        self.meter.add(waited.min(self.begun.elapsed()));
    }

    /// Stops the clock: a call for the request begins.
    pub(crate) fn pause(&self) {
        self.state.send_modify(|state| {
            state.settle();
            state.under_way += 1;
        });
    }

    /// Starts the clock again when the last call under way has ended.
    pub(crate) fn resume(&self) {
        self.state.send_modify(|state| {
            state.settle();
            state.under_way = state.under_way.saturating_sub(1);
        });
    }

    /// Restarts the clock: a page of the request's run has arrived.
    pub fn reset(&self) {
        self.state.send_modify(|state| {
            state.pages = state.pages.saturating_add(1);
            if state.pages > state.furthest {
                state.furthest = state.pages;
                (state.waited, state.since) = (Duration::ZERO, Instant::now());
            }
        });
    }

    /// Starts a new attempt: the pages so far are lost and are going to be fetched again.
    pub fn attempt_again(&self) {
        self.state.send_modify(|state| state.pages = 0);
    }

    /// Lowers the used time to `waited`, as reported by the leader, which sees the calls.
    pub fn at_most(&self, waited: Duration) {
        self.state.send_modify(|state| {
            state.settle();
            state.waited = state.waited.min(waited);
        });
    }

    /// The whole timeout.
    pub fn limit(&self) -> Duration {
        self.most
    }

    /// The used part.
    pub fn waited(&self) -> QueueWait {
        let state = self.state.borrow();
        QueueWait { time: state.waited(Instant::now()), pages: state.furthest }
    }

    /// When the timeout expires if no page arrives and no call begins.
    pub fn end(&self) -> Instant {
        Instant::now() + self.most.saturating_sub(self.waited().time)
    }

    /// Completes `grace` after the timeout has expired.
    pub async fn over(&self, grace: Duration) {
        let mut changes = self.state.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            let end = state.since + self.most.saturating_add(grace).saturating_sub(state.waited);
            tokio::select! {
                biased;
                () = sleep_until(end), if state.under_way == 0 => return,
                // It is told of changes as long as it is there.
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    const MOST: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn meter_adds_up_what_calls_waited_since_the_request_began() {
        let meter = WaitMeter::default();
        advance(Duration::from_secs(5)).await;
        let queue_timeout = QueueTimeout::new(MOST).metered(meter.clone());
        advance(Duration::from_secs(2)).await;
        // The call was queued before the request came.
        queue_timeout.record_queued(Duration::from_secs(7));
        queue_timeout.record_queued(Duration::from_millis(1500));
        assert_eq!(meter.total(), Duration::from_millis(3500));
    }

    async fn seconds(seconds: u64) {
        advance(Duration::from_secs(seconds)).await;
    }

    fn is_over(queue_timeout: &QueueTimeout) -> bool {
        queue_timeout.over(Duration::ZERO).now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn it_lasts_as_long_as_nothing_comes_and_no_longer() {
        let queue_timeout = QueueTimeout::new(MOST);
        let begun = Instant::now();
        queue_timeout.over(Duration::ZERO).await;
        assert_eq!(begun.elapsed().as_secs(), 30);
        queue_timeout.over(Duration::from_secs(2)).await;
        assert_eq!(begun.elapsed().as_secs(), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn call_under_way_is_no_wait_for_the_quota() {
        let queue_timeout = QueueTimeout::new(MOST);
        seconds(20).await;
        queue_timeout.pause();
        queue_timeout.pause();
        seconds(100).await;
        queue_timeout.resume();
        seconds(100).await;
        queue_timeout.resume();
        assert_eq!(queue_timeout.waited().time.as_secs(), 20);
        seconds(9).await;
        assert!(!is_over(&queue_timeout));
        seconds(2).await;
        assert!(is_over(&queue_timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn pages_that_had_come_before_do_not_begin_it_anew() {
        let queue_timeout = QueueTimeout::new(MOST);
        for _ in 0..3 {
            seconds(25).await;
            queue_timeout.reset();
        }
        for _ in 0..2 {
            queue_timeout.attempt_again();
            seconds(14).await;
            (0..3).for_each(|_| queue_timeout.reset());
            assert!(!is_over(&queue_timeout));
        }
        queue_timeout.reset();
        seconds(29).await;
        assert!(!is_over(&queue_timeout), "the fourth is new");
        queue_timeout.attempt_again();
        (0..4).for_each(|_| queue_timeout.reset());
        seconds(2).await;
        assert!(is_over(&queue_timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_elsewhere_where_it_was() {
        let queue_timeout = QueueTimeout::new(MOST);
        (0..2).for_each(|_| queue_timeout.reset());
        seconds(12).await;
        let there = QueueTimeout::of(MOST, queue_timeout.waited());
        (0..2).for_each(|_| there.reset());
        assert_eq!(there.waited(), queue_timeout.waited());
        there.reset();
        queue_timeout.at_most(there.waited().time);
        there.at_most(Duration::from_secs(5));
        assert_eq!((queue_timeout.waited().time, there.waited().time), (Duration::ZERO, Duration::ZERO));
    }
}
