//! Runs that are parted: somebody always waits for some of it, and the quota always holds it up.

use super::*;
use crate::upstream::{Class, Waiting};

/// Somebody waits for `need` of the run, from one call to another.
#[derive(Clone, Debug)]
struct Visit {
    comes: u64,
    leaves: u64,
    need: Span,
}

/// What became of a run.
struct Told {
    result: Result<(), RepageError>,
    stretches: Vec<Stretch>,
    /// What it left to others, and what of that was wanted.
    left: Vec<(Span, Span)>,
    calls: u64,
}

/// Runs one run, while visitors come and go between its calls, each of which has waited for a minute.
fn run_visited(mut upstream: Upstream, span: Span, mut visits: Vec<Visit>) -> Told {
    let settings = RepageLayer {
        window: window(upstream.bound),
        clock: settled(),
        queue_timeout: Duration::from_secs(1),
        walk_bytes: upstream.walk_bytes,
        proven_each: upstream.proven_each,
        places: Arc::default(),
    };
    upstream.calls = 0;
    let shared = Arc::new(Mutex::new((upstream, Vec::<(u64, Waiting)>::new())));
    visits.sort_by_key(|visit| visit.comes);
    let below = service_fn({
        let (shared, visits) = (shared.clone(), visits.clone());
        move |request: PageRequest| {
            assert!(request.demand.begin(Duration::from_mins(1)), "it is wanted until it has begun");
            let (upstream, waiting) = &mut *shared.lock().unwrap();
            let page = upstream.answer(&request);
            let now = upstream.calls;
            waiting.retain(|(leaves, _)| *leaves > now);
            for visit in visits.iter().filter(|visit| visit.comes == now) {
                let asker = Asker { class: Class::Interactive, ..Asker::anyone() };
                waiting.extend(request.demand.join(asker, visit.need).map(|waiting| (visit.leaves, waiting)));
            }
            async move { Ok::<_, QuotaError>(page) }
        }
    });
    let series =
        Series { account: "a".into(), stream: "s".into(), filter: Filter::None, parameters: vec![], rich: false };
    let (deliver, delivered) = mpsc::unbounded_channel();
    let demand = Demand::new(Asker { class: Class::Background, ..Asker::anyone() });
    let run = Run { series: series.into(), span, placed: Placed::Checked, demand, deliver };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (result, (stretches, left)) =
        runtime.block_on(async { tokio::join!(settings.layer(below).oneshot(run), take(delivered)) });
    let calls = shared.lock().unwrap().0.calls;
    Told { result, stretches, left, calls }
}

impl Told {
    /// Whether something was proven just up to this second, before the rest was fetched.
    fn proves_up_to(&self, second: i64) -> bool {
        let ends_there = |stretch: &Stretch| stretch.span.end == Moment::from_seconds(second);
        self.stretches.iter().position(ends_there).is_some_and(|place| place + 1 < self.stretches.len())
    }

    /// Fails unless what was fetched and what was left to others tile what the run was for.
    #[track_caller]
    fn assert_tiles(&self, span: Span) {
        for (rest, wanted) in &self.left {
            assert!(!rest.is_empty(), "nothing is left to nobody");
            assert!(wanted.is_empty() || wanted.intersection(*rest) == *wanted, "{wanted} is not in {rest}");
        }
        let mut spans: Vec<Span> = self.stretches.iter().map(|stretch| stretch.span).collect();
        spans.extend(self.left.iter().map(|(rest, _)| *rest));
        spans.sort_by_key(|span| (span.start, span.end));
        let ends = spans.first().zip(spans.last()).map(|(first, last)| Span::new(first.start, last.end));
        assert_eq!(ends, Some(span), "{spans:?}");
        assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start), "a hole, or twice the same: {spans:?}");
    }

    /// How often it was cut.
    fn cuts(&self) -> u64 {
        (self.stretches.len() + self.left.len()).saturating_sub(1) as u64
    }
}

/// Rows about a second apart, some of them in the same millisecond or exactly on a second, and some hours quite empty.
fn many_rows() -> impl Strategy<Value = Vec<(Moment, String)>> {
    (2_500u64..5_000, any::<u64>(), prop::option::of((0u64..4_000, 1u64..2_000))).prop_map(|(count, seed, empty)| {
        let row = |n: u64| {
            let random = xxhash_rust::xxh3::xxh3_64_with_seed(&n.to_le_bytes(), seed);
            let at = random % 4_000_000;
            let at = if random >> 60 < 3 { at / 1000 * 1000 } else { at };
            (at, format!("ac-{:05}", n * 7919 % 10007))
        };
        let there =
            |(at, _): &(u64, String)| empty.is_none_or(|(from, for_)| !(from..from + for_).contains(&(at / 1000)));
        (0..count).map(row).filter(there).map(|(at, name)| (Moment::from_millis(at.cast_signed()), name)).collect()
    })
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let visit = (1u64..40, 1u64..60, 0i64..4_000_000, 1i64..600_000).prop_map(|(comes, stays, start, length)| Visit {
        comes,
        leaves: comes + stays,
        need: Span::new(Moment::from_millis(start), Moment::from_millis(start + length)),
    });
    prop::collection::vec(visit, 1..6)
}

/// As if it were 250 pages, or more than there are.
fn any_proven_each() -> impl Strategy<Value = usize> {
    prop_oneof![300usize..2_000, Just(usize::MAX)]
}

