//! Callers: authentication, authorisation and rate limits.

use http::Method;

use crate::support::{
    ACCOUNT, Fault, FaultPlan, OTHER_ACCOUNT, OTHER_STREAM, Profile, SETTLED_DAY, STREAM, Settings, StreamProfile,
    TestHarness, TestRequest, TestResponse, caller_table, exact_profile, key_hash, other_credential,
};

/// Two accounts, two streams, and callers with different permissions.
async fn start() -> TestHarness {
    let mut profile = Profile { more_accounts: vec![other_credential()], ..exact_profile(50, 4) };
    profile.streams.push(StreamProfile::new(OTHER_STREAM, 50));
    let callers = [
        caller_table("all", "key-of-all", ""),
        caller_table("one", "key-of-one", &format!("accounts = ['{ACCOUNT}']\nstreams = ['{STREAM}']")),
        caller_table("few", "key-of-few", "requests_per_minute = 3"),
    ];
    TestHarness::start(profile, &Settings::default().tables(&callers.concat())).await
}

#[tokio::test]
async fn unknown_or_missing_key_is_unauthorized() {
    let harness = start().await;
    let request = TestRequest::get(SETTLED_DAY);
    for request in [
        request.clone(),
        request.clone().key("key-of-nobody"),
        request.clone().header("authorization", "Bearer key-of-nobody"),
        request.clone().header("authorization", "Basic key-of-all"),
        request.clone().header("auth", "key-of-all"),
        // A wrong key is refused even beside a right one.
        request.key("key-of-nobody").header("authorization", "Bearer key-of-all"),
    ] {
        let response = harness.send(&request).await;
        response.assert_problem(401, "");
        assert_eq!(response.json()["errors"][0]["code"], 4002, "Kore's own code");
        assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"koregate\""));
        assert!(!response.text().contains("key-of"), "{}", response.text());
    }
    assert_eq!(harness.calls(), 0);
}

#[tokio::test]
async fn key_in_either_header_is_accepted() {
    let harness = start().await;
    harness.send(&TestRequest::get(SETTLED_DAY).key("key-of-one")).await.page();
    harness.send(&TestRequest::get(SETTLED_DAY).header("authorization", "Bearer key-of-one")).await.page();
    harness.send(&TestRequest::get(SETTLED_DAY).header("authorization", "bearer key-of-all")).await.page();
    assert_eq!(harness.calls(), 1, "callers share the cache");
}

#[tokio::test]
async fn other_accounts_and_streams_are_forbidden() {
    let harness = start().await;
    let request = TestRequest::get(SETTLED_DAY).key("key-of-one");
    harness.send(&request.clone().key("key-of-all").stream(OTHER_STREAM)).await.page();
    let calls = harness.calls();
    let mut details = Vec::new();
    for request in [
        request.clone().stream(OTHER_STREAM),
        request.clone().header("accountId", OTHER_ACCOUNT),
        request.clone().header("accountId", OTHER_ACCOUNT).stream(OTHER_STREAM),
        request.clone().header("accountId", "no-account"),
        request.clone().stream("st-none"),
        // Another error must not replace the refusal.
        TestRequest::get("from=never").key("key-of-one").stream(OTHER_STREAM),
    ] {
        let response = harness.send(&request).await;
        response.assert_problem(403, "");
        details.push(response.json()["detail"].clone());
    }
    details.dedup();
    assert_eq!(details.len(), 1, "one detail for all, so that it does not show what exists: {details:?}");
    assert_eq!(harness.calls(), calls, "a forbidden request costs no call");
    harness.send(&request.header("accountId", "")).await.assert_problem(400, "");
}

#[tokio::test]
async fn caller_over_rate_limit_gets_retry_after() {
    let harness = start().await;
    let request = TestRequest::get(SETTLED_DAY).key("key-of-few");
    for _ in 0..3 {
        harness.send(&request).await.page();
    }
    let response = harness.send(&request).await;
    response.assert_problem(429, "");
    assert!((1..=20).contains(&response.retry_after()), "at most a third of a minute: {:?}", response.headers);
    harness.send(&request.key("key-of-all")).await.page();
}

/// The state of the caller's own limit: `q` of the policy, `r` and `t`; `None` if it is absent. Kore's limits may follow
/// it, or stand alone.
fn rate_limit(response: &TestResponse) -> Option<(u32, u32, u64)> {
    let policy = response.header("ratelimit-policy");
    let Some(left) = response.header("ratelimit") else {
        assert_eq!(policy, None);
        return None;
    };
    let [policy, left] = [policy.unwrap(), left].map(|list| list.split(", ").next().unwrap());
    let Some(limit) = policy.strip_prefix("\"caller\";q=") else {
        assert!(!left.contains("caller"), "{left}");
        return None;
    };
    let limit = limit.strip_suffix(";w=60").unwrap();
    let (left, more_in) = left.strip_prefix("\"caller\";r=").unwrap().split_once(";t=").unwrap();
    Some((limit.parse().unwrap(), left.parse().unwrap(), more_in.parse().unwrap()))
}

