//! What a window will cost is told beforehand, and costs nothing to know.

use std::time::Duration;

use http::Method;
use koregate_simulator::{ApiVariant, Profile, SelectOn};
use serde_json::{Value, json};

use crate::callers::caller;
use crate::support::{Ask, NOW, Rig, Settings, at, exact_profile, until};

const DAY: &str = "from=2026-02-23&to=2026-02-23";

fn dry(ask: &Ask) -> Ask {
    ask.clone().header("prefer", "dry-run")
}

/// What `ask` would cost. It must not have cost anything to know.
async fn told(rig: &Rig, ask: &Ask) -> Value {
    let calls = rig.calls();
    let answer = rig.ask(&dry(ask)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("preference-applied"), Some("dry-run"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("cache-status"), None, "no window was served");
    assert_eq!(rig.calls(), calls, "a call was made");
    answer.json()
}

/// How many calls `ask` really costs.
async fn spent(rig: &Rig, ask: &Ask) -> u64 {
    let before = rig.calls();
    rig.ask(ask).await.page();
    rig.calls() - before
}

#[tokio::test]
async fn a_window_that_is_missing_costs_a_call_at_least_and_nothing_once_it_is_there() {
    let rig = Rig::start(exact_profile(500, 6), &Settings::default()).await;
    let ask = Ask::get("from=2026-02-22&to=2026-02-23&limit=1");
    let nothing = json!({"of": "nothing", "items": 0, "seconds": 0});
    let cold = json!({
        "calls": {"at_least": 1, "expected": null},
        "seconds": 0.0,
        "chunks": 48,
        "hits": 0,
        "missing": [{"from": "2026-02-22T00:00:00Z", "to": "2026-02-24T00:00:00Z"}],
        "under_way": [],
        "basis": nothing,
    });
    assert_eq!(told(&rig, &ask).await, cold);
    assert_eq!(told(&rig, &ask).await, cold, "to ask for it has changed it");
    let calls = rig.calls();
    let answer = rig.ask(&ask).await;
    assert!(answer.cache_status().ends_with("detail=\"chunks=48 hits=0 calls=10\""), "{}", answer.cache_status());
    assert_eq!(rig.calls() - calls, 10);
    let warm = json!({
        "calls": {"at_least": 0, "expected": 0},
        "seconds": 0.0,
        "chunks": 48,
        "hits": 48,
        "missing": [],
        "under_way": [],
        "basis": {"of": "series", "items": 1000, "seconds": 172_800},
    });
    assert_eq!(told(&rig, &ask).await, warm);
    let future = told(&rig, &Ask::get("from=2026-03-01&to=2026-03-01")).await;
    assert_eq!((&future["calls"], &future["chunks"]), (&warm["calls"], &json!(0)));
}

#[tokio::test]
async fn of_a_stream_that_is_known_the_calls_are_told_before_they_are_made() {
    let rig = Rig::start(exact_profile(500, 9), &Settings::default()).await;
    spent(&rig, &Ask::get("from=2026-02-19&to=2026-02-19")).await;
    for (query, runs, calls) in [
        ("from=2026-02-18&to=2026-02-20", 2, 10),
        ("from=2026-02-18&to=2026-02-23", 1, 15),
        ("from=2026-02-18&to=2026-02-23", 0, 0),
    ] {
        let ask = Ask::get(query);
        let cost = told(&rig, &ask).await;
        assert_eq!(cost["calls"], json!({"at_least": runs, "expected": calls}), "{cost}");
        assert_eq!(cost["missing"].as_array().unwrap().len(), runs);
        assert_eq!(spent(&rig, &ask).await, calls, "{query}");
    }
}

#[tokio::test]
async fn what_is_open_is_told_as_it_would_be_fetched() {
    let rig = Rig::start(exact_profile(500, 6), &Settings::default()).await;
    let ask = Ask::get("from=2026-02-25&to=2026-02-25");
    spent(&rig, &ask).await;
    assert_eq!(told(&rig, &ask).await["calls"]["at_least"], 0);
    rig.clock.set(at(NOW) + Duration::from_secs(31));
    let cost = told(&rig, &ask).await;
    assert_eq!(cost["calls"], json!({"at_least": 1, "expected": 1}));
    assert_eq!(cost["missing"], json!([{"from": "2026-02-25T11:35:27Z", "to": "2026-02-25T12:35:27.789Z"}]));
    let answer = rig.ask(&ask).await;
    let pieces = format!("chunks={} hits={} calls=1", cost["chunks"], cost["hits"]);
    assert!(answer.cache_status().contains(&pieces), "{} but {pieces}", answer.cache_status());
}

#[tokio::test]
async fn the_density_is_that_of_the_series_or_of_what_its_filter_chooses_from() {
    let rig = Rig::start(exact_profile(500, 6), &Settings::default()).await;
    spent(&rig, &Ask::get(DAY)).await;
    let other_day = "from=2026-02-22&to=2026-02-22";
    for (ask, of, expected) in [
        (Ask::get(other_day).and("includeAgenticData=true"), "series", json!(5)),
        (Ask::post(other_day, r#"{"channels":["chat"]}"#), "unfiltered", json!(5)),
        (Ask::post(other_day, r#"{"more":["chat"]}"#), "nothing", json!(null)),
        (Ask::get(other_day).and("more=1"), "nothing", json!(null)),
        (Ask::get(other_day).stream("st-other"), "nothing", json!(null)),
    ] {
        let cost = told(&rig, &ask).await;
        assert_eq!((&cost["basis"]["of"], &cost["calls"]["expected"]), (&json!(of), &expected), "{ask:?}");
    }
    let filtered = told(&rig, &Ask::post(DAY, r#"{"channels":["chat"]}"#)).await;
    assert_eq!((&filtered["calls"]["at_least"], &filtered["hits"]), (&json!(0), &json!(24)), "it serves what is there");
}

#[tokio::test]
async fn what_is_under_way_costs_nothing_more() {
    let rig = Rig::start(exact_profile(500, 6), &Settings::default()).await;
    rig.control.set_latency(Duration::from_mins(10), Duration::ZERO);
    let (ask, longer) = (Ask::get(DAY), Ask::get("from=2026-02-22&to=2026-02-23"));
    let (same, more) = tokio::select! {
        answer = rig.ask(&ask) => panic!("{answer:?}"),
        told = async {
            until("the first upstream call", || rig.calls() > 0).await;
            (told(&rig, &ask).await, told(&rig, &longer).await)
        } => told,
    };
    let day = json!([{"from": "2026-02-23T00:00:00Z", "to": "2026-02-24T00:00:00Z"}]);
    assert_eq!((&same["calls"]["at_least"], &same["under_way"]), (&json!(0), &day));
    assert_eq!((&same["missing"], &same["chunks"], &same["hits"]), (&json!([]), &json!(24), &json!(0)));
    assert_eq!(more["calls"]["at_least"], 1);
    assert_eq!(more["missing"], json!([{"from": "2026-02-22T00:00:00Z", "to": "2026-02-23T00:00:00Z"}]));
}

#[tokio::test]
async fn how_long_the_calls_would_take_is_told_by_the_quota() {
    let settings = Settings::default().limits("[{ requests = 60, per = '1m' }, { requests = 1800, per = '1h' }]");
    let rig = Rig::start(exact_profile(1000, 25), &settings).await;
    assert_eq!(spent(&rig, &Ask::get("from=2026-02-01&to=2026-02-01")).await, 10);
    let ask = Ask::get("from=2026-02-02&to=2026-02-21");
    let cost = told(&rig, &ask).await;
    assert_eq!(cost["calls"], json!({"at_least": 1, "expected": 200}));
    let seconds = cost["seconds"].as_f64().unwrap();
    assert!((170.0..=200.0).contains(&seconds), "{seconds} s for 200 calls at 60 a minute");
    let patient = told(&rig, &ask.header("priority", "u=7")).await["seconds"].as_f64().unwrap();
    assert!(patient > seconds, "{patient} s in the background, which leaves a reserve alone, and {seconds} s else");
}

#[tokio::test]
async fn where_windows_cannot_be_cut_each_is_a_call_of_its_own() {
    let profile =
        Profile { api: ApiVariant { select_on: SelectOn::End, ..ApiVariant::default() }, ..exact_profile(500, 6) };
    let rig = Rig::start(profile, &Settings::default()).await;
    spent(&rig, &Ask::get(DAY)).await;
    let (known, new) = (Ask::get(DAY), Ask::get("from=2026-02-22&to=2026-02-23"));
    let cost = told(&rig, &known).await;
    assert_eq!(
        (&cost["calls"], &cost["chunks"], &cost["hits"]),
        (&json!({"at_least": 0, "expected": 0}), &json!(1), &json!(1))
    );
    let cost = told(&rig, &new).await;
    assert_eq!(cost["calls"], json!({"at_least": 1, "expected": 10}));
    assert_eq!((&cost["chunks"], &cost["hits"]), (&json!(1), &json!(0)));
    assert_eq!(spent(&rig, &new).await, 10);
}

#[tokio::test]
async fn a_dry_run_is_refused_as_the_request_would_be() {
    let callers = caller("few", "key", "streams = ['st-test']\nrequests_per_minute = 5");
    let rig = Rig::start(exact_profile(50, 4), &Settings::default().tables(&callers)).await;
    let ask = dry(&Ask::get(DAY).header("x-api-key", "key"));
    for (ask, status) in [
        (ask.clone().header("x-api-key", "another"), 401),
        (ask.clone(), 200),
        (ask.clone().stream("st-other"), 403),
        (ask.clone().and("limit=ten"), 400),
        (ask.clone().body("[]"), 400),
        (ask.clone().method(Method::HEAD), 405),
        (ask.clone(), 429),
    ] {
        let answer = rig.ask(&ask).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("preference-applied").is_some(), status == 200);
    }
    assert_eq!(rig.calls(), 0);
}
