//! Competition for a small quota: order of service, accounting, and disconnecting clients.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use tokio::task::JoinHandle;

use crate::support::{
    DAY, HttpClient, Profile, RollingLimit, Settings, SortOrder, TestHarness, TestRequest, UpperBound, Window, at,
    caller_table, exact_profile, pages_of, until_async,
};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A simulator and a gateway with one limit, and three callers.
async fn start(items_per_day: u32, limit: RollingLimit, settings: Settings) -> TestHarness {
    let RollingLimit { requests, per } = limit;
    let callers: String = NAMES.map(|name| caller_table(name, name, "requests_per_minute = 60_000")).concat();
    let limits = format!("[{{ requests = {requests}, per = '{}s' }}]", per.as_secs());
    let profile = Profile { rate_limits: vec![limit].into(), ..exact_profile(items_per_day, 20) };
    TestHarness::start(profile, &settings.limits(&limits).tables(&callers)).await
}

fn days(first: u32, last: u32) -> Window {
    Window::days(&format!("2026-02-{first:02}"), &format!("2026-02-{last:02}"))
}

fn request(window: &Window, name: &str) -> TestRequest {
    TestRequest::get(&window.query).key(name)
}

/// The same request in the class of background work.
fn background(request: TestRequest) -> TestRequest {
    request.header("priority", "u=7")
}

/// Waits until exactly `calls` calls wait for the quota.
async fn until_waiting(harness: &TestHarness, calls: u64) {
    until_async("waiting calls", async || {
        harness.gateway.metrics().await.count("koregate_quota_waiting", &[]) == calls
    })
    .await;
}

/// An hour and a half of a day in February, about a hundred items.
fn morning(day: u32) -> Window {
    let from = at(&format!("2026-02-{day:02}T09:00:00Z"));
    Window::seconds(from, from + Duration::from_secs(5_399), UpperBound::Inclusive)
}

/// Asserts that three urgent parts of a long background fetch are served before the fetch ends.
async fn assert_served_early(order: SortOrder) {
    let harness = start(1_000, RollingLimit::new(10, Duration::from_secs(1)), Settings::default()).await;
    harness.control.set_order(order);
    let long = days(11, 18);
    let backfill = harness.gateway.spawn(background(request(&long, "a")));
    harness.until_calls(12).await;
    // Behind the position of the fetch, far ahead of it, and in between.
    let parts = [morning(11), morning(18), morning(15)];
    let requests = parts.each_ref().map(|part| request(part, "b"));
    for (part, response) in parts.iter().zip(harness.gateway.send_all(&requests).await) {
        response.assert_complete(&harness.window_items(part), &part.query);
    }
    assert!(!backfill.is_finished(), "the urgent parts waited for the whole fetch");
    backfill.await.unwrap().assert_complete(&harness.window_items(&long), "the background fetch");
    let least = pages_of(harness.window_items(&long).len());
    assert!(harness.calls() <= least + 15, "{} calls for {least} pages", harness.calls());
    assert_eq!(harness.control.counts().limited, 0);
}

#[tokio::test]
async fn urgent_part_of_ascending_fetch_is_served_early() {
    assert_served_early(SortOrder::Ascending).await;
}

#[tokio::test]
async fn urgent_part_of_descending_fetch_is_served_early() {
    assert_served_early(SortOrder::Descending).await;
}

/// A random number below `below`: SplitMix64, the same on every run.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)) % below
}

/// A random window of the settled and open days, requested by one of the callers in a random class.
fn random_request(number: u64, state: &mut u64) -> (Window, TestRequest) {
    let from = at("2026-02-22") + Duration::from_secs(draw(state, 3 * 86_400));
    let to = from + Duration::from_secs(60 + draw(state, if number.is_multiple_of(4) { 86_400 } else { 7_200 }));
    let to = to.min(at("2026-02-25T12:00:00Z"));
    let window = Window::seconds(from, to.max(from), UpperBound::Inclusive);
    let request = request(&window, NAMES[usize::try_from(number % 3).unwrap()]);
    if draw(state, 3) == 0 { (window, background(request)) } else { (window, request) }
}

