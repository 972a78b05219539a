//! Any window, in pages of any size, is what the upstream would have said: nothing missing, nothing twice.

use std::time::Duration;

use koregate::window::{Timestamp, UpperBound};
use koregate_simulator::{ApiVariant, Profile, SelectOn, SortOrder};

use super::support::{
    DAY, HOUR, NOW, Rig, Settings, Window, assert_items, at, check_pages, check_pages_against, exact_profile, profile,
};

const SECOND: Duration = Duration::from_secs(1);

/// The spellings that carry a time, as jiff formats them; the fourth one is a date alone.
const SPELLINGS: [&str; 3] = ["%Y-%m-%d-%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"];

fn settings(select_on: SelectOn, bound: UpperBound) -> Settings {
    let field = match select_on {
        SelectOn::Start => "segmentStartTime",
        SelectOn::End => "segmentEndTime",
    };
    let bound = match bound {
        UpperBound::Inclusive => "inclusive",
        UpperBound::Exclusive => "exclusive",
    };
    Settings::default().section("window", &format!("field = '{field}'\nupper_bound = '{bound}'"))
}

/// A window of whole seconds somewhere between `first` and a little beyond now; short ones as often as long ones.
fn any_window(rng: &mut fastrand::Rng, first: Timestamp, bound: UpperBound) -> Window {
    let (first, last) = (first.as_seconds(), at(NOW).as_seconds() + 7_200);
    let from = rng.i64(first..last);
    let longest = [60, 3_600, 86_400, last - first][rng.usize(..4)];
    let (mut from, mut to) = (from, (from + rng.i64(0..=longest)).min(last));
    // Bounds of chunks are where a cut shows.
    if rng.u8(..3) == 0 {
        from -= from.rem_euclid(3_600);
    }
    if rng.u8(..3) == 0 {
        to -= to.rem_euclid(3_600);
    }
    Window::spelled(
        Timestamp::from_seconds(from),
        Timestamp::from_seconds(to.max(from)),
        bound,
        rng.choice(SPELLINGS).unwrap(),
    )
}

/// From 1 to 10,000, each order of magnitude as often as the next, and the sizes around the upstream's own.
fn any_size(rng: &mut fastrand::Rng) -> usize {
    match rng.u8(..8) {
        0 => [1, 99, 100, 101, 10_000][rng.usize(..5)],
        1 | 2 => rng.usize(1..=10),
        3 | 4 => rng.usize(1..=100),
        5 | 6 => rng.usize(1..=1_000),
        _ => rng.usize(1..=10_000),
    }
}

#[tokio::test]
async fn a_month_comes_through_whole_in_whatever_windows() {
    let bound = UpperBound::Inclusive;
    let rig = Rig::start(profile(1_700, 30), &settings(SelectOn::Start, bound)).await;
    let now = at(NOW);
    let second = |spelled| at(&format!("2026-02-{spelled}Z"));
    let mut windows = vec![
        // A day, in a week, in the month: each finds a part of itself there.
        Window::days("2026-02-10", "2026-02-10"),
        Window::days("2026-02-08", "2026-02-14"),
        Window::days("2026-01-27", "2026-02-25"),
        // Exactly on the bounds of chunks, where items lie, and a second beside them.
        Window::seconds(second("11T08:00:00"), second("11T09:00:00"), bound),
        Window::seconds(second("11T09:00:00"), second("11T10:00:00"), bound),
        Window::seconds(second("11T09:00:01"), second("11T09:59:59"), bound),
        Window::seconds(second("11T09:00:00"), second("11T09:00:00"), bound),
        Window::seconds(second("11T23:59:59"), second("12T00:00:00"), bound),
        // The last hour, and whatever is spelled beyond it.
        Window::seconds((now - HOUR).floor_second(), now.floor_second(), bound),
        Window::seconds((now - HOUR).floor_second(), now.ceil_second(), bound),
        Window::days("2026-02-25", "2026-02-28"),
        // Nothing yet, and nothing any more.
        Window::days("2026-02-26", "2026-03-01"),
        Window::days("2025-12-01", "2025-12-31"),
    ];
    for spelling in SPELLINGS {
        windows.push(Window::spelled(second("12T07:59:59"), second("12T12:00:01"), bound, spelling));
    }
    for window in &windows {
        let truth = rig.truth(window.from, window.end.min(now));
        let page = rig.get(&window.query).await.page();
        assert_items(&page, &truth, &window.query);
        assert!(!page.has_more, "{}", window.query);
        for size in [1, 99, 100, 101, 1_013, 10_000] {
            if truth.len() / size <= 80 {
                check_pages_against(&rig, window, size, &truth).await;
            }
        }
    }
    rig.control.reset_counts();
    for window in &windows {
        rig.get(format!("{}&limit=7&offset=3", window.query)).await.page();
    }
    assert_eq!(rig.calls(), 0, "with the clock standing still, all of it was there");
}

