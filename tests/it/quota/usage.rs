//! The usage report: requests, items and calls of each caller, for the caller itself and for operators.

use http::Method;
use serde_json::{Value, json};

use crate::support::{
    ACCOUNT, Fault, FaultPlan, OTHER_ACCOUNT, OTHER_STREAM, Profile, SETTLED_DAY, Settings, StreamProfile, TestHarness,
    TestRequest, TestResponse, caller_table, exact_profile, exact_stream, other_credential,
};

/// Two accounts with a stream each, and two callers, one of which may see the first account only.
async fn start() -> TestHarness {
    let mut profile = Profile { more_accounts: vec![other_credential()], ..exact_profile(250, 4) };
    let account_id = Some(OTHER_ACCOUNT.to_owned());
    profile.streams.push(StreamProfile { account_id, ..exact_stream(OTHER_STREAM, 150) });
    let callers = [
        caller_table("bi", "key-of-bi", "weight = 3"),
        caller_table("qa", "key-of-qa", &format!("accounts = ['{ACCOUNT}']\nrequests_per_minute = 4")),
    ];
    TestHarness::start(profile, &Settings::default().tables(&callers.concat())).await
}

/// The request for the report.
fn usage() -> TestRequest {
    TestRequest::path_only("/koregate/v1/usage").header("accountId", "")
}

/// The report of the caller with this key.
async fn report(harness: &TestHarness, key: &str) -> Value {
    let response = harness.send(&usage().key(key)).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    response.json()
}

/// The figures of an account: requests, items, calls spent and saved, and calls spent within its one limit.
fn figures(usage: &Value, index: usize) -> (&Value, [u64; 5]) {
    let account = &usage["accounts"][index];
    let number = |pointer: &str| account.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{usage}"));
    let all = ["/requests", "/items", "/calls/spent", "/calls/saved", "/quota/0/spent"].map(number);
    (&account["account_id"], all)
}

#[tokio::test]
async fn shared_window_charges_first_and_credits_second() {
    let harness = start().await;
    harness.send(&TestRequest::get(SETTLED_DAY).key("key-of-bi")).await.page();
    let response = harness.send(&TestRequest::get(SETTLED_DAY).key("key-of-qa")).await;
    let etag = response.header("etag").unwrap().to_owned();
    assert_eq!(
        harness.send(&TestRequest::get(SETTLED_DAY).key("key-of-qa").header("if-none-match", &etag)).await.status,
        304
    );
    let other = TestRequest::get(SETTLED_DAY).stream(OTHER_STREAM).header("accountId", OTHER_ACCOUNT);
    harness.send(&other.key("key-of-bi").and("limit=50")).await.page();
    // Heads, dry runs and refusals are not counted.
    assert_eq!(harness.send(&TestRequest::get(SETTLED_DAY).key("key-of-bi").method(Method::HEAD)).await.status, 200);
    harness.send(&TestRequest::get(SETTLED_DAY).key("key-of-bi").dry_run()).await;
    harness.send(&TestRequest::get("from=never").key("key-of-bi")).await;
    assert_eq!(harness.calls(), 5);

    let bi = report(&harness, "key-of-bi").await;
    assert_eq!((&bi["caller"], &bi["weight"]), (&json!("bi"), &json!(3)));
    assert_eq!(bi["limit"]["requests_per_minute"], 600);
    assert_eq!(figures(&bi, 0), (&json!(ACCOUNT), [1, 250, 3, 0, 3]));
    assert_eq!(figures(&bi, 1), (&json!(OTHER_ACCOUNT), [1, 50, 2, 0, 2]));
    assert!(!bi.to_string().contains("qa"), "{bi}");

    let qa = report(&harness, "key-of-qa").await;
    assert_eq!((&qa["caller"], &qa["weight"]), (&json!("qa"), &json!(1)));
    assert_eq!((&qa["limit"]["requests_per_minute"], &qa["limit"]["left"]), (&json!(4), &json!(1)));
    assert!((30.0..=45.0).contains(&qa["limit"]["full_in_seconds"].as_f64().unwrap()), "{qa}");
    assert_eq!(figures(&qa, 0), (&json!(ACCOUNT), [2, 250, 0, 6, 0]), "a 304 saves calls and delivers no items");
    assert_eq!(qa["accounts"].as_array().unwrap().len(), 1, "an account that it may not see is absent");
    let quota = json!([{"limit": 1_000_000, "per_seconds": 60, "budget": 1_000_000, "left": 999_997, "spent": 0}]);
    assert_eq!(qa["accounts"][0]["quota"], quota, "the remaining calls are shared by all callers");
    assert_eq!(qa["accounts"][0]["waiting"], 0);
    assert_eq!(harness.calls(), 5, "the report costs no call");

    let all = harness.gateway.get_admin("/api/v1/callers").await.json();
    let [all_bi, all_qa] = [0, 1].map(|index| &all["callers"][index]);
    assert_eq!((&all_bi["accounts"], &all_qa["accounts"]), (&bi["accounts"], &qa["accounts"]));
    assert_eq!((&all_qa["caller"], &all_qa["limit"]["left"]), (&json!("qa"), &json!(1)));
    let page = harness.gateway.get_admin("/").await;
    for (caller, cells) in
        [("bi", [("Calls made", 5), ("Calls saved", 0)]), ("qa", [("Calls made", 0), ("Calls saved", 6)])]
    {
        let row = page
            .text()
            .split_once(&format!(">{caller}</th>"))
            .and_then(|(_, rest)| rest.split_once("</tr>"))
            .unwrap()
            .0;
        for (name, count) in cells {
            assert!(row.contains(&format!("data-label=\"{name}\"><span>{count}</span>")), "{caller}: {row}");
        }
    }
}

