//! Windows of any bounds in pages of any size: exactly the upstream's items, none missing and none twice.

use std::time::Duration;

use crate::support::{
    ApiVariant, DAY, HOUR, NOW, Profile, SETTLED_DAY, STREAM, SelectOn, Settings, SortOrder, TestHarness, Timestamp,
    UpperBound, Window, assert_items, assert_pages, assert_pages_of, at, exact_profile, profile,
};

const SECOND: Duration = Duration::from_secs(1);
/// The accepted formats with a time of day, in jiff's notation. The fourth accepted format is a date alone.
const FORMATS: [&str; 3] = ["%Y-%m-%d-%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"];

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

/// A random window of whole seconds between `first` and two hours after now; each order of magnitude is equally likely.
fn random_window(rng: &mut fastrand::Rng, first: Timestamp, bound: UpperBound) -> Window {
    let (first, last) = (first.as_seconds(), at(NOW).as_seconds() + 7_200);
    let from = rng.i64(first..last);
    let longest = [60, 3_600, 86_400, last - first][rng.usize(..4)];
    let (mut from, mut to) = (from, (from + rng.i64(0..=longest)).min(last));
    // Bounds of chunks are where a wrong cut shows.
    if rng.u8(..3) == 0 {
        from -= from.rem_euclid(3_600);
    }
    if rng.u8(..3) == 0 {
        to -= to.rem_euclid(3_600);
    }
    Window::formatted(
        Timestamp::from_seconds(from),
        Timestamp::from_seconds(to.max(from)),
        bound,
        rng.choice(FORMATS).unwrap(),
    )
}

/// A random page size from 1 to 10,000; each order of magnitude, and the sizes around the upstream's own, are equally
/// likely.
fn random_size(rng: &mut fastrand::Rng) -> usize {
    match rng.u8(..8) {
        0 => [1, 99, 100, 101, 10_000][rng.usize(..5)],
        1 | 2 => rng.usize(1..=10),
        3 | 4 => rng.usize(1..=100),
        5 | 6 => rng.usize(1..=1_000),
        _ => rng.usize(1..=10_000),
    }
}

#[tokio::test]
async fn month_in_varied_windows_matches_upstream() {
    let bound = UpperBound::Inclusive;
    let harness = TestHarness::start(profile(700, 30), &settings(SelectOn::Start, bound)).await;
    let now = at(NOW);
    let second = |time| at(&format!("2026-02-{time}Z"));
    let mut windows = vec![
        // A day within a week within the month: each finds a part of itself cached.
        Window::day("2026-02-10"),
        Window::days("2026-02-08", "2026-02-14"),
        Window::days("2026-01-27", "2026-02-25"),
        // Exactly on bounds of chunks, and one second beside them.
        Window::seconds(second("11T08:00:00"), second("11T09:00:00"), bound),
        Window::seconds(second("11T09:00:00"), second("11T10:00:00"), bound),
        Window::seconds(second("11T09:00:01"), second("11T09:59:59"), bound),
        Window::seconds(second("11T09:00:00"), second("11T09:00:00"), bound),
        Window::seconds(second("11T23:59:59"), second("12T00:00:00"), bound),
        // The last hour, and windows that end in the future.
        Window::seconds((now - HOUR).floor_second(), now.floor_second(), bound),
        Window::seconds((now - HOUR).floor_second(), now.ceil_second(), bound),
        Window::days("2026-02-25", "2026-02-28"),
        // Wholly in the future, and before the first item.
        Window::days("2026-02-26", "2026-03-01"),
        Window::days("2025-12-01", "2025-12-31"),
    ];
    for format in FORMATS {
        windows.push(Window::formatted(second("12T07:59:59"), second("12T12:00:01"), bound, format));
    }
    for window in &windows {
        let expected = harness.window_items(window);
        let page = harness.get(&window.query).await.page();
        assert_items(&page, &expected, &window.query);
        assert!(!page.has_more, "{}", window.query);
        for size in [1, 99, 100, 101, 1_013, 10_000] {
            if expected.len() / size <= 80 {
                assert_pages_of(&harness, window, size, &expected).await;
            }
        }
    }
    harness.control.reset_counts();
    for window in &windows {
        harness.get(format!("{}&limit=7&offset=3", window.query)).await.page();
    }
    assert_eq!(harness.calls(), 0, "with a clock that stands still, nothing becomes stale");
}

