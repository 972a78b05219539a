//! The queue of one account: who may call the upstream, and when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ledger::{Ledger, Tick};
use super::pace::Pace;
use crate::config::{Limit, Quota};
use crate::upstream::SpentLimit;

/// The quota cannot serve a call within the queue's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// When it could, as far as is known now.
    pub retry_after: Duration,
}

/// The calls of one account, in the order in which they asked.
#[derive(Debug)]
pub struct Turns {
    limits: Vec<Limit>,
    queue_timeout: Duration,
    pace: Option<Pace>,
    /// Monotonic time is counted from here, so no step of the wall clock can bend the ledger.
    epoch: Instant,
    /// Held for arithmetic only, never across an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    /// The upstream said that the quota is spent: nobody calls before this.
    closed_until: Tick,
    /// Those who wait, by ticket; the first one is the only one that may go.
    queue: BTreeMap<u64, Arc<Notify>>,
    next_ticket: u64,
}

impl State {
    fn wake_first(&self) {
        if let Some(first) = self.queue.values().next() {
            first.notify_one();
        }
    }
}

/// What one who waits does next.
enum Next {
    Go,
    /// Not before this; `certain` if no refund and no shorter queue can make it earlier.
    Wait {
        until: Tick,
        certain: bool,
    },
    /// Others are before it.
    Behind,
}

