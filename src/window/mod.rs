//! Time, and nothing else: no I/O and no clock, `now` is an argument.

mod moment;

pub use moment::Moment;
