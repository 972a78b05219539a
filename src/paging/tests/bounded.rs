//! Tests of bounded runs: where runs of unknown density end, and how runs larger than planned are cut or dropped.

use super::*;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn seconds(start: i64, end: i64) -> Interval {
    Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end))
}

/// Rows at a constant interval.
fn each(interval: i64, rows: i64, order: Rows) -> Upstream {
    let row = |n: i64| (Timestamp::from_millis(n * interval * 1000 + 500), format!("ac-{n:06}"));
    upstream((0..rows).map(row).collect(), order, UpperBound::Exclusive)
}

#[test]
fn unknown_density_of_one_run_costs_its_pages() {
    let played = run(each(50, 1700, Rows::Ascending), seconds(0, DAY), PlacementCheck::Checked);
    assert_eq!(played.calls, 17);
    assert_eq!(played.items(seconds(0, DAY)).len(), 1700);
}

#[test]
fn unknown_density_ends_behind_its_first_page() {
    for (order, start, end) in [(Rows::Ascending, 0, 135), (Rows::Descending, 100_000 - 40 * 100, 100_000)] {
        let interval = seconds(0, 100_000);
        let played = run(each(1, 100_000, order), interval, PlacementCheck::Checked);
        let fetched = played.result.unwrap();
        let rows = fetched.packed.iter().map(|part| part.items.len()).sum::<usize>();
        assert_eq!(played.calls, rows.div_ceil(100) as u64, "{order:?}: no call too many");
        let near = |timestamp: Timestamp, second: i64| (timestamp.as_seconds() - second).abs() < 30;
        assert!(
            near(fetched.interval.start, start) && near(fetched.interval.end, end),
            "{order:?}: {:?}",
            fetched.interval
        );
        assert_eq!(together(fetched).len(), rows);
    }
}

#[test]
fn open_time_that_ascends_is_cut_at_an_overrun() {
    let fetched = run_open(each(10, 7000, Rows::Ascending), 70_000).result.unwrap();
    let rows = fetched.packed.iter().map(|part| part.items.len()).sum::<usize>();
    assert!(rows > 5900 && rows < 6001, "cut behind sixty pages: {rows}");
}

