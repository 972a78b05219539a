//! Many want much at once, and the quota is small: who is served first, who is charged, and what a hang-up costs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use koregate::window::{Timestamp, UpperBound};
use koregate_simulator::{Profile, RollingLimit, SortOrder};
use tokio::task::JoinHandle;

use crate::callers::caller;
use crate::support::{Answer, Ask, Client, DAY, Rig, Settings, Window, assert_items, at, exact_profile};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A simulator and a gateway with one limit, and three callers.
async fn rig(items_per_day: u32, limit: RollingLimit, settings: Settings) -> Rig {
    let RollingLimit { requests, per } = limit;
    let callers: String = NAMES.map(|name| caller(name, name, "requests_per_minute = 60_000")).concat();
    let limits = format!("[{{ requests = {requests}, per = '{}s' }}]", per.as_secs());
    let profile = Profile { rate_limits: vec![limit].into(), ..exact_profile(items_per_day, 20) };
    Rig::start(profile, &settings.limits(&limits).tables(&callers)).await
}

fn days(first: u32, last: u32) -> Window {
    Window::days(&format!("2026-02-{first:02}"), &format!("2026-02-{last:02}"))
}

fn ask(window: &Window, name: &str) -> Ask {
    Ask::get(&window.query).header("x-api-key", name)
}

fn in_the_background(ask: Ask) -> Ask {
    ask.header("priority", "u=7")
}

/// Asks from a task of its own, over a connection of its own: aborted, it hangs up.
fn spawn(rig: &Rig, ask: Ask) -> JoinHandle<Answer> {
    let addr = rig.door.addr();
    tokio::spawn(async move { Client::default().send(addr, &ask).await.unwrap() })
}

