//! State of one series: what is cached, what is being fetched, and what cannot be fetched.
//!
//! Everything here is passive data under one lock for each series; `fetch` acts on it. A request that finds an interval
//! missing registers it under the same lock, so that no interval is fetched twice.
//!
//! | file | holds |
//! | --- | --- |
//! | `map` | [`SeriesMap`]: the state of each series, by everything but time that identifies data |
//! | `state` | [`SeriesState`] and its lock |
//! | `in_flight` | [`InFlightFetch`]: a fetch in progress, shared by all requests that need it (single-flight) |
//! | `waiter` | [`Waiter`]: a request that waits for fetches in flight |
//! | `batch` | [`PendingBatch`]: missing intervals that are collected before runs are planned |
//! | `run_length` | [`RunLengthPolicy`]: how long runs may be, learnt from the order of rows |
//! | `negative_cache` | intervals that cannot be fetched as usual for a while |

mod batch;
mod in_flight;
mod map;
mod negative_cache;
mod run_length;
mod state;
mod waiter;

pub(in crate::cache) use self::batch::{BatchGuard, NextNeed, PendingBatch, PendingRequest};
pub(in crate::cache) use self::in_flight::{FetchSpec, FetchedInterval, InFlightFetch};
pub(in crate::cache) use self::map::SeriesMap;
pub(in crate::cache) use self::run_length::RunLengthPolicy;
pub(in crate::cache) use self::state::{SeriesState, SharedSeriesState};
pub(in crate::cache) use self::waiter::{TierHit, Waiter};
