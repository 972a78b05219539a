//! Tables of plans and snapshots, each with the next step.

use super::*;
use crate::window::Timestamp;

/// A snapshot of a series, and what of a window of 0 to 100 h is there.
struct Case {
    /// Cached intervals, in hours.
    cached: &'static [(i64, i64)],
    /// Intervals on disk.
    on_disk: &'static [(i64, i64)],
    /// The names that Redis has, after the whole window was listed; `None` if Redis is not listed.
    listed: Option<&'static [(i64, i64)]>,
    delivery: Delivery,
    has_requested_additional_run: bool,
    fetches: Vec<Fetch>,
    /// Items per hour, if known.
    density: Option<f64>,
    moved_rows: Option<(i64, i64)>,
    spare_runs: usize,
    gathered_bytes: usize,
    has_redis: bool,
}

#[derive(Clone, Copy)]
struct Fetch {
    interval: (i64, i64),
    expected: Option<f64>,
    is_joinable: bool,
    /// The shortest part that is worth waiting for, in hours.
    min_needed: i64,
}

impl Fetch {
    const fn of(start: i64, end: i64) -> Self {
        Self { interval: (start, end), expected: None, is_joinable: true, min_needed: 0 }
    }

    const fn expecting(self, items: f64) -> Self {
        Self { expected: Some(items), ..self }
    }
}

const EMPTY: Case = Case {
    cached: &[],
    on_disk: &[],
    listed: None,
    delivery: Delivery::Whole,
    has_requested_additional_run: false,
    fetches: Vec::new(),
    density: None,
    moved_rows: None,
    spare_runs: 0,
    gathered_bytes: 0,
    has_redis: false,
};

const WINDOW: (i64, i64) = (0, 100);
/// More than is gathered before a window that is read from Redis is streamed.
const MUCH: usize = 1 << 30;

fn hours((start, end): (i64, i64)) -> Interval {
    Interval::new(Timestamp::from_seconds(start * 3600), Timestamp::from_seconds(end * 3600))
}

fn set(intervals: &[(i64, i64)]) -> IntervalSet {
    intervals.iter().copied().map(hours).collect()
}

struct FakeSeries<'a> {
    case: &'a Case,
    on_disk: IntervalSet,
    grid: Grid,
}

impl SeriesSnapshot for FakeSeries<'_> {
    fn fetches(&self) -> Vec<Interval> {
        self.case.fetches.iter().map(|fetch| hours(fetch.interval)).collect()
    }

    fn is_joinable(&self, fetch: usize, needed: Interval) -> bool {
        let Fetch { is_joinable, min_needed, .. } = self.case.fetches[fetch];
        is_joinable && needed.length() >= hours((0, min_needed)).length()
    }

    fn expected_of_fetch(&self, fetch: usize) -> Option<f64> {
        self.case.fetches[fetch].expected
    }

    fn expected_in(&self, intervals: &IntervalSet) -> Option<f64> {
        let hours: f64 = intervals.intervals().iter().map(|interval| interval.length().as_secs_f64() / 3600.0).sum();
        self.case.density.map(|density| density * hours)
    }

    fn has_moved_rows(&self, interval: Interval) -> bool {
        self.case.moved_rows.is_some_and(|moved| hours(moved).intersection(interval) == hours(moved))
    }

    fn spare_runs(&self) -> usize {
        self.case.spare_runs
    }

    fn on_disk(&self) -> &IntervalSet {
        &self.on_disk
    }

    fn gathered_bytes(&self) -> usize {
        self.case.gathered_bytes
    }

    fn has_redis(&self) -> bool {
        self.case.has_redis
    }

    fn grid(&self) -> &Grid {
        &self.grid
    }
}

