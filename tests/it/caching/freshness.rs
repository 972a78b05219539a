//! Open windows: when each part is fetched again, and when it settles.

use std::time::Duration;

use crate::support::{
    DAY, HOUR, ItemFilter, QueryBound, STREAM, Settings, TestHarness, UpperBound, Window, assert_items, assert_pages,
    at, exact_profile, pages_of, profile,
};

/// The first and the last second of all upstream calls since the last reset.
fn requested_interval(harness: &TestHarness) -> Option<(String, String)> {
    let calls = harness.control.calls();
    let from = calls.iter().filter_map(|call| call.query.from.clone()).min()?;
    Some((from, calls.iter().filter_map(|call| call.query.to.clone()).max()?))
}

/// Asserts that the window has the upstream's items of now.
async fn assert_current(harness: &TestHarness, window: &Window) {
    harness.get(&window.query).await.assert_complete(&harness.window_items(window), &window.query);
}

#[tokio::test]
async fn open_window_is_refetched_by_freshness_tier() {
    let now = at("2026-02-25T12:00:00Z");
    let harness = TestHarness::start_exact(480, 5).await;
    // From 16:00 yesterday to now: a fixed window, of which nothing has settled.
    let window = Window::seconds(now - HOUR * 20, now - Duration::from_secs(1), UpperBound::Inclusive);
    for (after, expected) in [
        (0, Some(("2026-02-24-16:00:00", "2026-02-25-11:59:59"))),
        // Data younger than an hour may be thirty seconds old.
        (30, None),
        (31, Some(("2026-02-25-11:00:31", "2026-02-25-11:59:59"))),
        (61, None),
        (62, Some(("2026-02-25-11:01:02", "2026-02-25-11:59:59"))),
        (300, Some(("2026-02-25-11:05:00", "2026-02-25-11:59:59"))),
        // Data younger than six hours may be five minutes old; the last hour has just been fetched.
        (301, Some(("2026-02-25-06:05:01", "2026-02-25-11:00:31"))),
        // All other data may be an hour old.
        (3_601, Some(("2026-02-24-16:00:00", "2026-02-25-11:59:59"))),
        // The window has settled since, so it is fetched one last time.
        (2 * 86_400, Some(("2026-02-24-16:00:00", "2026-02-25-12:00:00"))),
        (2 * 86_400 + 3_601, None),
        (365 * 86_400, None),
    ] {
        harness.clock.set(now + Duration::from_secs(after));
        harness.control.reset_counts();
        assert_current(&harness, &window).await;
        let expected = expected.map(|(from, to): (&str, &str)| (from.to_owned(), to.to_owned()));
        assert_eq!(requested_interval(&harness), expected, "after {after} s");
    }
}

/// While the boundary between settled and open data moves through a window, only the interval that it has passed is
/// fetched again.
#[tokio::test]
async fn settling_boundary_refetches_only_what_it_passed() {
    let now = at("2026-02-25T12:00:00Z");
    let harness = TestHarness::start_exact(480, 5).await;
    let window = Window::seconds(now - DAY * 2, now - HOUR * 20, UpperBound::Inclusive);
    for (after, expected) in [
        (0, Some(("2026-02-23-12:00:00", "2026-02-24-16:00:00"))),
        (0, None),
        (30, Some(("2026-02-24-12:00:00", "2026-02-24-12:00:30"))),
        (30, None),
        (600, Some(("2026-02-24-12:00:30", "2026-02-24-12:10:00"))),
    ] {
        harness.clock.set(now + Duration::from_secs(after));
        harness.control.reset_counts();
        assert_current(&harness, &window).await;
        let expected = expected.map(|(from, to): (&str, &str)| (from.to_owned(), to.to_owned()));
        assert_eq!(requested_interval(&harness), expected, "after {after} s");
    }
}

