//! TODO face.

mod entries;
mod generation;
mod hot_blocks;
mod insert;
mod memory;
mod range_stats;

pub(in crate::cache) use self::entries::{ByAgentic, CacheEntry, EntryIndex, LookupRules, UsableEntry};
pub use self::generation::ValidityToken;
pub(in crate::cache) use self::hot_blocks::HotBlocks;
pub(in crate::cache) use self::insert::ChunkPacker;
#[cfg(test)]
pub(in crate::cache) use self::memory::ChunkId;
pub(in crate::cache) use self::memory::ReadAheadPermit;
pub use self::memory::{AnswerStore, Memory};
pub(in crate::cache) use self::range_stats::{RangeSegment, RangeStats};
