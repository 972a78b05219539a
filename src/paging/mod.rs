//! The paging stage: fetches a bounded run page by page until it is complete, or fails. No stage above sees a page.
//!
//! A run has one outcome, [`FetchedRun`]: complete and verified by counting, or an error. Unverified items stay private
//! to it. Its progress is published as a [`RunStatus`] on a watch channel, so that waiting requests can plan again when
//! the run becomes shorter or completes.
//!
//! | file | content |
//! | --- | --- |
//! | `run` | a run, its progress and its result |
//! | `error` | why a run failed |
//! | `layer` | the settings of the stage |
//! | `stage` | the stage: a run waits for its permit, then is fetched |
//! | `concurrency` | how many runs are in flight at once, of which callers |
//! | `pager` | one run: its scans, and what is scanned again or halved where rows move |
//! | `scan` | one pass over the pages of a query by offset, and its verification (pure) |
//! | `sizing` | where a run of unknown density ends, and when a run has become too large (pure) |
//! | `checkpoint` | ending a scan early with a verifying call |
//! | `proven_duplicates` | items that the upstream holds several times |
//! | `duplicate_proof` | verification of such items by pages of their seconds |
//! | `packing` | packs scanned items while the next pages are fetched |
//! | `page_source` | one page, when the quota grants it |
//! | `item` | timestamp and `segmentID` of an item |

mod checkpoint;
mod concurrency;
mod duplicate_proof;
mod error;
mod item;
mod layer;
mod packing;
mod page_source;
mod pager;
mod proven_duplicates;
mod run;
mod scan;
mod sizing;
mod stage;
#[cfg(test)]
mod tests;

pub use self::concurrency::{RunLimiter, RunLimiters};
pub use self::error::PagingError;
pub use self::item::Item;
pub use self::layer::PagingLayer;
pub use self::run::{FetchedRun, ItemPacker, Run, RunPart, RunPhase, RunStatus};
pub use self::scan::{Inconsistency, OffsetScan, OutsideItem, PlacementCheck, RowOrder, TearDetection};
pub use self::sizing::{FIRST_RUN_ITEMS, RunBounds, is_worth_parallel_runs};
pub use self::stage::PagingStage;
