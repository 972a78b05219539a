//! What is missing costs the least calls that can fetch it, once, whoever asks.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use koregate::window::{Bound, UpperBound};
use koregate_simulator::{ApiVariant, Fault, FaultPlan, ItemFilter, Profile};

use super::support::{
    Ask, DAY, HOUR, NOW, Rig, STREAM, Settings, Window, assert_items, at, check_pages, exact_profile, profile, until,
};

fn pages(items: usize) -> u64 {
    items.div_ceil(100).max(1) as u64
}

fn hours(from: &str, to: &str) -> Window {
    let second = |time| at(&format!("2026-02-23T{time}Z"));
    Window::seconds(second(from), second(to), UpperBound::Inclusive)
}

/// Opens so many connections, so that requests of one instant are not kept apart by the opening of theirs.
async fn connect(rig: &Rig, connections: usize) {
    let asks = vec![Ask::get("from=2030-01-01&to=2030-01-01"); connections];
    rig.door.ask_at_once(&asks).await;
    assert_eq!(rig.calls(), 0, "the future is empty, and nobody need be asked for it");
}

#[tokio::test]
async fn a_cold_settled_day_of_1700_items_costs_17_calls_with_either_bound() {
    for (exclusive_to, name) in [(false, "inclusive"), (true, "exclusive")] {
        let api = ApiVariant { exclusive_to, ..ApiVariant::default() };
        let profile = Profile { api, ..exact_profile(1_700, 4) };
        let rig = Rig::start(profile, &Settings::default().section("window", &format!("upper_bound = '{name}'"))).await;
        for calls in [17, 0] {
            rig.control.reset_counts();
            assert_eq!(rig.get("from=2026-02-23&to=2026-02-23").await.page().num_results, 1_700);
            assert_eq!(rig.calls(), calls, "{name}");
        }
        // The days beside it are whole runs of their own: the midnight between costs nothing twice.
        rig.control.reset_counts();
        assert_eq!(rig.get("from=2026-02-22&to=2026-02-23").await.page().num_results, 3_400);
        assert_eq!(rig.calls(), 17, "{name}");
    }
}

