//! The hand on the simulator: what came in, what is true, and how it shall behave from now on.

use std::sync::Arc;
use std::time::Duration;

use super::data::{Filter, Selection, Stream};
use super::faults::FaultPlan;
use super::ledger::{Call, Counts, Outcome};
use super::profile::{Latency, Limit, Order, Profile};
use super::shared::Shared;
use crate::window::{Timestamp, UpperBound};

/// A cheap clone of the hand on a running simulator; it stays valid, and still, after the simulator has ended.
#[derive(Clone, Debug)]
pub struct Control(pub(super) Arc<Shared>);

impl Control {
    /// How many calls came and what became of them, since the start or the last reset.
    pub fn counts(&self) -> Counts {
        self.0.ledger().counts
    }

    /// Forgets counts and calls. The rolling limits keep what they have counted.
    pub fn reset_counts(&self) {
        self.0.ledger().reset();
    }

    /// The calls since the start or the last reset, by arrival; at most the last 500,000.
    pub fn calls(&self) -> Vec<Call> {
        self.0.ledger().calls().cloned().collect()
    }

    /// The most calls in any rolling span of length `per`, the refused ones included.
    ///
    /// The span is half-open: of two calls exactly `per` apart, it holds one.
    pub fn max_in_any_window(&self, per: Duration) -> usize {
        self.max_in_any_window_of(per, |_| true)
    }

    /// The same, for the calls that were not refused for a limit.
    pub fn max_passed_in_any_window(&self, per: Duration) -> usize {
        self.max_in_any_window_of(per, |call| call.outcome != Outcome::Limited)
    }

    /// The same, for the calls that `select` picks.
    pub fn max_in_any_window_of(&self, per: Duration, select: impl Fn(&Call) -> bool) -> usize {
        self.0.ledger().busiest(per, select)
    }

    /// Faults from now on; a plan in force is replaced.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.0.ledger().plan = Some(plan);
    }

    /// No more faults.
    pub fn clear_faults(&self) {
        self.0.ledger().plan = None;
    }

    /// Sorts otherwise from now on.
    pub fn set_order(&self, order: Order) {
        self.change(|profile| profile.order = order);
    }

    /// Takes longer, or less, from now on.
    pub fn set_latency(&self, fixed: Duration, jitter: Duration) {
        self.change(|profile| profile.latency = Latency { fixed, jitter });
    }

    /// Other limits from now on; calls that came before count against them.
    pub fn set_limits(&self, limits: Vec<Limit>) {
        self.change(|profile| profile.limits = limits);
    }

    /// Turns any other switch. The seed, the streams and the timeline are read at the start only.
    pub fn change(&self, change: impl FnOnce(&mut Profile)) {
        self.0.change(change);
    }

    /// The profile now in force.
    pub fn profile(&self) -> Profile {
        (*self.0.profile()).clone()
    }

    /// A token that opens the first account for an hour; with a fresh `jti`.
    pub fn token(&self) -> Option<String> {
        let jti = uuid::Uuid::new_v4().to_string();
        self.0.profile().account.token(self.0.clock.now(), Some(jti))
    }

    /// The truth: each item of the window that can be seen now, ascending by the selected timestamp and then by
    /// `segmentID`, with its bytes as any answer would hold them. Empty for an unknown stream.
    ///
    /// `from` and `to` mean what they would in a query: whether an item exactly at `to` counts, the profile says. For a
    /// `to` that is a date, give the last millisecond of its day and [`Control::expected_until`].
    pub fn expected(
        &self,
        stream: &str,
        from: Timestamp,
        to: Timestamp,
        rich: bool,
        filter: &Filter,
    ) -> Vec<(String, Vec<u8>)> {
        let inclusive = self.0.profile().upper_bound == UpperBound::Inclusive;
        self.expected_until(stream, from, if inclusive { to.next_tick() } else { to }, rich, filter)
    }

    /// The truth of the half-open window from `from` to `end`, whatever the profile says of upper bounds.
    pub fn expected_until(
        &self,
        stream: &str,
        from: Timestamp,
        end: Timestamp,
        rich: bool,
        filter: &Filter,
    ) -> Vec<(String, Vec<u8>)> {
        let Some(stream) = self.0.stream(stream) else { return Vec::new() };
        let selection = Selection { from, end, filter, now: self.0.clock.now() };
        let mut truth: Vec<_> = stream.select(&self.0.profile(), selection).into_iter().collect();
        truth.sort_by_cached_key(|seen| (seen.at, stream.segment_id(seen.item)));
        let item = |seen| {
            let mut bytes = Vec::new();
            stream.render(seen, rich, &mut bytes);
            (stream.segment_id(seen.item), bytes)
        };
        truth.into_iter().map(item).collect()
    }

    /// How many items a stream's whole timeline has, those of the future included; 0 for an unknown stream.
    pub fn items(&self, stream: &str) -> usize {
        self.0.stream(stream).map_or(0, Stream::len)
    }

    /// Changes the bytes of an item, however old; its timestamps and its id stay. False: there is no such item.
    pub fn touch(&self, stream: &str, segment_id: &str) -> bool {
        self.0.stream(stream).is_some_and(|stream| stream.touch(segment_id))
    }

    /// Takes an item out of the data. False: there is no such item.
    pub fn remove(&self, stream: &str, segment_id: &str) -> bool {
        self.0.stream(stream).is_some_and(|stream| stream.remove(segment_id))
    }

    /// Puts in an item that starts at `at` (rounded down to the millisecond); its `segmentID`. `None`: no such stream.
    pub fn insert(&self, stream: &str, at: Timestamp) -> Option<String> {
        self.0.stream(stream).map(|stream| stream.insert(at))
    }
}