/// The value of a metric, summed over the lines that hold all of these labels.
async fn metric(rig: &Rig, name: &str, label: &str) -> u64 {
    let metrics = rig.door.admin("/metrics").await;
    let lines = metrics.text().lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Waits until so many calls wait for their turn.
async fn until_waiting(rig: &Rig, calls: u64) {
    let waiting = async { while metric(rig, "koregate_quota_waiting{", "").await != calls {} };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("waited in vain");
}

async fn until_calls(rig: &Rig, calls: u64) {
    crate::support::until("calls", || rig.calls() >= calls).await;
}

fn pages(rig: &Rig, window: &Window) -> u64 {
    rig.truth(window.from, window.end).len().div_ceil(100) as u64
}

/// An hour and a half of a day in February, some hundred items.
fn morning(day: u32) -> Window {
    let from = at(&format!("2026-02-{day:02}T09:00:00Z"));
    Window::seconds(from, from + Duration::from_secs(5_399), UpperBound::Inclusive)
}

/// Far more is fetched in the background than could be while three callers wait for a morning each.
async fn check_mornings(order: SortOrder) {
    let rig = rig(1_000, RollingLimit::new(10, Duration::from_secs(1)), Settings::default()).await;
    rig.control.set_order(order);
    let long = days(11, 18);
    let backfill = spawn(&rig, in_the_background(ask(&long, "a")));
    until_calls(&rig, 12).await;
    // Behind the walk, far ahead of it, and in between.
    let parts = [morning(11), morning(18), morning(15)];
    let asks = parts.each_ref().map(|part| ask(part, "b"));
    for (part, answer) in parts.iter().zip(rig.door.ask_at_once(&asks).await) {
        assert_items(&answer.page(), &rig.truth(part.from, part.end), &part.query);
    }
    assert!(!backfill.is_finished(), "they waited for all of it");
    assert_items(&backfill.await.unwrap().page(), &rig.truth(long.from, long.end), "all of it");
    let least = pages(&rig, &long);
    assert!(rig.calls() <= least + 15, "{} calls for {least} pages", rig.calls());
    assert_eq!(rig.control.counts().limited, 0);
}

#[tokio::test]
async fn who_needs_an_hour_of_a_long_fetch_does_not_wait_for_all_of_it() {
    check_mornings(SortOrder::Ascending).await;
}

#[tokio::test]
async fn who_needs_an_hour_of_a_long_fetch_from_its_end_does_not_wait_for_all_of_it() {
    check_mornings(SortOrder::Descending).await;
}

#[tokio::test]
async fn whoever_comes_and_goes_every_answer_is_right_and_nothing_is_left_behind() {
    // What is open is kept nowhere: what is lost on its way would have to be asked for again.
    let settings = Settings::default().section("window", "freshness = []").section("quota", "queue_timeout = '5s'");
    let rig = rig(300, RollingLimit::new(40, Duration::from_secs(1)), settings).await;
    rig.control.set_latency(Duration::from_millis(2), Duration::from_millis(8));
    let served = AtomicU64::new(0);
    join_all((0..120u64).map(|n| {
        let (rig, served) = (&rig, &served);
        async move {
            let mut random = n;
            let mut draw = |below: u64| {
                // SplitMix64: the same on every run.
                random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (mixed ^ (mixed >> 27)) % below
            };
            tokio::time::sleep(Duration::from_millis(draw(1_500))).await;
            let from = at("2026-02-22") + Duration::from_secs(draw(3 * 86_400));
            let to = from + Duration::from_secs(60 + draw(if n.is_multiple_of(4) { 86_400 } else { 7_200 }));
            let to = to.min(at("2026-02-25T12:00:00Z"));
            let window = Window::seconds(from, to.max(from), UpperBound::Inclusive);
            let mut asked = ask(&window, NAMES[usize::try_from(n % 3).unwrap()]);
            if draw(3) == 0 {
                asked = in_the_background(asked);
            }
            let patience = if draw(3) == 0 { draw(300) } else { 60_000 };
            let answering = Client::default();
            let answer = answering.send(rig.door.addr(), &asked);
            let Ok(answer) = tokio::time::timeout(Duration::from_millis(patience), answer).await else { return };
            let answer = answer.unwrap();
            if answer.status == 503 {
                assert!(answer.header("retry-after").is_some());
                return;
            }
            assert_items(&answer.page(), &rig.truth(window.from, window.end), &window.query);
            served.fetch_add(1, Ordering::Relaxed);
        }
    }))
    .await;
    assert!(served.into_inner() > 20, "hardly anybody was served");
    assert_eq!(rig.control.counts().limited, 0);
    until_waiting(&rig, 0).await;
    // Nothing that was left stands in anybody's way.
    for name in NAMES {
        for background in [false, true] {
            let window = days(23, 24);
            let asked = ask(&window, name);
            let asked = if background { in_the_background(asked) } else { asked };
            assert_items(&rig.ask(&asked).await.page(), &rig.truth(window.from, window.end), name);
        }
    }
}

#[tokio::test]
async fn who_hangs_up_before_its_turn_costs_no_call() {
    let rig = rig(50, RollingLimit::new(1, Duration::from_secs(2)), Settings::default()).await;
    rig.ask(&ask(&days(10, 10), "a")).await.page();
    let leaves: Vec<_> = [12, 14, 16].map(|day| spawn(&rig, ask(&days(day, day), "b"))).into();
    until_waiting(&rig, 3).await;
    leaves.iter().for_each(JoinHandle::abort);
    until_waiting(&rig, 0).await;
    rig.ask(&ask(&days(18, 18), "c")).await.page();
    assert_eq!(rig.calls(), 2, "the next turn went to the next who wanted one");
}

#[tokio::test]
async fn one_who_waits_takes_the_reserve_for_a_fetch_that_is_held_in_the_background() {
    // Two of ten calls are left alone by background work.
    let settings = Settings::default().section("quota", "queue_timeout = '1s'");
    let rig = rig(1_000, RollingLimit::new(10, Duration::from_hours(1)), settings).await;
    let day = days(20, 20);
    let told = rig.ask(&in_the_background(ask(&day, "a"))).await;
    assert_eq!(told.status, 503, "{}", told.text());
    assert_eq!(rig.calls(), 8);
    assert_items(&rig.ask(&ask(&day, "b")).await.page(), &rig.truth(day.from, day.end), "the day");
    assert_eq!(rig.calls(), 10, "it went on where it was held");
}

#[tokio::test]
async fn what_three_callers_want_of_one_day_is_one_run_that_one_of_them_is_charged_for() {
    let rig = rig(1_700, RollingLimit::new(1_000, Duration::from_secs(1)), Settings::default()).await;
    // Connections first: what is asked for must come in at the same instant.
    let nothing =
        Window { query: "from=2030-01-01&to=2030-01-01".to_owned(), from: Timestamp::MIN, end: Timestamp::MIN };
    rig.door.ask_at_once(&vec![ask(&nothing, "a"); 24]).await;
    let day = at("2026-02-20");
    let hour = |n: u32| {
        let from = day + Duration::from_hours(1) * n;
        Window::seconds(from, from + Duration::from_secs(3_599), UpperBound::Inclusive)
    };
    let asks: Vec<Ask> = (0..24).map(|n| ask(&hour(n), NAMES[n as usize % 3])).collect();
    for (n, answer) in (0..).zip(rig.door.ask_at_once(&asks).await) {
        assert_items(&answer.page(), &rig.truth(hour(n).from, hour(n).end), &hour(n).query);
    }
    assert_eq!((rig.calls(), rig.truth(day, day + DAY).len()), (17, 1_700));
    let spent = join_all(NAMES.map(|name| {
        let (rig, label) = (&rig, format!("caller=\"{name}\""));
        async move { metric(rig, "koregate_upstream_calls_spent_total{", &label).await }
    }))
    .await;
    assert_eq!(spent.iter().filter(|spent| **spent > 0).collect::<Vec<_>>(), [&17], "{spent:?}");
}

#[tokio::test]
async fn what_is_urgent_and_what_is_not_are_not_one_run() {
    let rig = rig(300, RollingLimit::new(1_000, Duration::from_secs(1)), Settings::default()).await;
    let (first, second) = (days(20, 20), days(21, 21));
    let asks = [in_the_background(ask(&first, "a")), ask(&second, "b")];
    for (window, answer) in [&first, &second].into_iter().zip(rig.door.ask_at_once(&asks).await) {
        assert_items(&answer.page(), &rig.truth(window.from, window.end), &window.query);
    }
    let asked: BTreeSet<_> = rig.control.calls().into_iter().map(|call| call.query.from.unwrap()).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(rig.calls(), 6);
}
