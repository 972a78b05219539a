//! What a request does next: answer, wait or fetch. A pure function of query, progress and the state of the series.
//!
//! | what of the remaining window is missing | next step |
//! | --- | --- |
//! | nothing | [`NextStep::Complete`] |
//! | gaps of which it is unknown whether Redis has them | [`NextStep::ListRedis`] |
//! | something, and the beginning of a streamed answer is there | [`NextStep::SendBeginning`] |
//! | its beginning is on disk | [`Action::ReadDisk`] |
//! | its beginning is in Redis | [`Action::ReadRedis`] |
//! | gaps that no fetch brings, in which rows moved a moment ago | [`NextStep::RowsMoved`] |
//! | its beginning, and no fetch brings it; or an additional run can be started at once | [`Action::RequestRuns`] |
//! | its beginning, and a fetch brings it | [`Action::AwaitFetches`] |

use super::progress::AnswerProgress;
use super::query::Delivery;
use crate::cache::fetch::needed_part;
use crate::cache::series::NextNeed;
use crate::upstream::PAGE_LIMIT;
use crate::window::{Grid, Interval, IntervalSet, Plan, Timestamp};

/// The facts that the next step depends on beside the plan: fetches in flight and estimates of one series, while its
/// lock is held. Expensive values are computed on demand.
pub(super) trait SeriesSnapshot {
    /// The intervals of the fetches in flight.
    fn fetches(&self) -> Vec<Interval>;
    /// Whether the request may wait for a fetch, and whether that is better than to fetch `needed` separately.
    fn is_joinable(&self, fetch: usize, needed: Interval) -> bool;
    /// The number of items that a fetch is expected to bring, if known.
    fn expected_of_fetch(&self, fetch: usize) -> Option<f64>;
    /// The number of items that are expected in `intervals`, if the density is known.
    fn expected_in(&self, intervals: &IntervalSet) -> Option<f64>;
    /// Whether rows moved in a part of `interval` a moment ago.
    fn has_moved_rows(&self, interval: Interval) -> bool;
    /// The number of runs that could be started for this requester at once.
    fn spare_runs(&self) -> usize;
    /// The missing time that chunks on disk serve.
    fn on_disk(&self) -> &IntervalSet;
    /// The weight of the chunks that the request has gathered, in bytes.
    fn gathered_bytes(&self) -> usize;
    /// Whether there is a Redis tier.
    fn has_redis(&self) -> bool;
    /// The grid that chunks are cut on.
    fn grid(&self) -> &Grid;
}

/// The next step towards an answer.
#[derive(Debug, PartialEq)]
pub(super) enum NextStep {
    /// All of the remaining window is there.
    Complete,
    /// Redis is asked for the names of the chunks that it has of these intervals.
    ListRedis(IntervalSet),
    /// The beginning of the remaining window is sent. What follows is requested when the client has taken it.
    SendBeginning,
    /// The request fails, because the rows of this interval moved a moment ago.
    RowsMoved(Interval),
    /// The missing time is on its way, or is requested now.
    Proceed {
        /// The fetches to wait for, and no others.
        fetches: Vec<FetchChoice>,
        action: Action,
        /// Whether the answer is streamed from here on, because it takes long.
        is_long: bool,
    },
}

/// The action on the missing time.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// The beginning of the missing time is read from disk.
    ReadDisk,
    /// The beginning of the missing time, which is these intervals, is read from Redis.
    ReadRedis(IntervalSet),
    /// Runs for `unclaimed` are added to the pending batch.
    RequestRuns {
        /// The missing time that no fetch brings.
        unclaimed: IntervalSet,
        /// The beginning of the missing time, if no fetch brings it.
        next_need: Option<NextNeed>,
        /// Whether additional runs may be started.
        is_additional: bool,
    },
    /// The chosen fetches are waited for.
    AwaitFetches,
}

/// A fetch in flight that brings missing time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FetchChoice {
    /// The index among [`SeriesSnapshot::fetches`].
    pub(super) index: usize,
    pub(super) interval: Interval,
    /// From the first to the last instant that is needed of it.
    pub(super) needed: Interval,
}

