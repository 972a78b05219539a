//! An account that the upstream refuses because its quota is spent elsewhere.

use std::time::Duration;

use crate::support::{
    CallOutcome, Fault, FaultPlan, Profile, RateLimits, RecordedCall, RollingLimit, SETTLED_DAY, Settings, TestHarness,
    TestRequest, at, exact_profile, until, until_async,
};

const PAGES: u64 = 3;

async fn start() -> TestHarness {
    TestHarness::start(exact_profile(250, 4), &Settings::one_second_limit()).await
}

/// The first call that got a fault.
fn first_fault(harness: &TestHarness) -> Option<RecordedCall> {
    harness.control.calls().into_iter().find(|call| matches!(call.outcome, CallOutcome::Faulted(_)))
}

/// Waits until the gateway has closed the account.
async fn until_closed(harness: &TestHarness) {
    until("a refused call", || first_fault(harness).is_some()).await;
    until_async("the account to close", async || {
        let status = harness.gateway.get_admin("/api/v1/status").await.json();
        status["accounts"][0]["quota"][0]["remaining"] == 0
    })
    .await;
}

#[tokio::test]
async fn refused_account_resumes_after_retry_after() {
    let harness = start().await;
    let wait = Duration::from_secs(2);
    harness.control.set_faults(FaultPlan::times(Fault::TooMany, 1).after(1).retry_after(wait));
    let (first, others) = tokio::join!(harness.get(SETTLED_DAY), async {
        until_closed(&harness).await;
        let windows = (0..12)
            .map(|hour| TestRequest::get(format!("from=2026-02-22T{hour:02}:00:00&to=2026-02-22T{hour:02}:29:59")));
        harness.gateway.send_all(&windows.collect::<Vec<_>>()).await
    });
    first.assert_complete(&harness.settled_day(), "the refused request");
    for (hour, response) in others.iter().enumerate() {
        let from = at("2026-02-22") + Duration::from_secs(hour as u64 * 3600);
        response
            .assert_complete(&harness.items(from, (from + Duration::from_secs(1799)).next_tick()), "a later request");
    }
    let refused = first_fault(&harness).unwrap().arrived;
    let calls = harness.control.calls();
    let after: Vec<_> = calls.iter().filter(|call| call.arrived > refused).collect();
    assert_eq!(after.len(), 2 + 12);
    let early = after.iter().filter(|call| call.arrived < refused + wait).count();
    assert_eq!(early, 0, "calls before Retry-After was over");
}

#[tokio::test]
async fn account_closed_beyond_queue_timeout_gets_no_calls() {
    let settings = Settings::one_second_limit().section("quota", "queue_timeout = '1s'");
    let harness = TestHarness::start(exact_profile(250, 4), &settings).await;
    harness.control.set_faults(FaultPlan::times(Fault::TooMany, 1).retry_after(Duration::from_secs(30)));
    harness.get(SETTLED_DAY).await.assert_problem(503, "the refused request");
    let others: Vec<_> = (0..20)
        .map(|hour| TestRequest::get(format!("from=2026-02-22T{hour:02}:00:00&to=2026-02-22T{hour:02}:59:59")))
        .collect();
    for response in harness.gateway.send_all(&others).await {
        response.assert_problem(503, "a later request");
        assert!(response.retry_after() > 1, "not before the account opens: {:?}", response.headers);
    }
    assert_eq!(harness.calls(), 1);
}

#[tokio::test]
async fn quota_refusal_any_status_is_recognised() {
    for limit_status in [400, 403, 429] {
        let limits = vec![RollingLimit::new(2, Duration::from_secs(1))];
        let harness = TestHarness::start(
            Profile {
                rate_limits: RateLimits { refusal_status: limit_status, ..limits.into() },
                ..exact_profile(250, 4)
            },
            &Settings::one_second_limit(),
        )
        .await;
        harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "a quota that others use too");
        assert_eq!((harness.calls(), harness.control.counts().limited), (PAGES + 1, 1), "{limit_status}");
    }
}
