//! Metrics and the log lines that belong to them. Each event of the gateway that operators can see is a function here,
//! so that names, labels and log fields are defined in one place.
//!
//! - `descriptions` has the HELP text of each metric,
//! - `request` counts requests and writes the access log,
//! - `stream_labels` bounds the streams that have a label of their own,
//! - `log_sampler` bounds the log lines of requests without a valid key, and of a failing disk,
//! - `upstream`, `quota`, `cache`, `callers`, `disk`, `purge`, `redis` and `replicas` are the events of these parts.

mod cache;
mod callers;
mod descriptions;
mod disk;
mod log_sampler;
mod purge;
mod quota;
mod redis;
mod replicas;
mod request;
mod stream_labels;
mod upstream;

use std::sync::OnceLock;

use metrics::counter;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

pub use self::cache::*;
pub use self::callers::*;
pub use self::disk::*;
pub use self::purge::{PurgeRecord, purge, purge_replicated_late};
pub use self::quota::*;
pub use self::redis::*;
pub use self::replicas::*;
pub use self::request::{PROBLEM_PAGE, RequestCalls, RequestRecord, request};
pub use self::stream_labels::label_streams;
pub use self::upstream::*;

/// Upper bounds of the histograms' buckets in seconds: from a hit in memory to a long wait for the quota.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

/// Installs the recorder of this process; later calls return the same handle.
pub fn init_metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS).unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // It fails only if there is another recorder, which nothing in this program installs.
        let _ = metrics::set_global_recorder(recorder);
        descriptions::describe_all();
        handle
    })
}

/// A connection was refused or cut because of the limit that `limit`, a key of `[server]`, sets.
pub fn connection_cut(limit: &'static str) {
    counter!("koregate_connections_cut_total", "limit" => limit).increment(1);
    tracing::debug!(limit, "a connection was cut");
}