fn step(case: &Case) -> NextStep {
    let mut progress = AnswerProgress::new(hours(WINDOW), case.listed.is_some());
    progress.delivery = case.delivery;
    progress.has_requested_additional_run = case.has_requested_additional_run;
    if let (Some(listing), Some(there)) = (&mut progress.listing, case.listed.filter(|there| *there != UNLISTED)) {
        listing.add(&set(&[WINDOW]), there.iter().map(|there| (hours(*there), Timestamp::MIN)));
    }
    let mut plan = Plan::new(hours(WINDOW));
    for cached in case.cached {
        plan.hits.push((hours(*cached), ()));
        plan.missing.remove(hours(*cached));
    }
    next_step(
        &progress,
        &plan,
        &FakeSeries { case, on_disk: set(case.on_disk), grid: Grid::new(hours((0, 1)).length()) },
    )
}

/// A listing that has not been asked for yet.
const UNLISTED: &[(i64, i64)] = &[(-1, -1)];

fn choice(index: usize, interval: (i64, i64), needed: (i64, i64)) -> FetchChoice {
    FetchChoice { index, interval: hours(interval), needed: hours(needed) }
}

fn waits(fetches: Vec<FetchChoice>) -> NextStep {
    NextStep::Proceed { fetches, action: Action::AwaitFetches, is_long: false }
}

/// A request of runs for `unclaimed`, whose beginning is needed next if it is `next`.
fn requests(fetches: Vec<FetchChoice>, unclaimed: &[(i64, i64)], next: Option<i64>, is_additional: bool) -> NextStep {
    let next_need = next.map(|hour| NextNeed { start: hours((hour, hour)).start, early: false });
    let action = Action::RequestRuns { unclaimed: set(unclaimed), next_need, is_additional };
    NextStep::Proceed { fetches, action, is_long: false }
}

#[test]
fn next_step_without_redis_requests_or_waits() {
    let joined = |needed| vec![choice(0, (0, 50), needed)];
    let table = [
        ("all is cached", Case { cached: &[(0, 60), (60, 100)], ..EMPTY }, NextStep::Complete),
        ("all is missing", EMPTY, requests(vec![], &[WINDOW], Some(0), false)),
        ("two gaps", Case { cached: &[(20, 30)], ..EMPTY }, requests(vec![], &[(0, 20), (30, 100)], Some(0), false)),
        (
            "a fetch brings all",
            Case { fetches: vec![Fetch::of(0, 100)], ..EMPTY },
            waits(vec![choice(0, WINDOW, WINDOW)]),
        ),
        ("a fetch brings the beginning", Case { fetches: vec![Fetch::of(0, 50)], ..EMPTY }, waits(joined((0, 50)))),
        (
            "a fetch brings more than is needed",
            Case { cached: &[(0, 10), (30, 100)], fetches: vec![Fetch::of(0, 50)], ..EMPTY },
            waits(joined((10, 30))),
        ),
        (
            "a fetch brings the end",
            Case { fetches: vec![Fetch::of(50, 100)], ..EMPTY },
            requests(vec![choice(0, (50, 100), (50, 100))], &[(0, 50)], Some(0), false),
        ),
        (
            "two fetches overlap",
            Case { fetches: vec![Fetch::of(0, 60), Fetch::of(50, 100), Fetch::of(20, 40)], ..EMPTY },
            waits(vec![choice(0, (0, 60), (0, 60)), choice(1, (50, 100), (60, 100))]),
        ),
        (
            "a fetch is closed or another requester's",
            Case { fetches: vec![Fetch { is_joinable: false, ..Fetch::of(0, 100) }], ..EMPTY },
            requests(vec![], &[WINDOW], Some(0), false),
        ),
        (
            "a fetch is too long for the part that is needed",
            Case { cached: &[(10, 100)], fetches: vec![Fetch { min_needed: 20, ..Fetch::of(0, 100) }], ..EMPTY },
            requests(vec![], &[(0, 10)], Some(0), false),
        ),
    ];
    for (name, case, expected) in table {
        assert_eq!(step(&case), expected, "{name}");
    }
}

