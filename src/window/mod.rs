//! Time, and nothing else: no I/O and no clock, `now` is an argument.

mod bounds;
mod freshness;
mod moment;

pub use bounds::UpperBound;
pub use freshness::Freshness;
pub use moment::Moment;
