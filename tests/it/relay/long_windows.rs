//! A long window is brought to a follower run by run, and sent as it comes.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::*;

/// Forty settled days of 300 items each.
const LONG: &str = "from=2026-01-15&to=2026-02-23";
const PAGES: u64 = 120;
/// A small run first, then about forty pages at a time: the last page of each need not be full.
const RUNS: u64 = 5;
/// More than the first run is.
const BEGINNING: u64 = 20;

async fn replicas(count: usize) -> Replicas {
    let settings = Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]");
    Replicas::start(exact_profile(300, 45), settings.section("cache", "memory = '16MiB'"), count).await
}

fn truth(replicas: &Replicas) -> Vec<Vec<u8>> {
    replicas.rig.truth(at("2026-01-15"), at("2026-02-24"))
}

/// The beginning of an answer that need not come to its end.
async fn begin(door: &Door) -> (http::response::Parts, Incoming, Vec<u8>) {
    let (parts, mut body) = door.client.open(door.addr(), &Ask::get(LONG)).await.unwrap().into_parts();
    let mut come = Vec::new();
    while come.len() < 10_000 {
        come.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    (parts, body, come)
}

#[tokio::test]
async fn followed_window_is_whole_and_costs_hardly_a_call_more() {
    let replicas = replicas(3).await;
    let truth = truth(&replicas);
    assert_eq!(truth.len() as u64, PAGES * 100);
    let answer = replicas.follower(0).ask(&Ask::get(LONG)).await;
    assert_eq!(answer.cache_status(), "koregate; fwd=miss; detail=\"streamed\"");
    assert_whole(&answer, &truth);
    let calls = replicas.rig.calls();
    assert!((PAGES..=PAGES + RUNS).contains(&calls), "{calls}");
    for door in [replicas.follower(1), replicas.caller()] {
        let again = door.ask(&Ask::get(LONG)).await;
        assert!(again.cache_status().starts_with("koregate; hit"), "{}", again.cache_status());
        assert_whole(&again, &truth);
    }
    assert_eq!(replicas.rig.calls(), calls);
}

#[tokio::test]
async fn followed_window_is_sent_while_its_end_is_still_to_come() {
    let replicas = replicas(2).await;
    // Longer than this test lives.
    replicas.rig.control.set_faults(FaultPlan::always(Fault::Slow).after(BEGINNING));
    let (_, _body, come) = begin(replicas.follower(0)).await;
    let first = truth(&replicas).swap_remove(0);
    assert_eq!(&come[..9], b"{\"data\":[");
    assert_eq!(come[9..9 + first.len()], first[..]);
}

#[tokio::test]
async fn followed_window_that_nobody_reads_is_not_fetched_to_its_end() {
    let replicas = replicas(2).await;
    let (follower, rig) = (replicas.follower(0), &replicas.rig);
    let (_, _body, _) = begin(follower).await;
    let (mut calls, mut others) = (0, 0);
    // Others are answered; and at last nobody makes any call but for them.
    while rig.calls() > calls + 1 {
        calls = rig.calls();
        let (hour, minute) = (others / 60, others % 60);
        let minute = format!("from=2026-01-14T{hour:02}:{minute:02}:00&to=2026-01-14T{hour:02}:{minute:02}:59");
        follower.ask(&Ask::get(minute)).await.page();
        others += 1;
    }
    assert!(rig.calls() - others < PAGES / 2 + BEGINNING, "{} calls, {others} of them for others", rig.calls());
}

#[tokio::test]
async fn followed_window_is_brought_to_its_end_though_the_leader_dies() {
    let mut replicas = replicas(3).await;
    let truth = truth(&replicas);
    replicas.rig.control.set_faults(FaultPlan::always(Fault::Slow).after(BEGINNING));
    let (parts, body, mut come) = begin(replicas.follower(0)).await;
    replicas.all[0].die();
    replicas.rig.control.clear_faults();
    come.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    assert_whole(&Answer { status: parts.status, headers: parts.headers, body: come.into() }, &truth);
}
