//! Saved calls: over all complete responses, the calls that the callers would have made without the gateway equal the
//! calls spent plus the calls saved.

use crate::support::{Fault, FaultPlan, Settings, TestHarness, TestRequest, TestResponse, exact_profile};

/// Seven settled days, streamed when they are missing.
const WEEK: &str = "from=2026-02-17&to=2026-02-23";
const DAYS: std::ops::RangeInclusive<u32> = 17..=23;
const ITEMS_A_DAY: u32 = 450;

async fn start() -> TestHarness {
    let limits = Settings::one_second_limit();
    TestHarness::start(exact_profile(ITEMS_A_DAY, 10), &limits).await
}

/// A request for one day of February.
fn day(day: u32) -> TestRequest {
    TestRequest::get(format!("from=2026-02-{day}&to=2026-02-{day}"))
}

/// The calls that callers would have made without the gateway for these responses.
fn direct_calls<'a>(responses: impl IntoIterator<Item = &'a TestResponse>) -> u64 {
    responses.into_iter().map(|response| (response.page().num_results as u64).div_ceil(100).max(1)).sum()
}

/// The calls spent and saved, as reported to the caller.
async fn spent_and_saved(harness: &TestHarness) -> (u64, u64) {
    let usage = harness.send(&TestRequest::path_only("/koregate/v1/usage")).await.json();
    let calls = &usage["accounts"][0]["calls"];
    (calls["spent"].as_u64().unwrap(), calls["saved"].as_u64().unwrap())
}

/// Asserts the balance over all responses that were completed so far.
#[track_caller]
fn assert_balance(harness: &TestHarness, (spent, saved): (u64, u64), direct: u64) {
    let unsettled = harness.gateway.unsettled_calls();
    assert_eq!(spent, harness.calls(), "the report equals the upstream's count");
    assert_eq!(direct + unsettled, spent + saved, "{spent} spent, {saved} saved, {unsettled} unsettled");
}

#[tokio::test]
async fn week_joined_by_its_days_balances_savings() {
    let harness = start().await;
    let requests: Vec<TestRequest> = std::iter::once(TestRequest::get(WEEK)).chain(DAYS.map(day)).collect();
    let mut responses = harness.gateway.send_all(&requests).await;
    assert_balance(&harness, spent_and_saved(&harness).await, direct_calls(&responses));
    responses.push(harness.get(WEEK).await);
    let (spent, saved) = spent_and_saved(&harness).await;
    assert_balance(&harness, (spent, saved), direct_calls(&responses));
    assert_eq!((spent + saved, harness.gateway.unsettled_calls()), (direct_calls(&responses), 0));
}

#[tokio::test]
async fn streamed_week_joined_by_its_days_balances_savings() {
    let harness = start().await;
    let mut week = harness.gateway.open(&TestRequest::get(WEEK)).await;
    assert_eq!(week.headers()["cache-status"], "koregate; fwd=miss; ttl=31536000; detail=\"streamed\"");
    week.read(1).await;
    let days: Vec<TestRequest> = DAYS.map(day).collect();
    let mut responses = harness.gateway.send_all(&days).await;
    responses.push(week.finish().await);
    assert_balance(&harness, spent_and_saved(&harness).await, direct_calls(&responses));
}

#[tokio::test]
async fn partial_page_debt_reduces_later_savings() {
    let harness = start().await;
    let first = harness.send(&day(20).and("limit=10")).await;
    let (spent, saved) = spent_and_saved(&harness).await;
    assert_eq!((spent, saved, harness.gateway.unsettled_calls()), (5, 0, 4));
    let whole = harness.send(&day(20)).await;
    let (spent, saved) = spent_and_saved(&harness).await;
    assert_eq!((spent, saved, harness.gateway.unsettled_calls()), (5, 1, 0));
    assert_balance(&harness, (spent, saved), direct_calls([&first, &whole]));
}

#[tokio::test]
async fn abandoned_stream_saves_nothing() {
    let harness = start().await;
    let mut abandoned = harness.gateway.open(&TestRequest::get(WEEK)).await;
    abandoned.read(1).await;
    drop(abandoned);
    assert_eq!(spent_and_saved(&harness).await.1, 0);
}

#[tokio::test]
async fn broken_run_savings_never_exceed_calls() {
    let harness = start().await;
    harness.control.set_faults(FaultPlan::always(Fault::Status500).after(16));
    assert!(harness.gateway.try_send(&TestRequest::get(WEEK)).await.is_err());
    harness.control.clear_faults();
    let responses = [harness.get(WEEK).await, harness.get(WEEK).await];
    let (spent, saved) = spent_and_saved(&harness).await;
    assert_balance(&harness, (spent, saved), direct_calls(&responses));
}
