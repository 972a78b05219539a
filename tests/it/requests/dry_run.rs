//! `Prefer: dry-run`: the expected cost of a window, reported without any upstream call.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{
    ACCOUNT, ApiVariant, OTHER_STREAM, Profile, SETTLED_DAY, SelectOn, Settings, TestHarness, TestRequest,
    caller_table, exact_profile,
};

/// The reported cost of `request`; the report must not cost any call.
async fn reported_cost(harness: &TestHarness, request: &TestRequest) -> Value {
    let calls = harness.calls();
    let response = harness.send(&request.clone().dry_run()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("preference-applied"), Some("dry-run"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("cache-status"), None, "no window is served");
    assert_eq!(harness.calls(), calls, "a dry run makes no call");
    response.json()
}

/// The calls that `request` really costs.
async fn actual_calls(harness: &TestHarness, request: &TestRequest) -> u64 {
    let before = harness.calls();
    harness.send(request).await.page();
    harness.calls() - before
}

#[tokio::test]
async fn dry_run_cold_then_cached_window_reports_cost() {
    let harness = TestHarness::start_exact(500, 6).await;
    let request = TestRequest::get("from=2026-02-22&to=2026-02-23&limit=1");
    let nothing = json!({"of": "nothing", "items": 0, "seconds": 0});
    let source = json!({"account_id": ACCOUNT, "field": "segmentStartTime", "upper_bound": "inclusive"});
    let cold = json!({
        "calls": {"at_least": 1, "expected": null},
        "seconds": 0.0,
        "chunks": 48,
        "hits": 0,
        "missing": [{"from": "2026-02-22T00:00:00Z", "to": "2026-02-24T00:00:00Z"}],
        "under_way": [],
        "basis": nothing,
        "settled_until": "2026-02-24T12:34:56Z",
        "source": source,
    });
    assert_eq!(reported_cost(&harness, &request).await, cold);
    assert_eq!(reported_cost(&harness, &request).await, cold, "a dry run changes nothing");
    let calls = harness.calls();
    let response = harness.send(&request).await;
    assert!(response.cache_status().ends_with("detail=\"chunks=48 hits=0 calls=10\""), "{}", response.cache_status());
    assert_eq!(harness.calls() - calls, 10);
    let warm = json!({
        "calls": {"at_least": 0, "expected": 0},
        "seconds": 0.0,
        "chunks": 48,
        "hits": 48,
        "missing": [],
        "under_way": [],
        "basis": {"of": "series", "items": 1000, "seconds": 172_800},
        "settled_until": "2026-02-24T12:34:56Z",
        "source": source,
    });
    assert_eq!(reported_cost(&harness, &request).await, warm);
    let future = reported_cost(&harness, &TestRequest::get("from=2026-03-01&to=2026-03-01")).await;
    assert_eq!((&future["calls"], &future["chunks"]), (&warm["calls"], &json!(0)));
}

#[tokio::test]
async fn dry_run_known_stream_predicts_calls() {
    let harness = TestHarness::start_exact(500, 9).await;
    actual_calls(&harness, &TestRequest::get("from=2026-02-19&to=2026-02-19")).await;
    for (query, runs, calls) in [
        ("from=2026-02-18&to=2026-02-20", 2, 10),
        ("from=2026-02-18&to=2026-02-23", 1, 15),
        ("from=2026-02-18&to=2026-02-23", 0, 0),
    ] {
        let request = TestRequest::get(query);
        let cost = reported_cost(&harness, &request).await;
        assert_eq!(cost["calls"], json!({"at_least": runs, "expected": calls}), "{cost}");
        assert_eq!(cost["missing"].as_array().unwrap().len(), runs);
        assert_eq!(actual_calls(&harness, &request).await, calls, "{query}");
    }
}

#[tokio::test]
async fn dry_run_open_window_predicts_refetch() {
    let harness = TestHarness::start_exact(500, 6).await;
    let request = TestRequest::get("from=2026-02-25&to=2026-02-25");
    actual_calls(&harness, &request).await;
    assert_eq!(reported_cost(&harness, &request).await["calls"]["at_least"], 0);
    harness.advance(Duration::from_secs(31));
    let cost = reported_cost(&harness, &request).await;
    assert_eq!(cost["calls"], json!({"at_least": 1, "expected": 1}));
    assert_eq!(cost["missing"], json!([{"from": "2026-02-25T11:35:27Z", "to": "2026-02-25T12:35:27.789Z"}]));
    let response = harness.send(&request).await;
    let chunks = format!("chunks={} hits={} calls=1", cost["chunks"], cost["hits"]);
    assert!(response.cache_status().contains(&chunks), "{} instead of {chunks}", response.cache_status());
}

#[tokio::test]
async fn dry_run_density_comes_from_series_or_unfiltered() {
    let harness = TestHarness::start_exact(500, 6).await;
    actual_calls(&harness, &TestRequest::get(SETTLED_DAY)).await;
    let other_day = "from=2026-02-22&to=2026-02-22";
    for (request, of, expected) in [
        (TestRequest::get(other_day).and("includeAgenticData=true"), "series", json!(5)),
        (TestRequest::post(other_day, r#"{"channels":["chat"]}"#), "unfiltered", json!(5)),
        (TestRequest::post(other_day, r#"{"more":["chat"]}"#), "nothing", json!(null)),
        (TestRequest::get(other_day).and("more=1"), "nothing", json!(null)),
        (TestRequest::get(other_day).stream(OTHER_STREAM), "nothing", json!(null)),
    ] {
        let cost = reported_cost(&harness, &request).await;
        assert_eq!((&cost["basis"]["of"], &cost["calls"]["expected"]), (&json!(of), &expected), "{request:?}");
    }
    let filtered = reported_cost(&harness, &TestRequest::post(SETTLED_DAY, r#"{"channels":["chat"]}"#)).await;
    assert_eq!(
        (&filtered["calls"]["at_least"], &filtered["hits"]),
        (&json!(0), &json!(24)),
        "the cached day serves it"
    );
}

#[tokio::test]
async fn dry_run_fetch_under_way_costs_nothing() {
    let harness = TestHarness::start_exact(500, 6).await;
    harness.control.set_latency(Duration::from_mins(10), Duration::ZERO);
    let (request, longer) = (TestRequest::get(SETTLED_DAY), TestRequest::get("from=2026-02-22&to=2026-02-23"));
    let (same, more) = tokio::select! {
        response = harness.send(&request) => panic!("{response:?}"),
        costs = async {
            harness.until_calls(1).await;
            (reported_cost(&harness, &request).await, reported_cost(&harness, &longer).await)
        } => costs,
    };
    let day = json!([{"from": "2026-02-23T00:00:00Z", "to": "2026-02-24T00:00:00Z"}]);
    assert_eq!((&same["calls"]["at_least"], &same["under_way"]), (&json!(0), &day));
    assert_eq!((&same["missing"], &same["chunks"], &same["hits"]), (&json!([]), &json!(24), &json!(0)));
    assert_eq!(more["calls"]["at_least"], 1);
    assert_eq!(more["missing"], json!([{"from": "2026-02-22T00:00:00Z", "to": "2026-02-23T00:00:00Z"}]));
}

#[tokio::test]
async fn dry_run_estimates_seconds_from_quota() {
    let settings = Settings::default().limits("[{ requests = 60, per = '1m' }, { requests = 1800, per = '1h' }]");
    let harness = TestHarness::start(exact_profile(1000, 25), &settings).await;
    assert_eq!(actual_calls(&harness, &TestRequest::get("from=2026-02-01&to=2026-02-01")).await, 10);
    let request = TestRequest::get("from=2026-02-02&to=2026-02-21");
    let cost = reported_cost(&harness, &request).await;
    assert_eq!(cost["calls"], json!({"at_least": 1, "expected": 200}));
    let seconds = cost["seconds"].as_f64().unwrap();
    assert!((170.0..=200.0).contains(&seconds), "{seconds} s for 200 calls at 60 a minute");
    let background = reported_cost(&harness, &request.header("priority", "u=7")).await["seconds"].as_f64().unwrap();
    assert!(background > seconds, "{background} s in the background, which must leave a reserve, and {seconds} s else");
}

#[tokio::test]
async fn dry_run_uncut_windows_cost_own_calls() {
    let profile =
        Profile { api: ApiVariant { select_on: SelectOn::End, ..ApiVariant::default() }, ..exact_profile(500, 6) };
    let harness = TestHarness::start(profile, &Settings::default()).await;
    actual_calls(&harness, &TestRequest::get(SETTLED_DAY)).await;
    let (known, new) = (TestRequest::get(SETTLED_DAY), TestRequest::get("from=2026-02-22&to=2026-02-23"));
    let cost = reported_cost(&harness, &known).await;
    assert_eq!(
        (&cost["calls"], &cost["chunks"], &cost["hits"]),
        (&json!({"at_least": 0, "expected": 0}), &json!(1), &json!(1))
    );
    let cost = reported_cost(&harness, &new).await;
    assert_eq!(cost["calls"], json!({"at_least": 1, "expected": 10}));
    assert_eq!((&cost["chunks"], &cost["hits"]), (&json!(1), &json!(0)));
    assert_eq!(actual_calls(&harness, &new).await, 10);
}

#[tokio::test]
async fn cost_path_answers_like_a_dry_run() {
    let harness = TestHarness::start_exact(500, 6).await;
    actual_calls(&harness, &TestRequest::get(SETTLED_DAY)).await;
    let query = "from=2026-02-22T00:00:00Z&to=2026-02-24T06:00:00.5Z&limit=7&offset=3";
    let (filter, calls) = (r#"{"channels":["chat"]}"#, harness.calls());
    for request in [
        TestRequest::get(query),
        TestRequest::get(query).and("includeAgenticData=true"),
        TestRequest::get(query).and("more=1"),
        TestRequest::get(query).body(filter),
        TestRequest::post(query, filter),
        TestRequest::query(query, filter),
    ] {
        let expected = reported_cost(&harness, &request).await;
        let cost = request.clone().path("/koregate/v1/cost").and("stream=st%2Dtest");
        let response = harness.send(&cost).await;
        assert_eq!((response.status.as_u16(), response.json()), (200, expected), "{request:?}");
        let (cache_control, applied) = (response.header("cache-control"), response.header("preference-applied"));
        assert_eq!((cache_control, applied), (Some("no-store"), None));
        let head = harness.send(&cost.method(Method::HEAD)).await;
        assert_eq!((head.header("content-length"), head.body.len()), (response.header("content-length"), 0));
    }
    // The missing time can be requested as it is printed.
    let cost = reported_cost(&harness, &TestRequest::get(query)).await;
    for missing in cost["missing"].as_array().unwrap() {
        let (from, to) = (missing["from"].as_str().unwrap(), missing["to"].as_str().unwrap());
        assert_eq!(harness.send(&TestRequest::get(format!("from={from}&to={to}")).dry_run()).await.status, 200);
    }
    for (query, named) in [
        (query.to_owned(), "stream: it is missing"),
        (format!("{query}&stream=st-test&stream=st-test"), "stream: it stands twice"),
        ("stream=st-test&to=2026-02-23".to_owned(), "from: it is missing"),
    ] {
        let response = harness.send(&TestRequest::get(query).path("/koregate/v1/cost")).await;
        response.assert_problem_names(400, named);
    }
    assert_eq!(harness.calls(), calls);
}

#[tokio::test]
async fn dry_run_is_refused_like_its_request() {
    let callers = caller_table("few", "key", "streams = ['st-test']\nrequests_per_minute = 5");
    let harness = TestHarness::start(exact_profile(50, 4), &Settings::default().tables(&callers)).await;
    let request = TestRequest::get(SETTLED_DAY).key("key").dry_run();
    for (request, status) in [
        (request.clone().key("another"), 401),
        (request.clone(), 200),
        (request.clone().stream(OTHER_STREAM), 403),
        (request.clone().and("limit=ten"), 400),
        (request.clone().body("[]"), 400),
        (request.clone().method(Method::HEAD), 200),
        (request.clone(), 429),
    ] {
        let response = harness.send(&request).await;
        assert_eq!(response.status, status, "{}", response.text());
        assert_eq!(response.header("preference-applied").is_some(), status == 200);
    }
    assert_eq!(harness.calls(), 0);
}