#[test]
fn additional_run_is_requested_if_it_can_start_at_once() {
    let first_half = || vec![Fetch::of(0, 50)];
    let joined = || vec![choice(0, (0, 50), (0, 50))];
    let spare = Case { fetches: first_half(), spare_runs: 1, ..EMPTY };
    let listed = Case { has_redis: true, listed: Some(&[]), fetches: first_half(), spare_runs: 1, ..EMPTY };
    let table = [
        ("a run is spare", spare, requests(joined(), &[(50, 100)], None, true)),
        (
            "it was requested before",
            Case { has_requested_additional_run: true, fetches: first_half(), spare_runs: 1, ..EMPTY },
            waits(joined()),
        ),
        (
            "the only spare run is the next",
            Case { spare_runs: 1, ..EMPTY },
            requests(vec![], &[WINDOW], Some(0), false),
        ),
        ("two runs are spare", Case { spare_runs: 2, ..EMPTY }, requests(vec![], &[WINDOW], Some(0), true)),
        (
            "Redis is not listed",
            Case { has_redis: true, fetches: first_half(), spare_runs: 1, ..EMPTY },
            waits(joined()),
        ),
        ("Redis is listed", listed, requests(joined(), &[(50, 100)], None, true)),
        (
            "nothing is unclaimed",
            Case { fetches: vec![Fetch::of(0, 100)], spare_runs: 1, ..EMPTY },
            waits(vec![choice(0, WINDOW, WINDOW)]),
        ),
    ];
    for (name, case, expected) in table {
        assert_eq!(step(&case), expected, "{name}");
    }
}

#[test]
fn redis_is_listed_first_and_read_from_the_beginning() {
    let read = |piece, fetches, is_long| NextStep::Proceed { fetches, action: Action::ReadRedis(set(piece)), is_long };
    let redis = |listed| Case { has_redis: true, listed: Some(listed), ..EMPTY };
    let table = [
        (
            "not listed",
            Case { cached: &[(10, 20)], ..redis(UNLISTED) },
            NextStep::ListRedis(set(&[(0, 10), (20, 100)])),
        ),
        ("all is cached", Case { cached: &[WINDOW], ..redis(UNLISTED) }, NextStep::Complete),
        ("nothing is in Redis", redis(&[]), requests(vec![], &[WINDOW], Some(0), false)),
        ("the beginning is in Redis", redis(&[(0, 2)]), read(&[(0, 2)], vec![], false)),
        ("a later part is in Redis", redis(&[(10, 20)]), requests(vec![], &[(0, 10), (20, 100)], Some(0), false)),
        (
            "the beginning is in Redis, and the rest is being fetched",
            Case { fetches: vec![Fetch::of(2, 100)], ..redis(&[(0, 2)]) },
            read(&[(0, 2)], vec![choice(0, (2, 100), (2, 100))], false),
        ),
        (
            "much is gathered for an answer that may be streamed",
            Case { delivery: Delivery::WholeOrStreamed, gathered_bytes: MUCH, ..redis(&[(0, 2)]) },
            read(&[(0, 2)], vec![], true),
        ),
        (
            "much is gathered for an answer that is not streamed",
            Case { gathered_bytes: MUCH, ..redis(&[(0, 2)]) },
            read(&[(0, 2)], vec![], false),
        ),
        (
            "rows moved behind the part that is read",
            Case { moved_rows: Some((50, 51)), ..redis(&[(0, 2)]) },
            read(&[(0, 2)], vec![], false),
        ),
    ];
    for (name, case, expected) in table {
        assert_eq!(step(&case), expected, "{name}");
    }
}

#[test]
fn disk_is_read_when_the_missing_time_begins_there() {
    let reads = |fetches, is_long| NextStep::Proceed { fetches, action: Action::ReadDisk, is_long };
    let joined = || vec![choice(0, (50, 80), (50, 80))];
    let table = [
        ("all is on disk", Case { on_disk: &[WINDOW], ..EMPTY }, reads(vec![], false)),
        ("its end is on disk", Case { on_disk: &[(40, 100)], ..EMPTY }, requests(vec![], &[(0, 40)], Some(0), false)),
        (
            "a gap behind it is being fetched",
            Case { on_disk: &[(0, 50), (80, 100)], fetches: vec![Fetch::of(50, 80)], ..EMPTY },
            reads(joined(), false),
        ),
        (
            "Redis is listed for the rest only",
            Case { on_disk: &[(0, 50)], has_redis: true, listed: Some(UNLISTED), ..EMPTY },
            NextStep::ListRedis(set(&[(50, 100)])),
        ),
        (
            "much of it was read",
            Case { on_disk: &[WINDOW], delivery: Delivery::WholeOrStreamed, gathered_bytes: MUCH, ..EMPTY },
            reads(vec![], true),
        ),
    ];
    for (name, case, expected) in table {
        assert_eq!(step(&case), expected, "{name}");
    }
}

