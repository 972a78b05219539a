//! The tombstones of one account, as a value, and the rule by which a chunk is purged. Pure: `purges.rs` remembers the
//! tombstones.
//!
//! Each purge has a number, its epoch, and each chunk carries the last epoch that was known when its run began. Whether
//! a chunk may be served is decided by numbers and not by clocks: it may not if a purge that overlaps it has a greater
//! number. A replica that knows of fewer purges gives its chunks smaller numbers, which is always safe.
//!
//! A purge that has ids (an erasure) overlaps only the chunks whose filter may hold one of them. So a chunk of which no
//! other replica knew when the ids were erased is found purged whenever it turns up, and so is one that a run brings
//! later that began before.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use crate::replicas::Tombstone;
use crate::request::{IdFilter, IdHashes};
use crate::window::{Interval, Timestamp};

/// Erased ids of an account that are kept. They are read from Redis as one value of 2 MB.
const MAX_ERASED_IDS: usize = 250_000;
/// Purges of an account that are kept apart. Of more, the first erasures are merged, or the first purge is forgotten, and
/// everything before it counts as purged.
const MAX_TOMBSTONES: usize = 1000;

/// The purges of an account that still purge anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cache) struct Tombstones {
    /// Chunks of smaller epochs count as purged, because earlier purges are forgotten.
    floor: u64,
    by_epoch: BTreeMap<u64, Tombstone>,
    /// The ids of all purges.
    erased_ids: IdHashes,
}

impl Tombstones {
    /// The epoch of the last purge; 0 if there is none.
    pub(in crate::cache) fn epoch(&self) -> u64 {
        self.by_epoch.last_key_value().map_or(self.floor, |(epoch, _)| *epoch)
    }

    /// The epoch before which chunks count as purged.
    pub(in crate::cache) fn floor(&self) -> u64 {
        self.floor
    }

    /// The purges by their epochs, ascending.
    pub(in crate::cache) fn iter(&self) -> impl Iterator<Item = (u64, &Tombstone)> {
        self.by_epoch.iter().map(|(epoch, tombstone)| (*epoch, tombstone))
    }

    /// The purge with this epoch.
    pub(in crate::cache) fn get(&self, epoch: u64) -> Option<&Tombstone> {
        self.by_epoch.get(&epoch)
    }

    /// Whether a chunk of this stream and interval, whose run began at this epoch, is purged. `ids` is the chunk's
    /// filter; of a chunk of which only the name is known, that of no items, so that erasures are left out; of a run,
    /// whose items are not known yet, [`IdFilter::Any`].
    pub(in crate::cache) fn is_purged(&self, stream: &str, interval: Interval, epoch: u64, ids: &IdFilter) -> bool {
        self.purged_by(stream, interval, epoch, ids).is_some()
    }

    /// The epoch of the first purge of a chunk; see [`Tombstones::is_purged`].
    pub(in crate::cache) fn purged_by(
        &self,
        stream: &str,
        interval: Interval,
        epoch: u64,
        ids: &IdFilter,
    ) -> Option<u64> {
        if epoch < self.floor {
            return Some(self.floor);
        }
        // Almost no chunk holds an erased id, so that the ids of each erasure are rarely compared.
        let may_be_erased = LazyCell::new(|| ids.may_hold(&self.erased_ids));
        let mut later = self.by_epoch.range(epoch.saturating_add(1)..);
        let purge = later.find(|(_, tombstone)| {
            (tombstone.ids.is_none() || *may_be_erased) && tombstone.purges(stream, interval, ids)
        });
        purge.map(|(epoch, _)| *epoch)
    }

    /// Whether any of these ids was erased from the stream, at any time.
    pub(in crate::cache) fn is_erased(&self, stream: &str, ids: &IdFilter) -> bool {
        let mut tombstones = self.by_epoch.values().filter(|tombstone| tombstone.ids.is_some());
        ids.may_hold(&self.erased_ids) && tombstones.any(|tombstone| tombstone.purges(stream, Interval::EVER, ids))
    }

