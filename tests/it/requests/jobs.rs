//! `Prefer: respond-async` and `wait`: windows that are fetched by a job.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{
    SETTLED_DAY, Settings, TestHarness, TestRequest, TestResponse, caller_table, exact_profile, until_polled,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A gateway with the callers `a` and `b`, whose keys are their names; each may have one unfinished job.
async fn start() -> TestHarness {
    let callers = caller_table("a", "a", "") + &caller_table("b", "b", "");
    let settings = Settings::default().section("jobs", "per_caller = 1").tables(&callers);
    TestHarness::start(exact_profile(250, 4), &settings).await
}

fn asynchronously(query: &str) -> TestRequest {
    TestRequest::get(query).key("a").header("prefer", "respond-async")
}

fn job(location: &str, key: &str) -> TestRequest {
    TestRequest::path_only(location).key(key)
}

/// The path of the job that a response tells of.
fn location(response: &TestResponse) -> String {
    assert_eq!(response.status, 202, "{}", response.text());
    response.header("location").unwrap().to_owned()
}

/// The last state of a job.
async fn ended(harness: &TestHarness, location: &str) -> Value {
    let mut last = Value::Null;
    until_polled("the end of the job", DEADLINE, async || {
        last = harness.send(&job(location, "a")).await.json();
        !["queued", "running"].contains(&last["state"].as_str().unwrap())
    })
    .await;
    last
}

#[tokio::test]
async fn window_of_a_finished_job_is_a_hit() {
    let harness = start().await;
    let accepted = harness.send(&asynchronously(SETTLED_DAY)).await;
    assert_eq!(accepted.header("preference-applied"), Some("respond-async"));
    assert_eq!(accepted.header("cache-control"), Some("no-store"));
    accepted.header("retry-after").unwrap().parse::<u64>().unwrap();
    let location = location(&accepted);
    for method in [Method::GET, Method::DELETE] {
        harness.send(&job(&location, "b").method(method)).await.assert_problem(404, "another caller's");
    }
    let done = ended(&harness, &location).await;
    assert_eq!(
        (&done["state"], &done["items"], &done["calls"], &done["pages"]),
        (&json!("done"), &json!(250), &json!(3), &json!({"fetched": 3, "expected": 3})),
        "{done}"
    );
    let result = done["result"].as_str().unwrap();
    let shown = harness.send(&job(&location, "a")).await;
    assert_eq!(shown.header("link"), Some(&*format!("<{result}>; rel=\"related\"")));
    let (path, query) = result.split_once('?').unwrap();
    for prefer in ["", "respond-async"] {
        let window = harness.send(&TestRequest::get(query).path(path).key("a").header("prefer", prefer)).await;
        window.assert_complete(&harness.settled_day(), "the result");
        window.assert_hit();
        assert_eq!(window.header("preference-applied"), None, "it is answered at once");
    }
    assert_eq!(harness.calls(), 3);
}

#[tokio::test]
async fn jobs_are_bounded_for_each_caller_and_can_be_cancelled() {
    let harness = start().await;
    harness.control.set_latency(Duration::from_mins(1), Duration::from_mins(1));
    let first = location(&harness.send(&asynchronously(SETTLED_DAY)).await);
    let refused = harness.send(&asynchronously("from=2026-02-22&to=2026-02-22")).await;
    refused.assert_problem(429, "one too many");
    assert!(refused.retry_after() > 0);
    location(&harness.send(&asynchronously("from=2026-02-22&to=2026-02-22").key("b")).await);
    let cancelled = harness.send(&job(&first, "a").method(Method::DELETE)).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.json()["state"]), (200, &json!("cancelled")));
    harness.send(&job(&first, "a")).await.assert_problem(404, "cancelled");
    location(&harness.send(&asynchronously("from=2026-02-21&to=2026-02-21")).await);
}

#[tokio::test]
async fn failed_job_says_why() {
    let mut harness = start().await;
    harness.stop_upstream().await;
    let location = location(&harness.send(&asynchronously(SETTLED_DAY)).await);
    let failed = ended(&harness, &location).await;
    assert_eq!((&failed["state"], &failed["problem"]["status"]), (&json!("failed"), &json!(502)), "{failed}");
}

#[tokio::test]
async fn job_that_ends_within_the_wait_is_answered_at_once() {
    let harness = start().await;
    let window = harness.send(&asynchronously(SETTLED_DAY).header("prefer", "respond-async, wait=30")).await;
    window.assert_complete(&harness.settled_day(), "waited for");
    assert_eq!(window.header("preference-applied"), Some("wait=30"));
    harness.control.set_latency(Duration::from_mins(1), Duration::from_mins(1));
    let request = asynchronously("from=2026-02-22&to=2026-02-22").header("prefer", "respond-async, wait=0");
    let accepted = harness.send(&request).await;
    assert_eq!((accepted.status.as_u16(), accepted.header("preference-applied")), (202, Some("respond-async, wait=0")));
}

#[tokio::test]
async fn request_waits_for_the_quota_as_long_as_it_says() {
    let settings = Settings::default().limits("[{ requests = 3, per = '1m' }]").section("quota", "max_wait = '1s'");
    let harness = TestHarness::start(exact_profile(250, 4), &settings).await;
    harness.get(SETTLED_DAY).await.page();
    let other = TestRequest::get("from=2026-02-22&to=2026-02-22");
    for (wait, applied) in [("wait=0", "wait=0"), ("wait=1000", "wait=1")] {
        let hit = harness.send(&TestRequest::get(SETTLED_DAY).header("prefer", wait)).await;
        assert_eq!((hit.status.as_u16(), hit.header("preference-applied")), (200, Some(applied)));
        harness.send(&other.clone().header("prefer", wait)).await.assert_problem(503, "the quota is spent");
    }
}
