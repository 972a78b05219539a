//! A long window is sent run by run: its beginning before its end is there, and never as whole what is not.

use std::io::ErrorKind;

use http_body_util::BodyExt as _;
use koregate_simulator::{Fault, FaultPlan, SortOrder};

use crate::support::{Answer, Ask, Rig, Settings, at, exact_profile, read_to_end};

/// Four settled days of 2000 items in all: twenty pages.
const LONG: &str = "from=2026-02-20&to=2026-02-23";
const PAGES: u64 = 20;
/// Sixty pages, so more than one run.
const LONGER: &str = "from=2026-02-12&to=2026-02-23";
const PAGES_OF_LONGER: u64 = 60;
/// The last page of each of its three runs need not be full.
const CALLS_OF_LONGER: u64 = PAGES_OF_LONGER + 3;
/// A day of them, which nobody need stream.
const SHORT: &str = "from=2026-02-20&to=2026-02-20";

async fn rig() -> Rig {
    Rig::start(exact_profile(500, 14), &Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]")).await
}

fn truth(rig: &Rig) -> Vec<Vec<u8>> {
    rig.truth(at("2026-02-20"), at("2026-02-24"))
}

fn truth_of_longer(rig: &Rig) -> Vec<Vec<u8>> {
    rig.truth(at("2026-02-12"), at("2026-02-24"))
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
async fn stream_sends_its_first_run_while_the_end_is_still_to_come() {
    for order in [SortOrder::Ascending, SortOrder::Descending] {
        let rig = rig().await;
        rig.control.set_order(order);
        // The upstream answers some of the pages, and keeps the next one waiting for longer than this test lives.
        rig.control.set_faults(FaultPlan::always(Fault::Slow).after(PAGES_OF_LONGER / 2));
        let answer = rig.door.client.open(rig.door.addr(), &Ask::get(LONGER)).await.unwrap();
        let first = truth_of_longer(&rig).swap_remove(0);
        let (mut body, mut come) = (answer.into_body(), Vec::new());
        while come.len() < 9 + first.len() {
            come.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(&come[..9], b"{\"data\":[");
        assert_eq!(come[9..9 + first.len()], first[..], "{order:?}");
    }
}

/// Whichever page of a streamed window goes wrong for good, the client sees an error or the truth.
#[tokio::test]
async fn stream_with_a_fault_at_any_page_breaks_off_or_is_whole() {
    let faults =
        [Fault::Status500, Fault::Truncated, Fault::Garbage, Fault::EmptyPage, Fault::WrongCount, Fault::Reset];
    let forms =
        [("application/json", "identity"), ("application/x-ndjson", "gzip"), ("application/x-ndjson", "identity")];
    let rig = rig().await;
    let truth = truth_of_longer(&rig);
    let mut whole = 0;
    for (n, after) in (0..CALLS_OF_LONGER).step_by(7).enumerate() {
        let (accept, coding) = forms[n % forms.len()];
        rig.door.purge("from=2026-02-01&to=2026-02-28").await;
        rig.control.reset_counts();
        rig.control.set_faults(FaultPlan::always(faults[n % faults.len()]).after(after));
        let ask = Ask::get(LONGER).header("accept", accept).header("accept-encoding", coding);
        match rig.door.try_ask(&ask).await {
            Err(_) => {}
            Ok(answer) if answer.status != 200 => assert!(after < 3, "{after}: {}", answer.text()),
            Ok(answer) => {
                whole += 1;
                let text = answer.text();
                assert_eq!(text.matches("\"segmentID\"").count(), truth.len(), "{after}");
            }
        }
        rig.control.clear_faults();
        let page = rig.get(LONGER).await.page();
        assert!(page.items().eq(truth.iter().map(Vec::as_slice)), "nothing was kept but what is whole");
    }
    assert!(whole <= 1, "only a fault behind the last page is none");
}

#[tokio::test]
async fn broken_streamed_answer_resets_the_connection() {
    for accept in ["application/json", "application/x-ndjson"] {
        let rig = rig().await;
        rig.control.set_faults(FaultPlan::always(Fault::Status500).after(PAGES_OF_LONGER / 2));
        let ask = Ask::get(LONGER).header("accept", accept);
        let (received, ended) = read_to_end(rig.door.addr(), &ask.wire(rig.door.addr())).await;
        assert!(received.is_empty() || received.starts_with(b"HTTP/1.1 200"), "an error with a status is no stream");
        assert_eq!(ended.map(|error| error.kind()), Some(ErrorKind::ConnectionReset), "{accept}");
    }
}

#[tokio::test]
async fn short_windows_and_parts_of_windows_are_not_streamed() {
    let rig = rig().await;
    assert!(rig.get(SHORT).await.cache_status().contains("calls=5"));
    let day =
        Rig::start(exact_profile(1700, 6), &Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]")).await;
    assert!(day.get("from=2026-02-22&to=2026-02-22").await.cache_status().contains("calls=17"));
    assert!(rig.get(format!("{LONG}&limit=1500")).await.cache_status().contains("calls=15"));
}

#[tokio::test]
async fn stream_slow_reader_costs_no_call_twice_though_memory_has_no_room() {
    let settings = Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]");
    let settings = settings.section("cache", "memory = '1KiB'").section("upstream", "max_concurrency = 1");
    let rig = Rig::start(exact_profile(500, 14), &settings).await;
    let answer = rig.door.client.open(rig.door.addr(), &Ask::get(LONGER)).await.unwrap();
    let dry_run = Ask::get(LONGER).header("prefer", "dry-run");
    while !rig.ask(&dry_run).await.json()["under_way"].as_array().unwrap().is_empty() {}
    assert!(rig.calls() < PAGES_OF_LONGER, "{} calls for one who has not read", rig.calls());
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let answer = Answer { status: parts.status, headers: parts.headers, body };
    assert!(answer.page().items().eq(truth_of_longer(&rig).iter().map(Vec::as_slice)));
    assert!((PAGES_OF_LONGER..=CALLS_OF_LONGER).contains(&rig.calls()), "{} calls", rig.calls());
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