/// The next step, by what `plan` finds of the remaining window.
pub(super) fn next_step<V>(progress: &AnswerProgress, plan: &Plan<V>, series: &impl SeriesSnapshot) -> NextStep {
    if plan.missing.is_empty() {
        return NextStep::Complete;
    }
    let missing = plan.missing.without(series.on_disk());
    let unlisted = progress.listing.as_ref().map(|listing| listing.unknown(&missing)).unwrap_or_default();
    if !unlisted.is_empty() {
        return NextStep::ListRedis(unlisted);
    }
    let has_beginning = plan.hits.iter().any(|(interval, _)| interval.start == progress.remaining.start);
    if progress.delivery == Delivery::Streamed && has_beginning {
        return NextStep::SendBeginning;
    }
    let to_fetch = progress.to_fetch(&missing);
    let (fetches, unclaimed) = choose_fetches(&to_fetch, series);
    let is_long = progress.is_long(pages_to_come(progress, &fetches, &unclaimed, series));
    if start_of(&missing) != start_of(&plan.missing) {
        let is_long = is_long || progress.is_much_to_read(|| series.gathered_bytes());
        return NextStep::Proceed { fetches, action: Action::ReadDisk, is_long };
    }
    let in_redis = progress.listing.as_ref().and_then(|listing| listing.next(series.grid(), &missing));
    if let Some(piece) = in_redis {
        let is_long = is_long || progress.is_much_to_read(|| series.gathered_bytes());
        return NextStep::Proceed { fetches, action: Action::ReadRedis(piece), is_long };
    }
    if let Some(interval) = unclaimed.intervals().iter().find(|interval| series.has_moved_rows(**interval)) {
        return NextStep::RowsMoved(*interval);
    }
    NextStep::Proceed { fetches, action: request_or_wait(progress, &to_fetch, unclaimed, series), is_long }
}

/// Chooses the fetches that bring something of `to_fetch`, and the rest that none of them brings.
fn choose_fetches(to_fetch: &IntervalSet, series: &impl SeriesSnapshot) -> (Vec<FetchChoice>, IntervalSet) {
    let mut unclaimed = to_fetch.clone();
    let mut chosen = Vec::new();
    for (index, interval) in series.fetches().into_iter().enumerate() {
        if let Some(needed) = needed_part(&unclaimed, interval).filter(|needed| series.is_joinable(index, *needed)) {
            unclaimed.remove(interval);
            chosen.push(FetchChoice { index, interval, needed });
        }
    }
    (chosen, unclaimed)
}

/// The number of pages that are still to be fetched, if known and if the delivery depends on it.
fn pages_to_come(
    progress: &AnswerProgress,
    fetches: &[FetchChoice],
    unclaimed: &IntervalSet,
    series: &impl SeriesSnapshot,
) -> Option<f64> {
    if progress.delivery != Delivery::WholeOrStreamed {
        return None;
    }
    let in_flight = fetches.iter().map(|choice| series.expected_of_fetch(choice.index)).sum::<Option<f64>>()?;
    let unclaimed = if unclaimed.is_empty() { 0.0 } else { series.expected_in(unclaimed)? };
    Some((in_flight + unclaimed) / f64::from(PAGE_LIMIT))
}

fn start_of(intervals: &IntervalSet) -> Option<Timestamp> {
    intervals.intervals().first().map(|interval| interval.start)
}

/// Requests runs if no fetch brings the beginning of the missing time, or if an additional run can be started at once.
fn request_or_wait(
    progress: &AnswerProgress,
    to_fetch: &IntervalSet,
    unclaimed: IntervalSet,
    series: &impl SeriesSnapshot,
) -> Action {
    let next_need = start_of(&unclaimed).filter(|start| start_of(to_fetch) == Some(*start));
    // Without a listing, each request would look up all of the missing time in Redis.
    let is_additional = !progress.has_requested_additional_run
        && !unclaimed.is_empty()
        && (progress.listing.is_some() || !series.has_redis())
        && series.spare_runs() > usize::from(next_need.is_some());
    if next_need.is_none() && !is_additional {
        return Action::AwaitFetches;
    }
    let early = progress.delivery == Delivery::WholeOrStreamed;
    Action::RequestRuns { unclaimed, next_need: next_need.map(|start| NextNeed { start, early }), is_additional }
}

#[cfg(test)]
mod tests;
