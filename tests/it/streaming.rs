//! A long window is sent as it comes: its beginning before its end is there, and never as whole what is not.

use std::io::ErrorKind;

use http_body_util::BodyExt as _;
use koregate::simulator::{Fault, FaultPlan, Order};

use crate::support::{Answer, Ask, Rig, Settings, at, exact_profile, read_to_end};

/// Four settled days of 2000 items in all: twenty pages.
const LONG: &str = "from=2026-02-20&to=2026-02-23";
const PAGES: u64 = 20;
/// A day of them, which nobody need stream.
const SHORT: &str = "from=2026-02-20&to=2026-02-20";

async fn rig() -> Rig {
    Rig::start(exact_profile(500, 6), &Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]")).await
}

fn truth(rig: &Rig) -> Vec<Vec<u8>> {
    rig.truth(at("2026-02-20"), at("2026-02-24"))
}

#[tokio::test]
async fn what_is_streamed_is_the_whole_window_and_is_kept() {
    for (accept, coding) in [("application/json", ""), ("application/x-ndjson", ""), ("application/json", "gzip")] {
        let rig = rig().await;
        let ask = Ask::get(LONG).header("accept", accept);
        let streamed = rig.ask(&ask.clone().header("accept-encoding", coding)).await;
        assert_eq!(streamed.cache_status(), "koregate; fwd=miss; detail=\"streamed\"");
        assert_eq!(rig.calls(), PAGES);
        let truth = truth(&rig);
        if coding == "gzip" {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&streamed.body[..]), &mut text).unwrap();
            assert!(text.starts_with("{\"data\":[{") && text.ends_with("],\"numResults\":2000,\"hasMore\":false}"));
        } else if accept == "application/json" {
            let page = streamed.page();
            assert!(!page.has_more && page.items().eq(truth.iter().map(Vec::as_slice)));
        } else {
            assert_eq!(streamed.body, rig.ask(&ask).await.body, "as it is when all of it is there");
        }
        let again = rig.get(LONG).await;
        assert!(again.cache_status().starts_with("koregate; hit"), "{}", again.cache_status());
        assert!(again.page().items().eq(truth.iter().map(Vec::as_slice)));
        assert_eq!(rig.calls(), PAGES);
    }
}

#[tokio::test]
async fn the_beginning_is_sent_while_the_end_is_still_to_come() {
    let rig = rig().await;
    // The upstream answers half of the pages, and keeps the next one waiting for longer than this test lives.
    rig.control.set_faults(FaultPlan::always(Fault::Slow).after(PAGES / 2));
    let answer = rig.door.client.open(rig.door.addr(), &Ask::get(LONG)).await.unwrap();
    let first = truth(&rig).swap_remove(0);
    let (mut body, mut come) = (answer.into_body(), Vec::new());
    while come.len() < 9 + first.len() {
        come.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(&come[..9], b"{\"data\":[");
    assert_eq!(come[9..9 + first.len()], first[..]);
}

#[tokio::test]
async fn an_answer_whose_end_does_not_come_is_broken_off() {
    let rig = rig().await;
    rig.control.set_faults(FaultPlan::always(Fault::Status500).after(PAGES / 2));
    assert!(rig.door.try_ask(&Ask::get(LONG)).await.is_err());
    rig.control.reset_counts();
    rig.control.set_faults(FaultPlan::always(Fault::Truncated).after(PAGES / 2));
    let lines = Ask::get(LONG).header("accept", "application/x-ndjson").header("accept-encoding", "gzip");
    assert!(rig.door.try_ask(&lines).await.is_err());
    rig.control.clear_faults();
    let page = rig.get(LONG).await.page();
    assert!(page.items().eq(truth(&rig).iter().map(Vec::as_slice)), "nothing of it was kept but what is whole");
}

#[tokio::test]
async fn broken_streamed_answer_resets_the_connection() {
    for accept in ["application/json", "application/x-ndjson"] {
        let rig = rig().await;
        rig.control.set_faults(FaultPlan::always(Fault::Status500).after(PAGES / 2));
        let ask = Ask::get(LONG).header("accept", accept);
        let (received, ended) = read_to_end(rig.door.addr(), &ask.wire(rig.door.addr())).await;
        assert!(received.is_empty() || received.starts_with(b"HTTP/1.1 200"), "an error with a status is no stream");
        assert_eq!(ended.map(|error| error.kind()), Some(ErrorKind::ConnectionReset), "{accept}");
    }
}

#[tokio::test]
async fn what_is_short_or_wanted_in_part_or_comes_from_its_end_is_not_streamed() {
    let rig = rig().await;
    assert!(rig.get(SHORT).await.cache_status().contains("calls=5"));
    let day =
        Rig::start(exact_profile(1700, 6), &Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]")).await;
    assert!(day.get("from=2026-02-22&to=2026-02-22").await.cache_status().contains("calls=17"));
    assert!(rig.get(format!("{LONG}&limit=1500")).await.cache_status().contains("calls=15"));
    let backwards = exact_profile(500, 6);
    let backwards = koregate::simulator::Profile { order: Order::Descending, ..backwards };
    let settings = Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]");
    let rig = Rig::start(backwards, &settings).await;
    let answer = rig.get(LONG).await;
    assert!(answer.cache_status().contains(&format!("calls={PAGES}")), "{}", answer.cache_status());
    assert!(answer.page().items().eq(truth(&rig).iter().map(Vec::as_slice)));
}

#[tokio::test]
async fn one_who_is_slow_costs_no_call_twice_though_memory_has_no_room() {
    let settings = Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]");
    let settings = settings.section("cache", "memory = '1KiB'").section("upstream", "max_concurrency = 1");
    let rig = Rig::start(exact_profile(500, 6), &settings).await;
    let answer = rig.door.client.open(rig.door.addr(), &Ask::get(LONG)).await.unwrap();
    let dry_run = Ask::get(LONG).header("prefer", "dry-run");
    while !rig.ask(&dry_run).await.json()["under_way"].as_array().unwrap().is_empty() {}
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let answer = Answer { status: parts.status, headers: parts.headers, body };
    assert!(answer.page().items().eq(truth(&rig).iter().map(Vec::as_slice)));
    assert_eq!(rig.calls(), PAGES);
}

/// Those who stream share a fetch with those who do not.
#[tokio::test]
async fn who_streams_and_who_does_not_cost_the_same_calls() {
    let rig = rig().await;
    let asks = [Ask::get(LONG), Ask::get(LONG).and("limit=10"), Ask::get(LONG), Ask::get(LONG).and("offset=1990")];
    let answers = rig.door.ask_at_once(&asks).await;
    let truth = truth(&rig);
    for (answer, items) in answers.iter().zip([&truth[..], &truth[..10], &truth[..], &truth[1990..]]) {
        assert!(answer.page().items().eq(items.iter().map(Vec::as_slice)));
    }
    assert_eq!(rig.calls(), PAGES);
}
