//! What the operator sees: log lines and metrics. Seen by all stages, sees none of them.

mod metrics;

pub use self::metrics::*;
