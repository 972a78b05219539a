//! Items that do not lie where they were requested.

use super::*;
use crate::paging::{OutsideItem, PlacementCheck};
use crate::window::FreshnessDemand;

/// A second of settled time.
const OLD: i64 = -90_000;

/// The item of this second, in another window.
fn misplaced(second: i64) -> PagingError {
    PagingError::OutsideInterval(OutsideItem { at: at(second), id: second.to_string().into() })
}

impl TestRun {
    fn is_cut(&self) -> bool {
        self.run.placement == PlacementCheck::Checked
    }

    /// Makes one call, and fails.
    fn fail(self, error: PagingError) {
        self.call();
        self.finish(Err(error));
    }

    /// Makes one call, and succeeds without items.
    fn succeed_without_items(self) {
        self.call();
        let (start, _) = self.interval();
        self.end_empty(start);
    }

    fn end_empty(self, start: i64) {
        let interval = interval(start, self.interval().1);
        let packed = self.run.packer.pack(RunPart { interval, items: Vec::new(), fetched_at: at(5_000) });
        self.finish(Ok(FetchedRun { interval, packed, order: RowOrder::Unknown, halved: false }));
    }
}

impl TestHarness {
    /// Requests an old window whose run fails with `error`. Returns the runs that follow: that of the uncut window, and
    /// that of the second that the item names, if a field check is made.
    async fn fail(&mut self, start: i64, error: PagingError) -> (PendingAnswer, TestRun, Option<TestRun>) {
        let pending = self.request(start, start + 100, Priority::Interactive).await;
        let run = self.next_run().await;
        assert!(run.is_cut());
        run.fail(error);
        settle().await;
        let (mut whole, mut second) = (None, None);
        while let Ok(run) = self.runs.try_recv() {
            assert!(!run.is_cut(), "{:?}", run.interval());
            let slot = if run.interval().1 - run.interval().0 == 1 { &mut second } else { &mut whole };
            *slot = Some(run);
        }
        (pending, whole.expect("a run of the uncut window"), second)
    }

    /// Requests an old window; returns whether it is fetched to be cut.
    async fn is_cut(&mut self, start: i64) -> bool {
        let pending = self.request(start, start + 100, Priority::Interactive).await;
        let run = self.next_run().await;
        let is_cut = run.is_cut();
        run.succeed();
        assert_whole(&answered(pending).await, start, start + 100);
        settle().await;
        is_cut
    }
}

#[tokio::test(start_paused = true)]
async fn item_found_in_its_second_affects_only_its_window() {
    let mut harness = TestHarness::new();
    assert!(harness.is_cut(OLD).await);
    let (pending, whole, second) = harness.fail(OLD + 1_000, misplaced(77)).await;
    let second = second.expect("a field check");
    assert_eq!(second.interval(), (77, 78));
    let waits = harness.request(OLD + 2_000, OLD + 2_100, Priority::Interactive).await;
    harness.assert_no_run().await;
    assert!(!waits.is_finished(), "a window to be cut waits for the field check");
    second.succeed();
    let run = harness.next_run().await;
    assert!(run.is_cut());
    run.succeed();
    assert_whole(&answered(waits).await, OLD + 2_000, OLD + 2_100);
    whole.succeed();
    assert_whole(&answered(pending).await, OLD + 1_000, OLD + 1_100);

    // The same window is cached, and a window that overlaps it is fetched exactly at once.
    assert_whole(
        &answered(harness.request(OLD + 1_000, OLD + 1_100, Priority::Interactive).await).await,
        OLD + 1_000,
        OLD + 1_100,
    );
    assert!(!harness.is_cut(OLD + 1_050).await);
    // The same item in another window starts no check, and delays no request.
    let (pending, whole, second) = harness.fail(OLD + 3_000, misplaced(77)).await;
    assert!(second.is_none() && harness.is_cut(OLD + 4_000).await);
    whole.succeed();
    answered(pending).await;
    let hit = answered(harness.request(OLD, OLD + 100, Priority::Interactive).await).await;
    assert_eq!(hit.outcome, Outcome::Hit, "what was cut before stays");
    harness.assert_no_run().await;
}

