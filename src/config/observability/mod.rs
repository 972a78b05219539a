//! `[log]` and `[traces]`: what a gateway tells of its requests, and where.

mod audit;
mod traces;

pub use self::audit::{AuditTarget, LogConfig};
pub use self::traces::{TraceCollector, TraceProtocol, TraceSampling, TracesConfig};

pub(super) use self::audit::log;
pub(super) use self::traces::traces;
