//! Parallel runs of one window, where the upstream is slow and the quota allows them.
//!
//! The latency is real time, because responses pass real sockets; the tests compare counts only.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;

use crate::support::{
    DAY, HOUR, Profile, RollingLimit, STREAM, Settings, TestHarness, TestRequest, UpperBound, Window, assert_items,
    assert_pages, at, pages_of, profile,
};

/// Far more than a page takes by itself, so that the speed of the machine does not matter.
const LATENCY: Duration = Duration::from_millis(150);

/// A harness whose upstream answers with [`LATENCY`].
async fn start_slow(profile: Profile, settings: &Settings) -> TestHarness {
    let harness = TestHarness::start(profile, settings).await;
    harness.control.set_latency(LATENCY, Duration::ZERO);
    harness
}

#[tokio::test]
async fn cold_week_slow_upstream_is_fetched_in_parallel_runs() {
    let week = Window::days("2026-02-16", "2026-02-22");
    let harness = start_slow(profile(1_700, 12), &Settings::default()).await;
    let (expected, least) = (harness.items(week.from, week.end), pages_of(harness.window_items(&week).len()));
    // Concurrent requests for other pages of the week cost nothing.
    let requests: Vec<TestRequest> =
        (0..20).map(|n| TestRequest::get(format!("{}&offset={}&limit=10", week.query, n * 500))).collect();
    for (n, response) in harness.gateway.send_all(&requests).await.iter().enumerate() {
        assert_items(&response.page(), &expected[n * 500..][..10], &format!("caller {n}"));
    }
    let counts = harness.control.counts();
    // The last page of each run need not be full.
    assert!(counts.total <= least + 8, "{} calls for {least} pages", counts.total);
    assert_eq!(counts.max_concurrent, 8);
    harness.control.reset_counts();
    assert_items(&harness.get(&week.query).await.page(), &expected, "the week as a whole");
    assert_eq!(harness.calls(), 0);
}

#[tokio::test]
async fn max_concurrency_is_shared_by_all_runs() {
    let settings = Settings::default().section("upstream", "max_concurrency = 3");
    let harness = start_slow(profile(1_700, 12), &settings).await;
    // Every other day, so that no two are fetched as one run.
    let days = ["2026-02-16", "2026-02-18", "2026-02-20"].map(|day| Window::days(day, day));
    join_all(days.each_ref().map(|day| assert_pages(&harness, day, 10_000))).await;
    let least: u64 = days.iter().map(|day| pages_of(harness.window_items(day).len())).sum();
    let counts = harness.control.counts();
    assert!(counts.total <= least + 4, "{} calls for {least} pages", counts.total);
    assert_eq!(counts.max_concurrent, 3);
}

/// With six calls a second, each call waits for the quota, however fast the upstream is.
#[tokio::test]
async fn cold_window_contended_quota_is_fetched_serially() {
    let limit = RollingLimit::new(6, Duration::from_secs(1));
    let settings =
        Settings::default().limits("[{ requests = 6, per = '1s' }]").section("quota", "queue_timeout = '500ms'");
    let harness = start_slow(Profile { rate_limits: vec![limit].into(), ..profile(1_700, 6) }, &settings).await;
    let window = Window::days("2026-02-20", "2026-02-21");
    let least = pages_of(harness.window_items(&window).len());
    assert_pages(&harness, &window, 10_000).await;
    let counts = harness.control.counts();
    assert!(counts.total <= least + 4 && counts.limited == 0, "{counts:?} for {least} pages");
    assert!(harness.control.max_in_any_window(limit.per) <= limit.requests);
}

/// Rows that arrive during the fetch of an open window do not displace rows that existed before.
#[tokio::test]
async fn open_window_arriving_rows_displace_none() {
    let settings = Settings::default().section("window", "freshness = []");
    let harness = start_slow(profile(1_700, 4), &settings).await;
    let now = at("2026-02-25T12:00:00Z");
    harness.clock.set(now);
    let open = Window::seconds(now - DAY, now - Duration::from_secs(1), UpperBound::Inclusive);
    let before = harness.items(open.from, open.end);
    let arrivals = async {
        for n in 1..4u32 {
            harness.until_calls(u64::from(n) * 4).await;
            harness.control.insert(STREAM, open.from + HOUR * 6 * n).unwrap();
        }
    };
    let (response, ()) = tokio::join!(harness.get(&open.query), arrivals);
    let page = response.page();
    let received: HashSet<&[u8]> = page.items().collect();
    assert!(before.iter().all(|item| received.contains(item.as_slice())), "a row is missing");
    assert_eq!(harness.control.counts().max_concurrent, 1, "open data is one run");
}
