//! The runs under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::handles::CacheHandles;
use crate::cache::series::InFlightFetch;
use crate::paging::{RunPhase, RunStatus};
use crate::request::Priority;
use crate::upstream::PAGE_LIMIT;
use crate::window::Interval;

/// A run under way.
#[derive(Clone, Debug, PartialEq)]
pub struct RunView {
    /// Kore's account.
    pub account: Arc<str>,
    /// Kore's stream.
    pub stream: Arc<str>,
    /// The time that the run fetches.
    pub interval: Interval,
    /// Time since its start.
    pub age: Duration,
    /// Number of pages fetched.
    pub pages: u32,
    /// Number of pages that are expected; `None` while nothing is known.
    pub expected_pages: Option<u32>,
    /// Time until the quota lets the run go on; `None` if it is not paused.
    pub paused_for: Option<Duration>,
    /// The most urgent priority of the requests that wait for it.
    pub priority: Priority,
    /// The caller that caused it.
    pub caller: Arc<str>,
    /// Whether another replica makes its calls.
    pub is_remote: bool,
}

impl CacheHandles {
    /// The runs under way, the oldest first, at most `max_runs`, and how many there are.
    pub fn runs(&self, max_runs: usize) -> (Vec<RunView>, usize) {
        let mut runs = Vec::new();
        let now = Instant::now();
        for (account, stream, _, state) in self.series_map.all_series() {
            let in_flight = state.lock().in_flight.clone();
            runs.extend(in_flight.iter().map(|fetch| RunView::of(&account, &stream, fetch, now)));
        }
        runs.sort_by_key(|run| std::cmp::Reverse(run.age));
        let total = runs.len();
        runs.truncate(max_runs);
        (runs, total)
    }
}

impl RunView {
    fn of(account: &Arc<str>, stream: &Arc<str>, fetch: &InFlightFetch, now: Instant) -> Self {
        let RunStatus { interval, phase, pages, expected, .. } = fetch.status().borrow().clone();
        let paused_for = match phase {
            RunPhase::Fetching => None,
            RunPhase::Paused { until, .. } | RunPhase::CallersSpent { until, .. } => {
                Some(until.saturating_duration_since(now))
            }
        };
        Self {
            account: account.clone(),
            stream: stream.clone(),
            interval,
            age: now.saturating_duration_since(fetch.started_at()),
            pages,
            expected_pages: expected.map(expected_pages),
            paused_for,
            priority: fetch.waiters.priority(),
            caller: fetch.waiters.cause().caller.clone(),
            is_remote: fetch.is_remote(),
        }
    }
}

/// The number of pages of so many items; at least one, because an empty page is fetched too.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn expected_pages(items: f64) -> u32 {
    (items / f64::from(PAGE_LIMIT)).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_pages_are_at_least_one() {
        assert_eq!([0.0, 1.0, 100.0, 101.0, f64::INFINITY].map(expected_pages), [1, 1, 1, 2, u32::MAX]);
    }
}