#[tokio::test]
async fn a_cold_week_costs_its_pages_whoever_asks_and_however_many() {
    let week = Window::days("2026-02-16", "2026-02-22");
    let rig = Rig::start(profile(1_700, 12), &Settings::default()).await;
    let truth = rig.truth(week.from, week.end);
    // Each asks for a page of its own of the same week, at the same instant.
    let ask = |caller: usize| Ask::get(format!("{}&offset={}&limit=50", week.query, caller * 50));
    let answers = rig.door.ask_at_once(&(0..200).map(ask).collect::<Vec<_>>()).await;
    for (caller, answer) in answers.iter().enumerate() {
        let offset = caller * 50;
        assert_items(&answer.page(), &truth[offset..offset + 50], &format!("caller {caller}"));
    }
    // Its runs are of some forty pages: the last page of each is not full.
    let (calls, least) = (rig.calls(), pages(truth.len()));
    assert!(calls >= least && 20 * calls <= 21 * least, "{calls} calls for {least} pages");
    rig.control.reset_counts();
    assert_items(&rig.get(&week.query).await.page(), &truth, "the week as a whole");
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn overlapping_windows_of_one_instant_cost_what_their_union_costs() {
    for windows in [
        vec![hours("00:00:00", "13:59:59"), hours("09:00:00", "23:59:59")],
        (0..10).map(|n| hours(&format!("{n:02}:10:00"), &format!("{:02}:40:17", n + 9))).collect(),
    ] {
        let rig = Rig::start(exact_profile(1_700, 4), &Settings::default()).await;
        connect(&rig, windows.len()).await;
        let asks: Vec<Ask> = windows.iter().map(|window| Ask::get(&window.query)).collect();
        let answers = rig.door.ask_at_once(&asks).await;
        for (window, answer) in windows.iter().zip(&answers) {
            assert_items(&answer.page(), &rig.truth(window.from, window.end), &window.query);
        }
        let from = windows.iter().map(|window| window.from).min().unwrap();
        let end = windows.iter().map(|window| window.end).max().unwrap();
        assert_eq!(rig.calls(), pages(rig.truth(from, end).len()), "{} windows", windows.len());
    }
}

#[tokio::test]
async fn a_gap_between_what_is_there_is_all_that_is_fetched() {
    let rig = Rig::start(exact_profile(1_700, 4), &Settings::default()).await;
    let midnight = at("2026-02-24");
    let evening = Window::seconds(at("2026-02-23T16:00:00Z"), midnight, UpperBound::Inclusive);
    for part in [hours("00:00:00", "07:59:59"), evening] {
        check_pages(&rig, &part, 10_000).await;
    }
    rig.control.reset_counts();
    let day = check_pages(&rig, &Window::days("2026-02-23", "2026-02-23"), 10_000).await;
    assert!(day.cache_status().contains("fwd=partial"), "{}", day.cache_status());
    let from = at("2026-02-23T07:59:59Z");
    assert_eq!(rig.calls(), pages(rig.truth(from, at("2026-02-23T16:00:00Z").next_tick()).len()));
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_stop_the_fetch() {
    let rig = Rig::start(exact_profile(1_700, 4), &Settings::default()).await;
    let ask = Ask::get("from=2026-02-23&to=2026-02-23");
    let mut socket = TcpStream::connect(rig.door.addr()).unwrap();
    socket.write_all(&ask.wire(rig.door.addr())).unwrap();
    until("the first upstream call", || rig.calls() > 0).await;
    drop(socket);
    assert!(rig.calls() < 17, "the fetch was over before its caller left");
    until("the fetch to end without its caller", || rig.control.counts().ok == 17).await;
    assert_items(&rig.ask(&ask).await.page(), &rig.truth(at("2026-02-23"), at("2026-02-24")), "the day");
    assert_eq!(rig.calls(), 17);
}

#[tokio::test]
async fn settled_windows_outlive_the_upstream() {
    let mut rig = Rig::start(exact_profile(300, 4), &Settings::default()).await;
    let day = Window::days("2026-02-23", "2026-02-23");
    let truth = rig.truth(day.from, day.end);
    rig.get(&day.query).await.page();
    rig.stop_upstream().await;
    rig.clock.set(at("2026-09-01"));
    for _ in 0..2 {
        let answer = rig.get(&day.query).await;
        assert_items(&answer.page(), &truth, "the day");
        assert!(answer.cache_status().starts_with("koregate; hit"), "{}", answer.cache_status());
    }
    // What was never fetched cannot be served, and is not served as empty.
    assert_eq!(rig.get("from=2026-02-22&to=2026-02-22").await.status, 502);
    assert_eq!(rig.get("from=2026-02-22&to=2026-02-23").await.status, 502);
}

#[tokio::test]
async fn a_failure_is_told_and_not_kept() {
    let rig = Rig::start(exact_profile(300, 4), &Settings::default()).await;
    let day = Window::days("2026-02-23", "2026-02-23");
    for fault in [Fault::Html200, Fault::TruncatedJson, Fault::WrongCount] {
        // It fails on its second page: what the first one brought must not pass for the day.
        rig.control.set_faults(FaultPlan::always(fault).after(1));
        let failed = rig.get(&day.query).await;
        assert_eq!(failed.status, 502, "{fault:?}");
        rig.control.clear_faults();
    }
    rig.control.reset_counts();
    check_pages(&rig, &day, 10_000).await;
    assert_eq!(rig.calls(), 3);
}

/// The first and the last second that were asked for upstream since the last reset.
fn asked_for(rig: &Rig) -> Option<(String, String)> {
    let calls = rig.control.calls();
    let from = calls.iter().filter_map(|call| call.query.from.clone()).min()?;
    Some((from, calls.iter().filter_map(|call| call.query.to.clone()).max()?))
}

#[tokio::test]
async fn open_data_is_fetched_again_only_where_the_ladder_says_so_and_settled_data_never() {
    let now = at("2026-02-25T12:00:00Z");
    let rig = Rig::start(exact_profile(480, 5), &Settings::default()).await;
    // From 16:00 yesterday up to now, in one window that does not move; none of it is settled yet.
    let window = Window::seconds(now - HOUR * 20, now - Duration::from_secs(1), UpperBound::Inclusive);
    for (after, asked) in [
        (0, Some(("2026-02-24-16:00:00", "2026-02-25-11:59:59"))),
        // What is younger than an hour may be thirty seconds old.
        (30, None),
        (31, Some(("2026-02-25-11:00:31", "2026-02-25-11:59:59"))),
        (61, None),
        (62, Some(("2026-02-25-11:01:02", "2026-02-25-11:59:59"))),
        (300, Some(("2026-02-25-11:05:00", "2026-02-25-11:59:59"))),
        // What is younger than six hours, five minutes; the last hour has just been fetched.
        (301, Some(("2026-02-25-06:05:01", "2026-02-25-11:00:31"))),
        // All the rest, an hour.
        (3_601, Some(("2026-02-24-16:00:00", "2026-02-25-11:59:59"))),
        // It has settled since, so it is fetched one last time.
        (2 * 86_400, Some(("2026-02-24-16:00:00", "2026-02-25-12:00:00"))),
        (2 * 86_400 + 3_601, None),
        (365 * 86_400, None),
    ] {
        rig.clock.set(now + Duration::from_secs(after));
        rig.control.reset_counts();
        check_whole(&rig, &window).await;
        let asked = asked.map(|(from, to)| (from.to_owned(), to.to_owned()));
        assert_eq!(asked_for(&rig), asked, "after {after} s");
    }
}

/// The line between settled and open moves through a window: what it has passed since the last look is fetched a last
/// time, and that alone.
#[tokio::test]
async fn the_settling_line_leaves_nothing_behind_that_was_fetched_too_early() {
    let now = at("2026-02-25T12:00:00Z");
    let rig = Rig::start(exact_profile(480, 5), &Settings::default()).await;
    let window = Window::seconds(now - DAY * 2, now - HOUR * 20, UpperBound::Inclusive);
    for (after, asked) in [
        (0, Some(("2026-02-23-12:00:00", "2026-02-24-16:00:00"))),
        (0, None),
        (30, Some(("2026-02-24-12:00:00", "2026-02-24-12:00:30"))),
        (30, None),
        (600, Some(("2026-02-24-12:00:30", "2026-02-24-12:10:00"))),
    ] {
        rig.clock.set(now + Duration::from_secs(after));
        rig.control.reset_counts();
        check_whole(&rig, &window).await;
        let asked = asked.map(|(from, to): (&str, &str)| (from.to_owned(), to.to_owned()));
        assert_eq!(asked_for(&rig), asked, "after {after} s");
    }
}

/// Copies of many ages lie side by side where a window is polled: fetching them again piece by piece would cost a call
/// for each piece.
#[tokio::test]
async fn a_polled_window_is_not_fetched_in_splinters() {
    let rig = Rig::start(profile(1_700, 9), &Settings::default()).await;
    for poll in 0..100 {
        let now = at("2026-02-25T03:00:00Z") + Duration::from_mins(5) * poll;
        rig.clock.set(now);
        rig.control.reset_counts();
        let week = Window::seconds(now - DAY * 7, now, UpperBound::Inclusive);
        rig.get(format!("{}&limit=1", week.query)).await.page();
        // What has settled since the last poll is a run of its own, far from what is open.
        let settling = Bound::Second(now - DAY).to_string();
        let calls = rig.control.calls();
        let open: Vec<_> =
            calls.iter().filter(|call| call.query.to.as_ref().is_some_and(|to| *to > settling)).collect();
        let first =
            open.iter().filter_map(|call| Bound::parse(call.query.from.as_ref()?)).map(Bound::start).min().unwrap();
        let items = rig.truth(first, now).len();
        assert!(open.len() as u64 <= pages(items) + 1, "{now}: {} calls for {items} items", open.len());
    }
}

/// Two services mean the same days, and spell them otherwise.
#[tokio::test]
async fn a_day_up_to_its_last_second_is_the_day() {
    let rig = Rig::start(exact_profile(1_700, 6), &Settings::default()).await;
    let days = ["2026-02-21", "2026-02-22", "2026-02-23"];
    for day in days {
        rig.get(format!("from={day}&to={day}T23:59:59&limit=1")).await.page();
    }
    assert_eq!(rig.calls(), 3 * 17);
    for day in days {
        check_pages(&rig, &Window::days(day, day), 1_000).await;
    }
    assert_eq!(rig.calls(), 3 * 17);
}

async fn check_whole(rig: &Rig, window: &Window) {
    let page = rig.get(&window.query).await.page();
    assert_items(&page, &rig.truth(window.from, window.end), &window.query);
}

/// Items that change their bytes until they settle are served as they last were, and kept as they finally are.
#[tokio::test]
async fn what_settles_is_fetched_a_last_time_and_kept_as_it_is_then() {
    let rig = Rig::start(exact_profile(300, 4), &Settings::default()).await;
    let window = Window::seconds(at("2026-02-25T06:00:00Z"), at("2026-02-25T08:00:00Z"), UpperBound::Inclusive);
    check_whole(&rig, &window).await;
    let before = rig.truth(window.from, window.end);
    let (id, _) = rig.control.expected_until(STREAM, window.from, window.end, false, &ItemFilter::default()).remove(0);
    assert!(rig.control.touch(STREAM, &id));
    assert_items(&rig.get(&window.query).await.page(), &before, "still fresh enough");
    rig.clock.set(at(NOW) + DAY);
    check_whole(&rig, &window).await;
    // Whatever happens after it has settled is not looked for.
    let settled: Vec<Vec<u8>> = rig.truth(window.from, window.end);
    assert!(settled != before && rig.control.touch(STREAM, &id));
    rig.clock.set(at(NOW) + DAY * 100);
    assert_items(&rig.get(&window.query).await.page(), &settled, "settled");
}

/// What comes while a copy is fresh enough is not asked for before the copy no longer is, and `Age` says how old it is.
#[tokio::test]
async fn a_growing_window_is_asked_for_its_growth_when_the_ladder_says_so() {
    let rig = Rig::start(exact_profile(1_700, 4), &Settings::default()).await;
    let begin = at("2026-02-25T10:00:00Z");
    let today = Window::days("2026-02-25", "2026-02-25");
    rig.clock.set(begin);
    check_pages(&rig, &today, 10_000).await;
    let before = rig.truth(today.from, begin);
    rig.control.insert(STREAM, begin + Duration::from_secs(10)).unwrap();
    for (after, age) in [(20, "20"), (30, "30")] {
        rig.clock.set(begin + Duration::from_secs(after));
        rig.control.reset_counts();
        let answer = rig.get(&today.query).await;
        assert_items(&answer.page(), &before, "while it is fresh");
        assert_eq!((rig.calls(), answer.header("age")), (0, Some(age)));
    }
    let now = begin + Duration::from_secs(31);
    rig.clock.set(now);
    rig.control.reset_counts();
    check_pages(&rig, &today, 10_000).await;
    assert_eq!(rig.calls(), pages(rig.truth(now - HOUR, now).len()), "the last hour, and what has come since");
}

/// Whether the upstream counts an item exactly at `to` is a setting, and may be set wrong: that can shift the edge of one
/// answer, but tears no hole between two that were fetched apart.
#[tokio::test]
async fn a_wrong_upper_bound_tears_no_hole_between_two_windows() {
    for (real, set) in [("exclusive", "inclusive"), ("inclusive", "exclusive")] {
        let mut profile = exact_profile(480, 4);
        profile.api.exclusive_to = real == "exclusive";
        let rig = Rig::start(profile, &Settings::default().section("window", &format!("upper_bound = '{set}'"))).await;
        let edge = at("2026-02-22T05:00:00Z");
        rig.control.insert(STREAM, edge).unwrap();
        let hours = |from: u32, to: u32| format!("from=2026-02-22T{from:02}:00:00&to=2026-02-22T{to:02}:00:00");
        rig.get(hours(0, 5)).await.page();
        for _ in 0..2 {
            let page = rig.get(hours(4, 6)).await.page();
            let truth = rig.truth(at("2026-02-22T04:00:00Z"), at("2026-02-22T05:30:00Z"));
            assert!(page.items().take(truth.len()).eq(truth.iter().map(Vec::as_slice)), "{real}, set to {set}");
        }
    }
}
