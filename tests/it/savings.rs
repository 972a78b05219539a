//! Calls saved are true: over all answers that ended whole, the calls that their callers would have made by themselves are
//! the calls that were spent plus the calls that were saved.

use http_body_util::BodyExt as _;
use koregate_simulator::{Fault, FaultPlan};

use crate::support::{ACCOUNT, Answer, Ask, Rig, Settings, exact_profile};

/// Seven settled days, streamed when they are missing.
const WEEK: &str = "from=2026-02-17&to=2026-02-23";
const DAYS: std::ops::RangeInclusive<u32> = 17..=23;
const ITEMS_A_DAY: u32 = 450;

async fn rig() -> Rig {
    let limits = Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]");
    Rig::start(exact_profile(ITEMS_A_DAY, 10), &limits).await
}

fn day(day: u32) -> Ask {
    Ask::get(format!("from=2026-02-{day}&to=2026-02-{day}"))
}

/// The calls that a caller would have made by itself for these answers.
fn alone<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> u64 {
    answers.into_iter().map(|answer| (answer.page().num_results as u64).div_ceil(100).max(1)).sum()
}

/// Calls spent and saved, as the caller is told.
async fn spent_and_saved(rig: &Rig) -> (u64, u64) {
    let usage = rig.ask(&Ask::get("").path("/koregate/v1/usage")).await.json();
    let calls = &usage["accounts"][0]["calls"];
    (calls["spent"].as_u64().unwrap(), calls["saved"].as_u64().unwrap())
}

fn unsettled(rig: &Rig) -> u64 {
    rig.door.gateway.stack().quotas.scheduler(ACCOUNT).unwrap().unsettled()
}

/// Holds the invariant against all answers so far that ended whole.
#[track_caller]
fn assert_settled(rig: &Rig, (spent, saved): (u64, u64), alone: u64) {
    assert_eq!(spent, rig.calls(), "what is told is what the upstream counted");
    assert_eq!(alone + unsettled(rig), spent + saved, "{spent} spent, {saved} saved, {} unsettled", unsettled(rig));
}

#[tokio::test]
async fn week_joined_by_its_days_saves_what_was_not_called() {
    let rig = rig().await;
    let asks: Vec<Ask> = std::iter::once(Ask::get(WEEK)).chain(DAYS.map(day)).collect();
    let mut answers = rig.door.ask_at_once(&asks).await;
    assert_settled(&rig, spent_and_saved(&rig).await, alone(&answers));
    answers.push(rig.ask(&Ask::get(WEEK)).await);
    let (spent, saved) = spent_and_saved(&rig).await;
    assert_settled(&rig, (spent, saved), alone(&answers));
    assert_eq!((spent + saved, unsettled(&rig)), (alone(&answers), 0));
}

#[tokio::test]
async fn streamed_week_joined_by_its_days_saves_what_was_not_called() {
    let rig = rig().await;
    let mut week = rig.door.client.open(rig.door.addr(), &Ask::get(WEEK)).await.unwrap();
    assert_eq!(week.headers()["cache-status"], "koregate; fwd=miss; detail=\"streamed\"");
    let first = week.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    let days: Vec<Ask> = DAYS.map(day).collect();
    let mut answers = rig.door.ask_at_once(&days).await;
    let (head, rest) = week.into_parts();
    let body = [first, rest.collect().await.unwrap().to_bytes()].concat();
    answers.push(Answer { status: head.status, headers: head.headers, body: body.into() });
    assert_settled(&rig, spent_and_saved(&rig).await, alone(&answers));
}

#[tokio::test]
async fn page_smaller_than_its_window_is_set_against_later_savings() {
    let rig = rig().await;
    let first = rig.ask(&day(20).and("limit=10")).await;
    let (spent, saved) = spent_and_saved(&rig).await;
    assert_eq!((spent, saved, unsettled(&rig)), (5, 0, 4));
    let whole = rig.ask(&day(20)).await;
    let (spent, saved) = spent_and_saved(&rig).await;
    assert_eq!((spent, saved, unsettled(&rig)), (5, 1, 0));
    assert_settled(&rig, (spent, saved), alone([&first, &whole]));
}

#[tokio::test]
async fn streamed_answer_whose_client_leaves_saves_nothing() {
    let rig = rig().await;
    let mut left = rig.door.client.open(rig.door.addr(), &Ask::get(WEEK)).await.unwrap();
    assert!(left.body_mut().frame().await.unwrap().is_ok());
    drop(left);
    assert_eq!(spent_and_saved(&rig).await.1, 0);
}

#[tokio::test]
async fn answers_of_a_broken_run_save_nothing_beyond_what_was_called() {
    let rig = rig().await;
    rig.control.set_faults(FaultPlan::always(Fault::Status500).after(16));
    assert!(rig.door.try_ask(&Ask::get(WEEK)).await.is_err());
    rig.control.clear_faults();
    let answers = [rig.ask(&Ask::get(WEEK)).await, rig.ask(&Ask::get(WEEK)).await];
    let (spent, saved) = spent_and_saved(&rig).await;
    assert_settled(&rig, (spent, saved), alone(&answers));
}
