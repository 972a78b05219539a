//! The data: which items there are, when they can be seen, and their bytes. All of it a pure function of the
//! profile, the item and the time, so that an answer can be checked against the truth byte for byte.

mod actions;
mod extras;
mod filter;
mod item;
mod pen;
mod render;
mod stream;
mod text;
mod timeline;
mod words;

pub use self::filter::Filter;
pub(super) use self::item::Item;
pub(super) use self::stream::Stream;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::profile::{Order, Profile, SelectOn};
use crate::window::Timestamp;

/// An item that is in an answer, and in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The selected timestamp, in milliseconds.
    pub(super) at: i64,
    pub(super) item: Item,
    pub(super) version: u32,
    /// How many times it was changed by hand.
    pub(super) edits: u32,
}

/// One window of one stream, as asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection<'a> {
    pub(super) from: Timestamp,
    /// Exclusive.
    pub(super) end: Timestamp,
    pub(super) filter: &'a Filter,
    pub(super) now: Timestamp,
}

/// A well-mixed number for `key`; each use has a `seed` of its own.
pub(super) fn mix(seed: u64, key: u64) -> u64 {
    xxh3_64_with_seed(&key.to_le_bytes(), seed)
}

/// Whether `key` is among the given share (0 to 1) of all keys.
fn in_share(seed: u64, key: u64, share: f64) -> bool {
    const STEPS: u32 = 1 << 20;
    let step = u32::try_from(mix(seed, key) % u64::from(STEPS)).unwrap_or_default();
    f64::from(step) < share * f64::from(STEPS)
}

/// Puts the items of a window, which come ascending, into the order that the profile asks for.
pub(super) fn arrange(seen: &mut [Seen], order: Order, turn: u64) {
    match order {
        Order::Ascending => {}
        Order::Descending => seen.reverse(),
        Order::Unstable => seen.sort_by_cached_key(|seen| (seen.at, mix(turn, seen.item.key))),
        Order::Shuffled => seen.sort_by_cached_key(|seen| mix(turn, seen.item.key)),
    }
}

/// The window that selects on `at` may hold items that started this much earlier.
fn reach(select_on: SelectOn) -> std::time::Duration {
    match select_on {
        SelectOn::Start => std::time::Duration::ZERO,
        SelectOn::End => item::LONGEST,
    }
}

/// When an item can be seen, given its selected timestamp.
fn visible_from(profile: &Profile, seed: u64, key: u64, at: Timestamp) -> Timestamp {
    let due = at + profile.visibility_delay;
    if profile.late > 0.0 && in_share(seed ^ LATE, key, profile.late) { due + profile.late_by } else { due }
}

const LATE: u64 = 0x6c61_7465;
