//! Events of upstream calls and of runs.

use std::fmt::{Debug, Display};
use std::time::Duration;

use metrics::{counter, histogram};

/// A call to the upstream ended after `took`.
pub fn upstream_call(account: &str, result: &'static str, took: Duration) {
    let labels = [("account", account.to_owned()), ("result", result.to_owned())];
    counter!("koregate_upstream_calls_total", &labels).increment(1);
    histogram!("koregate_upstream_duration_seconds", &labels).record(took.as_secs_f64());
}

/// A failed call is tried again.
pub fn upstream_retry(account: &str, error: &dyn Display) {
    counter!("koregate_upstream_retries_total", "account" => account.to_owned()).increment(1);
    tracing::warn!(account, %error, "an upstream call failed and is tried again");
}

/// The rows of a run moved while it was paged, twice; its interval is halved.
pub fn run_torn(account: &str, reason: &dyn Debug) {
    counter!("koregate_runs_torn_total", "account" => account.to_owned()).increment(1);
    tracing::warn!(account, why = ?reason, "the upstream's rows moved while they were paged: the interval is halved");
}

/// A run failed.
pub fn run_failed(account: &str, error: &dyn Display) {
    counter!("koregate_runs_failed_total", "account" => account.to_owned()).increment(1);
    tracing::warn!(account, %error, "a run failed");
}
