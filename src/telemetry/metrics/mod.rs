//! Metrics and the log lines that belong to them. Each event of the gateway that operators can see is a function here,
//! so that names, labels and log fields are defined in one place.
//!
//! - `descriptions` has the HELP text of each metric,
//! - `request` counts requests and writes the access log; its `stream_labels` bounds the streams that have a label of
//!   their own,
//! - `log_sampler` bounds the log lines of requests without a valid key or admin token, and of a failing disk,
//! - `process` has the metrics of the process that are usual in Prometheus,
//! - `tiers` counts lookups in the tiers of the cache,
//! - `upstream`, `quota`, `cache`, `callers`, `disk`, `purge`, `redis`, `replicas`, `server` and `traces` are the events of these parts.

mod cache;
mod callers;
mod descriptions;
mod disk;
mod log_sampler;
mod process;
mod purge;
mod quota;
mod redis;
mod replicas;
mod request;
mod server;
mod tiers;
mod traces;
mod upstream;

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use self::cache::*;
pub use self::callers::*;
pub use self::disk::*;
pub use self::purge::{PurgeRecord, purge, purge_replicated_late};
pub use self::quota::*;
pub use self::redis::*;
pub use self::replicas::*;
pub use self::request::{
    PROBLEM_PAGE, RequestCalls, RequestFacts, RequestRecord, RequestTimes, label_streams, request, request_begun,
};
pub use self::server::*;
pub use self::tiers::{Tier, tier_lookups};
pub use self::traces::*;
pub use self::upstream::*;

/// Upper bounds of the histograms' buckets in seconds: from a hit in memory to a call that times out.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Further bounds where a request can be held for as long as the quota is spent.
const LONG_BUCKETS: [f64; 3] = [300.0, 900.0, 3600.0];
/// The histograms with [`LONG_BUCKETS`].
const LONG_HISTOGRAMS: [&str; 2] = ["koregate_quota_wait_seconds", "koregate_request_duration_seconds"];

/// The metrics of this process.
#[derive(Debug)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        request::set_in_flight();
        self.0.run_upkeep();
        let mut text = self.0.render();
        process::render(&mut text);
        server::render_configuration(&mut text);
        text
    }
}

/// Installs the recorder of this process; later calls return the same handle.
pub fn init_metrics() -> &'static MetricsHandle {
    static HANDLE: OnceLock<MetricsHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = recorder();
        let handle = recorder.handle();
        // It fails only if there is another recorder, which nothing in this program installs.
        let _ = metrics::set_global_recorder(recorder);
        descriptions::describe_all();
        server::build_info();
        register();
        MetricsHandle(handle)
    })
}

/// Registers what has no labels, so that it is there, and 0, before the first event: a rate over a counter that begins
/// with 1 would miss that one.
fn register() {
    request::broken_answers().increment(0);
    quota::state_file_failures().increment(0);
    replicas::failed_exchanges().increment(0);
    server::log_lines_lost().increment(0);
    cache::clock_gauge().set(0.0);
}

/// A recorder with the buckets of all histograms.
fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new().set_buckets(&BUCKETS).unwrap_or_default();
    let long = [&BUCKETS[..], &LONG_BUCKETS].concat();
    for name in LONG_HISTOGRAMS {
        let named = Matcher::Full(name.to_owned());
        builder = builder.set_buckets_for_metric(named, &long).unwrap_or_default();
    }
    builder.build_recorder()
}
