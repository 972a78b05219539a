//! Time, and nothing else: spans and their spelling, the grid of chunks, what is settled or fresh, and the plan of a
//! window. No I/O and no clock: `now` is an argument.

mod bounds;
mod coverage;
mod density;
mod freshness;
mod grid;
mod moment;
mod plan;
mod run_plan;
mod span;

pub use bounds::{Bound, QueryBounds, UpperBound};
pub use coverage::Coverage;
pub use density::{Amount, Density};
pub use freshness::{Freshness, Ladder};
pub use grid::Grid;
pub use moment::Moment;
pub use plan::{Copied, Plan};
pub use run_plan::{PlannedRun, RunLimits, plan_runs, small_run_length};
pub use span::{Span, SpanSet};
