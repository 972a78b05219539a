//! The rolling limits, counted where they count: at the upstream. Real time, so the limits are short.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use koregate::window::Timestamp;
use koregate_simulator::{Fault, FaultPlan, Profile, RollingLimit};
use tokio::time::Instant;

use crate::support::{Answer, Ask, Rig, Settings, at, exact_profile};

/// More callers than the limits could ever serve.
const CALLERS: usize = 24;

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

    /// A simulator that refuses what passes the limits, and a gateway that knows them.
    async fn rig(&self, items_per_day: u32, queue_timeout: &str) -> Rig {
        let profile = Profile { rate_limits: self.0.clone().into(), ..exact_profile(items_per_day, 20) };
        Rig::start(profile, &self.settings(queue_timeout)).await
    }

    #[track_caller]
    fn assert_kept(&self, rig: &Rig) {
        for limit in &self.0 {
            let most = rig.control.max_in_any_window(limit.per);
            assert!(most <= limit.requests, "{most} calls in {:?}", limit.per);
        }
        assert_eq!(rig.control.counts().limited, 0, "the upstream refused calls");
    }
}

/// Windows of nearly half an hour, none asked for twice, and none beside another, which would be fetched as one run:
/// each costs one call.
#[derive(Default)]
struct ColdWindows(AtomicU64);

impl ColdWindows {
    fn next(&self) -> (Ask, Timestamp, Timestamp) {
        let from = at("2026-02-08") + Duration::from_secs(1800 * self.0.fetch_add(1, Ordering::Relaxed));
        let to = from + Duration::from_mins(29);
        let [first, last] = [from, to].map(|at| at.to_string().trim_end_matches('Z').to_owned());
        (Ask::get(format!("from={first}&to={last}")), from, to.next_tick())
    }
}

/// Calls between the first one and `span` later.
fn calls_within(rig: &Rig, span: Duration) -> usize {
    let calls = rig.control.calls();
    let first = calls.first().expect("a call").arrived;
    calls.iter().take_while(|call| call.arrived < first + span).count()
}

fn retry_after(answer: &Answer) -> Duration {
    Duration::from_secs(answer.header("retry-after").expect("Retry-After").parse().unwrap())
}

#[tokio::test]
async fn in_a_standing_demand_the_shortest_limit_is_used_and_never_passed() {
    let limits =
        Limits(vec![RollingLimit::new(12, Duration::from_secs(2)), RollingLimit::new(1800, Duration::from_hours(1))]);
    let rig = limits.rig(480, "30s").await;
    let windows = ColdWindows::default();
    let span = Duration::from_secs(10);
    let end = Instant::now() + span;
    join_all((0..CALLERS).map(|_| async {
        while Instant::now() < end {
            let (ask, from, to) = windows.next();
            let page = rig.ask(&ask).await.page();
            assert!(page.items().eq(rig.truth(from, to).iter().map(Vec::as_slice)));
        }
    }))
    .await;
    limits.assert_kept(&rig);
    // Five windows of two seconds with twelve calls each.
    let used = calls_within(&rig, span);
    assert!(used * 100 >= 60 * 95, "{used} of 60 calls were used");
}

#[tokio::test]
async fn when_the_longest_limit_is_spent_callers_are_told_when_to_come_again() {
    let limits =
        Limits(vec![RollingLimit::new(12, Duration::from_secs(2)), RollingLimit::new(30, Duration::from_secs(10))]);
    let rig = limits.rig(480, "2s").await;
    let windows = ColdWindows::default();
    let end = Instant::now() + Duration::from_secs(11);
    let (served, turned_away) = (AtomicU64::new(0), AtomicU64::new(0));
    join_all((0..CALLERS).map(|_| async {
        let (mut ask, mut from, mut to) = windows.next();
        while Instant::now() < end {
            let answer = rig.ask(&ask).await;
            if answer.status == 503 {
                // As a well-behaved caller does; the wait is a part of what is shown to be sane.
                let wait = retry_after(&answer);
                assert!((1..=11).contains(&wait.as_secs()), "{wait:?}");
                turned_away.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(wait.min(end.saturating_duration_since(Instant::now()))).await;
                continue;
            }
            let page = answer.page();
            assert!(page.items().eq(rig.truth(from, to).iter().map(Vec::as_slice)));
            served.fetch_add(1, Ordering::Relaxed);
            (ask, from, to) = windows.next();
        }
    }))
    .await;
    limits.assert_kept(&rig);
    let used = calls_within(&rig, Duration::from_secs(10));
    assert!(used * 100 >= 30 * 95, "{used} of 30 calls were used");
    assert!(turned_away.into_inner() > 0, "nobody was turned away");
    assert_eq!(served.into_inner(), rig.control.counts().ok, "a call was wasted");
}

