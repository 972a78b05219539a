//! The rolling limits of the quota, counted at the upstream. The limits are short, because they roll in real time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use crate::support::{
    Fault, FaultPlan, Profile, RollingLimit, Settings, TestHarness, TestRequest, Timestamp, Window, at, exact_profile,
    until_async,
};

/// More concurrent callers than the limits can serve.
const CALLERS: usize = 24;

/// The limits of the upstream and of the gateway.
struct Limits(Vec<RollingLimit>);

impl Limits {
    fn settings(&self, queue_timeout: &str) -> Settings {
        let limit =
            |limit: &RollingLimit| format!("{{ requests = {}, per = '{}s' }}", limit.requests, limit.per.as_secs());
        let limits = self.0.iter().map(limit).collect::<Vec<_>>().join(", ");
        Settings::default()
            .limits(&format!("[{limits}]"))
            .section("quota", &format!("queue_timeout = '{queue_timeout}'"))
    }

    /// A simulator that enforces the limits, and a gateway that is configured with them.
    async fn start(&self, items_per_day: u32, queue_timeout: &str) -> TestHarness {
        let profile = Profile { rate_limits: self.0.clone().into(), ..exact_profile(items_per_day, 20) };
        TestHarness::start(profile, &self.settings(queue_timeout)).await
    }

    /// Asserts that no rolling window had more calls than its limit.
    #[track_caller]
    fn assert_kept(&self, harness: &TestHarness) {
        for limit in &self.0 {
            let most = harness.control.max_in_any_window(limit.per);
            assert!(most <= limit.requests, "{most} calls in {:?}", limit.per);
        }
        assert_eq!(harness.control.counts().limited, 0, "the upstream refused calls");
    }
}

/// Distinct windows of one call each. None is adjacent to another, because adjacent windows are fetched as one run.
#[derive(Default)]
struct ColdWindows(AtomicU64);

impl ColdWindows {
    fn next(&self) -> (TestRequest, Timestamp, Timestamp) {
        let from = at("2026-02-08") + Duration::from_secs(1800 * self.0.fetch_add(1, Ordering::Relaxed));
        let to = from + Duration::from_mins(29);
        let [first, last] = [from, to].map(|at| at.to_string().trim_end_matches('Z').to_owned());
        (TestRequest::get(format!("from={first}&to={last}")), from, to.next_tick())
    }
}

#[tokio::test]
async fn steady_demand_fills_limit_without_exceeding_it() {
    let limits =
        Limits(vec![RollingLimit::new(12, Duration::from_secs(2)), RollingLimit::new(1800, Duration::from_hours(1))]);
    let harness = limits.start(480, "30s").await;
    let windows = ColdWindows::default();
    stream::iter(0..60)
        .for_each_concurrent(CALLERS, async |_| {
            let (request, from, end) = windows.next();
            harness.send(&request).await.assert_complete(&harness.items(from, end), "a cold window");
        })
        .await;
    limits.assert_kept(&harness);
    assert_eq!(harness.calls(), 60);
    assert_eq!(harness.control.max_in_any_window(Duration::from_secs(2)), 12, "the limit is used up");
}

#[tokio::test]
async fn spent_limit_returns_retry_after() {
    let limits =
        Limits(vec![RollingLimit::new(12, Duration::from_secs(2)), RollingLimit::new(30, Duration::from_secs(10))]);
    let harness = limits.start(480, "2500ms").await;
    let windows = ColdWindows::default();
    let refused = Mutex::new(Vec::new());
    stream::iter(0..60)
        .for_each_concurrent(CALLERS, async |_| {
            let (request, from, end) = windows.next();
            let response = harness.send(&request).await;
            if response.status == 503 {
                assert!((1..=11).contains(&response.retry_after()), "{:?}", response.headers);
                refused.lock().unwrap().push((request, from, end));
            } else {
                response.assert_complete(&harness.items(from, end), "a cold window");
            }
        })
        .await;
    let mut refused = refused.into_inner().unwrap();
    assert!(!refused.is_empty(), "no request was refused");
    // Repeated requests use the rest of the longer limit, and one more call when it has rolled on.
    while refused.len() > 60 - 31 {
        let (request, from, end) = refused.pop().unwrap();
        until_async("the limit to allow a call", async || harness.send(&request).await.status != 503).await;
        harness.send(&request).await.assert_complete(&harness.items(from, end), "a repeated request");
    }
    assert_eq!(harness.control.counts().ok, 31, "no call is wasted");
    assert_eq!(harness.control.max_in_any_window(Duration::from_secs(10)), 30, "the limit is used up");
    limits.assert_kept(&harness);
}