/// Every order, either upper bound, either timestamp: windows and page sizes at random, from a seed.
#[tokio::test]
async fn any_window_in_pages_of_any_size_is_the_upstreams_own() {
    let mut seed = 0;
    for order in [SortOrder::Ascending, SortOrder::Descending, SortOrder::Unstable, SortOrder::Shuffled] {
        for upper_bound in [UpperBound::Inclusive, UpperBound::Exclusive] {
            for select_on in [SelectOn::Start, SelectOn::End] {
                seed += 1;
                let exclusive_to = upper_bound == UpperBound::Exclusive;
                let api = ApiVariant { order, exclusive_to, select_on, ..ApiVariant::default() };
                let profile = Profile { api, seed, ..profile(350, 4) };
                let rig = Rig::start(profile, &settings(select_on, upper_bound)).await;
                check_random_windows(&rig, seed, upper_bound).await;
            }
        }
    }
}

async fn check_random_windows(rig: &Rig, seed: u64, bound: UpperBound) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let settled_before = at(NOW) - DAY;
    for round in 0..12 {
        let window = any_window(&mut rng, at("2026-02-22") - HOUR, bound);
        let truth = rig.truth(window.from, window.end.min(at(NOW)));
        // So few items a page that it took hundreds of requests is for smaller windows.
        let size = any_size(&mut rng).max(truth.len() / 40);
        let what = format!("seed {seed}, round {round}: {}, {size} a page", window.query);
        check_pages_against(rig, &window, size, &truth).await;
        rig.control.reset_counts();
        let beyond = rig.get(format!("{}&offset={}", window.query, truth.len() + rng.usize(..3))).await.page();
        assert!(beyond.num_results == 0 && !beyond.has_more, "{what}");
        if window.end <= settled_before {
            assert_eq!(rig.calls(), 0, "{what}: settled, and asked for before");
        }
    }
}

/// Pages that change their size on the way are pages of the same window.
#[tokio::test]
async fn pages_of_mixed_sizes_join_without_a_seam() {
    let rig = Rig::start(exact_profile(1_000, 3), &settings(SelectOn::Start, UpperBound::Inclusive)).await;
    rig.control.set_order(SortOrder::Shuffled);
    let truth = rig.truth(at("2026-02-23"), at("2026-02-24"));
    assert_eq!(truth.len(), 1_000);
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..4 {
        let mut offset = 0;
        while offset < truth.len() {
            let size = any_size(&mut rng).max(10);
            let page = rig.get(format!("from=2026-02-23&to=2026-02-23&limit={size}&offset={offset}")).await.page();
            let end = truth.len().min(offset + size);
            assert_items(&page, &truth[offset..end], &format!("{size} from {offset}"));
            assert_eq!(page.has_more, end < truth.len());
            offset = end;
        }
    }
}

/// Items of one millisecond, on the very bound of two windows, belong to both or to one: as the upstream counts them.
#[tokio::test]
async fn an_item_on_the_bound_is_in_the_windows_that_the_upstream_says() {
    for upper_bound in [UpperBound::Inclusive, UpperBound::Exclusive] {
        let exclusive_to = upper_bound == UpperBound::Exclusive;
        let api = ApiVariant { exclusive_to, ..ApiVariant::default() };
        let profile = Profile { api, ..profile(300, 3) };
        let rig = Rig::start(profile, &settings(SelectOn::Start, upper_bound)).await;
        let noon = at("2026-02-23T12:00:00Z");
        let id = rig.control.insert(super::support::STREAM, noon).unwrap();
        let has = |items: &[Vec<u8>]| items.iter().any(|item| String::from_utf8_lossy(item).contains(&id));
        for (from, to, within) in [
            (noon - HOUR, noon, upper_bound == UpperBound::Inclusive),
            (noon, noon + HOUR, true),
            (noon - HOUR, noon - SECOND, false),
            (noon + SECOND, noon + HOUR, false),
        ] {
            let window = Window::seconds(from, to, upper_bound);
            assert_eq!(has(&rig.truth(window.from, window.end)), within, "{}", window.query);
            check_pages(&rig, &window, 100).await;
        }
    }
}
