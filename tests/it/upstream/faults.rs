//! Faults of upstream responses: no wrong or partial response, and recovery with the next good one.

use std::time::Duration;

use futures_util::future::join_all;

use crate::support::{
    FAULTS, Fault, FaultPlan, SETTLED_DAY, Settings, TestHarness, TestRequest, Timestamp, at, exact_profile,
};

const PAGES: u64 = 3;
/// A part of the settled day.
const NOON: &str = "from=2026-02-23T09:00:00&to=2026-02-23T14:59:59";

/// The status and the number of calls of a request during which `fault` lasts.
fn lasting_outcome(fault: Fault) -> (u16, u64) {
    match fault {
        Fault::TooMany | Fault::TooManySilent => (503, 3),
        Fault::Slow | Fault::SlowBody => (504, 2),
        Fault::Unauthorized => (502, 2),
        _ => (502, 3),
    }
}

async fn start() -> TestHarness {
    TestHarness::start(exact_profile(250, 4), &Settings::one_second_limit()).await
}

async fn start_for(fault: Fault) -> TestHarness {
    let settings = match fault {
        Fault::Slow | Fault::SlowBody => Settings::one_second_limit().section("upstream", "timeout = '3s'"),
        // A paused run waits for at most this long.
        _ if is_refusal(fault) => Settings::one_second_limit().section("quota", "queue_timeout = '4s'"),
        _ => Settings::one_second_limit(),
    };
    TestHarness::start(exact_profile(250, 4), &settings).await
}

fn is_refusal(fault: Fault) -> bool {
    matches!(fault, Fault::TooMany | Fault::TooManySilent)
}

#[tokio::test]
async fn transient_fault_costs_one_call_and_is_hidden() {
    join_all(FAULTS.into_iter().flat_map(|fault| [(fault, 0), (fault, 1)]).map(|(fault, good)| async move {
        let context = format!("{fault:?} after {good}");
        let harness = start_for(fault).await;
        harness.control.set_faults(FaultPlan::times(fault, 1).after(good));
        harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), &context);
        assert_eq!((harness.calls(), harness.control.counts().ok), (PAGES + 1, PAGES), "{context}");
        let repeated = harness.get(SETTLED_DAY).await;
        repeated.assert_complete(&harness.settled_day(), &context);
        assert_eq!(repeated.cache_outcome(), "hit", "{context}");
        assert_eq!(harness.calls(), PAGES + 1, "{context}");
    }))
    .await;
}

#[tokio::test]
async fn lasting_fault_is_reported_and_not_cached() {
    join_all(FAULTS.into_iter().flat_map(|fault| [(fault, 0), (fault, 1)]).map(|(fault, good)| async move {
        let (status, calls) = lasting_outcome(fault);
        let context = format!("{fault:?} after {good}");
        let harness = start_for(fault).await;
        harness.control.set_faults(FaultPlan::always(fault).after(good));
        harness.get(SETTLED_DAY).await.assert_problem(status, &context);
        // A paused run goes on in the background, with at most one more call a second.
        let more = if is_refusal(fault) && good > 0 { 4 } else { 0 };
        assert!(
            (good + calls..=good + calls + more).contains(&harness.calls()),
            "{context}: {} calls",
            harness.calls()
        );

        harness.control.clear_faults();
        harness.get(NOON).await.assert_complete(&harness.items(at("2026-02-23T09:00:00Z"), end_of(NOON)), &context);
        harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), &context);
        let calls = harness.calls();
        harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), &context);
        assert_eq!(harness.calls(), calls, "{context}");
    }))
    .await;
}

/// The end of a window whose `to` is a whole second, which is included.
fn end_of(query: &str) -> Timestamp {
    let to = query.rsplit('=').next().unwrap();
    at(&format!("{to}Z")).next_tick()
}

