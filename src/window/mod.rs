//! Time as a value: intervals and their spelling, the grid of chunks, freshness, and the plans made from them. No I/O
//! and no clock: the current time is an argument.
//!
//! - [`timestamp`](Timestamp), [`interval`](Interval), [`interval_map`](IntervalMap): points in time, sets and maps.
//! - [`spelling`](Bound): the spellings of `from` and `to`.
//! - [`bounds`](UpperBound): the intervals that `from` and `to` enclose, for callers and for the upstream.
//! - [`grid`](Grid): where chunks are cut.
//! - [`freshness_policy`](FreshnessPolicy): what is settled, and how long open data may be served.
//! - [`request_freshness`](RequestFreshness): the same as one request demands it.
//! - [`retention`](Retention): what is too old to be served.
//! - [`plan`](Plan): which parts of a window the cache has, and which are missing.
//! - [`density`](Density), [`run_plan`](plan_runs): how many rows a missing interval is expected to hold, and the
//!   bounded
//!   runs that fetch it.

mod bounds;
mod density;
mod freshness_policy;
mod grid;
mod interval;
mod interval_map;
mod plan;
mod request_freshness;
mod retention;
mod run_plan;
mod spelling;
mod timestamp;

pub use self::bounds::{QueryBounds, UpperBound};
pub use self::density::{Density, RowRate};
pub use self::freshness_policy::{FreshnessPolicy, FreshnessTier};
pub use self::grid::Grid;
pub use self::interval::{Interval, IntervalSet};
pub use self::interval_map::IntervalMap;
pub use self::plan::{Plan, PlanEntry};
pub use self::request_freshness::{FreshnessDemand, RequestFreshness};
pub use self::retention::{RetainedWindow, Retention};
pub use self::run_plan::{PlannedRun, RunLimits, plan_runs, small_run_length};
pub use self::spelling::Bound;
pub use self::timestamp::Timestamp;
