//! The memory tier: chunks in memory that is bounded in bytes, and the index of the intervals that they cover.
//!
//! | file | holds |
//! | --- | --- |
//! | `memory` | [`Memory`]: chunks in an LRU cache, hot blocks, the response cache; the only file that names moka |
//! | `hot_blocks` | keys of hot blocks, and the block cache of one chunk |
//! | `entries` | [`EntryIndex`]: the interval map of the cache entries of one series |
//! | `range_stats` | tree of item counts, by which a page deep in a long window is found |
//! | `generation` | [`ValidityToken`]: whether an answer that was made earlier is still valid |
//! | `packer` | [`ChunkPacker`]: cuts the items of a run into chunks |
//! | `gaps` | [`join_gaps`]: joins the empty chunks of a run |

mod entries;
mod gaps;
mod generation;
mod hot_blocks;
mod memory;
mod packer;
mod range_stats;

pub(in crate::cache) use self::entries::{ByAgentic, CacheEntry, ChunkFacts, EntryIndex, LookupRules, UsableEntry};
pub(in crate::cache) use self::gaps::{JoinedChunk, join_gaps};
pub use self::generation::ValidityToken;
pub use self::memory::{AnswerStore, Memory};
pub(in crate::cache) use self::memory::{ChunkId, ReadAheadPermit};
pub(in crate::cache) use self::packer::ChunkPacker;
pub(in crate::cache) use self::range_stats::{RangeSegment, RangeStats};