fn long_span(bound: UpperBound) -> Span {
    bound.enclosed(Bound::Second(Moment::from_seconds(0)), Bound::Second(Moment::from_seconds(4_000)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_run_that_is_parted_loses_nothing_and_costs_little_more(
        rows in many_rows(), bound in any_bound(), visits in visits(), proven_each in any_proven_each(),
        order in prop_oneof![Just(Rows::Ascending), Just(Rows::Descending), Just(Rows::ByName), Just(Rows::Ties)]
    ) {
        let span = long_span(bound);
        let told = run_visited(Upstream { proven_each, ..upstream(rows.clone(), order, bound) }, span, visits);
        prop_assert!(told.result.is_ok(), "{:?}", told.result);
        told.assert_tiles(span);
        let mut fetched = 0;
        for stretch in &told.stretches {
            let items: Vec<Bytes> = stretch.items.iter().map(|item| item.json.clone()).collect();
            prop_assert_eq!(&items, &expected(&rows, stretch.span), "{}", stretch.span);
            fetched += items.len();
        }
        if order != Rows::Ties {
            let least = fetched.div_ceil(100).max(1) as u64;
            // A proof, and the last page of what is in front of the cut.
            prop_assert!(
                told.calls <= least + 2 * told.cuts() + 1,
                "{} calls for {} items and {} cuts", told.calls, fetched, told.cuts()
            );
        }
    }

    /// Whatever moves while a run is paged and parted, no row that was there from the beginning is missing from a
    /// stretch.
    #[test]
    fn rows_that_move_under_a_run_that_is_parted_tear_no_hole(
        rows in many_rows(), bound in any_bound(), visits in visits(), proven_each in any_proven_each(),
        arrivals in prop::collection::vec((1u64..40, 0i64..4_000_000), 0..6),
        order in prop_oneof![Just(Rows::Ascending), Just(Rows::Descending), Just(Rows::ByName), Just(Rows::Shuffled)]
    ) {
        let span = long_span(bound);
        let mut upstream = Upstream { proven_each, ..upstream(rows.clone(), order, bound) };
        upstream.arrivals = arrivals.into_iter().enumerate()
            .map(|(n, (call, at))| (call, Moment::from_millis(at), format!("late-{n}"))).collect();
        let told = run_visited(upstream, span, visits);
        if told.result.is_ok() {
            told.assert_tiles(span);
        }
        for stretch in &told.stretches {
            let mut items: Vec<Bytes> = stretch.items.iter().map(|item| item.json.clone()).collect();
            items.retain(|item| !item.windows(5).any(|five| five == b"late-"));
            prop_assert_eq!(items, expected(&rows, stretch.span), "{}", stretch.span);
        }
    }
}

/// A row each second, from 0 to 5000 but for what `empty` holds.
fn each_second(empty: std::ops::Range<i64>) -> Vec<(Moment, String)> {
    let seconds = (0..5_000).filter(|second| !empty.contains(second));
    seconds.map(|second| (Moment::from_seconds(second), format!("ac-{second:05}"))).collect()
}

fn seconds(start: i64, end: i64) -> Span {
    Span::new(Moment::from_seconds(start), Moment::from_seconds(end))
}

/// Nobody leaves.
fn visit(comes: u64, need: Span) -> Visit {
    Visit { comes, leaves: u64::MAX, need }
}

#[test]
fn nothing_is_walked_twice_if_nothing_lies_between_the_walk_and_what_is_wanted() {
    let upstream = upstream(each_second(500..1000), Rows::Ascending, UpperBound::Exclusive);
    let told = run_visited(upstream, seconds(0, 5_000), vec![visit(5, seconds(1_000, 1_100))]);
    assert_eq!(told.left, [(seconds(1_000, 5_000), seconds(1_000, 1_100))]);
    assert_eq!(told.calls, 6, "five pages, and one that says that nothing more is there");
}

#[test]
fn what_is_wanted_of_the_first_page_is_handed_over_as_soon_as_it_can_be_proven() {
    let upstream = upstream(each_second(0..0), Rows::Ascending, UpperBound::Exclusive);
    let told = run_visited(upstream, seconds(0, 5_000), vec![visit(1, seconds(10, 20))]);
    assert!(told.proves_up_to(199), "behind the second page");
}

/// Whole seconds, as many systems write them: a line through an item could not be proven where the bound is inclusive.
#[test]
fn items_on_whole_seconds_are_handed_over_too() {
    let rows = each_second(0..0).into_iter().step_by(3).collect();
    let upstream = upstream(rows, Rows::Ascending, UpperBound::Inclusive);
    let told = run_visited(upstream, seconds(0, 15_000), vec![visit(2, seconds(10, 20))]);
    assert!(told.proves_up_to(596), "the last of 200 items lies at 597");
}

#[test]
fn one_who_cannot_be_served_does_not_stand_in_another_s_way() {
    let mut upstream = upstream(each_second(0..0), Rows::Ascending, UpperBound::Exclusive);
    // What the first of them waits for cannot be proven whole: something has arrived.
    upstream.arrivals = vec![(7, Moment::from_millis(38_500), "late".to_owned())];
    let visits = vec![visit(6, seconds(0, 10)), visit(6, seconds(1_000, 1_100))];
    let told = run_visited(upstream, seconds(0, 5_000), visits);
    assert_eq!(told.left.first(), Some(&(seconds(1_000, 5_000), seconds(1_000, 1_100))));
}
