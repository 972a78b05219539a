//! The types of `[log]` and `[traces]`.

use std::fmt;
use std::path::PathBuf;

use http::{HeaderMap, Uri};
use tracing::level_filters::LevelFilter;

/// The value of `audit` that names the standard output.
pub(super) const STDOUT: &str = "stdout";

/// `[log]`
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How much is logged, unless the command line says it.
    pub level: LevelFilter,
    /// Where a line is written for each answer that delivers items; `None` writes none.
    pub audit: Option<AuditTarget>,
}

/// `log.audit`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTarget {
    /// The standard output.
    Stdout,
    /// A file, which lines are appended to.
    File(PathBuf),
}

impl fmt::Display for AuditTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str(STDOUT),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// `[traces]`
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    /// Where spans are exported to; `None` means that there are none.
    pub collector: Option<TraceCollector>,
    /// How the collector is spoken to.
    pub protocol: TraceProtocol,
    /// The attribute `service.name` of all spans.
    pub service_name: String,
    /// Which traces are recorded.
    pub sampling: TraceSampling,
    /// Further attributes of the process (`OTEL_RESOURCE_ATTRIBUTES`).
    pub resource: Vec<(String, String)>,
}

/// A collector of spans.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceCollector {
    /// Its URL; for OTLP over HTTP with the path.
    pub endpoint: Uri,
    /// Fields of each request, marked as sensitive. Never printed.
    pub headers: HeaderMap,
    /// PEM file with private certificate authorities, in addition to those of the system.
    pub ca_file: Option<PathBuf>,
}

/// The protocol of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceProtocol {
    /// Protobuf over HTTP/1.1.
    Http,
    /// gRPC.
    Grpc,
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceSampling {
    /// Share of the traces that begin here, from 0 to 1.
    pub ratio: f64,
    /// Whether the caller decides, if a request names a trace. False only by `OTEL_TRACES_SAMPLER`.
    pub follows_parent: bool,
}
