//! Runs of one window are fetched side by side, where the upstream takes its time and the quota is plentiful.
//!
//! Real time, since the answers go over real sockets; but only counts are looked at.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use koregate::window::UpperBound;
use koregate_simulator::{Profile, RollingLimit};

use crate::support::{Ask, DAY, HOUR, Rig, STREAM, Settings, Window, assert_items, at, check_pages, profile};

/// Far from what a page takes on its own, so that how quick this machine is makes no difference.
const LATENCY: Duration = Duration::from_millis(150);

async fn slow_rig(profile: Profile, settings: &Settings) -> Rig {
    let rig = Rig::start(profile, settings).await;
    rig.control.set_latency(LATENCY, Duration::ZERO);
    rig
}

fn pages(rig: &Rig, window: &Window) -> u64 {
    rig.truth(window.from, window.end).len().div_ceil(100) as u64
}

#[tokio::test]
async fn cold_week_slow_upstream_is_fetched_in_runs_side_by_side() {
    let week = Window::days("2026-02-16", "2026-02-22");
    let rig = slow_rig(profile(1_700, 12), &Settings::default()).await;
    let (truth, least) = (rig.truth(week.from, week.end), pages(&rig, &week));
    // Whoever else asks for it costs nothing.
    let asks: Vec<Ask> = (0..20).map(|n| Ask::get(format!("{}&offset={}&limit=10", week.query, n * 500))).collect();
    for (n, answer) in rig.door.ask_at_once(&asks).await.iter().enumerate() {
        assert_items(&answer.page(), &truth[n * 500..][..10], &format!("caller {n}"));
    }
    let counts = rig.control.counts();
    // The last page of each run need not be full.
    assert!(counts.total <= least + 8, "{} calls for {least} pages", counts.total);
    assert_eq!(counts.max_concurrent, 8);
    rig.control.reset_counts();
    assert_items(&rig.get(&week.query).await.page(), &truth, "the week as a whole");
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn what_is_under_way_at_once_is_for_all_runs_together() {
    let settings = Settings::default().section("upstream", "max_concurrency = 3");
    let rig = slow_rig(profile(1_700, 12), &settings).await;
    // Every other day, for neighbours are fetched as one.
    let days = ["2026-02-16", "2026-02-18", "2026-02-20"].map(|day| Window::days(day, day));
    join_all(days.each_ref().map(|day| check_pages(&rig, day, 10_000))).await;
    let least: u64 = days.iter().map(|day| pages(&rig, day)).sum();
    let counts = rig.control.counts();
    assert!(counts.total <= least + 4, "{} calls for {least} pages", counts.total);
    assert_eq!(counts.max_concurrent, 3);
}

/// Six calls a second: whatever the upstream's pace, each call waits for the quota.
#[tokio::test]
async fn cold_window_contended_quota_is_fetched_run_by_run() {
    let limit = RollingLimit::new(6, Duration::from_secs(1));
    let settings =
        Settings::default().limits("[{ requests = 6, per = '1s' }]").section("quota", "queue_timeout = '500ms'");
    let rig = slow_rig(Profile { rate_limits: vec![limit].into(), ..profile(1_700, 6) }, &settings).await;
    let window = Window::days("2026-02-20", "2026-02-21");
    let least = pages(&rig, &window);
    check_pages(&rig, &window, 10_000).await;
    let counts = rig.control.counts();
    assert!(counts.total <= least + 4 && counts.limited == 0, "{counts:?} for {least} pages");
    assert!(rig.control.max_in_any_window(limit.per) <= limit.requests);
}

/// Rows that arrive while the pages of what is open are under way: those that were there are all in the answer.
#[tokio::test]
async fn open_window_rows_that_arrive_push_no_row_out() {
    let settings = Settings::default().section("window", "freshness = []");
    let rig = slow_rig(profile(1_700, 4), &settings).await;
    let now = at("2026-02-25T12:00:00Z");
    rig.clock.set(now);
    let open = Window::seconds(now - DAY, now - Duration::from_secs(1), UpperBound::Inclusive);
    let before = rig.truth(open.from, open.end);
    let arrivals = async {
        for n in 1..4u32 {
            crate::support::until("calls", || rig.calls() >= u64::from(n) * 4).await;
            rig.control.insert(STREAM, open.from + HOUR * 6 * n).unwrap();
        }
    };
    let (answer, ()) = tokio::join!(rig.get(&open.query), arrivals);
    let page = answer.page();
    let came: HashSet<&[u8]> = page.items().collect();
    assert!(before.iter().all(|item| came.contains(item.as_slice())), "a row is missing");
    assert_eq!(rig.control.counts().max_concurrent, 1, "what is open is one run");
}