#[test]
fn moved_rows_refuse_a_request_that_no_fetch_serves() {
    let moved = Some((50, 51));
    let table = [
        ("no fetch", Case { moved_rows: moved, ..EMPTY }, NextStep::RowsMoved(hours(WINDOW))),
        (
            "in the second gap",
            Case { moved_rows: moved, cached: &[(10, 40)], ..EMPTY },
            NextStep::RowsMoved(hours((40, 100))),
        ),
        (
            "a fetch brings them",
            Case { moved_rows: moved, fetches: vec![Fetch::of(0, 100)], ..EMPTY },
            waits(vec![choice(0, WINDOW, WINDOW)]),
        ),
        (
            "cached",
            Case { moved_rows: moved, cached: &[(40, 60)], ..EMPTY },
            requests(vec![], &[(0, 40), (60, 100)], Some(0), false),
        ),
    ];
    for (name, case, expected) in table {
        assert_eq!(step(&case), expected, "{name}");
    }
}

#[test]
fn streamed_answer_sends_its_beginning_before_it_requests_more() {
    let streamed = Case { delivery: Delivery::Streamed, ..EMPTY };
    let table = [
        ("the beginning is cached", Case { cached: &[(0, 10)], ..streamed }, NextStep::SendBeginning),
        (
            "only a later part is cached",
            Case { delivery: Delivery::Streamed, cached: &[(10, 20)], ..EMPTY },
            requests(vec![], &[(0, 10), (20, 100)], Some(0), false),
        ),
        (
            "not listed",
            Case { delivery: Delivery::Streamed, cached: &[(0, 10)], listed: Some(UNLISTED), ..EMPTY },
            NextStep::ListRedis(set(&[(10, 100)])),
        ),
    ];
    for (name, case, expected) in table {
        assert_eq!(step(&case), expected, "{name}");
    }
}

#[test]
fn answer_is_long_by_the_pages_that_are_still_to_come() {
    let half = || vec![Fetch::of(0, 50).expecting(600.0)];
    // A window of more than a day is long from 12 pages on.
    let may_stream = || Case { delivery: Delivery::WholeOrStreamed, ..EMPTY };
    let table = [
        ("of unknown density", may_stream(), false),
        ("11 pages", Case { density: Some(11.0), ..may_stream() }, false),
        ("12 pages", Case { density: Some(12.0), ..may_stream() }, true),
        ("12 pages of an answer that is not streamed", Case { density: Some(12.0), ..EMPTY }, false),
        ("6 pages in flight and 6 unclaimed", Case { density: Some(12.0), fetches: half(), ..may_stream() }, true),
        ("6 pages in flight and 5 unclaimed", Case { density: Some(10.0), fetches: half(), ..may_stream() }, false),
        ("6 pages in flight and unknown ones", Case { fetches: half(), ..may_stream() }, false),
        (
            "a fetch of unknown size",
            Case { density: Some(99.0), fetches: vec![Fetch::of(0, 1)], ..may_stream() },
            false,
        ),
        ("12 pages in flight", Case { fetches: vec![Fetch::of(0, 100).expecting(1_200.0)], ..may_stream() }, true),
    ];
    for (name, case, expected) in table {
        let NextStep::Proceed { is_long, action, .. } = step(&case) else { panic!("{name}") };
        assert_eq!(is_long, expected, "{name}");
        if let Action::RequestRuns { next_need: Some(next_need), .. } = action {
            let may_stream = case.delivery == Delivery::WholeOrStreamed;
            assert_eq!(next_need.early, may_stream, "{name}: a first run of few pages");
        }
    }
}