impl Turns {
    /// An account that has spent nothing yet.
    pub fn new(limits: Vec<Limit>, quota: &Quota) -> Arc<Self> {
        let epoch = Instant::now();
        Arc::new(Self {
            pace: Pace::bearable(&limits, quota.queue_timeout, epoch),
            queue_timeout: quota.queue_timeout,
            epoch,
            state: Mutex::new(State {
                ledger: Ledger::new(limits.clone()),
                closed_until: Tick::ZERO,
                queue: BTreeMap::new(),
                next_ticket: 0,
            }),
            limits,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Tick {
        self.epoch.elapsed()
    }

    /// Waits for a turn, at most `queue_timeout`.
    ///
    /// # Errors
    /// [`Exhausted`] when the deadline has come, or at once when it is certain that the turn lies behind it.
    pub async fn take(self: &Arc<Self>) -> Result<Turn, Exhausted> {
        let deadline = self.now() + self.queue_timeout;
        let place = Place::join(self);
        loop {
            let (next, now) = self.next_for(&place);
            let until = match next {
                Next::Go => return Ok(Turn { turns: self.clone(), open: true }),
                Next::Wait { until, certain } if certain && until > deadline => {
                    return Err(Exhausted { retry_after: until.saturating_sub(now) });
                }
                Next::Wait { until, .. } => until.min(deadline),
                Next::Behind => deadline,
            };
            if now >= deadline {
                return Err(Exhausted { retry_after: self.estimate(&place, now) });
            }
            tokio::select! {
                () = tokio::time::sleep_until(self.epoch + until) => {}
                () = place.called.notified() => {}
            }
        }
    }

    fn next_for(&self, place: &Place<'_>) -> (Next, Tick) {
        let mut state = self.lock();
        let now = self.now();
        if state.queue.keys().next() != Some(&place.ticket) {
            // Whoever is first cannot go before this either.
            let closed = state.closed_until;
            return (if closed > now { Next::Wait { until: closed, certain: true } } else { Next::Behind }, now);
        }
        let free = state.ledger.free_at(now, 0, 0.0);
        let until = free.max(state.closed_until);
        if until > now {
            let certain = state.ledger.is_exact(now) || until == state.closed_until;
            return (Next::Wait { until, certain }, now);
        }
        if let Some(Err(paced)) = self.pace.as_ref().map(|pace| pace.admit(now)) {
            return (Next::Wait { until: paced, certain: false }, now);
        }
        state.ledger.begin();
        state.queue.remove(&place.ticket);
        state.wake_first();
        (Next::Go, now)
    }

    /// When a turn could come for one who gives up now.
    fn estimate(&self, place: &Place<'_>, now: Tick) -> Duration {
        let state = self.lock();
        let ahead = state.queue.range(..place.ticket).count();
        let free = state.ledger.free_at(now, u32::try_from(ahead).unwrap_or(u32::MAX), 0.0).max(state.closed_until);
        // Those ahead go at the pace of the shortest limit even where the ledger has room.
        let paced = self.limits.iter().map(|limit| limit.per / limit.requests).min().unwrap_or_default();
        free.saturating_sub(now).max(paced * u32::try_from(ahead).unwrap_or(u32::MAX))
    }

    /// The upstream said that the quota is spent: nobody calls until it can have cleared.
    pub fn close(&self, limit: SpentLimit, retry_after: Option<Duration>) -> Duration {
        let lengths = self.limits.iter().map(|limit| limit.per);
        let window = match limit {
            SpentLimit::Hour => lengths.max(),
            SpentLimit::Minute | SpentLimit::Unnamed => lengths.min(),
        };
        let closed_for = retry_after.or(window).unwrap_or_default();
        let mut state = self.lock();
        state.closed_until = state.closed_until.max(self.now() + closed_for);
        // All who wait look again: for some the deadline now lies before the turn.
        state.queue.values().for_each(|waiting| waiting.notify_one());
        closed_for
    }

    /// What each limit leaves now; nothing while the account is closed.
    pub fn remaining(&self) -> Vec<(Limit, u32)> {
        let state = self.lock();
        let now = self.now();
        let closed = state.closed_until > now;
        state.ledger.remaining(now).map(|of| (of.limit, if closed { 0 } else { of.left })).collect()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lock().queue.len()
    }
}

/// A place in the queue; given back when dropped, by one who gives up or hangs up.
struct Place<'a> {
    turns: &'a Turns,
    ticket: u64,
    called: Arc<Notify>,
}

impl<'a> Place<'a> {
    fn join(turns: &'a Turns) -> Self {
        let called = Arc::new(Notify::new());
        let mut state = turns.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queue.insert(ticket, called.clone());
        Self { turns, ticket, called }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        if state.queue.remove(&self.ticket).is_some() {
            state.wake_first();
        }
    }
}

/// The right to make one call. Dropped at any time, it counts as spent: the call may have reached the upstream.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    open: bool,
}

impl Turn {
    /// The call never reached the upstream.
    pub fn refund(mut self) {
        self.open = false;
        let mut state = self.turns.lock();
        state.ledger.refund();
        state.wake_first();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.open {
            let now = self.turns.now();
            let mut state = self.turns.lock();
            state.ledger.end(now, &"".into());
            state.wake_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(limits: &[(u32, u64)], queue_seconds: u64) -> Arc<Turns> {
        let limits = limits.iter().map(|(requests, per)| Limit { requests: *requests, per: Duration::from_secs(*per) });
        let queue_timeout = Duration::from_secs(queue_seconds);
        let quota = Quota { queue_timeout, interactive_reserve: 0.0, state_file: None };
        Turns::new(limits.collect(), &quota)
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_run_never_waits_longer_than_the_queue_allows() {
        let turns = turns(&[(60, 60), (1800, 3600)], 30);
        let begun = Instant::now();
        for _ in 0..600 {
            let turn = turns.take().await.expect("paced");
            tokio::time::sleep(Duration::from_millis(150)).await;
            drop(turn);
        }
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        assert!(600.0 / 60.0 / minutes >= 0.95, "{minutes} minutes for 600 calls");
    }

    /// One call a minute on the average, and a queue in which nobody waits for a minute.
    #[tokio::test(start_paused = true)]
    async fn a_slow_limit_is_not_paced() {
        let turns = turns(&[(60, 3600)], 30);
        for _ in 0..60 {
            drop(turns.take().await.expect("there is quota left"));
        }
        assert!(turns.take().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_spent_hour_is_said_at_once() {
        let turns = turns(&[(100, 60), (2, 3600)], 30);
        drop(turns.take().await.unwrap());
        drop(turns.take().await.unwrap());
        let begun = Instant::now();
        let exhausted = turns.take().await.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(exhausted.retry_after > Duration::from_secs(3590), "{exhausted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_account_is_left_alone_until_it_opens() {
        let turns = turns(&[(60, 60)], 30);
        turns.close(SpentLimit::Unnamed, Some(Duration::from_secs(7)));
        let begun = Instant::now();
        drop(turns.take().await.unwrap());
        assert_eq!(begun.elapsed(), Duration::from_secs(7));
        assert_eq!(turns.close(SpentLimit::Minute, None), Duration::from_mins(1));
        assert!(turns.take().await.unwrap_err().retry_after > Duration::from_secs(59));
        assert_eq!(turns.remaining()[0].1, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_hangs_up_gives_its_place_back() {
        let turns = turns(&[(1, 10)], 60);
        let first = turns.take().await.unwrap();
        let (second, third) = (
            tokio::spawn({
                let t = turns.clone();
                async move { t.take().await }
            }),
            tokio::spawn({
                let t = turns.clone();
                async move { t.take().await }
            }),
        );
        tokio::task::yield_now().await;
        assert_eq!(turns.waiting(), 2);
        second.abort();
        drop(first);
        assert!(third.await.unwrap().is_ok());
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_left_costs_nothing() {
        let turns = turns(&[(1, 10)], 60);
        for _ in 0..5 {
            turns.take().await.unwrap().refund();
        }
        assert_eq!(turns.remaining()[0].1, 1);
    }
}
