//! Time, and nothing else: spans and their spelling, the grid of chunks, what is settled or fresh, and the plan of a
//! window. No I/O and no clock: `now` is an argument.

mod bounds;
mod density;
mod freshness_policy;
mod grid;
mod interval;
mod interval_map;
mod plan;
mod run_plan;
mod timestamp;

pub use self::bounds::{Bound, QueryBounds, UpperBound};
pub use self::density::{Density, RowRate};
pub use self::freshness_policy::{FreshnessPolicy, FreshnessTier};
pub use self::grid::Grid;
pub use self::interval::{Interval, IntervalSet};
pub use self::interval_map::IntervalMap;
pub use self::plan::{Plan, PlanEntry};
pub use self::run_plan::{PlannedRun, RunLimits, plan_runs, small_run_length};
pub use self::timestamp::Timestamp;