    /// The epoch of a new purge: the time in milliseconds, but beyond all known epochs. With clocks that are right, it
    /// is also beyond the epochs of chunks that were fetched when more purges were known.
    pub(in crate::cache) fn next_epoch(&self, now: Timestamp) -> u64 {
        let millis = u64::try_from(now.as_nanos() / 1_000_000).unwrap_or_default();
        millis.max(self.epoch() + 1)
    }

    /// Adds a purge.
    pub(in crate::cache) fn add(&mut self, epoch: u64, tombstone: Tombstone) {
        self.insert(epoch, tombstone);
        self.prune(MAX_TOMBSTONES, MAX_ERASED_IDS);
    }

    /// Makes everything before `floor` count as purged.
    pub(in crate::cache) fn raise_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.by_epoch.retain(|epoch, _| *epoch > self.floor);
        self.collect_erased_ids();
    }

    /// Removes a purge that no other replica knows of.
    pub(in crate::cache) fn remove(&mut self, epoch: u64) {
        self.by_epoch.remove(&epoch);
        self.collect_erased_ids();
    }

    /// Adds the purges that another replica knows of.
    pub(in crate::cache) fn merge(&mut self, other: &Self) {
        self.raise_floor(other.floor);
        for (epoch, tombstone) in other.iter() {
            self.insert(epoch, tombstone.clone());
        }
        self.prune(MAX_TOMBSTONES, MAX_ERASED_IDS);
    }

    fn insert(&mut self, epoch: u64, mut tombstone: Tombstone) {
        if let Some(known) = self.by_epoch.get(&epoch) {
            // Two purges get the same epoch only from replicas that could not reach each other: both must hold.
            tombstone = known.merged(&tombstone);
        }
        let is_covered =
            epoch <= self.floor || self.by_epoch.range(epoch + 1..).any(|(_, later)| later.covers(&tombstone));
        if !is_covered {
            self.by_epoch.retain(|earlier, known| *earlier > epoch || !tombstone.covers(known));
            self.by_epoch.insert(epoch, tombstone);
        }
    }

    fn prune(&mut self, max: usize, max_ids: usize) {
        let mut ids: usize = self.by_epoch.values().map(id_count).sum();
        while self.by_epoch.len() > max || ids > max_ids {
            if ids <= max_ids && self.merge_erasures() {
                continue;
            }
            let Some((epoch, forgotten)) = self.by_epoch.pop_first() else { break };
            self.floor = epoch;
            ids -= id_count(&forgotten);
        }
        self.collect_erased_ids();
    }

    /// Merges the first erasure with the next one of the same stream and interval, at the later epoch: so a cache of which
    /// somebody is erased each day keeps what was fetched before the last thousand erasures. `false` if there are no two.
    fn merge_erasures(&mut self) -> bool {
        let erasures = || self.by_epoch.iter().filter(|(_, tombstone)| tombstone.ids.is_some());
        let pair = erasures().find_map(|(first, erasure)| {
            let is_alike = |other: &Tombstone| other.stream == erasure.stream && other.interval == erasure.interval;
            let (next, _) = erasures().find(|(epoch, other)| *epoch > first && is_alike(other))?;
            Some((*first, *next))
        });
        let Some((first, next)) = pair else { return false };
        if let Some(earlier) = self.by_epoch.remove(&first)
            && let Some(later) = self.by_epoch.get_mut(&next)
        {
            *later = later.merged(&earlier);
        }
        true
    }

    fn collect_erased_ids(&mut self) {
        let ids = self.by_epoch.values().filter_map(|tombstone| tombstone.ids.as_ref());
        self.erased_ids = ids.flat_map(|ids| ids.as_slice().iter().copied()).collect();
    }
}

fn id_count(tombstone: &Tombstone) -> usize {
    tombstone.ids.as_ref().map_or(0, IdHashes::len)
}

#[cfg(test)]
mod tests;
