//! What is asked for again and again is said again without a look at its chunks; nobody can tell, but by the time it takes.

use std::time::Duration;

use http::StatusCode;
use koregate_simulator::ItemFilter;

use crate::callers::caller;
use crate::support::{
    ACCOUNT, Answer, Ask, Door, NOW, RedisServer, Rig, STREAM, Settings, assert_items, at, exact_profile,
};

const DAY: &str = "from=2026-02-23&to=2026-02-23";
/// So often it must be asked for before it is ready, and then once more.
const OFTEN: usize = 6;

async fn rig(settings: &Settings) -> Rig {
    Rig::start(exact_profile(120, 4), settings).await
}

/// Bytes of answers that are ready.
fn ready(door: &Door) -> u64 {
    door.gateway.stack().answers.bytes()
}

/// An answer but for what differs each time, and for how the body is framed.
fn comparable(answer: &Answer) -> (StatusCode, Vec<(String, String)>, &[u8]) {
    let differs = ["date", "x-request-id", "content-length", "transfer-encoding", "ratelimit"];
    let mut headers: Vec<(String, String)> = answer
        .headers
        .iter()
        .filter(|(name, _)| !differs.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (answer.status, headers, &answer.body)
}

/// Asks so often that the answer is ready in the end; gives the last.
async fn ask_often(door: &Door, ask: &Ask) -> Answer {
    let mut answer = door.ask(ask).await;
    for _ in 0..OFTEN {
        answer = door.ask(ask).await;
    }
    answer
}

#[tokio::test]
async fn in_each_form_it_says_what_was_said_before() {
    let rig = rig(&Settings::default()).await;
    rig.get(DAY).await.page();
    let etag = rig.get(DAY).await.header("etag").unwrap().to_owned();
    let page = format!("{DAY}&offset=90&limit=17");
    for ask in [
        Ask::get(DAY),
        Ask::get(&page),
        Ask::get(&page).header("accept-encoding", "gzip"),
        Ask::get(&page).header("accept", "application/x-ndjson"),
        Ask::get(&page).header("accept", "application/x-ndjson").header("accept-encoding", "gzip"),
        Ask::get(DAY).header("if-none-match", &etag),
        Ask::get("from=2026-02-23T03:00:00&to=2026-02-23T03:00:00"),
    ] {
        let (before, first) = (ready(&rig.door), rig.ask(&ask).await);
        let last = ask_often(&rig.door, &ask).await;
        assert!(ready(&rig.door) > before, "{ask:?} was never ready");
        assert_eq!(comparable(&first), comparable(&last), "{ask:?}");
        assert!(last.cache_status().starts_with("koregate; hit;"), "{}", last.cache_status());
        assert_ne!(first.header("x-request-id"), last.header("x-request-id"));
    }
    assert_eq!(rig.calls(), 2);
}

#[tokio::test]
async fn its_age_is_told_as_it_is() {
    let rig = rig(&Settings::default()).await;
    let first = ask_often(&rig.door, &Ask::get(DAY)).await;
    assert!(ready(&rig.door) > 0);
    rig.clock.set(at(NOW) + Duration::from_secs(100));
    let last = rig.get(DAY).await;
    assert_eq!((first.header("age"), last.header("age")), (Some("0"), Some("100")));
}

#[tokio::test]
async fn it_is_counted_as_any_other() {
    let rig = rig(&Settings::default()).await;
    let asked = OFTEN as u64 + 1;
    ask_often(&rig.door, &Ask::get(DAY)).await;
    assert!(ready(&rig.door) > 0);
    let usage = &rig.door.admin("/api/v1/callers").await.json()["callers"][0]["accounts"][0];
    let counted = |pointer: &str| usage.pointer(pointer).and_then(serde_json::Value::as_u64);
    // The first took two calls; each of the others would have.
    let saved = 2 * (asked - 1);
    assert_eq!((counted("/requests"), counted("/items")), (Some(asked), Some(120 * asked)));
    assert_eq!((counted("/calls/spent"), counted("/calls/saved")), (Some(2), Some(saved)));
    let metrics = rig.door.admin("/metrics").await;
    let hits = format!(
        "koregate_requests_total{{account=\"{ACCOUNT}\",stream=\"{STREAM}\",caller=\"-\",outcome=\"hit\"}} {}",
        asked - 1
    );
    assert!(metrics.text().contains(&hits), "{}", metrics.text());
}

#[tokio::test]
async fn what_one_may_see_is_not_said_to_another() {
    let callers = [
        caller("bi", "key-of-bi", ""),
        caller("qa", "key-of-qa", "streams = ['st-other']"),
        caller("slow", "key-of-slow", "requests_per_minute = 1"),
    ];
    let rig = rig(&Settings::default().tables(&callers.concat())).await;
    let by = |key: &str| Ask::get(DAY).header("x-api-key", key);
    ask_often(&rig.door, &by("key-of-bi")).await.page();
    assert!(ready(&rig.door) > 0);
    assert_eq!(rig.ask(&by("key-of-qa")).await.status, 403);
    assert_eq!(rig.ask(&by("key-of-nobody")).await.status, 401);
    assert_eq!(rig.ask(&by("key-of-bi").header("accountId", "another")).await.status, 403);
    // And whose own limit is reached is refused, though the answer is ready.
    assert_eq!(rig.ask(&by("key-of-slow")).await.status, 200);
    assert_eq!(rig.ask(&by("key-of-slow")).await.status, 429);
    let left = |answer: &Answer| answer.header("ratelimit").unwrap().to_owned();
    assert_ne!(left(&rig.ask(&by("key-of-bi")).await), left(&rig.ask(&by("key-of-bi")).await));
}

#[tokio::test]
async fn a_request_with_a_body_or_an_open_window_is_never_ready() {
    let rig = rig(&Settings::default()).await;
    ask_often(&rig.door, &Ask::post(DAY, r#"{"agentId": ["a"]}"#)).await;
    ask_often(&rig.door, &Ask::get("from=2026-02-25&to=2026-02-25")).await;
    ask_often(&rig.door, &Ask::get(DAY).header("prefer", "dry-run")).await;
    assert_eq!(ready(&rig.door), 0);
}

#[tokio::test]
async fn what_is_purged_is_not_said_again_by_any_replica() {
    let redis = RedisServer::start();
    let settings = Settings::default().redis(&redis.url());
    let rig = rig(&settings).await;
    let other = rig.another_door(&settings).await;
    let truth = || rig.truth(at("2026-02-23"), at("2026-02-24"));
    for door in [&rig.door, &other] {
        ask_often(door, &Ask::get(DAY)).await.page();
        assert!(ready(door) > 0);
    }
    let day = rig.control.expected_until(STREAM, at("2026-02-23"), at("2026-02-24"), false, &ItemFilter::default());
    assert!(rig.control.touch(STREAM, &day[7].0));
    assert_eq!(rig.door.purge("from=2026-02-23T05:00:00&to=2026-02-23T20:00:00").await.status, 200);
    for (name, door) in [("that purged", &rig.door), ("that was told", &other)] {
        assert_items(&door.ask(&Ask::get(DAY)).await.page(), &truth(), name);
    }
}

#[tokio::test]
async fn they_keep_within_their_room() {
    const ROOM: u64 = (2 << 20) / 16;
    let rig = rig(&Settings::default().section("cache", "memory = '2MiB'")).await;
    let mut most = 0;
    for offset in 0..40 {
        ask_often(&rig.door, &Ask::get(format!("{DAY}&offset={offset}&limit=3"))).await.page();
        most = most.max(ready(&rig.door));
    }
    assert!((ROOM / 2..=ROOM).contains(&most), "{most} of {ROOM}");
}
