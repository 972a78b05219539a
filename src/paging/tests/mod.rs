use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::watch;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::*;
use crate::clock::Clock;
use crate::config;
use crate::quota::QuotaError;
use crate::request::{Filter, Requester, RunWaiters, Series};
use crate::upstream::{Page, PageRequest};
use crate::window::{Bound, Interval, QueryBounds, Timestamp, UpperBound};

mod bounded;
mod callers;
mod concurrency;
mod duplicates;

/// How the naive upstream orders its rows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rows {
    Ascending,
    Descending,
    /// Always the same, but by name.
    ByName,
    /// Ascending, but rows of one second change places at each call.
    Ties,
    /// In another order at each call.
    Shuffled,
}

/// An upstream in one vector.
#[derive(Debug)]
struct Upstream {
    rows: Vec<(Timestamp, String)>,
    order: Rows,
    bound: UpperBound,
    page_limit: usize,
    calls: u64,
    /// At this call, before it is answered, these rows appear.
    arrivals: Vec<(u64, Timestamp, String)>,
    /// Before the page at this offset is answered for the first time, these rows appear.
    arrivals_at: Vec<(u64, Timestamp, String)>,
    /// The items show another timestamp than the one that is selected on, an hour later.
    misplaced: bool,
    /// `hasMore` is true behind each full page, even the last.
    promises_too_much: bool,
    /// The bounds of its runs.
    bounds: RunBounds,
    /// The row at this second shows no timestamp.
    timeless_at: Option<i64>,
    /// The page at this offset holds fewer items than it could, and promises more.
    short_page_at: Option<u64>,
}

impl Upstream {
    fn selected(&self, bounds: QueryBounds) -> Vec<(Timestamp, String)> {
        let interval = self.bound.enclosed(Bound::Second(bounds.from), bounds.to);
        self.rows.iter().filter(|(at, _)| interval.contains(*at)).cloned().collect()
    }

    fn answer(&mut self, request: &PageRequest) -> Page {
        self.calls += 1;
        let calls = self.calls;
        let arrived = self.arrivals.extract_if(.., |(call, ..)| *call <= calls).map(|(_, at, name)| (at, name));
        self.rows.extend(arrived);
        let arrived = self.arrivals_at.extract_if(.., |(offset, ..)| *offset == request.offset);
        self.rows.extend(arrived.map(|(_, at, name)| (at, name)));
        let mut rows = self.selected(request.bounds);
        let salted = |name: &str| xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), calls);
        match self.order {
            Rows::Ascending => rows.sort(),
            Rows::Descending => rows.sort_by(|a, b| b.cmp(a)),
            Rows::ByName => rows.sort_by_key(|(_, name)| salted_once(name)),
            Rows::Ties => rows.sort_by_key(|(at, name)| (at.as_seconds(), salted(name))),
            Rows::Shuffled => rows.sort_by_key(|(_, name)| salted(name)),
        }
        let offset = usize::try_from(request.offset).unwrap().min(rows.len());
        let rest = &rows[offset..];
        let page_limit = if self.short_page_at == Some(request.offset) { self.page_limit / 2 } else { self.page_limit };
        let items = &rest[..rest.len().min(page_limit).min(request.limit as usize)];
        let shown = |(at, name): &(Timestamp, String)| {
            if self.timeless_at == Some(at.as_seconds()) {
                return format!(r#"{{"segmentID":"{name}","segmentStartTime":null}}"#).into();
            }
            let shown = if self.misplaced { *at + Duration::from_hours(1) } else { *at };
            json(&(shown, name.clone()))
        };
        let full = self.promises_too_much && items.len() == self.page_limit;
        let items = items.iter().map(shown).collect::<Vec<_>>();
        Page { has_more: full || items.len() < rest.len(), items, allowance: None }
    }
}

fn salted_once(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}

