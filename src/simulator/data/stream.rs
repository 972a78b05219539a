//! One stream: its timeline, what was changed in it by hand, and what a window of it holds.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::item::Item;
use super::timeline;
use super::timeline::DAY_MS;
use super::{Seen, Selection, mix, reach, render, visible_from};
use crate::simulator::profile::{Profile, SelectOn, StreamProfile};
use crate::window::Timestamp;

/// Places on a day from here on are taken by items that were put in by hand.
const BY_HAND: u64 = 1 << 31;

/// A stream of the simulator.
#[derive(Debug)]
pub(in crate::simulator) struct Stream {
    pub(in crate::simulator) id: String,
    pub(in crate::simulator) account_id: String,
    seed: u64,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Ascending by start; ties in the order of a hash, which is not that of their ids.
    items: Vec<Item>,
    /// How many times an item was touched.
    touched: HashMap<u64, u32>,
    removed: HashSet<u64>,
    put_in: u64,
}

impl Stream {
    /// Lays out the timeline of a stream up to `end` (exclusive).
    pub(in crate::simulator) fn new(profile: &Profile, stream: &StreamProfile, end: Timestamp) -> Self {
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(stream.id.as_bytes(), profile.seed);
        let end_ms = end.as_nanos().div_euclid(1_000_000);
        let last_day = (end_ms - 1).div_euclid(DAY_MS);
        let days = i64::from(stream.days.unwrap_or(profile.days));
        let mut items: Vec<Item> =
            (last_day + 1 - days..=last_day).flat_map(|day| timeline::day(stream, seed, day)).collect();
        items.retain(|item| item.start < end_ms);
        items.sort_by_key(|item| place(seed, *item));
        let account_id = stream.account_id.as_ref().unwrap_or(&profile.account.account_id).clone();
        Self { id: stream.id.clone(), account_id, seed, state: RwLock::new(State { items, ..State::default() }) }
    }

    /// The items of a window that can be seen, ascending by the selected timestamp; ties in a fixed order.
    pub(in crate::simulator) fn select(&self, profile: &Profile, selection: Selection<'_>) -> Vec<Seen> {
        let state = self.read();
        let from = selection.from - reach(profile.select_on);
        let begin = state.items.partition_point(|item| item.start() < from);
        let end = state.items.partition_point(|item| item.start() < selection.end).max(begin);
        let candidates = state.items.get(begin..end).unwrap_or_default();
        let seen = candidates.iter().filter_map(|item| self.see(profile, &state, selection, *item));
        let mut seen: Vec<Seen> = seen.collect();
        if profile.select_on == SelectOn::End {
            // Stable, so ties keep their fixed order.
            seen.sort_by_key(|seen| seen.at);
        }
        seen
    }

    fn see(&self, profile: &Profile, state: &State, selection: Selection<'_>, item: Item) -> Option<Seen> {
        let version = item.version(profile, self.seed, selection.now);
        let at = match profile.select_on {
            SelectOn::Start => item.start,
            SelectOn::End => item.end(self.seed, version)?,
        };
        let moment = Timestamp::from_millis(at);
        let wanted = moment >= selection.from
            && moment < selection.end
            && visible_from(profile, self.seed, item.key, moment) <= selection.now
            && !state.removed.contains(&item.key)
            && selection.filter.admits(self.seed, item);
        let edits = state.touched.get(&item.key).copied().unwrap_or_default();
        wanted.then_some(Seen { at, item, version, edits })
    }

    /// Appends the bytes of an item.
    pub(in crate::simulator) fn render(&self, seen: Seen, rich: bool, out: &mut Vec<u8>) {
        render::item(self.seed, seen, rich, out);
    }

    /// The `segmentID` of an item.
    pub(in crate::simulator) fn segment_id(&self, item: Item) -> String {
        item.segment_id(self.seed)
    }

    /// How many items the timeline has, those of the future included.
    pub(in crate::simulator) fn len(&self) -> usize {
        self.read().items.len()
    }

    /// Changes the bytes of an item (not its timestamps), however old it is. False: there is none of this id.
    pub(in crate::simulator) fn touch(&self, segment_id: &str) -> bool {
        let mut state = self.write();
        let Some(item) = self.find(&state, segment_id) else { return false };
        *state.touched.entry(item.key).or_default() += 1;
        true
    }

    /// Takes an item out. False: there is none of this id.
    pub(in crate::simulator) fn remove(&self, segment_id: &str) -> bool {
        let mut state = self.write();
        let Some(item) = self.find(&state, segment_id) else { return false };
        state.removed.insert(item.key)
    }

    /// Puts in an item that starts at `at`, rounded down to the millisecond; its `segmentID`.
    pub(in crate::simulator) fn insert(&self, at: Timestamp) -> String {
        let mut state = self.write();
        let start = at.as_nanos().div_euclid(1_000_000);
        let key = (start.div_euclid(DAY_MS).unsigned_abs() << 32) | (BY_HAND + state.put_in);
        state.put_in += 1;
        let item = Item { start, key };
        let index = state.items.partition_point(|other| place(self.seed, *other) < place(self.seed, item));
        state.items.insert(index, item);
        item.segment_id(self.seed)
    }

    fn find(&self, state: &State, segment_id: &str) -> Option<Item> {
        state.items.iter().find(|item| item.segment_id(self.seed) == segment_id).copied()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an item stands on the timeline.
fn place(seed: u64, item: Item) -> (i64, u64) {
    (item.start, mix(seed ^ 0x7469_6573, item.key))
}
