//! Walks over made-up streams, played with an upstream that takes the same time for each page.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use proptest::prelude::*;

use super::*;

const AT_ONCE: usize = 8;
/// How long a page takes, in ticks; what it takes to read one is a tick.
const PAGE: u64 = 100;
/// The load of each hour of a day, relative to the others.
const WORKING_HOURS: [f64; 24] = [
    12.0, 8.0, 6.0, 5.0, 6.0, 10.0, 22.0, 45.0, 80.0, 100.0, 108.0, 104.0, 92.0, 98.0, 104.0, 100.0, 90.0, 74.0, 58.0,
    46.0, 38.0, 30.0, 22.0, 16.0,
];
const ALL_DAY: [f64; 24] = [1.0; 24];

fn moment(seconds: f64) -> Moment {
    #[expect(clippy::cast_possible_truncation, reason = "a time of these days")]
    let millis = (seconds * 1000.0) as i64;
    Moment::from_millis(millis)
}

fn days(count: usize) -> Span {
    Span::new(moment(0.0), Moment::from_seconds(i64::try_from(count * 86_400).unwrap()))
}

/// The times of a stream's items, ascending: so many on each day, by the hours of the day, more or less at random.
fn stream(of_days: &[f64], hours: &[f64; 24], seed: u64) -> Vec<Moment> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut items = Vec::new();
    for (day, items_of_day) in of_days.iter().enumerate() {
        for (hour, load) in hours.iter().enumerate() {
            let mut expected = items_of_day * load / hours.iter().sum::<f64>();
            // Each of so many small parts of what is expected comes or does not.
            while expected > 0.0 {
                if random.f64() < expected.min(0.5) {
                    #[expect(clippy::cast_precision_loss, reason = "a day and an hour")]
                    items.push(moment((day * 24 + hour) as f64 * 3600.0 + random.f64() * 3600.0));
                }
                expected -= 0.5;
            }
        }
    }
    items.sort_unstable();
    items
}

/// A week in which no day is like another.
fn uneven_days(count: usize, mean: f64, seed: u64) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0xdad5);
    (0..count).map(|_| mean * (0.9 + 0.2 * random.f64())).collect()
}

#[derive(Debug)]
struct Played {
    /// How many times quicker than one page after the other.
    quicker: f64,
    /// Calls beyond those that one page after the other takes.
    wasted: usize,
}

/// Plays a walk over rows in this order.
fn play(span: Span, rows: &[Moment]) -> Played {
    let page = PAGE_LIMIT as usize;
    let least = rows.len().div_ceil(page).max(1);
    let mut course = Course::new(span);
    let (mut now, mut calls, mut offset) = (0, 0, 0);
    let (mut came, mut asked, mut under_way) = (BTreeSet::new(), BTreeSet::new(), BinaryHeap::new());
    loop {
        let mut ask = |at: usize, asked: &mut BTreeSet<usize>, own: bool| {
            calls += 1;
            asked.insert(at);
            under_way.push(Reverse((now + PAGE, at, own)));
        };
        while came.remove(&offset) {
            offset += page;
        }
        if !asked.contains(&offset) {
            ask(offset, &mut asked, true);
        }
        let (mut next, at_least) = (offset + page, course.rows_at_least());
        while asked.len() < AT_ONCE && ((next + page) as u64) < at_least {
            if !came.contains(&next) && !asked.contains(&next) {
                ask(next, &mut asked, false);
            }
            next += page;
        }
        let Some(Reverse((landed, at, own))) = under_way.pop() else { panic!("nothing is under way") };
        now = now.max(landed) + 1;
        asked.remove(&at);
        if at + page < rows.len() {
            course.came(at as u64, rows[at], rows[at + page - 1]);
            came.insert(at);
        } else if own {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand ticks")]
            let quicker = (least as u64 * (PAGE + 1)) as f64 / now as f64;
            return Played { quicker, wasted: calls - least };
        } else {
            course.ended(at as u64, rows.len().saturating_sub(at).min(page));
        }
    }
}

fn both_ways(span: Span, mut rows: Vec<Moment>) -> [Played; 2] {
    let ascending = play(span, &rows);
    rows.reverse();
    [ascending, play(span, &rows)]
}

