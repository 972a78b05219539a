//! What others would spend on the same requests. None of it shares code with koregate.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use koregate::window::Timestamp;

use super::traces::Ask;
use super::{DAYS, DAYS_BEFORE, STREAM, default_ladder};

const PAGE: usize = 100;

/// The rules of age.
pub(super) struct Ladder {
    pub(super) settle_after: Duration,
    /// Data younger than the first may be served from a copy that is as old as the second.
    pub(super) rungs: Vec<(Duration, Duration)>,
}

impl Ladder {
    /// How old a copy may get, fetched when the youngest of its data had this age; `None`: as old as it likes.
    fn max_age(&self, age: Duration) -> Option<Duration> {
        let open = age < self.settle_after;
        open.then(|| {
            self.rungs.iter().find(|(younger_than, _)| age < *younger_than).map_or(Duration::ZERO, |rung| rung.1)
        })
    }
}

/// How many items there are from `from` up to, but without, `end`.
fn items(times: &[Timestamp], from: Timestamp, end: Timestamp) -> usize {
    let before = |moment| times.partition_point(|time| *time < moment);
    before(end).saturating_sub(before(from))
}

/// What a window ends before: behind its last second, but nothing is known of the future.
fn end(ask: &Ask) -> Timestamp {
    ask.to.next_tick().min(ask.when)
}

fn calls(items: usize) -> u64 {
    items.div_ceil(PAGE).max(1) as u64
}

/// A cache like any in front of any server: an answer is found by its URL. It offers what koregate does, whole windows
/// and pages of any size, and fetches what it misses page by page. It is a good one: of those who ask for the same at
/// the same time one fetches, it forgets nothing, and it knows what is settled.
pub(super) struct UrlCache<'a> {
    times: &'a [Timestamp],
    ladder: Ladder,
    /// When each was fetched, and how old it may get.
    kept: HashMap<String, (Timestamp, Option<Duration>)>,
    pub(super) calls: u64,
}

impl<'a> UrlCache<'a> {
    pub(super) fn new(times: &'a [Timestamp]) -> Self {
        Self { times, ladder: default_ladder(), kept: HashMap::new(), calls: 0 }
    }

    pub(super) fn ask(&mut self, ask: &Ask) {
        let url = ask.path(STREAM, None);
        if let Some((fetched, max_age)) = self.kept.get(&url)
            && max_age.is_none_or(|max_age| ask.when.since(*fetched) <= max_age)
        {
            return;
        }
        let end = end(ask);
        let whole = items(self.times, ask.from, end);
        let wanted = ask.page.map_or(whole, |(offset, limit)| {
            let (offset, limit) = (usize::try_from(offset), usize::try_from(limit));
            whole.saturating_sub(offset.unwrap_or(usize::MAX)).min(limit.unwrap_or(usize::MAX))
        });
        self.calls += calls(wanted);
        self.kept.insert(url, (ask.when, self.ladder.max_age(ask.when.since(end))));
    }
}

/// Knows each second: it fetches what no copy may serve, with the fewest calls that can do it, request by request.
pub(super) struct LowerBound<'a> {
    times: &'a [Timestamp],
    ladder: Ladder,
    /// The first second of the data.
    begin: Timestamp,
    /// When each second was fetched.
    fetched: Vec<Option<Timestamp>>,
    pub(super) calls: u64,
}

impl<'a> LowerBound<'a> {
    pub(super) fn new(times: &'a [Timestamp]) -> Self {
        let seconds = (DAYS_BEFORE + DAYS) as usize * 86_400;
        let begin = times.first().copied().unwrap_or_default().floor_to(Duration::from_hours(24));
        Self { times, ladder: default_ladder(), begin, fetched: vec![None; seconds], calls: 0 }
    }

    /// All that is asked for at one instant.
    pub(super) fn ask(&mut self, together: &[Ask]) {
        let Some(now) = together.first().map(|ask| ask.when) else { return };
        let mut missing = Vec::new();
        for ask in together {
            let range = self.second(ask.from)..self.second(end(ask).previous_tick()) + 1;
            missing.extend(range.filter(|second| !self.serves(*second, now)));
        }
        missing.sort_unstable();
        missing.dedup();
        let gaps: Vec<_> = missing.chunk_by(|a, b| a + 1 == *b).map(|gap| gap[0]..gap[gap.len() - 1] + 1).collect();
        for run in self.cheapest(&gaps, now) {
            self.fetched[run].fill(Some(now));
        }
    }

    /// The runs that fetch all gaps with the fewest calls. Where it costs less to fetch again what lies between two gaps
    /// than to go around it, they are one run.
    fn cheapest(&mut self, gaps: &[Range<usize>], now: Timestamp) -> Vec<Range<usize>> {
        // For so many of the gaps: the fewest calls, and the first gap of the last run.
        let mut best = vec![(0, 0)];
        for last in 0..gaps.len() {
            let end = self.moment(gaps[last].end).min(now);
            let from = |first: usize| {
                let run = calls(items(self.times, self.moment(gaps[first].start), end));
                (best[first].0 + run, first)
            };
            best.push((0..=last).map(from).min().unwrap_or_default());
        }
        self.calls += best[gaps.len()].0;
        let (mut runs, mut left) = (Vec::new(), gaps.len());
        while left > 0 {
            let first = best[left].1;
            runs.push(gaps[first].start..gaps[left - 1].end);
            left = first;
        }
        runs
    }

    /// Whether there is a copy of this second that may be served.
    fn serves(&self, second: usize, now: Timestamp) -> bool {
        let Some(fetched) = self.fetched[second] else { return false };
        let moment = self.moment(second);
        match (self.ladder.max_age(fetched.since(moment)), self.ladder.max_age(now.since(moment))) {
            // It was settled when it was fetched.
            (None, _) => true,
            // It has settled since: fetched once more, it stays.
            (Some(_), None) => false,
            (Some(_), Some(max_age)) => now.since(fetched) <= max_age,
        }
    }

    fn second(&self, moment: Timestamp) -> usize {
        usize::try_from(moment.as_seconds() - self.begin.as_seconds()).unwrap_or_default().min(self.fetched.len() - 1)
    }

    fn moment(&self, second: usize) -> Timestamp {
        self.begin + Duration::from_secs(second as u64)
    }
}
