//! Telemetry, which all stages call and which knows none of them.
//!
//! - `logs` writes log lines,
//! - `metrics` counts events for Prometheus and logs them.

mod logs;
mod metrics;

pub use self::logs::{LogFormat, init as init_logs, set_level as set_log_level, write_out as write_out_logs};
pub use self::metrics::*;
