//! The number of upstream calls: a missing window costs the fewest calls that can fetch it, once for all callers.

use crate::support::{
    ApiVariant, Fault, FaultPlan, Profile, STREAM, Settings, TestHarness, TestRequest, UpperBound, Window,
    assert_items, assert_pages, at, exact_profile, pages_of, profile, send_raw, until,
};

fn hours(from: &str, to: &str) -> Window {
    let second = |time| at(&format!("2026-02-23T{time}Z"));
    Window::seconds(second(from), second(to), UpperBound::Inclusive)
}

#[tokio::test]
async fn cold_day_costs_one_call_per_page() {
    for (exclusive_to, name) in [(false, "inclusive"), (true, "exclusive")] {
        let api = ApiVariant { exclusive_to, ..ApiVariant::default() };
        let profile = Profile { api, ..exact_profile(1_700, 4) };
        let harness =
            TestHarness::start(profile, &Settings::default().section("window", &format!("upper_bound = '{name}'")))
                .await;
        for calls in [17, 0] {
            harness.control.reset_counts();
            assert_eq!(harness.get("from=2026-02-23&to=2026-02-23").await.page().num_results, 1_700);
            assert_eq!(harness.calls(), calls, "{name}");
        }
        // The day before is a run of its own; the midnight between the two is fetched once.
        harness.control.reset_counts();
        assert_eq!(harness.get("from=2026-02-22&to=2026-02-23").await.page().num_results, 3_400);
        assert_eq!(harness.calls(), 17, "{name}");
    }
}

#[tokio::test]
async fn cold_week_many_callers_costs_its_pages_once() {
    let week = Window::days("2026-02-16", "2026-02-22");
    let harness = TestHarness::start(profile(1_700, 12), &Settings::default()).await;
    let expected = harness.items(week.from, week.end);
    // Each of 200 concurrent callers requests a page of its own.
    let request = |caller: usize| TestRequest::get(format!("{}&offset={}&limit=50", week.query, caller * 50));
    let responses = harness.gateway.send_all(&(0..200).map(request).collect::<Vec<_>>()).await;
    for (caller, response) in responses.iter().enumerate() {
        let offset = caller * 50;
        assert_items(&response.page(), &expected[offset..offset + 50], &format!("caller {caller}"));
    }
    // A run has about forty pages, of which the last is not full.
    let (calls, least) = (harness.calls(), pages_of(expected.len()));
    assert!(calls >= least && 20 * calls <= 21 * least, "{calls} calls for {least} pages");
    harness.control.reset_counts();
    assert_items(&harness.get(&week.query).await.page(), &expected, "the week as a whole");
    assert_eq!(harness.calls(), 0);
}

#[tokio::test]
async fn concurrent_overlapping_windows_cost_their_union() {
    for windows in [
        vec![hours("00:00:00", "13:59:59"), hours("09:00:00", "23:59:59")],
        (0..10).map(|n| hours(&format!("{n:02}:10:00"), &format!("{:02}:40:17", n + 9))).collect(),
    ] {
        let harness = TestHarness::start_exact(1_700, 4).await;
        harness.gateway.open_connections(windows.len()).await;
        assert_eq!(harness.calls(), 0, "a future window costs no call");
        let requests: Vec<TestRequest> = windows.iter().map(|window| TestRequest::get(&window.query)).collect();
        let responses = harness.gateway.send_all(&requests).await;
        for (window, response) in windows.iter().zip(&responses) {
            assert_items(&response.page(), &harness.items(window.from, window.end), &window.query);
        }
        let from = windows.iter().map(|window| window.from).min().unwrap();
        let end = windows.iter().map(|window| window.end).max().unwrap();
        assert_eq!(harness.calls(), pages_of(harness.items(from, end).len()), "{} windows", windows.len());
    }
}

#[tokio::test]
async fn gap_between_cached_parts_is_fetched_alone() {
    let harness = TestHarness::start_exact(1_700, 4).await;
    let midnight = at("2026-02-24");
    let evening = Window::seconds(at("2026-02-23T16:00:00Z"), midnight, UpperBound::Inclusive);
    for part in [hours("00:00:00", "07:59:59"), evening] {
        assert_pages(&harness, &part, 10_000).await;
    }
    harness.control.reset_counts();
    let day = assert_pages(&harness, &Window::days("2026-02-23", "2026-02-23"), 10_000).await;
    assert!(day.cache_status().contains("fwd=partial"), "{}", day.cache_status());
    let from = at("2026-02-23T07:59:59Z");
    assert_eq!(harness.calls(), pages_of(harness.items(from, at("2026-02-23T16:00:00Z").next_tick()).len()));
}

