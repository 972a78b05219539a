//! What each caller had and what it cost: told to itself, and to operators.

use http::Method;
use koregate_simulator::{Credential, Fault, FaultPlan, Profile, StreamProfile};
use serde_json::{Value, json};

use crate::callers::caller;
use crate::support::{ACCOUNT, Answer, Ask, Rig, Settings, exact_profile};

const DAY: &str = "from=2026-02-23&to=2026-02-23";
const OTHER_ACCOUNT: &str = "664b33a620bd0892e0000002";
const OTHER_STREAM: &str = "st-other";

/// Two accounts with a stream each, and callers of which one may see only the first.
async fn rig() -> Rig {
    let other = Credential {
        account_id: OTHER_ACCOUNT.to_owned(),
        client_id: "cs-2".to_owned(),
        client_secret: "another-secret-of-no-worth".to_owned(),
    };
    let mut profile = Profile { more_accounts: vec![other], ..exact_profile(250, 4) };
    let account_id = Some(OTHER_ACCOUNT.to_owned());
    profile.streams.push(StreamProfile { account_id, exact: true, ..StreamProfile::new(OTHER_STREAM, 150) });
    let callers = [
        caller("bi", "key-of-bi", "weight = 3"),
        caller("qa", "key-of-qa", &format!("accounts = ['{ACCOUNT}']\nrequests_per_minute = 4")),
    ];
    Rig::start(profile, &Settings::default().tables(&callers.concat())).await
}

fn by(key: &str, ask: Ask) -> Ask {
    ask.header("x-api-key", key)
}

fn usage() -> Ask {
    Ask::get("").path("/koregate/v1/usage").header("accountId", "")
}