#[tokio::test]
async fn a_long_run_goes_on_behind_the_503_and_a_later_retry_finds_it() {
    let limits =
        Limits(vec![RollingLimit::new(5, Duration::from_secs(1)), RollingLimit::new(8, Duration::from_secs(4))]);
    let rig = limits.rig(1000, "1s").await;
    let mut told = 0;
    let answer = loop {
        let answer = rig.get("from=2026-02-20&to=2026-02-20").await;
        if answer.status != 503 {
            break answer;
        }
        told += 1;
        assert!(told < 10, "no end in sight");
        assert!((1..=5).contains(&retry_after(&answer).as_secs()), "{:?}", answer.headers);
        tokio::time::sleep(retry_after(&answer)).await;
    };
    assert!(told > 0, "it was never held");
    let truth = rig.truth(at("2026-02-20"), at("2026-02-21"));
    assert!(answer.page().items().eq(truth.iter().map(Vec::as_slice)));
    assert_eq!(rig.calls(), 10, "what was fetched once was fetched again");
    limits.assert_kept(&rig);
}

#[tokio::test]
async fn calls_that_are_tried_again_count_against_the_limits_too() {
    let limits = Limits(vec![RollingLimit::new(2, Duration::from_secs(1))]);
    let rig = limits.rig(480, "30s").await;
    rig.control.set_faults(FaultPlan::always(Fault::EmptyBody));
    let (ask, ..) = ColdWindows::default().next();
    assert_eq!(rig.ask(&ask).await.status, 502);
    assert_eq!(rig.calls(), 3, "one more than the limit lets through at once");
    limits.assert_kept(&rig);
}

#[tokio::test]
async fn retry_after_of_ages_is_bounded_and_shown_on_readyz() {
    let limits =
        Limits(vec![RollingLimit::new(60, Duration::from_mins(1)), RollingLimit::new(1800, Duration::from_hours(1))]);
    let rig = limits.rig(480, "2s").await;
    let ages = Duration::from_secs(1_000_000_000_000);
    rig.control.set_faults(FaultPlan::times(Fault::TooMany, 1).retry_after(ages));
    let windows = ColdWindows::default();
    // The second one meets an account that is closed already.
    for _ in 0..2 {
        let answer = rig.ask(&windows.next().0).await;
        assert_eq!(answer.status, 503);
        assert!((100..=120).contains(&retry_after(&answer).as_secs()), "the next probe: {:?}", retry_after(&answer));
    }
    assert_eq!(rig.calls(), 1);
    let readiness = rig.door.admin("/readyz").await;
    assert_eq!((readiness.status.as_u16(), readiness.json()["status"].as_str()), (200, Some("degraded")));
    let problem = readiness.json()["problems"][0].as_str().unwrap().to_owned();
    let seconds = problem.split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap();
    assert!(problem.contains("the upstream says that the quota is spent") && seconds <= 3600, "{problem}");
}

#[tokio::test]
async fn so_many_runs_are_under_way_at_once_as_are_allowed_and_no_more() {
    let settings = Settings::default().section("upstream", "max_concurrency = 3");
    let rig = Rig::start(exact_profile(480, 20), &settings).await;
    rig.control.set_latency(Duration::from_millis(20), Duration::ZERO);
    let windows = ColdWindows::default();
    // Every other window, for neighbours are fetched as one.
    let asks: Vec<Ask> = std::iter::repeat_with(|| windows.next().0).step_by(2).take(12).collect();
    assert!(rig.door.ask_at_once(&asks).await.iter().all(|answer| answer.status == 200));
    assert_eq!((rig.calls(), rig.control.counts().max_concurrent), (12, 3));
}