fn json((at, name): &(Timestamp, String)) -> Bytes {
    format!(r#"{{"segmentID":"{name}","segmentStartTime":"{at}","n":1.0}}"#).into()
}

fn window(upper_bound: UpperBound) -> config::SeriesSettings {
    window_settled_after(upper_bound, Duration::ZERO)
}

fn window_settled_after(upper_bound: UpperBound, settle_after: Duration) -> config::SeriesSettings {
    let window = config::WindowConfig {
        field: "segmentStartTime".into(),
        upper_bound,
        settle_after,
        freshness: Vec::new(),
        // Short, so that many items are handed over before the scan ends.
        chunk: Duration::from_secs(20),
        max_span: Duration::MAX,
    };
    config::SeriesSettings::new(&window, &[])
}

/// Keeps the parts of a run as they are.
#[derive(Clone, Copy, Debug)]
struct Unpacked;

impl ItemPacker for Unpacked {
    type Packed = RunPart;

    fn pack(&self, part: RunPart) -> Vec<RunPart> {
        vec![part]
    }

    fn weight(part: &RunPart) -> usize {
        part.items.iter().map(|item| item.json.len()).sum()
    }
}

fn series() -> Arc<Series> {
    Arc::new(Series {
        account: "a".into(),
        stream: "s".into(),
        filter: Filter::None,
        parameters: vec![],
        agentic: false,
    })
}

/// A run of unknown density, and its status.
fn new_run(
    interval: Interval,
    placement: PlacementCheck,
    waiters: Arc<RunWaiters>,
) -> (Run<Unpacked>, watch::Receiver<RunStatus>) {
    let (status, told) = watch::channel(RunStatus::new(interval, None));
    (Run { series: series(), interval, placement, planned: None, waiters, status, packer: Unpacked }, told)
}

/// The result of a run.
struct Played {
    result: Result<FetchedRun<RunPart>, PagingError>,
    calls: u64,
    upstream: Upstream,
}

impl Played {
    /// The items of all of `interval`.
    fn items(self, interval: Interval) -> Vec<Bytes> {
        let fetched = self.result.unwrap();
        assert_eq!(fetched.interval, interval);
        together(fetched)
    }
}

/// Runs one run against `upstream`.
fn run(upstream: Upstream, interval: Interval, placement: PlacementCheck) -> Played {
    run_planned(upstream, interval, placement, None)
}

/// Runs one run that is planned for `expected` items.
fn run_planned(upstream: Upstream, interval: Interval, placement: PlacementCheck, planned: Option<f64>) -> Played {
    let (bound, bounds) = (upstream.bound, upstream.bounds);
    let shared = Arc::new(Mutex::new(upstream));
    let below = service_fn({
        let shared = shared.clone();
        move |request: PageRequest| {
            let page = shared.lock().unwrap().answer(&request);
            async move { Ok::<_, QuotaError>(page) }
        }
    });
    let settings = PagingLayer::new(&window(bound), &RunLimiters::default(), &settled()).bounded(bounds);
    let (mut run, _told) = new_run(interval, placement, RunWaiters::new(Requester::anyone()));
    run.planned = planned;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let result = runtime.block_on(settings.layer(below).oneshot(run));
    let upstream = Arc::try_unwrap(shared).unwrap().into_inner().unwrap();
    Played { result, calls: upstream.calls, upstream }
}

/// Fetches `interval` as the cache does: the rest of a run is the next run.
fn run_all(mut upstream: Upstream, interval: Interval) -> (Result<Vec<Bytes>, PagingError>, Upstream) {
    let (mut left, mut parts) = (vec![interval], Vec::new());
    while let Some(interval) = left.pop() {
        let played = run(upstream, interval, PlacementCheck::Checked);
        upstream = played.upstream;
        match played.result {
            Ok(fetched) => {
                let (before, after) =
                    (interval.split_at(fetched.interval.start).0, interval.split_at(fetched.interval.end).1);
                left.extend([after, before].into_iter().filter(|rest| !rest.is_empty()));
                parts.extend(fetched.packed);
            }
            Err(error) => return (Err(error), upstream),
        }
    }
    (Ok(together(FetchedRun { interval, packed: parts, order: RowOrder::Unknown, halved: false })), upstream)
}

/// A clock at a time when all windows of the tests are settled.
fn settled() -> Clock {
    Clock::manual(Timestamp::from_seconds(1_000_000_000))
}

/// Joins the parts of a run, which must cover its interval without gaps.
fn together(FetchedRun { interval, mut packed, .. }: FetchedRun<RunPart>) -> Vec<Bytes> {
    packed.sort_by_key(|part| (part.interval.start, part.interval.end));
    assert_eq!(packed.first().map(|part| part.interval.start), Some(interval.start));
    assert_eq!(packed.last().map(|part| part.interval.end), Some(interval.end));
    assert!(packed.windows(2).all(|pair| pair[0].interval.end == pair[1].interval.start), "a hole between parts");
    packed.into_iter().flat_map(|part| part.items).map(|item| item.json).collect()
}

fn expected(rows: &[(Timestamp, String)], interval: Interval) -> Vec<Bytes> {
    let mut rows: Vec<_> = rows.iter().filter(|(at, _)| interval.contains(*at)).collect();
    rows.sort();
    rows.into_iter().map(json).collect()
}

fn rows() -> impl Strategy<Value = Vec<(Timestamp, String)>> {
    // Milliseconds in a few minutes, many of them shared, many on whole seconds.
    let at = prop_oneof![3 => 0i64..400_000, 1 => (0i64..400).prop_map(|s| s * 1000), 1 => 7_000i64..7_020];
    prop::collection::vec(at, 0..700).prop_map(|ats| {
        ats.into_iter()
            .enumerate()
            .map(|(n, at)| (Timestamp::from_millis(at), format!("ac-{:05}", n * 7919 % 10007)))
            .collect()
    })
}

fn any_bound() -> impl Strategy<Value = UpperBound> {
    prop_oneof![Just(UpperBound::Inclusive), Just(UpperBound::Exclusive)]
}

fn upstream(rows: Vec<(Timestamp, String)>, order: Rows, bound: UpperBound) -> Upstream {
    Upstream {
        rows,
        order,
        bound,
        page_limit: 100,
        calls: 0,
        arrivals: Vec::new(),
        arrivals_at: Vec::new(),
        misplaced: false,
        promises_too_much: false,
        bounds: RunBounds::PRODUCT,
        timeless_at: None,
        short_page_at: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_run_over_rows_that_hold_still_is_whole_and_costs_no_call_too_many(
        rows in rows(), bound in any_bound(), start in 0i64..300, length in 1i64..400, page_limit in 20usize..=100,
        order in prop_oneof![Just(Rows::Ascending), Just(Rows::Descending), Just(Rows::ByName)]
    ) {
        let interval = bound.enclosed(Bound::Second(Timestamp::from_seconds(start)), Bound::Second(Timestamp::from_seconds(start + length)));
        let mut upstream = upstream(rows, order, bound);
        upstream.page_limit = page_limit;
        // A burst at the beginning, of a page within some milliseconds, lets expect more than any run should bring.
        upstream.bounds.pages = 1_000_000;
        let (result, upstream) = run_all(upstream, interval);
        let items = result.unwrap();
        prop_assert_eq!(&items, &expected(&upstream.rows, interval));
        prop_assert_eq!(upstream.calls, items.len().div_ceil(page_limit).max(1) as u64);
    }

    #[test]
    fn rows_that_change_places_are_put_in_order(
        rows in rows(), bound in any_bound(), order in prop_oneof![Just(Rows::Ties), Just(Rows::Shuffled)]
    ) {
        // At most 100 of these rows share a second: more of them would be refused, which is tested below.
        let interval = bound.enclosed(Bound::Second(Timestamp::from_seconds(0)), Bound::Second(Timestamp::from_seconds(400)));
        let mut in_second = HashMap::<i64, usize>::new();
        let rows: Vec<_> = rows.into_iter().filter(|(at, _)| {
            let count = in_second.entry(at.as_seconds()).or_default();
            *count += 1;
            *count <= 50
        }).collect();
        let (result, upstream) = run_all(upstream(rows, order, bound), interval);
        prop_assert_eq!(result.unwrap(), expected(&upstream.rows, interval));
    }

    /// Every row that was there from the beginning is in the answer once, whatever arrives meanwhile.
    #[test]
    fn rows_that_arrive_push_no_row_out(
        rows in rows(), bound in any_bound(), arrivals in prop::collection::vec((1u64..8, 0i64..400_000), 1..6),
        order in prop_oneof![Just(Rows::Ascending), Just(Rows::Descending), Just(Rows::ByName)]
    ) {
        let interval = bound.enclosed(Bound::Second(Timestamp::from_seconds(0)), Bound::Second(Timestamp::from_seconds(400)));
        let before = expected(&rows, interval);
        let mut upstream = upstream(rows, order, bound);
        upstream.arrivals = arrivals.into_iter().enumerate()
            .map(|(n, (call, at))| (call, Timestamp::from_millis(at), format!("late-{n}"))).collect();
        let mut items = run_all(upstream, interval).0.unwrap();
        items.retain(|item| !item.windows(5).any(|five| five == b"late-"));
        prop_assert_eq!(items, before);
    }
}

#[test]
fn second_that_always_tears_is_an_error() {
    let rows = (0..150).map(|n| (Timestamp::from_seconds(7), format!("ac-{n}"))).collect();
    let interval = Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(60));
    let Played { result, calls, .. } =
        run(upstream(rows, Rows::Shuffled, UpperBound::Exclusive), interval, PlacementCheck::Checked);
    assert!(matches!(result, Err(PagingError::Torn(_))), "{result:?}");
    assert!(calls < 40, "{calls} calls");
}

/// The items show a timestamp that is an hour off from the one the upstream selects on.
#[test]
fn items_outside_interval_are_served_whole() {
    let rows: Vec<_> = (0..50).map(|n| (Timestamp::from_seconds(n), format!("ac-{n}"))).collect();
    let interval = Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(60));
    let misplaced = |rows: Vec<(Timestamp, String)>| {
        let mut upstream = upstream(rows, Rows::Ascending, UpperBound::Exclusive);
        upstream.misplaced = true;
        upstream
    };
    let Played { result, calls, .. } = run(misplaced(rows.clone()), interval, PlacementCheck::Checked);
    assert!(matches!(result, Err(PagingError::OutsideInterval(_))), "{result:?}");
    assert_eq!(calls, 2, "a freak answer gets one more chance");
    let played = run(misplaced(rows), interval, PlacementCheck::Unchecked);
    assert_eq!((played.calls, played.items(interval).len()), (1, 50));
}

#[test]
fn item_without_timestamp_spoils_only_its_run() {
    let rows: Vec<_> = (0..50).map(|n| (Timestamp::from_seconds(n), format!("ac-{n}"))).collect();
    let interval = Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(60));
    let mut upstream = upstream(rows, Rows::Ascending, UpperBound::Exclusive);
    upstream.timeless_at = Some(30);
    let result = run(upstream, interval, PlacementCheck::Checked).result;
    assert!(matches!(result, Err(PagingError::WithoutTimestamp)), "{result:?}");
}

#[test]
fn inexact_has_more_is_accepted_the_second_time() {
    let rows: Vec<_> = (0..200).map(|n| (Timestamp::from_seconds(n), format!("ac-{n:03}"))).collect();
    let interval = Interval::new(Timestamp::from_seconds(0), Timestamp::from_seconds(600));
    let mut upstream = upstream(rows.clone(), Rows::Ascending, UpperBound::Exclusive);
    upstream.promises_too_much = true;
    let played = run(upstream, interval, PlacementCheck::Checked);
    assert_eq!(played.calls, 6);
    assert_eq!(played.items(interval), expected(&rows, interval));
}
