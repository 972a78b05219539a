//! A replayed day of a company: polls, weekly pulls and ad-hoc windows, and the upstream calls that they cost.

use std::time::Duration;

use crate::support::{
    DAY, HOUR, Interval, IntervalSet, Settings, TestHarness, Timestamp, UpperBound, Window, at, format_query_time,
    profile,
};

const MINUTE: Duration = Duration::from_mins(1);
const SETTLE_AFTER: Duration = Duration::from_mins(15);

/// A request for a window at a point in time.
struct Request {
    when: Timestamp,
    window: Window,
}

/// The requests of the day, in chronological order.
fn requests(begin: Timestamp) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut add = |when: Timestamp, from: Timestamp, to: Timestamp| {
        requests.push(Request { when, window: Window::seconds(from, to, UpperBound::Inclusive) });
    };
    // Schedulers are late by some milliseconds.
    let late = Duration::from_millis(137);
    for poll in 0..288 {
        let when = begin + MINUTE * 5 * poll;
        add(when + late, when - HOUR, when);
    }
    for pull in 0..24 {
        let when = begin + HOUR * pull + MINUTE * 7;
        add(when + late, when - DAY * 7, when);
    }
    let mut rng = fastrand::Rng::with_seed(2_026);
    for _ in 0..200 {
        let when = begin + Duration::from_millis(rng.u64(0..86_400_000));
        let longest = [3_600, 86_400, 7 * 86_400][rng.usize(..3)];
        let length = rng.i64(1..longest);
        let first = (when - DAY * 30).as_seconds() + 1;
        let from = rng.i64(first..when.as_seconds() - length);
        add(when, Timestamp::from_seconds(from), Timestamp::from_seconds(from + length));
    }
    let morning = begin + HOUR * 6;
    let yesterday = format_query_time(begin - DAY, "%Y-%m-%d");
    requests.push(Request { when: morning + late, window: Window::days(&yesterday, &yesterday) });
    requests.sort_by_key(|request| request.when);
    requests
}

/// The lower bound: each settled interval is fetched once, each open one on every request.
#[derive(Default)]
struct LowerBound {
    kept: IntervalSet,
    calls: u64,
}

impl LowerBound {
    fn add(&mut self, request: &Request, times: &[Timestamp]) {
        let span = Interval::new(request.window.from, request.window.end.min(request.when));
        let mut gaps = IntervalSet::from(span);
        self.kept.intervals().iter().for_each(|kept| gaps.remove(*kept));
        for gap in gaps.intervals() {
            let before = |moment| times.partition_point(|time| *time < moment);
            let items = before(gap.end) - before(gap.start);
            self.calls += items.div_ceil(100).max(1) as u64;
            self.kept.insert(gap.split_at((request.when - SETTLE_AFTER).floor_second()).0);
        }
    }
}

/// The timestamps of all items; read day by day, so that a month of items is never in memory at once.
fn times(harness: &TestHarness, begin: Timestamp, days: u32) -> Vec<Timestamp> {
    let timestamp = |item: &[u8]| {
        let item: serde_json::Value = serde_json::from_slice(item).unwrap();
        at(item["segmentStartTime"].as_str().unwrap())
    };
    let day = |day| harness.items(begin + DAY * day, begin + DAY * (day + 1));
    (0..days).flat_map(|number| day(number).iter().map(|item| timestamp(item)).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn replayed_day_costs_near_lower_bound() {
    let begin = at("2026-02-24");
    let window = "settle_after = '15m'\nfreshness = []";
    // Enough memory for the month, so that no chunk is evicted and fetched twice.
    let settings = Settings::default().section("window", window).section("cache", "memory = '1GiB'");
    let harness = TestHarness::start(profile(900, 33), &settings).await;
    harness.clock.set(begin + DAY);
    let times = times(&harness, begin - DAY * 31, 32);
    assert!(times.is_sorted());

    let mut lower_bound = LowerBound::default();
    let requests = requests(begin);
    for request in &requests {
        harness.clock.set(request.when);
        lower_bound.add(request, &times);
        // A small page fetches its whole window.
        let page = harness.get(format!("{}&limit=3", request.window.query)).await.page();
        let end = request.window.end.min(request.when);
        let before = |moment| times.partition_point(|time| *time < moment);
        let items = before(end) - before(request.window.from);
        assert_eq!((page.num_results, page.has_more), (items.min(3), items > 3), "{}", request.window.query);
    }
    let (calls, bound) = (harness.calls(), lower_bound.calls);
    println!("{} requests: {calls} upstream calls, where the lower bound is {bound}", requests.len());
    assert!(calls * 100 <= bound * 105, "{calls} calls, more than 5 % above {bound}");
    assert!(calls * 100 >= bound * 95, "{calls} calls, far below {bound}: the model is wrong");
}
