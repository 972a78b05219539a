//! How long somebody waits for the quota: not how long its answer takes, but how long nothing of it comes because no call
//! is granted.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What has been used up of a patience, as one replica tells another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueWait {
    /// How long nothing has come.
    pub time: Duration,
    /// How many pages had come then, of the furthest of all attempts.
    pub pages: u32,
}

/// The patience of one who waits, for all that it waits for together.
///
/// It runs out while no call for it is under way: a slow upstream is not the quota. It begins anew with each page of its
/// own. What begins from its beginning again, because whoever made the calls is gone, begins the patience anew only with
/// pages that no attempt before has brought: else it could go on for ever.
#[derive(Debug)]
pub struct QueueTimeout {
    most: Duration,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// How long nothing had come, up to `since`.
    waited: Duration,
    since: Instant,
    /// Calls under way of what it waits for. While there are any, it does not run out.
    under_way: u32,
    /// The pages of this attempt, and of the furthest of all.
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
    /// One that begins now, and lasts for so long.
    pub fn new(most: Duration) -> Self {
        Self::of(most, QueueWait::default())
    }

    /// One of which so much is used up.
    pub fn of(most: Duration, QueueWait { time, pages }: QueueWait) -> Self {
        let state = State { waited: time, since: Instant::now(), under_way: 0, pages: 0, furthest: pages };
        Self { most, state: watch::Sender::new(state) }
    }

    /// A call for it begins.
    pub(crate) fn pause(&self) {
        self.state.send_modify(|state| {
            state.settle();
            state.under_way += 1;
        });
    }

    /// And has ended.
    pub(crate) fn go_on(&self) {
        self.state.send_modify(|state| {
            state.settle();
            state.under_way = state.under_way.saturating_sub(1);
        });
    }

    /// A page of its own has come.
    pub fn begin_anew(&self) {
        self.state.send_modify(|state| {
            state.pages = state.pages.saturating_add(1);
            if state.pages > state.furthest {
                state.furthest = state.pages;
                (state.waited, state.since) = (Duration::ZERO, Instant::now());
            }
        });
    }

    /// What had come is lost, and is going to come again.
    pub fn attempt_again(&self) {
        self.state.send_modify(|state| state.pages = 0);
    }

    /// Somebody else, who sees more of it, says that it has waited no longer than this.
    pub fn at_most(&self, waited: Duration) {
        self.state.send_modify(|state| {
            state.settle();
            state.waited = state.waited.min(waited);
        });
    }

    /// What is used up of it.
    pub fn waited(&self) -> QueueWait {
        let state = self.state.borrow();
        QueueWait { time: state.waited(Instant::now()), pages: state.furthest }
    }

    /// When it ends if nothing comes.
    pub fn end(&self) -> Instant {
        Instant::now() + self.most.saturating_sub(self.waited().time)
    }

    /// Ends `grace` after it has run out.
    pub async fn over(&self, grace: Duration) {
        let mut changes = self.state.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            let end = state.since + self.most.saturating_add(grace).saturating_sub(state.waited);
            tokio::select! {
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

    async fn seconds(seconds: u64) {
        advance(Duration::from_secs(seconds)).await;
    }

    fn is_over(patience: &QueueTimeout) -> bool {
        patience.over(Duration::ZERO).now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn it_lasts_as_long_as_nothing_comes_and_no_longer() {
        let patience = QueueTimeout::new(MOST);
        let begun = Instant::now();
        patience.over(Duration::ZERO).await;
        assert_eq!(begun.elapsed().as_secs(), 30);
        patience.over(Duration::from_secs(2)).await;
        assert_eq!(begun.elapsed().as_secs(), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_under_way_is_not_a_wait_for_the_quota() {
        let patience = QueueTimeout::new(MOST);
        seconds(20).await;
        patience.pause();
        patience.pause();
        seconds(100).await;
        patience.go_on();
        seconds(100).await;
        patience.go_on();
        assert_eq!(patience.waited().time.as_secs(), 20);
        seconds(9).await;
        assert!(!is_over(&patience));
        seconds(2).await;
        assert!(is_over(&patience));
    }

    #[tokio::test(start_paused = true)]
    async fn pages_that_had_come_before_do_not_begin_it_anew() {
        let patience = QueueTimeout::new(MOST);
        for _ in 0..3 {
            seconds(25).await;
            patience.begin_anew();
        }
        for _ in 0..2 {
            patience.attempt_again();
            seconds(14).await;
            (0..3).for_each(|_| patience.begin_anew());
            assert!(!is_over(&patience));
        }
        patience.begin_anew();
        seconds(29).await;
        assert!(!is_over(&patience), "the fourth is new");
        patience.attempt_again();
        (0..4).for_each(|_| patience.begin_anew());
        seconds(2).await;
        assert!(is_over(&patience));
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_elsewhere_where_it_was() {
        let patience = QueueTimeout::new(MOST);
        (0..2).for_each(|_| patience.begin_anew());
        seconds(12).await;
        let there = QueueTimeout::of(MOST, patience.waited());
        (0..2).for_each(|_| there.begin_anew());
        assert_eq!(there.waited(), patience.waited());
        there.begin_anew();
        patience.at_most(there.waited().time);
        there.at_most(Duration::from_secs(5));
        assert_eq!((patience.waited().time, there.waited().time), (Duration::ZERO, Duration::ZERO));
    }
}
