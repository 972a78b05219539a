//! However dense or sparse a stream is, what is missing costs the least calls.

use koregate::window::UpperBound;
use koregate_simulator::{Profile, StreamProfile};

use super::support::{Rig, STREAM, Settings, Window, assert_items, at, check_pages, profile};

fn flat(items_per_day: u32, days: u32) -> Profile {
    let stream = StreamProfile { flat: true, exact: true, ..StreamProfile::new(STREAM, items_per_day) };
    Profile { streams: vec![stream], days, ..Profile::default() }
}

fn pages(items: usize) -> u64 {
    items.div_ceil(100).max(1) as u64
}

#[tokio::test]
async fn a_minute_of_ten_thousand_items_an_hour_costs_its_own_pages_and_at_most_one_more() {
    let rig = Rig::start(flat(240_000, 3), &Settings::default()).await;
    for (from, to) in [("10:00:00", "10:00:59"), ("10:20:00", "10:21:00"), ("11:59:30", "12:00:29")] {
        let second = |time| at(&format!("2026-02-23T{time}Z"));
        let window = Window::seconds(second(from), second(to), UpperBound::Inclusive);
        let items = rig.truth(window.from, window.end).len();
        assert!(items > 100, "{items} items are no dense minute");
        rig.control.reset_counts();
        check_pages(&rig, &window, 1_000).await;
        assert!(rig.calls() <= pages(items) + 1, "{} calls for {items} items", rig.calls());
        rig.control.reset_counts();
        check_pages(&rig, &window, 1_000).await;
        assert_eq!(rig.calls(), 0);
    }
    // The hour around two of them: two gaps, each a run of its own.
    let window = Window::seconds(at("2026-02-23T10:00:00Z"), at("2026-02-23T10:59:59Z"), UpperBound::Inclusive);
    let items = rig.truth(window.from, window.end).len();
    rig.control.reset_counts();
    check_pages(&rig, &window, 10_000).await;
    assert!(rig.calls() <= pages(items) + 1, "{} calls for {items} items", rig.calls());
}

#[tokio::test]
async fn a_year_of_twenty_items_a_day_costs_its_pages_and_not_one_call_for_each_empty_hour() {
    let stream = StreamProfile { days: Some(400), ..StreamProfile::new(STREAM, 20) };
    let rig = Rig::start(Profile { streams: vec![stream], ..Profile::default() }, &Settings::default()).await;
    let window = Window::days("2025-02-21", "2026-02-21");
    let truth = rig.truth(window.from, window.end);
    assert!(truth.len() > 7_000);
    let page = rig.get(&window.query).await.page();
    assert_items(&page, &truth, "the year");
    let (calls, least) = (rig.calls(), pages(truth.len()));
    assert!(calls >= least && calls <= least + 4, "{calls} calls for {least} pages");
    // Any part of it is there now, the many empty hours too.
    rig.control.reset_counts();
    check_pages(&rig, &Window::days("2025-07-01", "2025-07-31"), 50).await;
    check_pages(&rig, &Window::days("2025-12-24", "2025-12-24"), 1).await;
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn an_empty_settled_window_costs_one_call_once() {
    // With a quota of one call, a second one would be refused.
    let rig = Rig::start(profile(100, 2), &Settings::default().limits("[{ requests = 1, per = '1h' }]")).await;
    for calls in [1, 0] {
        rig.control.reset_counts();
        let page = rig.get("from=2026-01-01&to=2026-01-31").await.page();
        assert!(page.num_results == 0 && !page.has_more);
        assert_eq!(rig.calls(), calls);
    }
}
