//! Programmatic control of a running simulator: recorded calls, expected data, and settings.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::call_history::{CallCounts, CallOutcome, RecordedCall};
use crate::data::{ItemFilter, SimulatedStream, WindowSelection};
use crate::faults::FaultPlan;
use crate::profile::{Latency, Profile, RollingLimit, SortOrder};
use crate::state::SimulatorState;
use crate::time::UnixTime;

/// A handle to a running simulator. Clones are cheap, and remain usable after the simulator has shut down.
#[derive(Clone, Debug)]
pub struct Control(pub(crate) Arc<SimulatorState>);

impl Control {
    /// The number of calls by outcome, since the start or the last reset.
    pub fn counts(&self) -> CallCounts {
        self.0.calls().history.counts()
    }

    /// Clears counts and records. The rolling limits keep the calls that they have counted.
    pub fn reset_counts(&self) {
        self.0.calls().history.reset();
    }

    /// The calls since the start or the last reset, by arrival; at most the last 500,000.
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.0.calls().history.calls().cloned().collect()
    }

    /// The maximum number of calls in any interval of length `per`, including refused ones.
    ///
    /// The interval is half-open: it contains one of two calls that arrive exactly `per` apart.
    pub fn max_in_any_window(&self, per: Duration) -> usize {
        self.max_in_any_window_of(per, |_| true)
    }

    /// [`Control::max_in_any_window`] of the calls that were not refused because of a limit.
    pub fn max_passed_in_any_window(&self, per: Duration) -> usize {
        self.max_in_any_window_of(per, |call| call.outcome != CallOutcome::Limited)
    }

    /// [`Control::max_in_any_window`] of the calls that `select` accepts.
    pub fn max_in_any_window_of(&self, per: Duration, select: impl Fn(&RecordedCall) -> bool) -> usize {
        self.0.calls().history.max_in_any_window(per, select)
    }

    /// Sets the fault plan, which replaces the one in effect.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.0.calls().fault_plan = Some(plan);
    }

    /// Ends the fault plan in effect.
    pub fn clear_faults(&self) {
        self.0.calls().fault_plan = None;
    }

    /// Sets the order of items.
    pub fn set_order(&self, order: SortOrder) {
        self.change(|profile| profile.api.order = order);
    }

    /// Sets the latency of calls.
    pub fn set_latency(&self, fixed: Duration, jitter: Duration) {
        self.change(|profile| profile.latency = Latency { fixed, jitter });
    }

    /// Sets the rolling limits. Calls that arrived before count against them.
    pub fn set_limits(&self, limits: Vec<RollingLimit>) {
        self.change(|profile| profile.rate_limits.rolling = limits);
    }

    /// Changes any setting. The seed, the streams and the timeline are read at the start only.
    pub fn change(&self, change: impl FnOnce(&mut Profile)) {
        self.0.change_profile(change);
    }

    /// The profile in effect.
    pub fn profile(&self) -> Profile {
        (*self.0.profile()).clone()
    }

    /// A token for the first account, valid for one hour, with a new `jti`.
    pub fn token(&self) -> Option<String> {
        let jti = uuid::Uuid::new_v4().to_string();
        self.0.profile().account.token_at(self.0.clock.now(), Some(jti))
    }

    /// The visible items of a window as `(segmentID, bytes)`, ascending by the selected timestamp and then by
    /// `segmentID`. Empty for an unknown stream. `agentic` includes `agenticActivities`.
    ///
    /// `from` and `to` have the meaning that they have in a query: [`ApiVariant::exclusive_to`] decides about an item
    /// exactly at `to`. For a date-only `to`, use [`Control::expected_until`] with the end of its day.
    ///
    /// [`ApiVariant::exclusive_to`]: crate::ApiVariant::exclusive_to
    pub fn expected(
        &self,
        stream: &str,
        from: impl Into<Timestamp>,
        to: impl Into<Timestamp>,
        agentic: bool,
        filter: &ItemFilter,
    ) -> Vec<(String, Vec<u8>)> {
        let to = UnixTime::from(to.into());
        let end = if self.0.profile().api_of(stream).exclusive_to { to } else { to.next_nanosecond() };
        self.expected_until(stream, from, end, agentic, filter)
    }

    /// [`Control::expected`] for the half-open window from `from` to `end`, independent of the profile.
    pub fn expected_until(
        &self,
        stream: &str,
        from: impl Into<Timestamp>,
        end: impl Into<Timestamp>,
        agentic: bool,
        filter: &ItemFilter,
    ) -> Vec<(String, Vec<u8>)> {
        let Some(stream) = self.0.stream(stream) else { return Vec::new() };
        let (from, end) = (from.into().into(), end.into().into());
        let selection = WindowSelection { from, end, filter, now: self.0.clock.now() };
        let mut items = stream.select(&self.0.profile(), selection);
        items.sort_by_cached_key(|visible| (visible.at, stream.segment_id(visible.item)));
        let render = |visible| {
            let mut bytes = Vec::new();
            stream.render(visible, agentic, &mut bytes);
            (stream.segment_id(visible.item), bytes)
        };
        items.into_iter().map(render).collect()
    }

    /// The number of items of a stream, including those in the future; 0 for an unknown stream.
    pub fn items(&self, stream: &str) -> usize {
        self.0.stream(stream).map_or(0, SimulatedStream::len)
    }

    /// Changes the bytes of an item, whatever its age, but not its timestamps and id. Returns whether the item exists.
    pub fn touch(&self, stream: &str, segment_id: &str) -> bool {
        self.0.stream(stream).is_some_and(|stream| stream.touch(segment_id))
    }

    /// Removes an item. Returns whether the item existed.
    pub fn remove(&self, stream: &str, segment_id: &str) -> bool {
        self.0.stream(stream).is_some_and(|stream| stream.remove(segment_id))
    }

    /// Inserts an item that starts at `at`, rounded down to the millisecond. Returns its `segmentID`, or `None` for an
    /// unknown stream.
    pub fn insert(&self, stream: &str, at: impl Into<Timestamp>) -> Option<String> {
        self.0.stream(stream).map(|stream| stream.insert(at.into().into()))
    }
}
