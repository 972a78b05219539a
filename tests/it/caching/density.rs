//! Dense and sparse streams: a missing window costs the fewest calls at any density.

use crate::support::{
    Profile, STREAM, Settings, StreamProfile, TestHarness, UpperBound, Window, assert_items, assert_pages, at,
    pages_of, profile,
};

/// Items at equal distances.
fn evenly_spaced(items_per_day: u32, days: u32) -> Profile {
    let stream = StreamProfile { flat: true, exact: true, ..StreamProfile::new(STREAM, items_per_day) };
    Profile { streams: vec![stream], days, ..Profile::default() }
}

#[tokio::test]
async fn dense_minute_costs_its_pages_plus_one() {
    let harness = TestHarness::start(evenly_spaced(240_000, 3), &Settings::default()).await;
    for (from, to) in [("10:00:00", "10:00:59"), ("10:20:00", "10:21:00"), ("11:59:30", "12:00:29")] {
        let second = |time| at(&format!("2026-02-23T{time}Z"));
        let window = Window::seconds(second(from), second(to), UpperBound::Inclusive);
        let items = harness.items(window.from, window.end).len();
        assert!(items > 100, "{items} items are not a dense minute");
        harness.control.reset_counts();
        assert_pages(&harness, &window, 1_000).await;
        assert!(harness.calls() <= pages_of(items) + 1, "{} calls for {items} items", harness.calls());
        harness.control.reset_counts();
        assert_pages(&harness, &window, 1_000).await;
        assert_eq!(harness.calls(), 0);
    }
    // The hour around two of the minutes has two gaps, each a run of its own.
    let window = Window::seconds(at("2026-02-23T10:00:00Z"), at("2026-02-23T10:59:59Z"), UpperBound::Inclusive);
    let items = harness.items(window.from, window.end).len();
    harness.control.reset_counts();
    assert_pages(&harness, &window, 10_000).await;
    assert!(harness.calls() <= pages_of(items) + 1, "{} calls for {items} items", harness.calls());
}

#[tokio::test]
async fn sparse_year_costs_its_pages() {
    let stream = StreamProfile { days: Some(400), ..StreamProfile::new(STREAM, 20) };
    let harness =
        TestHarness::start(Profile { streams: vec![stream], ..Profile::default() }, &Settings::default()).await;
    let window = Window::days("2025-02-21", "2026-02-21");
    let expected = harness.items(window.from, window.end);
    assert!(expected.len() > 7_000);
    let page = harness.get(&window.query).await.page();
    assert_items(&page, &expected, "the year");
    let (calls, least) = (harness.calls(), pages_of(expected.len()));
    assert!(calls >= least && calls <= least + 4, "{calls} calls for {least} pages");
    // Each part of the year is cached, empty hours included.
    harness.control.reset_counts();
    assert_pages(&harness, &Window::days("2025-07-01", "2025-07-31"), 50).await;
    assert_pages(&harness, &Window::day("2025-12-24"), 1).await;
    assert_eq!(harness.calls(), 0);
}

#[tokio::test]
async fn empty_settled_window_costs_one_call() {
    // With a limit of one call, a second one would be refused.
    let harness =
        TestHarness::start(profile(100, 2), &Settings::default().limits("[{ requests = 1, per = '1h' }]")).await;
    for calls in [1, 0] {
        harness.control.reset_counts();
        let page = harness.get("from=2026-01-01&to=2026-01-31").await.page();
        assert!(page.num_results == 0 && !page.has_more);
        assert_eq!(harness.calls(), calls);
    }
}