async fn own(rig: &Rig, key: &str) -> Value {
    let answer = rig.ask(&by(key, usage())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

/// What is told of an account: requests, items, calls spent and saved, and spent in the window of its one limit.
fn figures(usage: &Value, place: usize) -> (&Value, [u64; 5]) {
    let account = &usage["accounts"][place];
    let of = |pointer: &str| account.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{usage}"));
    let all = ["/requests", "/items", "/calls/spent", "/calls/saved", "/quota/0/spent"].map(of);
    (&account["account_id"], all)
}

#[tokio::test]
async fn of_a_window_that_two_share_one_is_charged_and_the_other_saved() {
    let rig = rig().await;
    rig.ask(&by("key-of-bi", Ask::get(DAY))).await.page();
    let answer = rig.ask(&by("key-of-qa", Ask::get(DAY))).await;
    let etag = answer.header("etag").unwrap().to_owned();
    assert_eq!(rig.ask(&by("key-of-qa", Ask::get(DAY)).header("if-none-match", &etag)).await.status, 304);
    let other = Ask::get(DAY).stream(OTHER_STREAM).header("accountId", OTHER_ACCOUNT);
    rig.ask(&by("key-of-bi", other).and("limit=50")).await.page();
    // Neither a refusal nor a dry run is an answer.
    rig.ask(&by("key-of-bi", Ask::get(DAY)).header("prefer", "dry-run")).await;
    rig.ask(&by("key-of-bi", Ask::get("from=never"))).await;
    assert_eq!(rig.calls(), 5);

    let bi = own(&rig, "key-of-bi").await;
    assert_eq!((&bi["caller"], &bi["weight"]), (&json!("bi"), &json!(3)));
    assert_eq!(bi["limit"]["requests_per_minute"], 600);
    assert_eq!(figures(&bi, 0), (&json!(ACCOUNT), [1, 250, 3, 0, 3]));
    assert_eq!(figures(&bi, 1), (&json!(OTHER_ACCOUNT), [1, 50, 2, 0, 2]));
    assert!(!bi.to_string().contains("qa"), "{bi}");

    let qa = own(&rig, "key-of-qa").await;
    assert_eq!((&qa["caller"], &qa["weight"]), (&json!("qa"), &json!(1)));
    assert_eq!((&qa["limit"]["requests_per_minute"], &qa["limit"]["left"]), (&json!(4), &json!(1)));
    assert!((30.0..=45.0).contains(&qa["limit"]["full_in_seconds"].as_f64().unwrap()), "{qa}");
    assert_eq!(figures(&qa, 0), (&json!(ACCOUNT), [2, 250, 0, 6, 0]), "a 304 saves calls, but delivers nothing");
    assert_eq!(qa["accounts"].as_array().unwrap().len(), 1, "what it may not see, it is not told of");
    let quota = json!([{"limit": 1_000_000, "per_seconds": 60, "budget": 1_000_000, "left": 999_997, "spent": 0}]);
    assert_eq!(qa["accounts"][0]["quota"], quota, "what is left is left for all");
    assert_eq!(qa["accounts"][0]["waiting"], 0);
    assert_eq!(rig.calls(), 5, "to ask for it costs no call");

    let all = rig.door.admin("/api/v1/callers").await.json();
    let [told_bi, told_qa] = [0, 1].map(|place| &all["callers"][place]);
    assert_eq!((&told_bi["accounts"], &told_qa["accounts"]), (&bi["accounts"], &qa["accounts"]));
    assert_eq!((&told_qa["caller"], &told_qa["limit"]["left"]), (&json!("qa"), &json!(1)));
    let page = rig.door.admin("/").await;
    for row in
        ["<tr><td>bi</td><td>2</td><td>5</td><td>0</td></tr>", "<tr><td>qa</td><td>2</td><td>0</td><td>6</td></tr>"]
    {
        assert!(page.text().contains(row), "no {row} in {}", page.text());
    }
}

#[tokio::test]
async fn where_no_callers_are_configured_all_are_one() {
    let rig = Rig::start(exact_profile(250, 4), &Settings::default()).await;
    for _ in 0..2 {
        rig.ask(&Ask::get(DAY)).await.page();
    }
    let usage = own(&rig, "any-key").await;
    assert_eq!((&usage["caller"], &usage["weight"], &usage["limit"]), (&json!("-"), &json!(1), &json!(null)));
    assert_eq!(figures(&usage, 0), (&json!(ACCOUNT), [2, 500, 3, 3, 3]));
    assert_eq!(rig.door.admin("/api/v1/callers").await.json(), json!({"callers": [usage]}));
}

#[tokio::test]
async fn it_is_asked_for_as_anything_else_is() {
    let rig = rig().await;
    let allowed = |answer: &Answer| answer.header("allow").map(str::to_owned);
    let ask = by("key-of-qa", usage());
    let answer = rig.ask(&ask.clone().header("x-api-key", "key-of-nobody")).await;
    assert_eq!((answer.status.as_u16(), allowed(&answer)), (401, None));
    for (ask, status, methods) in [
        (ask.clone().method(Method::POST), 405, Some("GET")),
        (ask.clone().method(Method::HEAD), 405, Some("GET")),
        (by("key-of-qa", Ask::get(DAY)).method(Method::PUT), 405, Some("GET, POST")),
        (ask.clone().path("/koregate/v1/callers"), 404, None),
        (ask.clone(), 429, None),
    ] {
        let answer = rig.ask(&ask).await;
        assert_eq!((answer.status.as_u16(), allowed(&answer).as_deref()), (status, methods), "{ask:?}");
    }
}

#[tokio::test]
async fn the_status_page_tells_what_of_a_limit_is_left_to_somebody_else() {
    let rig = Rig::start(exact_profile(250, 4), &Settings::default()).await;
    assert!(!rig.door.admin("/").await.text().contains("ours"));
    rig.control.set_faults(FaultPlan::times(Fault::TooMany, 1));
    rig.ask(&Ask::get(DAY)).await.page();
    let (page, usage) = (rig.door.admin("/").await, own(&rig, "any-key").await);
    let quota = &usage["accounts"][0]["quota"][0];
    assert!(quota["budget"].as_u64() < quota["limit"].as_u64(), "{usage}");
    assert!(page.text().contains("1000000 / 1 min, 7") && page.text().contains(" of them ours"), "{}", page.text());
}