#[tokio::test]
async fn client_disconnect_does_not_stop_fetch() {
    let harness = TestHarness::start_exact(1_700, 4).await;
    let request = TestRequest::get("from=2026-02-23&to=2026-02-23");
    let connection = send_raw(harness.gateway.addr(), &request.to_bytes(harness.gateway.addr()));
    harness.until_calls(1).await;
    drop(connection);
    assert!(harness.calls() < 17, "the fetch must outlast its caller");
    until("the fetch to end without its caller", || harness.control.counts().ok == 17).await;
    harness.send(&request).await.assert_complete(&harness.settled_day(), "the day");
    assert_eq!(harness.calls(), 17);
}

#[tokio::test]
async fn settled_window_upstream_gone_is_served_months_later() {
    let mut harness = TestHarness::start_exact(300, 4).await;
    let day = Window::days("2026-02-23", "2026-02-23");
    let expected = harness.items(day.from, day.end);
    harness.get(&day.query).await.page();
    harness.stop_upstream().await;
    harness.clock.set(at("2026-09-01"));
    for _ in 0..2 {
        let response = harness.get(&day.query).await;
        assert_items(&response.page(), &expected, "the day");
        response.assert_hit();
    }
    // A day that was never fetched is an error, not an empty page.
    assert_eq!(harness.get("from=2026-02-22&to=2026-02-22").await.status, 502);
    assert_eq!(harness.get("from=2026-02-22&to=2026-02-23").await.status, 502);
}

#[tokio::test]
async fn failed_fetch_is_reported_and_not_cached() {
    let harness = TestHarness::start_exact(300, 4).await;
    let day = Window::days("2026-02-23", "2026-02-23");
    for fault in [Fault::Html200, Fault::TruncatedJson, Fault::WrongCount] {
        // The second page fails, so the first one alone must not be cached as the day.
        harness.control.set_faults(FaultPlan::always(fault).after(1));
        let failed = harness.get(&day.query).await;
        assert_eq!(failed.status, 502, "{fault:?}");
        harness.control.clear_faults();
    }
    harness.control.reset_counts();
    assert_pages(&harness, &day, 10_000).await;
    assert_eq!(harness.calls(), 3);
}

/// `to` as a date and `to` as the last second of that date are the same window.
#[tokio::test]
async fn day_ending_at_last_second_shares_cache() {
    let harness = TestHarness::start_exact(1_700, 6).await;
    let days = ["2026-02-21", "2026-02-22", "2026-02-23"];
    for day in days {
        harness.get(format!("from={day}&to={day}T23:59:59&limit=1")).await.page();
    }
    assert_eq!(harness.calls(), 3 * 17);
    for day in days {
        assert_pages(&harness, &Window::days(day, day), 1_000).await;
    }
    assert_eq!(harness.calls(), 3 * 17);
}

/// A wrong `upper_bound` may shift the edge of one response, but leaves no gap between two windows fetched separately.
#[tokio::test]
async fn wrong_upper_bound_setting_leaves_no_gap() {
    for (actual, configured) in [("exclusive", "inclusive"), ("inclusive", "exclusive")] {
        let mut profile = exact_profile(480, 4);
        profile.api.exclusive_to = actual == "exclusive";
        let harness = TestHarness::start(
            profile,
            &Settings::default().section("window", &format!("upper_bound = '{configured}'")),
        )
        .await;
        let edge = at("2026-02-22T05:00:00Z");
        harness.control.insert(STREAM, edge).unwrap();
        let query = |from: u32, to: u32| format!("from=2026-02-22T{from:02}:00:00&to=2026-02-22T{to:02}:00:00");
        harness.get(query(0, 5)).await.page();
        for _ in 0..2 {
            let page = harness.get(query(4, 6)).await.page();
            let expected = harness.items(at("2026-02-22T04:00:00Z"), at("2026-02-22T05:30:00Z"));
            assert!(
                page.items().take(expected.len()).eq(expected.iter().map(Vec::as_slice)),
                "{actual}, configured as {configured}"
            );
        }
    }
}
