//! Problem documents: the pages of their types, what they tell of Kore's refusals, and the headers of errors.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::support::{
    ApiVariant, Fault, FaultPlan, HOUR, Profile, SETTLED_DAY, Settings, TestHarness, TestRequest, TestResponse,
    caller_table, exact_profile,
};

/// The path of the page of a problem.
fn type_of(problem: &TestResponse) -> String {
    problem.json()["type"].as_str().expect("a type").to_owned()
}

#[tokio::test]
async fn type_resolves_to_a_page_on_the_listener_that_sent_it() {
    let settings = Settings::default().tables(&caller_table("bi", "key", ""));
    let harness = TestHarness::start(exact_profile(10, 4), &settings).await;
    let refused = harness.get(SETTLED_DAY).await;
    refused.assert_problem(401, "no key");
    assert_eq!(refused.header("cache-status"), None, "the cache had no part in it");
    let page = harness.send(&TestRequest::path_only(type_of(&refused))).await;
    let trust = TestRequest::path_only("/api/v1/window-field/trust").method(Method::POST);
    let of_admin = harness.gateway.send_admin(&trust).await;
    assert_eq!(of_admin.status, StatusCode::BAD_REQUEST);
    let admin_page = harness.gateway.get_admin(&type_of(&of_admin)).await;
    for (page, problem) in [(page, refused), (admin_page, of_admin)] {
        assert_eq!((page.status.as_u16(), page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(page.text().contains(problem.json()["title"].as_str().unwrap()), "{}", page.text());
    }
    let unknown = harness.send(&TestRequest::path_only("/koregate/v1/problems/nothing")).await;
    unknown.assert_problem_names(404, "no such path");
    assert_eq!(harness.calls(), 0);
}

#[tokio::test]
async fn refused_arguments_are_a_fault_of_the_request() {
    let api = ApiVariant { longest_span: Some(HOUR), ..ApiVariant::default() };
    let harness = TestHarness::start(Profile { api, ..exact_profile(10, 4) }, &Settings::default()).await;
    let response = harness.get(SETTLED_DAY).await;
    response.assert_problem_names(400, "Validation errors/ Invalid arguments");
    let problem = response.json();
    assert_eq!(problem["type"], "/koregate/v1/problems/invalid-arguments");
    assert_eq!(problem["errors"][0]["msg"], "Validation errors/ Invalid arguments");
    assert_eq!(response.cache_status(), "koregate; fwd=miss; fwd-status=412; detail=\"invalid_arguments\"");
    assert_eq!(harness.calls(), 1, "it would fail again");
}

#[tokio::test]
async fn refused_stream_is_told_from_a_refused_credential() {
    let harness = TestHarness::start(exact_profile(10, 4), &Settings::default()).await;
    let other = TestRequest::get(SETTLED_DAY).stream("st-elsewhere");
    let response = harness.send(&other).await;
    response.assert_problem_names(502, "refused the credential: \"Invalid SDK credentials\"");
    harness.get(SETTLED_DAY).await.page();
    let response = harness.send(&other).await;
    response.assert_problem_names(403, "accepts the same credential for another stream");
    assert_eq!(type_of(&response), "/koregate/v1/problems/stream-refused");
    assert_eq!(response.cache_status(), "koregate; fwd=miss; fwd-status=401; detail=\"stream_refused\"");
    assert!(!response.text().contains("eyJ") && !response.text().contains("st-elsewhere"));
    // The refusals cost two calls each, and the day one.
    assert_eq!(harness.calls(), 5);
}

#[tokio::test]
async fn answers_that_need_calls_state_the_limits_of_the_upstream() {
    let settings = Settings::default()
        .limits("[{ requests = 60, per = '1m' }, { requests = 1800, per = '1h' }]")
        .section("quota", "queue_timeout = '1s'");
    let harness = TestHarness::start(exact_profile(250, 4), &settings).await;
    let limits = |response: &TestResponse| {
        let [policy, state] = ["ratelimit-policy", "ratelimit"].map(|name| response.header(name).map(str::to_owned));
        policy.zip(state)
    };
    let policies = "\"kore-minute\";q=60;w=60, \"kore-hour\";q=1800;w=3600";
    let (policy, state) = limits(&harness.get(SETTLED_DAY).await).unwrap();
    assert_eq!(policy, policies);
    let left: Vec<&str> = state.split(", ").map(|state| state.split_once(";t=").unwrap().0).collect();
    assert_eq!(left, ["\"kore-minute\";r=57", "\"kore-hour\";r=1797"]);
    assert_eq!(limits(&harness.get(SETTLED_DAY).await), None, "a hit spends nothing");

    harness.control.set_faults(FaultPlan::always(Fault::TooMany).retry_after(Duration::from_secs(30)));
    let response = harness.get("from=2026-02-22&to=2026-02-22").await;
    let problem = response.assert_problem(503, "the upstream refuses");
    assert_eq!(limits(&response).unwrap().0, policies);
    assert!(limits(&response).unwrap().1.starts_with("\"kore-minute\";r=0;t="), "{:?}", response.headers);
    assert_eq!(problem["violated-policies"], serde_json::json!(["kore-minute", "kore-hour"]));
    assert!(response.cache_status().starts_with("koregate; "), "{}", response.cache_status());
    let own = harness.get("from=never").await;
    assert_eq!((own.header("cache-status"), limits(&own)), (None, None), "no call was needed");
}
