//! The data: the items of each stream, when they are visible, and their bytes. All of it is a pure function of the
//! profile, the item and the time, so that a response can be compared byte by byte with the expected items.

mod actions;
mod filter;
mod item;
mod json_writer;
mod render;
mod runtime_data;
mod sentences;
mod stream;
mod timeline;
mod vocabulary;

pub use self::filter::ItemFilter;
pub(crate) use self::item::TimelineItem;
pub(crate) use self::stream::SimulatedStream;

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::profile::{ItemChanges, SelectOn, SortOrder};
use crate::time::UnixTime;

/// An item that is visible in a window, in its state at the time of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VisibleItem {
    /// The selected timestamp, in milliseconds.
    pub(crate) at: i64,
    pub(crate) item: TimelineItem,
    pub(crate) version: u32,
    /// The number of changes by [`Control::touch`](crate::Control::touch).
    pub(crate) edits: u32,
}

/// The window of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowSelection<'a> {
    pub(crate) from: UnixTime,
    /// Exclusive.
    pub(crate) end: UnixTime,
    pub(crate) filter: &'a ItemFilter,
    pub(crate) now: UnixTime,
}

/// A uniformly distributed hash of `key`. Each use has a `seed` of its own.
pub(crate) fn hash(seed: u64, key: u64) -> u64 {
    xxh3_64_with_seed(&key.to_le_bytes(), seed)
}

/// Whether `key` belongs to a pseudo-random subset that contains `share` (0 to 1) of all keys.
fn is_in_share(seed: u64, key: u64, share: f64) -> bool {
    const STEPS: u32 = 1 << 20;
    let step = u32::try_from(hash(seed, key) % u64::from(STEPS)).unwrap_or_default();
    f64::from(step) < share * f64::from(STEPS)
}

/// Sorts the items of a window, which are in ascending order at first. `shuffle_seed` determines unstable orders.
pub(crate) fn sort(items: &mut [VisibleItem], order: SortOrder, shuffle_seed: u64) {
    match order {
        SortOrder::Ascending => {}
        SortOrder::Descending => items.reverse(),
        SortOrder::Unstable => {
            items.sort_by_cached_key(|visible| (visible.at, hash(shuffle_seed, visible.item.key)));
        }
        SortOrder::Shuffled => items.sort_by_cached_key(|visible| hash(shuffle_seed, visible.item.key)),
    }
}

/// The maximum time between the start of an item and the timestamp that windows select on.
fn max_selection_lag(select_on: SelectOn) -> Duration {
    match select_on {
        SelectOn::Start => Duration::ZERO,
        SelectOn::End => item::MAX_DURATION,
    }
}

/// The time at which an item with the selected timestamp `at` becomes visible.
fn visible_from(changes: &ItemChanges, seed: u64, key: u64, at: UnixTime) -> UnixTime {
    let due = at + changes.visibility_delay;
    if changes.late > 0.0 && is_in_share(seed ^ LATE_SALT, key, changes.late) { due + changes.late_by } else { due }
}

const LATE_SALT: u64 = 0x6c61_7465;
