//! A stream: its timeline, its manual changes, and the selection of windows.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::item::TimelineItem;
use super::timeline::{self, DAY_MS};
use super::{VisibleItem, WindowSelection, hash, max_selection_lag, render, visible_from};
use crate::profile::{Profile, SelectOn, StreamProfile};
use crate::time::UnixTime;

/// The first number of a day for the keys of inserted items; generated items have lower numbers.
const FIRST_INSERTED: u64 = 1 << 31;

/// A stream of the simulator.
#[derive(Debug)]
pub(crate) struct SimulatedStream {
    pub(crate) id: String,
    pub(crate) account_id: String,
    seed: u64,
    plain: bool,
    state: RwLock<StreamState>,
}

#[derive(Debug, Default)]
struct StreamState {
    /// Ascending by start; ties in the order of a hash, which differs from that of their ids.
    items: Vec<TimelineItem>,
    /// The number of changes by [`SimulatedStream::touch`], by item key.
    edits: HashMap<u64, u32>,
    /// The keys of removed items.
    removed: HashSet<u64>,
    /// The number of inserted items.
    inserted: u64,
}

impl SimulatedStream {
    /// Generates the timeline of a stream up to `end` (exclusive).
    pub(crate) fn new(profile: &Profile, stream: &StreamProfile, end: UnixTime) -> Self {
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(stream.id.as_bytes(), profile.seed);
        let end_ms = end.as_millis();
        let last_day = (end_ms - 1).div_euclid(DAY_MS);
        let days = i64::from(stream.days.unwrap_or(profile.days));
        let mut items: Vec<TimelineItem> =
            (last_day + 1 - days..=last_day).flat_map(|day| timeline::generate_day(stream, seed, day)).collect();
        items.retain(|item| item.start < end_ms);
        items.sort_by_key(|item| sort_key(seed, *item));
        let account_id = stream.account_id.as_ref().unwrap_or(&profile.account.account_id).clone();
        Self {
            id: stream.id.clone(),
            account_id,
            seed,
            plain: profile.plain,
            state: RwLock::new(StreamState { items, ..StreamState::default() }),
        }
    }

    /// The visible items of a window, ascending by the selected timestamp; ties in a fixed order.
    pub(crate) fn select(&self, profile: &Profile, selection: WindowSelection<'_>) -> Vec<VisibleItem> {
        let state = self.read();
        let select_on = profile.api_of(&self.id).select_on;
        let from = selection.from - max_selection_lag(select_on);
        let begin = state.items.partition_point(|item| item.start() < from);
        let end = state.items.partition_point(|item| item.start() < selection.end).max(begin);
        let candidates = state.items.get(begin..end).unwrap_or_default();
        let visible =
            candidates.iter().filter_map(|item| self.select_item((profile, select_on), &state, selection, *item));
        let mut items: Vec<VisibleItem> = visible.collect();
        if select_on == SelectOn::End {
            // The sort is stable, so ties keep their fixed order.
            items.sort_by_key(|visible| visible.at);
        }
        items
    }

    /// The item in its current state, if it belongs to the selection.
    fn select_item(
        &self,
        (profile, select_on): (&Profile, SelectOn),
        state: &StreamState,
        selection: WindowSelection<'_>,
        item: TimelineItem,
    ) -> Option<VisibleItem> {
        let version = item.version(&profile.changes, self.seed, selection.now);
        let at = match select_on {
            SelectOn::Start => item.start,
            SelectOn::End => item.end(self.seed, version)?,
        };
        let time = UnixTime::from_millis(at);
        let is_selected = time >= selection.from
            && time < selection.end
            && visible_from(&profile.changes, self.seed, item.key, time) <= selection.now
            && !state.removed.contains(&item.key)
            && selection.filter.matches(self.seed, item);
        let edits = state.edits.get(&item.key).copied().unwrap_or_default();
        is_selected.then_some(VisibleItem { at, item, version, edits })
    }

    /// Appends the bytes of an item.
    pub(crate) fn render(&self, visible: VisibleItem, agentic: bool, out: &mut Vec<u8>) {
        render::render((self.seed, self.plain), visible, agentic, out);
    }

    /// The `segmentID` of an item.
    pub(crate) fn segment_id(&self, item: TimelineItem) -> String {
        item.segment_id(self.seed)
    }

    /// The number of items, including those in the future.
    pub(crate) fn len(&self) -> usize {
        self.read().items.len()
    }

    /// Changes the bytes of an item, but not its timestamps and id. Returns whether the item exists.
    pub(crate) fn touch(&self, segment_id: &str) -> bool {
        let mut state = self.write();
        let Some(item) = self.find(&state, segment_id) else { return false };
        *state.edits.entry(item.key).or_default() += 1;
        true
    }

    /// Removes an item. Returns whether the item existed.
    pub(crate) fn remove(&self, segment_id: &str) -> bool {
        let mut state = self.write();
        let Some(item) = self.find(&state, segment_id) else { return false };
        state.removed.insert(item.key)
    }

    /// Inserts an item that starts at `at`, rounded down to the millisecond. Returns its `segmentID`.
    pub(crate) fn insert(&self, at: UnixTime) -> String {
        let mut state = self.write();
        let start = at.as_millis();
        let key = (start.div_euclid(DAY_MS).unsigned_abs() << 32) | (FIRST_INSERTED + state.inserted);
        state.inserted += 1;
        let item = TimelineItem { start, key };
        let index = state.items.partition_point(|other| sort_key(self.seed, *other) < sort_key(self.seed, item));
        state.items.insert(index, item);
        item.segment_id(self.seed)
    }

    fn find(&self, state: &StreamState, segment_id: &str) -> Option<TimelineItem> {
        state.items.iter().find(|item| item.segment_id(self.seed) == segment_id).copied()
    }

    fn read(&self) -> RwLockReadGuard<'_, StreamState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, StreamState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key by which the timeline is sorted.
fn sort_key(seed: u64, item: TimelineItem) -> (i64, u64) {
    (item.start, hash(seed ^ 0x7469_6573, item.key))
}