#[tokio::test]
async fn random_disconnects_leave_no_waiters_behind() {
    // Open data is never cached, so a lost response would be fetched again.
    let settings = Settings::default().section("window", "freshness = []").section("quota", "queue_timeout = '5s'");
    let harness = start(300, RollingLimit::new(40, Duration::from_secs(1)), settings).await;
    harness.control.set_latency(Duration::from_millis(2), Duration::from_millis(8));
    let served = AtomicU64::new(0);
    stream::iter(0..120u64)
        .for_each_concurrent(60, async |number| {
            let mut state = number;
            let (window, request) = random_request(number, &mut state);
            let client = HttpClient::default();
            let sending = client.send(harness.gateway.addr(), &request);
            let response = if draw(&mut state, 3) == 0 {
                // The client disconnects after some further upstream calls, unless the response comes first.
                let calls = harness.calls() + draw(&mut state, 12);
                tokio::select! {
                    response = sending => response,
                    () = harness.until_calls(calls) => return,
                }
            } else {
                sending.await
            };
            if response.status == 503 {
                assert!(response.retry_after() > 0);
                return;
            }
            response.assert_complete(&harness.window_items(&window), &window.query);
            served.fetch_add(1, Ordering::Relaxed);
        })
        .await;
    assert!(served.into_inner() > 20, "too few requests were served");
    assert_eq!(harness.control.counts().limited, 0);
    until_waiting(&harness, 0).await;
    // Nothing is left that delays later requests of any caller.
    let window = days(23, 24);
    for name in NAMES {
        for request in [request(&window, name), background(request(&window, name))] {
            harness.send(&request).await.assert_complete(&harness.window_items(&window), name);
        }
    }
}

#[tokio::test]
async fn disconnect_before_permit_costs_no_call() {
    let harness = start(50, RollingLimit::new(1, Duration::from_secs(2)), Settings::default()).await;
    harness.send(&request(&days(10, 10), "a")).await.page();
    let leaves: Vec<_> = [12, 14, 16].map(|day| harness.gateway.spawn(request(&days(day, day), "b"))).into();
    until_waiting(&harness, 3).await;
    leaves.iter().for_each(JoinHandle::abort);
    until_waiting(&harness, 0).await;
    harness.send(&request(&days(18, 18), "c")).await.page();
    assert_eq!(harness.calls(), 2, "the permit went to the next waiting call");
}

#[tokio::test]
async fn interactive_request_uses_reserve_for_background_fetch() {
    // Background work must leave two of ten calls.
    let settings = Settings::default().section("quota", "queue_timeout = '1s'");
    let harness = start(1_000, RollingLimit::new(10, Duration::from_hours(1)), settings).await;
    let day = days(20, 20);
    let refused = harness.send(&background(request(&day, "a"))).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(harness.calls(), 8);
    harness.send(&request(&day, "b")).await.assert_complete(&harness.window_items(&day), "the day");
    assert_eq!(harness.calls(), 10, "the fetch continues where it was paused");
}

#[tokio::test]
async fn shared_run_is_charged_to_one_caller() {
    let harness = start(1_700, RollingLimit::new(1_000, Duration::from_secs(1)), Settings::default()).await;
    harness.gateway.open_connections(24).await;
    let day = at("2026-02-20");
    let hour = |n: u32| {
        let from = day + Duration::from_hours(1) * n;
        Window::seconds(from, from + Duration::from_secs(3_599), UpperBound::Inclusive)
    };
    let requests: Vec<TestRequest> = (0..24).map(|n| request(&hour(n), NAMES[n as usize % 3])).collect();
    for (n, response) in (0..).zip(harness.gateway.send_all(&requests).await) {
        response.assert_complete(&harness.window_items(&hour(n)), &hour(n).query);
    }
    assert_eq!((harness.calls(), harness.items(day, day + DAY).len()), (17, 1_700));
    let spent = join_all(NAMES.map(|name| {
        let (harness, label) = (&harness, format!("caller=\"{name}\""));
        async move { harness.gateway.metrics().await.count("koregate_upstream_calls_spent_total", &[&label]) }
    }))
    .await;
    assert_eq!(spent.iter().filter(|spent| **spent > 0).collect::<Vec<_>>(), [&17], "{spent:?}");
}

#[tokio::test]
async fn different_priorities_are_separate_runs() {
    let harness = start(300, RollingLimit::new(1_000, Duration::from_secs(1)), Settings::default()).await;
    let (first, second) = (days(20, 20), days(21, 21));
    let requests = [background(request(&first, "a")), request(&second, "b")];
    for (window, response) in [&first, &second].into_iter().zip(harness.gateway.send_all(&requests).await) {
        response.assert_complete(&harness.window_items(window), &window.query);
    }
    let beginnings: BTreeSet<_> = harness.control.calls().into_iter().map(|call| call.query.from.unwrap()).collect();
    assert_eq!(beginnings.len(), 2, "{beginnings:?}");
    assert_eq!(harness.calls(), 6);
}