#[tokio::test]
async fn rate_limit_headers_show_remaining_requests() {
    let harness = start().await;
    let request = TestRequest::get(SETTLED_DAY).key("key-of-few");
    for (request, status, left) in [
        (request.clone(), 200, 2),
        (request.clone().header("accountId", "another"), 403, 1),
        (request.clone().path("/"), 404, 0),
    ] {
        let response = harness.send(&request).await;
        let (limit, remaining, more_in) = rate_limit(&response).unwrap();
        assert_eq!((response.status.as_u16(), limit, remaining), (status, 3, left));
        // One more request in a third of a minute, less the time that has passed.
        assert!((1..=20).contains(&more_in), "{more_in}");
    }
    let response = harness.send(&request).await;
    response.assert_problem(429, "");
    assert_eq!(rate_limit(&response), Some((3, 0, response.retry_after())));
}

#[tokio::test]
async fn rate_limit_headers_are_sent_with_every_status() {
    let harness = start().await;
    let request = TestRequest::get(SETTLED_DAY).key("key-of-all");
    let etag = harness.send(&request).await.header("etag").unwrap().to_owned();
    let other_day = TestRequest::get("from=2026-02-22&to=2026-02-22").key("key-of-all");
    for (request, status, fault) in [
        (request.clone(), 200, None),
        (request.clone().header("if-none-match", &etag), 304, None),
        (request.clone().and("limit=ten"), 400, None),
        (request.clone().header("accountId", "another"), 403, None),
        (request.clone().path("/"), 404, None),
        (request.clone().method(Method::DELETE), 405, None),
        (request.body(vec![b' '; (1 << 20) + 1]), 413, None),
        (other_day.clone(), 502, Some(Fault::Unauthorized)),
        (other_day, 503, Some(Fault::TooMany)),
    ] {
        if let Some(fault) = fault {
            harness.control.set_faults(FaultPlan::always(fault));
        }
        let response = harness.send(&request).await;
        assert_eq!(response.status.as_u16(), status, "{}", response.text());
        let (limit, left, more_in) = rate_limit(&response).unwrap();
        assert!(limit == 600 && left < 600 && more_in == 1, "{status}: {limit} {left} {more_in}");
    }
}

#[tokio::test]
async fn rate_limit_headers_unknown_caller_are_absent() {
    let harness = start().await;
    for request in [TestRequest::get(SETTLED_DAY), TestRequest::get(SETTLED_DAY).key("key-of-nobody")] {
        let response = harness.send(&request).await;
        response.assert_problem(401, "");
        assert_eq!(rate_limit(&response), None);
    }
    let open = TestHarness::start_exact(50, 4).await;
    let response = open.send(&TestRequest::get(SETTLED_DAY).key("key-of-all")).await;
    response.page();
    assert_eq!(rate_limit(&response), None);
    assert_eq!(rate_limit(&open.send(&TestRequest::get(SETTLED_DAY).path("/")).await), None);
}

#[tokio::test]
async fn key_rotation_old_and_new_key_share_caller() {
    let keys = format!("api_key_sha256 = ['{}', '{}']\nrequests_per_minute = 2", key_hash("old"), key_hash("new"));
    let callers = format!("[[callers]]\nname = 'etl'\n{keys}\n");
    let harness = TestHarness::start(exact_profile(50, 4), &Settings::default().tables(&callers)).await;
    let with = |key| TestRequest::get(SETTLED_DAY).key(key);
    harness.send(&with("old")).await.page();
    harness.send(&with("new")).await.page();
    harness.send(&with("old")).await.assert_problem(429, "");
    harness.send(&with("new")).await.assert_problem(429, "");
    harness.send(&with("none")).await.assert_problem(401, "");
    let metrics = harness.gateway.metrics().await;
    let labels = ["caller=\"etl\"", "outcome=\"too_many_requests\""];
    assert_eq!(metrics.count("koregate_requests_total", &labels), 2, "refusals are counted for the caller");
}

#[tokio::test]
async fn caller_that_has_spent_its_calls_is_served_from_the_cache() {
    let callers = caller_table("etl", "key-etl", "upstream_calls_per_hour = 2") + &caller_table("bi", "key-bi", "");
    let harness = TestHarness::start(exact_profile(150, 4), &Settings::default().tables(&callers)).await;
    let day = |query: &str, key| TestRequest::get(query).key(key);
    let other_day = "from=2026-02-22&to=2026-02-22";
    harness.send(&day(SETTLED_DAY, "key-etl")).await.page();
    let calls = harness.calls();
    assert_eq!(calls, 2, "150 items");
    let refused = harness.send(&day(other_day, "key-etl")).await;
    refused.assert_problem(429, "upstream calls");
    assert!(refused.text().contains("/koregate/v1/problems/upstream-calls-spent"), "{}", refused.text());
    assert!((3500..=3601).contains(&refused.retry_after()), "{}", refused.retry_after());
    assert_eq!(harness.calls(), calls, "a refusal costs no call");
    harness.send(&day(SETTLED_DAY, "key-etl")).await.page();
    harness.send(&day(other_day, "key-bi")).await.page();
    harness.send(&day(other_day, "key-etl")).await.page();
    let metrics = harness.gateway.metrics().await;
    let labels = ["caller=\"etl\"", "limit=\"upstream_calls_per_hour\"", "mode=\"enforce\""];
    assert_eq!(metrics.count("koregate_caller_limit_refusals_total", &labels), 1);
}
