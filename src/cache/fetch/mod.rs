//! Fetching of missing intervals: what requests register is collected in batches, looked up in Redis, planned as
//! bounded runs, fetched by the stages below or by the leader replica, and stored.
//!
//! | file | holds |
//! | --- | --- |
//! | `fetcher` | [`Fetcher`]: handles of the stages and tiers, and what is asked of them everywhere |
//! | `batch` | registering missing intervals, and starting the runs of a batch |
//! | `coalesce` | which runs bring what the requests of a batch need (pure) |
//! | `redis_lookup` | looking up a batch in Redis before it is fetched |
//! | `run` | one fetch from its start to its end |
//! | `task` | [`FetchTask`]: a fetch with its series |
//! | `insert` | storing fetched chunks in memory and Redis |
//! | `field_check` | what follows when items do not lie where they were requested |
//! | `assembly` | [`AssemblyRequest`]: the interface to `answer`, which assembles windows for other parts |
//! | `remote` | [`RemoteFetcher`]: the interface to the leader replica, which `cluster` implements |

mod assembly;
mod batch;
mod coalesce;
mod fetcher;
mod field_check;
mod insert;
mod redis_lookup;
mod remote;
mod run;
mod task;

pub(in crate::cache) use self::assembly::{AssembledWindow, AssemblyRequest, Segment, UnreportedCalls};
pub(in crate::cache) use self::batch::BATCH_WINDOW;
pub(in crate::cache) use self::coalesce::{coalesce, needed_part};
pub(in crate::cache) use self::fetcher::{CacheSettings, Fetcher};
pub(in crate::cache) use self::redis_lookup::is_sane;
pub(in crate::cache) use self::remote::{BatchAnnouncement, ExactWindow, RemoteFetcher};
pub(in crate::cache) use self::task::FetchTask;