/// Covers each order, upper bound and selecting timestamp with random windows and page sizes from a fixed seed.
#[tokio::test]
async fn random_windows_and_page_sizes_match_upstream() {
    let mut seed = 0;
    for order in [SortOrder::Ascending, SortOrder::Descending, SortOrder::Unstable, SortOrder::Shuffled] {
        for upper_bound in [UpperBound::Inclusive, UpperBound::Exclusive] {
            for select_on in [SelectOn::Start, SelectOn::End] {
                seed += 1;
                let exclusive_to = upper_bound == UpperBound::Exclusive;
                let api = ApiVariant { order, exclusive_to, select_on, ..ApiVariant::default() };
                let profile = Profile { api, seed, ..profile(350, 4) };
                let harness = TestHarness::start(profile, &settings(select_on, upper_bound)).await;
                assert_random_windows(&harness, seed, upper_bound).await;
            }
        }
    }
}

async fn assert_random_windows(harness: &TestHarness, seed: u64, bound: UpperBound) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let settled_before = at(NOW) - DAY;
    for round in 0..12 {
        let window = random_window(&mut rng, at("2026-02-22") - HOUR, bound);
        let expected = harness.window_items(&window);
        // At most 40 requests a window.
        let size = random_size(&mut rng).max(expected.len() / 40);
        let context = format!("seed {seed}, round {round}: {}, {size} a page", window.query);
        assert_pages_of(harness, &window, size, &expected).await;
        harness.control.reset_counts();
        let beyond = harness.get(format!("{}&offset={}", window.query, expected.len() + rng.usize(..3))).await.page();
        assert!(beyond.num_results == 0 && !beyond.has_more, "{context}");
        if window.end <= settled_before {
            assert_eq!(harness.calls(), 0, "{context}: settled and fetched before");
        }
    }
}

#[tokio::test]
async fn pages_of_mixed_sizes_join_completely() {
    let harness = TestHarness::start(exact_profile(1_000, 3), &settings(SelectOn::Start, UpperBound::Inclusive)).await;
    harness.control.set_order(SortOrder::Shuffled);
    let expected = harness.settled_day();
    assert_eq!(expected.len(), 1_000);
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..4 {
        let mut offset = 0;
        while offset < expected.len() {
            let size = random_size(&mut rng).max(10);
            let page = harness.get(format!("{SETTLED_DAY}&limit={size}&offset={offset}")).await.page();
            let end = expected.len().min(offset + size);
            assert_items(&page, &expected[offset..end], &format!("{size} from {offset}"));
            assert_eq!(page.has_more, end < expected.len());
            offset = end;
        }
    }
}

/// An item exactly at `to` belongs to the window if the upstream counts it.
#[tokio::test]
async fn item_on_window_bound_follows_upper_bound_setting() {
    for upper_bound in [UpperBound::Inclusive, UpperBound::Exclusive] {
        let api = ApiVariant { exclusive_to: upper_bound == UpperBound::Exclusive, ..ApiVariant::default() };
        let profile = Profile { api, ..profile(300, 3) };
        let harness = TestHarness::start(profile, &settings(SelectOn::Start, upper_bound)).await;
        let noon = at("2026-02-23T12:00:00Z");
        let id = harness.control.insert(STREAM, noon).unwrap();
        let has = |items: &[Vec<u8>]| items.iter().any(|item| String::from_utf8_lossy(item).contains(&id));
        for (from, to, included) in [
            (noon - HOUR, noon, upper_bound == UpperBound::Inclusive),
            (noon, noon + HOUR, true),
            (noon - HOUR, noon - SECOND, false),
            (noon + SECOND, noon + HOUR, false),
        ] {
            let window = Window::seconds(from, to, upper_bound);
            assert_eq!(has(&harness.items(window.from, window.end)), included, "{}", window.query);
            assert_pages(&harness, &window, 100).await;
        }
    }
}
