//! `Cache-Control` of requests, as far as their callers are granted it.

use std::time::Duration;

use crate::support::{SETTLED_DAY, Settings, TestHarness, TestRequest, caller_table, exact_profile};

/// The hour before now, which is open.
const OPEN_HOUR: &str = "from=2026-02-25T11:30:00&to=2026-02-25T12:29:59";

/// A gateway with a caller that is granted everything and one with the defaults; their keys are their names.
async fn start() -> TestHarness {
    let all = "cache_control = ['only-if-cached', 'no-cache', 'max-age', 'max-stale']";
    let callers = caller_table("all", "all", all) + &caller_table("some", "some", "");
    TestHarness::start(exact_profile(250, 4), &Settings::default().tables(&callers)).await
}

#[tokio::test]
async fn directive_is_followed_where_it_is_granted() {
    let harness = start().await;
    let day = TestRequest::get(SETTLED_DAY).key("some");
    let cold = day.clone().header("cache-control", "only-if-cached");
    harness.send(&cold).await.assert_problem(504, "nothing is cached");
    assert_eq!(harness.calls(), 0);
    harness.send(&day).await.page();
    harness.send(&TestRequest::get(OPEN_HOUR).key("some")).await.page();
    harness.advance(Duration::from_secs(100));
    for (window, key, directives, calls, status) in [
        (SETTLED_DAY, "some", "only-if-cached", 0, "hit"),
        (SETTLED_DAY, "some", "no-cache", 0, "hit"),
        (SETTLED_DAY, "all", "max-age=1", 0, "hit"),
        (OPEN_HOUR, "some", "max-stale=70, max-age=1", 0, "hit"),
        (SETTLED_DAY, "all", "no-cache", 3, "fwd=request"),
        (SETTLED_DAY, "all", "", 0, "hit"),
        (OPEN_HOUR, "all", "max-stale=69", 1, "fwd=stale"),
        (OPEN_HOUR, "all", "max-age=0", 1, "fwd=request"),
    ] {
        let before = harness.calls();
        let request = TestRequest::get(window).key(key).header("cache-control", directives);
        let response = harness.send(&request).await;
        let outcome = response.cache_status().to_owned();
        response.page();
        assert!(outcome.starts_with(&format!("koregate; {status}; ")), "{window} {key} {directives}: {outcome}");
        assert_eq!(harness.calls() - before, calls, "{window} {key} {directives}");
        let is_ignored = key == "some" && directives != "only-if-cached";
        assert_eq!(outcome.contains("ignored="), is_ignored, "{window} {key} {directives}: {outcome}");
    }
}

#[tokio::test]
async fn max_age_fetches_open_data_again_and_no_cache_what_has_changed() {
    let harness = start().await;
    let open = TestRequest::get(OPEN_HOUR).key("all");
    harness.send(&open).await.page();
    harness.advance(Duration::from_secs(10));
    for (directives, status) in [("max-age=10", "hit"), ("max-age=9", "fwd=request"), ("max-age=9", "hit")] {
        let response = harness.send(&open.clone().header("cache-control", directives)).await;
        assert_eq!(response.cache_outcome(), status, "{directives}");
    }
    let day = TestRequest::get(SETTLED_DAY).key("all");
    let before = harness.settled_day();
    harness.send(&day).await.assert_complete(&before, "cached");
    harness.change_settled_day();
    harness.send(&day).await.assert_complete(&before, "settled data is not fetched again");
    harness.advance(Duration::from_secs(1));
    let response = harness.send(&day.clone().header("cache-control", "no-cache")).await;
    response.assert_complete(&harness.settled_day(), "fetched again");
    harness.send(&day).await.assert_complete(&harness.settled_day(), "and cached");
}
