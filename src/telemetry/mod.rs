//! What the operator sees: log lines and metrics. Seen by all stages, sees none of them.

mod logs;
mod metrics;

pub use self::logs::{init as init_logs, write_out as write_out_logs};
pub use self::metrics::*;