#[tokio::test(start_paused = true)]
async fn missing_item_makes_field_wrong_until_others_are_found() {
    let mut harness = TestHarness::new();
    assert!(harness.is_cut(OLD).await);
    let (pending, whole, second) = harness.fail(OLD + 1_000, misplaced(77)).await;
    let cut_meanwhile = harness.request(OLD + 2_000, OLD + 2_100, Priority::Interactive).await;
    second.expect("a field check").succeed_without_items();
    let run = harness.next_run().await;
    assert!(!run.is_cut(), "nothing is cut any more");
    run.succeed();
    answered(cut_meanwhile).await;
    whole.succeed();
    answered(pending).await;
    assert_eq!(harness.stage.0.window_fields.wrong_fields().len(), 1);
    assert!(!harness.is_cut(OLD).await, "what was cut is removed");

    // Later, an item of each uncut window is checked; one that is missing confirms the result.
    tokio::time::advance(Duration::from_mins(1)).await;
    assert!(!harness.is_cut(OLD + 5_000).await);
    harness.next_run().await.succeed_without_items();
    settle().await;
    assert_eq!(harness.stage.0.window_fields.wrong_fields().len(), 1);
    tokio::time::advance(Duration::from_mins(1)).await;
    for window in 0..3 {
        assert!(!harness.is_cut(OLD + 6_000 + 200 * window).await);
        let second = harness.next_run().await;
        assert_eq!(second.interval().1 - second.interval().0, 1);
        second.succeed();
        settle().await;
    }
    assert!(harness.stage.0.window_fields.wrong_fields().is_empty());
    assert!(harness.is_cut(OLD + 7_000).await);
    // The item of the first check is not checked again.
    let (_, _, second) = harness.fail(OLD + 8_000, misplaced(77)).await;
    assert!(second.is_none() && harness.stage.0.window_fields.wrong_fields().is_empty());
}

#[tokio::test(start_paused = true)]
async fn operator_clears_a_wrong_field() {
    let mut harness = TestHarness::new();
    let (.., second) = harness.fail(OLD, misplaced(77)).await;
    second.expect("a field check").succeed_without_items();
    settle().await;
    assert!(!harness.is_cut(OLD + 1_000).await);
    assert!(harness.stage.0.window_fields.clear(&"a".into()));
    assert!(harness.is_cut(OLD + 2_000).await);
}

#[tokio::test(start_paused = true)]
async fn series_with_shifted_windows_affects_only_itself() {
    let mut harness = TestHarness::new();
    let shifting = Series { parameters: vec![("tz".to_owned(), "-5".to_owned())], ..series() };
    for error in [misplaced(77), PagingError::AllWithoutTimestamp] {
        assert!(harness.is_cut(OLD).await);
        let pending = harness.request_series(shifting.clone(), OLD, OLD + 100, Priority::Interactive).await;
        let run = harness.next_run().await;
        if run.is_cut() {
            run.fail(error);
            let whole = harness.next_run().await;
            assert!(!whole.is_cut());
            whole.succeed();
        } else {
            run.succeed();
        }
        assert_whole(&answered(pending).await, OLD, OLD + 100);
        harness.assert_no_run().await;
        let pending = harness.request_series(shifting.clone(), OLD + 9_000, OLD + 9_100, Priority::Interactive).await;
        let elsewhere = harness.next_run().await;
        assert!(!elsewhere.is_cut(), "any window of the series may be shifted");
        elsewhere.succeed();
        answered(pending).await;
        assert!(harness.stage.0.window_fields.wrong_fields().is_empty());
        harness = TestHarness::new();
    }
}

#[tokio::test(start_paused = true)]
async fn windows_without_timestamps_make_field_wrong_unless_others_had() {
    for (some_were_placed, wrong) in [(false, 1), (true, 0)] {
        let mut harness = TestHarness::new();
        if some_were_placed {
            assert!(harness.is_cut(OLD).await);
        }
        for window in 1..=3 {
            assert!(harness.stage.0.window_fields.wrong_fields().is_empty(), "too few windows to decide");
            let (pending, whole, second) = harness.fail(OLD + 1_000 * window, PagingError::AllWithoutTimestamp).await;
            assert!(second.is_none());
            whole.succeed();
            answered(pending).await;
        }
        assert_eq!(harness.stage.0.window_fields.wrong_fields().len(), wrong);
        assert_eq!(harness.is_cut(OLD + 9_000).await, wrong == 0);
    }
}

#[tokio::test(start_paused = true)]
async fn uncut_window_that_is_shared_and_too_old_is_fetched_again() {
    let mut harness = TestHarness::with_tier(Duration::from_hours(24), Duration::from_secs(30));
    let (first, run, _) = harness.fail(0, misplaced(500)).await;
    let soon = harness.request_at(5_030, (0, 100), FreshnessDemand::POLICY).await;
    let late = harness.request_at(5_031, (0, 100), FreshnessDemand::POLICY).await;
    harness.assert_no_run().await;
    run.succeed();
    assert_whole(&answered(first).await, 0, 100);
    assert_whole(&answered(soon).await, 0, 100);
    let again = harness.next_run().await;
    assert!(!again.is_cut());
    again.succeed();
    assert_whole(&answered(late).await, 0, 100);
    harness.assert_no_run().await;
}