#[tokio::test]
async fn run_continues_behind_queue_timeout() {
    let limits =
        Limits(vec![RollingLimit::new(5, Duration::from_secs(1)), RollingLimit::new(8, Duration::from_secs(4))]);
    let harness = limits.start(1000, "1s").await;
    let day = Window::day("2026-02-20");
    let mut timeouts = 0;
    until_async("the run to end", async || {
        let response = harness.get(&day.query).await;
        if response.status == 503 {
            assert!((1..=5).contains(&response.retry_after()), "{:?}", response.headers);
            timeouts += 1;
        }
        response.status != 503
    })
    .await;
    assert!(timeouts > 0, "no request timed out");
    harness.get(&day.query).await.assert_complete(&harness.window_items(&day), "the day");
    assert_eq!(harness.calls(), 10, "each page is fetched once");
    limits.assert_kept(&harness);
}

#[tokio::test]
async fn retried_calls_count_against_limit() {
    let limits = Limits(vec![RollingLimit::new(2, Duration::from_secs(1))]);
    let harness = limits.start(480, "30s").await;
    harness.control.set_faults(FaultPlan::always(Fault::EmptyBody));
    let (request, ..) = ColdWindows::default().next();
    assert_eq!(harness.send(&request).await.status, 502);
    assert_eq!(harness.calls(), 3, "one more than the limit allows at once");
    limits.assert_kept(&harness);
}

#[tokio::test]
async fn huge_upstream_retry_after_is_bounded() {
    let limits =
        Limits(vec![RollingLimit::new(60, Duration::from_mins(1)), RollingLimit::new(1800, Duration::from_hours(1))]);
    let harness = limits.start(480, "2s").await;
    let retry_after = Duration::from_secs(1_000_000_000_000);
    harness.control.set_faults(FaultPlan::times(Fault::TooMany, 1).retry_after(retry_after));
    let windows = ColdWindows::default();
    // The second request finds the account closed.
    for _ in 0..2 {
        let response = harness.send(&windows.next().0).await;
        assert_eq!(response.status, 503);
        assert!((100..=120).contains(&response.retry_after()), "the next probe: {}", response.retry_after());
    }
    assert_eq!(harness.calls(), 1);
    let readiness = harness.gateway.get_admin("/readyz").await;
    assert_eq!((readiness.status.as_u16(), readiness.json()["status"].as_str()), (200, Some("degraded")));
    let problem = readiness.json()["problems"][0].as_str().unwrap().to_owned();
    let seconds = problem.split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap();
    assert!(problem.contains("the upstream says that the quota is spent") && seconds <= 3600, "{problem}");
}

#[tokio::test]
async fn concurrent_runs_are_limited_by_max_concurrency() {
    let settings = Settings::default().section("upstream", "max_concurrency = 3");
    let harness = TestHarness::start(exact_profile(480, 20), &settings).await;
    harness.control.set_latency(Duration::from_millis(20), Duration::ZERO);
    let windows = ColdWindows::default();
    // Every other window, so that no two are fetched as one run.
    let requests: Vec<TestRequest> = std::iter::repeat_with(|| windows.next().0).step_by(2).take(12).collect();
    assert!(harness.gateway.send_all(&requests).await.iter().all(|response| response.status == 200));
    assert_eq!((harness.calls(), harness.control.counts().max_concurrent), (12, 3));
}