#[tokio::test]
async fn unconfigured_callers_share_one_usage_entry() {
    let harness = TestHarness::start_exact(250, 4).await;
    for _ in 0..2 {
        harness.get(SETTLED_DAY).await.page();
    }
    let usage = report(&harness, "any-key").await;
    assert_eq!((&usage["caller"], &usage["weight"], &usage["limit"]), (&json!("-"), &json!(1), &json!(null)));
    assert_eq!(figures(&usage, 0), (&json!(ACCOUNT), [2, 500, 3, 3, 3]));
    assert_eq!(harness.gateway.get_admin("/api/v1/callers").await.json(), json!({"callers": [usage]}));
}

#[tokio::test]
async fn usage_request_obeys_caller_rules() {
    let harness = start().await;
    let allowed = |response: &TestResponse| response.header("allow").map(str::to_owned);
    let request = usage().key("key-of-qa");
    let response = harness.send(&request.clone().key("key-of-nobody")).await;
    assert_eq!((response.status.as_u16(), allowed(&response)), (401, None));
    for (request, status, methods) in [
        (request.clone().method(Method::POST), 405, Some("GET, HEAD")),
        (request.clone().method(Method::HEAD), 200, None),
        (TestRequest::get(SETTLED_DAY).key("key-of-qa").method(Method::PUT), 405, Some("GET, HEAD, POST, QUERY")),
        (request.clone().path("/koregate/v1/callers"), 404, None),
        (request.clone(), 429, None),
    ] {
        let response = harness.send(&request).await;
        assert_eq!((response.status.as_u16(), allowed(&response).as_deref()), (status, methods), "{request:?}");
    }
}

#[tokio::test]
async fn status_page_shows_reduced_budget() {
    let harness = TestHarness::start_exact(250, 4).await;
    assert!(!harness.gateway.get_admin("/").await.text().contains("ours"));
    harness.control.set_faults(FaultPlan::times(Fault::TooMany, 1));
    harness.get(SETTLED_DAY).await.page();
    let (page, usage) = (harness.gateway.get_admin("/").await, report(&harness, "any-key").await);
    let quota = &usage["accounts"][0]["quota"][0];
    assert!(quota["budget"].as_u64() < quota["limit"].as_u64(), "{usage}");
    assert!(page.text().contains("1,000,000 a minute") && page.text().contains(" of them ours"), "{}", page.text());
}
