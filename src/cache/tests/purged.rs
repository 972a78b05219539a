//! Purges while fetches are in flight.

use super::*;

/// The first second of an hour that has settled.
const OLD: i64 = -100_000;

impl TestHarness {
    async fn purge(&self, stream: Option<&str>, start: i64, end: i64) -> PurgeResult {
        let (account, stream) = ("a".into(), stream.map(Into::into));
        self.stage
            .0
            .purges
            .purge(Purge { account, stream, interval: interval(OLD + start, OLD + end), ids: None })
            .await
    }

    async fn request_old(&self, start: i64, end: i64) -> PendingAnswer {
        self.request(OLD + start, OLD + end, Priority::Interactive).await
    }

    /// Requests a window and lets its one run succeed.
    async fn fill(&mut self, series: &Series, start: i64, end: i64) {
        let pending = self.request_series(series.clone(), OLD + start, OLD + end, Priority::Interactive).await;
        self.next_run().await.succeed();
        answered(pending).await;
    }

    /// Requests a window that must be cached.
    async fn assert_hit(&mut self, series: &Series, start: i64, end: i64) {
        let answer =
            answered(self.request_series(series.clone(), OLD + start, OLD + end, Priority::Interactive).await).await;
        assert_eq!(answer.outcome, Outcome::Hit);
        assert_old(&answer, start, end);
    }
}

impl TestRun {
    /// The interval in seconds after [`OLD`].
    fn old_interval(&self) -> (i64, i64) {
        let (start, end) = self.interval();
        (start - OLD, end - OLD)
    }
}

#[track_caller]
fn assert_old(answer: &WindowAnswer, start: i64, end: i64) {
    assert_whole(answer, OLD + start, OLD + end);
}

#[tokio::test(start_paused = true)]
async fn fetch_in_flight_during_purge_serves_earlier_requests_only() {
    let mut harness = TestHarness::new();
    let before = harness.request_old(0, 100).await;
    let old = harness.next_run().await;
    old.call();
    let purged = harness.purge(None, 50, 60).await;
    assert_eq!((purged.memory_chunks, purged.delivery), (0, None));
    let after = harness.request_old(0, 100).await;
    let new = harness.next_run().await;
    assert_eq!(new.old_interval(), (0, 100));
    old.succeed();
    let answer = answered(before).await;
    assert_old(&answer, 0, 100);
    assert!(answer.items.slices.iter().all(|slice| slice.chunk.epoch() < purged.epoch));
    settle().await;
    assert!(!after.is_finished(), "the request waits for the later fetch");
    assert_eq!(harness.stage.0.memory.bytes(), 0, "nothing of it is stored");
    new.succeed();
    let answer = answered(after).await;
    assert!(answer.items.slices.iter().all(|slice| slice.chunk.epoch() == purged.epoch));
    harness.assert_hit(&series(), 0, 100).await;
    harness.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn purge_during_a_run_leaves_other_chunks() {
    let mut harness = TestHarness::new();
    let hour = 3_600;
    let before = harness.request_old(0, 2 * hour).await;
    let run = harness.next_run().await;
    run.call();
    assert_eq!(harness.purge(None, 10, 20).await.memory_chunks, 0);
    let (_, end) = run.interval();
    run.succeed_up_to(end);
    assert_old(&answered(before).await, 0, 2 * hour);
    let next = harness.request_old(0, 2 * hour).await;
    let run = harness.next_run().await;
    assert!(run.old_interval().0 == 0 && run.old_interval().1 < 2 * hour, "{:?}", run.old_interval());
    run.succeed();
    assert_old(&answered(next).await, 0, 2 * hour);
    harness.assert_hit(&series(), 0, 2 * hour).await;
    harness.assert_no_run().await;
}

#[tokio::test(start_paused = true)]
async fn batch_pending_during_purge_is_fetched_after_it() {
    let mut harness = TestHarness::new();
    let waits = harness.request_old(0, 100).await;
    harness.purge(None, 0, 100).await;
    harness.next_run().await.succeed();
    assert_old(&answered(waits).await, 0, 100);
    harness.assert_hit(&series(), 0, 100).await;
}

#[tokio::test(start_paused = true)]
async fn purge_of_a_stream_removes_all_its_series_only() {
    let mut harness = TestHarness::new();
    let filter = Filter::parse(&Bytes::from_static(br#"{"channels":["voice"]}"#)).unwrap();
    let opaque = Filter::parse(&Bytes::from_static(br#"{"other":1}"#)).unwrap();
    let mine = [
        Series { filter, ..series() },
        Series { filter: opaque, ..series() },
        Series { agentic: true, parameters: vec![("x".into(), "1".into())], ..series() },
        series(),
    ];
    let other = Series { stream: "other".into(), ..series() };
    let elsewhere = Series { account: "b".into(), ..series() };
    for series in mine.iter().chain([&other, &elsewhere]) {
        harness.fill(series, 0, 100).await;
    }
    let first = harness.purge(Some("s"), 99, 100).await;
    assert_eq!(first.memory_chunks, mine.len());
    let again = harness.purge(Some("s"), 99, 100).await;
    assert!(again.memory_chunks == 0 && again.epoch > first.epoch, "{again:?}");
    for series in [&other, &elsewhere] {
        harness.assert_hit(series, 0, 100).await;
    }
    for series in &mine {
        harness.fill(series, 0, 100).await;
        harness.assert_hit(series, 0, 100).await;
    }
    assert_eq!(harness.purge(None, -1, 1).await.memory_chunks, mine.len() + 1, "a purge of all streams");
    harness.assert_hit(&elsewhere, 0, 100).await;
}

#[tokio::test(start_paused = true)]
async fn purge_removes_only_overlapping_chunks() {
    const HOUR: i64 = 3_600;
    let mut harness = TestHarness::new();
    harness.fill(&series(), 0, 3 * HOUR).await;
    assert_eq!(harness.purge(None, HOUR + 10, HOUR + 11).await.memory_chunks, 1);
    assert_eq!(harness.purge(None, 3 * HOUR, 4 * HOUR).await.memory_chunks, 0, "the chunk ends where the purge begins");
    let pending = harness.request_old(0, 3 * HOUR).await;
    let run = harness.next_run().await;
    assert_eq!(run.old_interval(), (HOUR, 2 * HOUR));
    run.succeed();
    assert_old(&answered(pending).await, 0, 3 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn purge_removes_uncut_windows_as_a_whole() {
    let mut harness = TestHarness::new();
    let fetcher = &harness.stage.0;
    fetcher.window_fields.mark_wrong_elsewhere(&fetcher.settings.field_scope(&series()));
    harness.fill(&series(), 0, 100).await;
    harness.assert_hit(&series(), 0, 100).await;
    let before = harness.request_old(0, 200).await;
    let old = harness.next_run().await;
    old.call();
    assert_eq!(harness.purge(None, 20, 30).await.memory_chunks, 1);
    let after = harness.request_old(0, 200).await;
    let new = harness.next_run().await;
    old.succeed();
    assert_old(&answered(before).await, 0, 200);
    assert_eq!(harness.stage.0.memory.bytes(), 0);
    new.succeed();
    assert_old(&answered(after).await, 0, 200);
    harness.assert_hit(&series(), 0, 200).await;
    harness.fill(&series(), 0, 100).await;
}