#[tokio::test]
async fn lasting_fault_all_waiters_fail_with_one_fetch() {
    for (fault, status) in [(Fault::Status500, 502), (Fault::TooMany, 503), (Fault::Truncated, 502)] {
        let harness = start_for(fault).await;
        harness.control.set_faults(FaultPlan::always(fault));
        let lines = TestRequest::get(SETTLED_DAY).ndjson();
        let requests = [
            TestRequest::get(SETTLED_DAY),
            lines,
            TestRequest::get(NOON),
            TestRequest::get(SETTLED_DAY).and("offset=50&limit=10"),
        ];
        for response in harness.gateway.send_all(&requests).await {
            response.assert_problem(status, &format!("{fault:?}"));
        }
        assert_eq!(harness.calls(), 3, "{fault:?}");
    }
}

#[tokio::test]
async fn problem_detail_names_upstream_error() {
    for (fault, text) in [
        (Fault::Status500, "500"),
        (Fault::Html502, "502"),
        (Fault::Unauthorized, "Invalid SDK credentials"),
        (Fault::Html200, "not a page"),
        (Fault::EmptyBody, "empty body"),
    ] {
        let harness = start_for(fault).await;
        harness.control.set_faults(FaultPlan::always(fault));
        let problem = harness.get(SETTLED_DAY).await.json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(text), "{fault:?}: {detail}");
    }
}

#[tokio::test]
async fn settled_window_broken_or_stopped_upstream_is_served() {
    let mut harness = start().await;
    harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "before the fault");
    harness.control.set_faults(FaultPlan::always(Fault::Reset));
    harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "broken");
    harness.get("from=2026-02-22&to=2026-02-22").await.assert_problem(502, "broken");
    harness.get("from=2026-02-22&to=2026-02-23").await.assert_problem(502, "half of the window is cached");
    harness.stop_upstream().await;
    harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "gone");
    harness.get("from=2026-02-22&to=2026-02-22").await.assert_problem(502, "gone");
}

#[tokio::test]
async fn unreachable_upstream_costs_no_quota() {
    let mut harness =
        TestHarness::start(exact_profile(250, 4), &Settings::default().limits("[{ requests = 60, per = '1m' }]")).await;
    harness.stop_upstream().await;
    harness.get(SETTLED_DAY).await.assert_problem(502, "gone");
    let status = harness.gateway.get_admin("/api/v1/status").await.json();
    assert_eq!(status["accounts"][0]["quota"][0]["remaining"], 60);
}

/// Random faults from a fixed seed.
#[tokio::test]
async fn random_faults_yield_complete_response_or_problem() {
    let faults: Vec<Fault> = FAULTS.into_iter().filter(|fault| lasting_outcome(*fault).0 == 502).collect();
    let mut rng = fastrand::Rng::with_seed(7);
    let harness = start().await;
    let (mut complete, mut failed) = (0, 0);
    for round in 0..12 {
        let fault = faults[rng.usize(..faults.len())];
        harness.control.set_faults(FaultPlan::times(fault, rng.u64(1..6)).after(rng.u64(..4)));
        let windows: Vec<(Timestamp, Timestamp)> = std::iter::repeat_with(|| {
            let from = at("2026-02-22") + Duration::from_secs(rng.u64(..36 * 3600));
            (from, from + Duration::from_secs(rng.u64(1..12 * 3600)))
        })
        .take(4)
        .collect();
        let query = |(from, to): &(Timestamp, Timestamp)| {
            let [from, to] = [from, to].map(|at| at.to_string().trim_end_matches('Z').to_owned());
            TestRequest::get(format!("from={from}&to={to}"))
        };
        let responses = harness.gateway.send_all(&windows.iter().map(query).collect::<Vec<_>>()).await;
        for ((from, to), response) in windows.iter().zip(responses) {
            let context = format!("round {round}, {fault:?}");
            if response.status == 200 {
                response.assert_complete(&harness.items(*from, to.next_tick()), &context);
                complete += 1;
            } else {
                response.assert_problem(502, &context);
                failed += 1;
            }
        }
    }
    assert!(complete > 0 && failed > 0, "{complete} complete, {failed} failed");
}