/// A polled window consists of copies of many ages; refetching each copy by itself would cost a call for each.
#[tokio::test]
async fn polled_week_is_refetched_in_few_calls() {
    let harness = TestHarness::start(profile(1_700, 9), &Settings::default()).await;
    for poll in 0..100 {
        let now = at("2026-02-25T03:00:00Z") + Duration::from_mins(5) * poll;
        harness.clock.set(now);
        harness.control.reset_counts();
        let week = Window::seconds(now - DAY * 7, now, UpperBound::Inclusive);
        harness.get(format!("{}&limit=1", week.query)).await.page();
        // Data that has settled since the last poll is a run of its own, far from the open data.
        let settling = QueryBound::Second(now - DAY).to_string();
        let calls = harness.control.calls();
        let open: Vec<_> =
            calls.iter().filter(|call| call.query.to.as_ref().is_some_and(|to| *to > settling)).collect();
        let first = open
            .iter()
            .filter_map(|call| QueryBound::parse(call.query.from.as_ref()?))
            .map(QueryBound::start)
            .min()
            .unwrap();
        let items = harness.items(first, now).len();
        assert!(open.len() as u64 <= pages_of(items) + 1, "{now}: {} calls for {items} items", open.len());
    }
}

/// An item that changes until it settles is served as last fetched, and kept as it was when it settled.
#[tokio::test]
async fn settling_item_is_refetched_once_then_kept() {
    let harness = TestHarness::start_exact(300, 4).await;
    let window = Window::seconds(at("2026-02-25T06:00:00Z"), at("2026-02-25T08:00:00Z"), UpperBound::Inclusive);
    assert_current(&harness, &window).await;
    let before = harness.items(window.from, window.end);
    let (id, _) =
        harness.control.expected_until(STREAM, window.from, window.end, false, &ItemFilter::default()).remove(0);
    assert!(harness.control.touch(STREAM, &id));
    assert_items(&harness.get(&window.query).await.page(), &before, "still fresh");
    harness.advance(DAY);
    assert_current(&harness, &window).await;
    // Changes after the window has settled are not fetched.
    let settled: Vec<Vec<u8>> = harness.items(window.from, window.end);
    assert!(settled != before && harness.control.touch(STREAM, &id));
    harness.advance(DAY * 99);
    assert_items(&harness.get(&window.query).await.page(), &settled, "settled");
}

/// A new item appears once the cached copy is stale; until then `Age` says how old the copy is.
#[tokio::test]
async fn growing_window_stale_hour_is_refetched() {
    let harness = TestHarness::start_exact(1_700, 4).await;
    let begin = at("2026-02-25T10:00:00Z");
    let today = Window::days("2026-02-25", "2026-02-25");
    harness.clock.set(begin);
    assert_pages(&harness, &today, 10_000).await;
    let before = harness.items(today.from, begin);
    harness.control.insert(STREAM, begin + Duration::from_secs(10)).unwrap();
    for (after, age) in [(20, "20"), (30, "30")] {
        harness.clock.set(begin + Duration::from_secs(after));
        harness.control.reset_counts();
        let response = harness.get(&today.query).await;
        assert_items(&response.page(), &before, "while the copy is fresh");
        assert_eq!((harness.calls(), response.header("age")), (0, Some(age)));
    }
    let now = begin + Duration::from_secs(31);
    harness.clock.set(now);
    harness.control.reset_counts();
    assert_pages(&harness, &today, 10_000).await;
    assert_eq!(harness.calls(), pages_of(harness.items(now - HOUR, now).len()), "the last hour with the new item");
}

#[tokio::test]
async fn settle_after_that_is_raised_holds_for_what_is_cached() {
    let (settle, empty_day) = (
        |hours| Settings::default().section("window", &format!("settle_after = '{hours}h'")),
        "from=2026-02-24&to=2026-02-24",
    );
    let harness = TestHarness::start(exact_profile(0, 4), &settle(1)).await;
    harness.get(empty_day).await.page();
    harness.get(empty_day).await.assert_hit();
    assert!(harness.control.insert(STREAM, at("2026-02-24T10:00:00Z")).is_some());
    assert!(harness.reload(&settle(48)).await);
    harness.advance(Duration::from_hours(2));
    let answer = harness.get(empty_day).await;
    answer.assert_complete(&harness.items(at("2026-02-24"), at("2026-02-25")), "the day");
}
