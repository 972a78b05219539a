//! Read-only views of the cache for the admin plane. Each locks a series for a moment, and is bounded by its arguments.
//!
//! | file | shows |
//! | --- | --- |
//! | `coverage` | which time of each stream is cached in memory and on disk |
//! | `redis_coverage` | which cells of a stream are in Redis |
//! | `runs` | the runs under way |

mod coverage;
mod redis_coverage;
mod runs;

pub use self::coverage::{CacheCoverage, CoverageQuery, StreamCoverage};
pub use self::runs::RunView;
