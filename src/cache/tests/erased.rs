//! Erasures: purges of the chunks that hold ids.

use super::harness::*;
use crate::cache::*;
use crate::request::{IdKind, Priority, Series};

/// Seconds from a day that has settled.
const OLD: i64 = -100_000;
const HOUR: i64 = 3_600;

impl TestHarness {
    /// Erases the items of these seconds, whose `segmentID` is the second. `within` restricts the erasure to an interval.
    async fn erase(&self, seconds: &[i64], within: Option<(i64, i64)>) -> PurgeResult {
        let ids = seconds.iter().map(|second| IdKind::Segment.hash(&(OLD + second).to_string())).collect();
        let interval = within.map_or(crate::window::Interval::EVER, |(start, end)| interval(OLD + start, OLD + end));
        self.stage.0.purges.purge(Purge { account: "a".into(), stream: None, interval, ids: Some(ids) }).await
    }

    /// Requests a window, lets all of its runs succeed, and returns the time that they have fetched; `None` for a hit.
    async fn get(&mut self, series: &Series, (start, end): (i64, i64)) -> Option<(i64, i64)> {
        let pending = self.request_series(series.clone(), OLD + start, OLD + end, Priority::Interactive).await;
        let mut fetched: Option<(i64, i64)> = None;
        while !pending.is_finished() {
            let run = self.next_run().await;
            let (from, to) = run.interval();
            fetched = Some((fetched.map_or(from - OLD, |(first, _)| first), to - OLD));
            run.succeed();
            settle().await;
        }
        let answer = answered(pending).await;
        assert_whole(&answer, OLD + start, OLD + end);
        assert_eq!(fetched.is_none(), answer.outcome == Outcome::Hit);
        fetched
    }
}

#[tokio::test(start_paused = true)]
async fn erasure_removes_only_chunks_that_hold_an_id() {
    let mut harness = TestHarness::new();
    let windows = [(0, 100), (HOUR, HOUR + 100), (2 * HOUR, 2 * HOUR + 100)];
    let filtered = Series { parameters: vec![("x".into(), "1".into())], ..series() };
    for series in [series(), filtered.clone()] {
        for window in windows {
            assert_eq!(harness.get(&series, window).await, Some(window));
        }
    }
    // In the first and the second window of both series, and in no window.
    let seconds = [5, HOUR + 99, 2 * HOUR + 100];
    assert_eq!(harness.erase(&seconds, None).await.memory_chunks, 4);
    for series in [series(), filtered] {
        assert_eq!(harness.get(&series, windows[2]).await, None);
        for window in &windows[..2] {
            assert_eq!(harness.get(&series, *window).await, Some(*window));
            assert_eq!(harness.get(&series, *window).await, None, "what was fetched after it is kept");
        }
    }
    assert_eq!(harness.erase(&seconds, None).await.memory_chunks, 4, "Kore has returned them again");
}

#[tokio::test(start_paused = true)]
async fn erasure_with_interval_leaves_chunks_outside() {
    let mut harness = TestHarness::new();
    let all = (0, 2 * HOUR);
    assert_eq!(harness.get(&series(), all).await, Some(all));
    assert_eq!(harness.erase(&[5, HOUR + 5], Some((HOUR, 2 * HOUR))).await.memory_chunks, 1);
    assert_eq!(harness.get(&series(), all).await, Some((HOUR, 2 * HOUR)));
}

#[tokio::test(start_paused = true)]
async fn fetch_in_flight_during_erasure_stores_only_other_chunks() {
    let mut harness = TestHarness::new();
    let before = harness.request(OLD, OLD + 2 * HOUR, Priority::Interactive).await;
    let old = harness.next_run().await;
    old.call();
    assert_eq!(harness.erase(&[5], None).await.memory_chunks, 0);
    let after = harness.request(OLD, OLD + 2 * HOUR, Priority::Interactive).await;
    let new = harness.next_run().await;
    old.succeed();
    assert_whole(&answered(before).await, OLD, OLD + 2 * HOUR);
    // The first hour, which holds the item, was not stored.
    assert_eq!(harness.get(&series(), (HOUR, 2 * HOUR)).await, None);
    settle().await;
    assert!(!after.is_finished(), "the request waits for the later fetch");
    new.succeed();
    assert_whole(&answered(after).await, OLD, OLD + 2 * HOUR);
    assert_eq!(harness.get(&series(), (0, 2 * HOUR)).await, None);
}

#[tokio::test(start_paused = true)]
async fn erasure_removes_windows_that_are_not_cut() {
    let mut harness = TestHarness::new();
    let scope = harness.stage.0.settings.field_scope(&series());
    harness.stage.0.window_fields.mark_wrong_elsewhere(&scope);
    assert_eq!(harness.get(&series(), (0, 100)).await, Some((0, 100)));
    assert_eq!(harness.get(&series(), (100, 200)).await, Some((100, 200)));
    assert_eq!(harness.erase(&[150], None).await.memory_chunks, 1);
    assert_eq!(harness.get(&series(), (0, 100)).await, None);
    assert_eq!(harness.get(&series(), (100, 200)).await, Some((100, 200)));
}