#[test]
fn a_week_is_six_times_as_quick_and_wastes_next_to_nothing() {
    for hours in [WORKING_HOURS, ALL_DAY] {
        let mut wasted = 0;
        for seed in 0..40 {
            let rows = stream(&uneven_days(7, 1_700.0, seed), &hours, seed);
            for played in both_ways(days(7), rows) {
                assert!(played.quicker > 6.3 && played.wasted <= 2, "{seed}: {played:?}");
                wasted += played.wasted;
            }
        }
        assert!(wasted <= 12, "{wasted} calls in 80 weeks");
    }
}

#[test]
fn weekends_cost_speed_or_a_few_calls() {
    let weeks = ["1111100", "1100111", "0111110"];
    for week in weeks {
        for seed in 0..20 {
            let of_days: Vec<f64> = week.chars().map(|day| if day == '1' { 1_700.0 } else { 340.0 }).collect();
            let rows = stream(&of_days, &WORKING_HOURS, seed);
            for played in both_ways(days(7), rows) {
                assert!(played.quicker > 5.5 && played.wasted <= 6, "{week:?} {seed}: {played:?}");
            }
        }
    }
}

#[test]
fn a_month_is_nearly_as_quick_as_can_be() {
    let month: Vec<f64> = (0..30).map(|day| if day % 7 < 5 { 1_700.0 } else { 400.0 }).collect();
    for played in both_ways(days(30), stream(&month, &WORKING_HOURS, 1)) {
        assert!(played.quicker > 7.2 && played.wasted <= 2, "{played:?}");
    }
}

#[test]
fn a_day_costs_no_call_more() {
    for items in [10.0, 100.0, 250.0, 480.0, 1_700.0] {
        for seed in 0..20 {
            for played in both_ways(days(1), stream(&[items], &WORKING_HOURS, seed)) {
                assert_eq!(played.wasted, 0, "{items} {seed}: {played:?}");
            }
        }
    }
}

#[test]
fn a_stream_that_ends_all_of_a_sudden_wastes_what_was_under_way() {
    for (of_days, end) in [(vec![1_700.0; 5], 7), (vec![1_700.0; 3], 30), (vec![0.0, 0.0, 1_700.0], 7)] {
        for played in both_ways(days(end), stream(&of_days, &WORKING_HOURS, 3)) {
            assert!(played.wasted <= AT_ONCE, "{of_days:?} {end}: {played:?}");
        }
    }
}

#[test]
fn in_no_plain_order_nothing_is_known() {
    let mut course = Course::new(days(7));
    assert_eq!(course.rows_at_least(), 0, "nothing has come");
    course.came(0, moment(10.0), moment(10.0));
    assert_eq!(course.rows_at_least(), 0, "all of it in one moment");
    course.came(100, moment(20.0), moment(3_600.0));
    assert!(course.rows_at_least() > 1_000);
    course.came(200, moment(50.0), moment(7_200.0));
    assert_eq!(course.rows_at_least(), 0, "back in time");
}

#[test]
fn the_end_is_believed_when_it_is_seen() {
    let mut course = Course::new(days(7));
    course.came(0, moment(0.0), moment(3_600.0));
    course.ended(700, 0);
    assert_eq!(course.rows_at_least(), 700, "there are no more");
    course.ended(500, 20);
    assert_eq!(course.rows_at_least(), 520);
    course.narrow(Span::new(moment(0.0), moment(7_200.0)));
    assert!(course.rows_at_least() < 200, "another query, another end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the stream is like, what is under way at the end is all that can be wasted, and no walk is slower by more
    /// than it takes to read that.
    #[test]
    fn whatever_comes_no_more_is_wasted_than_can_be_under_way(
        of_days in prop::collection::vec(prop_oneof![Just(0.0), 0.0..300.0, 300.0..4_000.0], 1..12),
        hours in prop::array::uniform24(prop_oneof![Just(0.001), 0.01..1.0, 5.0..20.0]), seed: u64
    ) {
        for played in both_ways(days(of_days.len()), stream(&of_days, &hours, seed)) {
            #[expect(clippy::cast_precision_loss, reason = "some hundred ticks")]
            let slowest = (PAGE + 1) as f64 / (PAGE + 1 + AT_ONCE as u64) as f64;
            prop_assert!(played.wasted <= AT_ONCE && played.quicker >= slowest, "{:?}", played);
        }
    }
}
