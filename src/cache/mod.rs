//! The cache stage: answers a window from chunks, and fetches only the runs that are missing, each once for all
//! requests.
//!
//! | file or folder | responsibility |
//! | --- | --- |
//! | `types`, `error`, `outcome` | requests to this stage, its answers and errors, and their labels |
//! | `stream_channel` | the channel of a streamed answer |
//! | `stage` | the tower layer and service |
//! | `chunk/` | all items of an interval, deflated, with an index |
//! | `store/` | memory: chunks by weight, the interval map of cache entries, hot blocks |
//! | `series/` | the state of each series: entries, fetches in flight (single-flight of intervals), the pending batch |
//! | `window_field` | whether `window.field` is the timestamp that the upstream selects on |
//! | `queued_bytes` | the bytes of chunks that wait to be written to a tier |
//! | `redis/` | the second tier: chunks in Redis, shared by all replicas |
//! | `disk/` | the tier between them: chunks in files of this machine |
//! | `retention/` | the sweep of what is too old, in all tiers |
//! | `purge/` | purges: what was purged is served from no tier |
//! | `fetch/` | fetches what is missing: batches, lookups in Redis, runs, storing of chunks |
//! | `cluster/` | one leader fetches for all replicas |
//! | `handles` | the state that the stage shares with the admin plane |
//! | `answer/` | assembles the answer to one request |
//! | `estimate` | the cost of a window, for dry runs |
//! | `views/` | what the admin plane shows of the cache |
//! | `fuzz` | fuzz targets |
//!
//! Each row imports from rows above it, apart from `stage`, which puts all of them together.

mod answer;
mod chunk;
mod cluster;
mod disk;
mod error;
mod estimate;
mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod handles;
mod outcome;
mod purge;
mod queued_bytes;
mod redis;
mod retention;
mod series;
mod stage;
mod store;
mod stream_channel;
#[cfg(test)]
mod tests;
mod types;
mod views;
mod window_field;

pub use self::chunk::{AccessCounter, Chunk, Damaged, DeflateSplice, ItemSlice, PageRange, Settled, Slice};
pub use self::disk::{DiskState, DiskTier};
pub use self::error::CacheError;
pub use self::handles::CacheHandles;
pub use self::outcome::Outcome;
pub use self::purge::{DeletionStatus, Purge, PurgeResult, Purges};
pub use self::retention::RetentionSweeper;
pub use self::stage::{CacheLayer, CacheStage};
pub use self::store::{AnswerStore, Memory, ValidityToken};
pub use self::stream_channel::{RemainingStream, StreamEvent};
pub use self::types::{
    CachedQuery, CachedWindow, Cost, CostBasis, CostQuery, DensitySource, QueryOptions, WindowAnswer, WindowQuery,
};
pub use self::views::{CacheCoverage, CoverageQuery, RunView, StreamCoverage};
pub use self::window_field::WindowFields;