/// A run over open time that ends at the present.
fn run_open(rows: Upstream, end: i64) -> Played {
    let (bound, shared) = (rows.bound, Arc::new(Mutex::new(rows)));
    let below = service_fn({
        let shared = shared.clone();
        move |request: PageRequest| {
            let page = shared.lock().unwrap().answer(&request);
            async move { Ok::<_, QuotaError>(page) }
        }
    });
    let settings = window_settled_after(bound, Duration::from_hours(24));
    let layer = PagingLayer::new(&settings, &RunLimiters::default(), &Clock::manual(Timestamp::from_seconds(end)));
    let (run, _told) = new_run(seconds(0, end), PlacementCheck::Checked, RunWaiters::new(Requester::anyone()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let result = runtime.block_on(layer.layer(below).oneshot(run));
    let upstream = Arc::try_unwrap(shared).unwrap().into_inner().unwrap();
    Played { result, calls: upstream.calls, upstream }
}

#[test]
fn open_time_that_cannot_be_cut_is_one_run_however_large() {
    for order in [Rows::Descending, Rows::ByName] {
        let played = run_open(each(10, 7000, order), 70_000);
        assert_eq!(played.calls, 70, "{order:?}");
        assert_eq!(played.items(seconds(0, 70_000)).len(), 7000);
    }
}

#[test]
fn torn_run_of_many_pages_brings_its_beginning() {
    // Two pages of rows in each minute, whose order changes with each call.
    let rows = (0..20_000).map(|n| (Timestamp::from_millis(n * 300), format!("ac-{n:06}"))).collect();
    let upstream = upstream(rows, Rows::Shuffled, UpperBound::Exclusive);
    let played = run(upstream, seconds(0, 6_000), PlacementCheck::Checked);
    let fetched = played.result.unwrap();
    assert!(fetched.halved && fetched.interval.start == Timestamp::from_seconds(0), "{:?}", fetched.interval);
    assert!(played.calls < 150 && fetched.interval.end < Timestamp::from_seconds(6_000), "{} calls", played.calls);
    let (interval, rows) = (fetched.interval, played.upstream.rows);
    assert_eq!(together(fetched), expected(&rows, interval));
}

#[test]
fn planned_run_that_overruns_is_cut_with_one_call() {
    let played =
        run_planned(each(1, 9_000, Rows::Descending), seconds(0, 9_000), PlacementCheck::Checked, Some(3_500.0));
    let fetched = played.result.unwrap();
    assert_eq!(played.calls, 61, "sixty pages, and the proof");
    assert_eq!(fetched.interval.end, Timestamp::from_seconds(9_000));
    assert!(together(fetched).len() > 5_900);
}

#[test]
fn run_with_wrong_plan_ends_as_unplanned() {
    let played =
        run_planned(each(1, 9_000, Rows::Descending), seconds(0, 9_000), PlacementCheck::Checked, Some(1_000.0));
    let fetched = played.result.unwrap();
    assert_eq!(played.calls, 40, "as many pages as a run is planned to have, and no proof");
    assert_eq!(fetched.interval.end, Timestamp::from_seconds(9_000));
    assert_eq!(together(fetched).len(), 4_000);
}

#[test]
fn unordered_run_is_dropped_if_it_is_much_larger_than_planned() {
    let calls = |interval, planned, rows| {
        let played = run_planned(each(60, rows, Rows::ByName), interval, PlacementCheck::Checked, planned);
        (played.calls, played.result.map(|fetched| together(fetched).len()).map_err(|error| error.to_string()))
    };
    let oversized = || Err(PagingError::Oversized.to_string());
    assert_eq!(calls(seconds(0, 7 * DAY), None, 7 * 1440), (2, oversized()), "a week is asked for in small runs then");
    assert_eq!(calls(seconds(0, DAY), None, 1440), (15, Ok(1440)), "a day is one run");
    assert_eq!(
        calls(seconds(0, 7 * DAY), Some(500.0), 7 * 1440),
        (40, oversized()),
        "as many pages as any run may have"
    );
    assert_eq!(calls(seconds(0, 7 * DAY), Some(2_500.0), 7 * 1440), (50, oversized()));
    assert_eq!(calls(seconds(0, 7 * DAY), None, 200), (2, Ok(200)));
}

#[test]
fn indivisible_run_larger_than_its_limit_is_an_error() {
    let mut upstream = each(1, 1000, Rows::Ascending);
    upstream.bounds.indivisible_bytes = 20_000;
    let played = run(upstream, seconds(0, 1000), PlacementCheck::Unchecked);
    assert!(matches!(played.result, Err(PagingError::TooLarge { limit: 20_000 })), "{:?}", played.result);
}

#[test]
fn status_reports_pages_and_end_of_run() {
    let rows = Arc::new(Mutex::new(each(1, 100_000, Rows::Ascending)));
    let (run, mut told) = new_run(seconds(0, 100_000), PlacementCheck::Checked, RunWaiters::new(Requester::anyone()));
    let layer = PagingLayer::new(&window(UpperBound::Exclusive), &RunLimiters::default(), &settled());
    let below = service_fn(move |request: PageRequest| {
        let page = rows.lock().unwrap().answer(&request);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, QuotaError>(page)
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let running = tokio::spawn(layer.layer(below).oneshot(run));
        told.wait_for(|status| status.expected.is_some()).await.unwrap();
        let status = told.borrow().clone();
        assert_eq!((status.pages, status.phase.clone()), (1, RunPhase::Fetching));
        assert!(status.interval.end < Timestamp::from_seconds(200) && status.expected.unwrap() < 200.0, "{status:?}");
        assert_eq!(status.last_page, Duration::from_secs(1));
        let fetched = running.await.unwrap().unwrap();
        assert_eq!(fetched.interval, status.interval);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Runs that are cut where they overrun are whole together, whatever the order and the bound.
    #[test]
    fn cut_runs_lose_nothing(
        rows in rows(), bound in any_bound(), overrun_pages in 1u32..4,
        order in prop_oneof![Just(Rows::Ascending), Just(Rows::Descending), Just(Rows::Ties)]
    ) {
        let interval = bound.enclosed(Bound::Second(Timestamp::from_seconds(0)), Bound::Second(Timestamp::from_seconds(400)));
        let mut upstream = upstream(rows, order, bound);
        upstream.bounds = RunBounds { overrun_pages, ..RunBounds::PRODUCT };
        let (result, upstream) = run_all(upstream, interval);
        match result {
            Ok(items) => prop_assert_eq!(items, expected(&upstream.rows, interval)),
            // More rows of one second than a few pages hold cannot be cut: shorter runs are asked for. If they change
            // places besides, they may be more than can be told apart. A hole they are not.
            Err(PagingError::Oversized) => {}
            Err(error) => prop_assert!(order == Rows::Ties && matches!(error, PagingError::Torn(_)), "{:?}", error),
        }
    }

    /// Where each run of unknown density ends behind its first pages, nothing is lost and no row comes twice, though
    /// rows arrive meanwhile.
    #[test]
    fn short_runs_lose_nothing_while_rows_arrive(
        rows in rows(), bound in any_bound(), arrivals in prop::collection::vec((1u64..8, 0i64..400_000), 0..6),
        pages in 1u32..3, order in prop_oneof![Just(Rows::Ascending), Just(Rows::Descending)]
    ) {
        let interval = bound.enclosed(Bound::Second(Timestamp::from_seconds(0)), Bound::Second(Timestamp::from_seconds(400)));
        let before = expected(&rows, interval);
        let mut upstream = upstream(rows, order, bound);
        upstream.bounds = RunBounds { pages, ..RunBounds::PRODUCT };
        upstream.arrivals = arrivals.into_iter().enumerate()
            .map(|(n, (call, at))| (call, Timestamp::from_millis(at), format!("late-{n}"))).collect();
        let mut items = run_all(upstream, interval).0.unwrap();
        items.retain(|item| !item.windows(5).any(|five| five == b"late-"));
        prop_assert_eq!(items, before);
    }
}
