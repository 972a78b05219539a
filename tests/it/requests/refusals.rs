//! Requests that are refused, each with a problem document that Kore's clients understand.

use http::Method;

use crate::support::{OTHER_STREAM, SETTLED_DAY, Settings, TestHarness, TestRequest, exact_profile};

#[tokio::test]
async fn unsupported_request_is_refused_with_kore_errors() {
    let settings = Settings::default().account("streams = ['st-test']");
    let harness = TestHarness::start(exact_profile(250, 4), &settings).await;
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let response = harness.send(&TestRequest::get(SETTLED_DAY).method(method)).await;
        response.assert_problem_names(405, "GET, HEAD, POST, QUERY");
        assert_eq!(response.header("allow"), Some("GET, HEAD, POST, QUERY"));
        assert_eq!(response.header("accept-query"), Some("\"application/json\""));
    }
    for path in [
        "/",
        "/agentassist/api/v1/public/st/v2/other",
        "/agentassist/api/v1/public/a/b/v2/agentassistinteractions",
        "/agentassist/api/v1/public//v2/agentassistinteractions",
        "/koregate/v1/nothing",
        "/metrics",
    ] {
        harness.send(&TestRequest::get(SETTLED_DAY).path(path)).await.assert_problem_names(404, "no such path");
    }
    let large = format!(r#"{{"channels":["{}"]}}"#, "x".repeat(1 << 20));
    harness.send(&TestRequest::post(SETTLED_DAY, large)).await.assert_problem_names(413, "larger");
    for body in ["[1]", "nothing", r#"{"channels":["chat"]"#] {
        harness.send(&TestRequest::post(SETTLED_DAY, body)).await.assert_problem_names(400, "body");
    }
    for body in [r#"{"channels":"chat"}"#, r#"{"x":1,"channels":["chat",7]}"#] {
        harness
            .send(&TestRequest::post(SETTLED_DAY, body))
            .await
            .assert_problem_names(400, "channels: it is not a list");
    }
    let request = TestRequest::get(SETTLED_DAY);
    for request in [request.clone().header("accountId", "another"), request.clone().stream(OTHER_STREAM)] {
        harness.send(&request).await.assert_problem_names(403, "not allowed");
    }
    assert_eq!(harness.calls(), 0);
    // A gateway with one account needs no accountId.
    assert_eq!(harness.send(&request.header("accountId", "")).await.page().num_results, 250);
}

#[tokio::test]
async fn unauthenticated_or_limited_caller_gets_problem() {
    // The SHA-256 of "abc", from FIPS 180-2.
    let callers = "[[callers]]\nname = 'bi'\nrequests_per_minute = 2\n\
        api_key_sha256 = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'\nstreams = ['st-test']";
    let harness = TestHarness::start(exact_profile(250, 4), &Settings::default().tables(callers)).await;
    let request = TestRequest::get(SETTLED_DAY);
    for request in [request.clone(), request.clone().key("abd"), request.clone().header("authorization", "Basic abc")] {
        let response = harness.send(&request).await;
        response.assert_problem_names(401, "API key");
        assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"koregate\""));
    }
    let bearer = request.clone().header("authorization", "Bearer abc");
    assert_eq!(harness.send(&bearer).await.page().num_results, 250);
    let known = request.key("abc");
    harness.send(&known.clone().stream(OTHER_STREAM)).await.assert_problem_names(403, "not allowed");
    let response = harness.send(&known).await;
    response.assert_problem_names(429, "limit");
    assert!((1..=30).contains(&response.retry_after()), "{:?}", response.headers);
}
