//! The metrics, each named and labelled in one place.

use std::fmt::Display;
use std::time::Duration;

use metrics::{counter, gauge, histogram};

/// One call to the upstream ended.
pub fn upstream_call(account: &str, result: &'static str, took: Duration) {
    counter!("koregate_upstream_calls_total", "account" => account.to_owned(), "result" => result).increment(1);
    histogram!("koregate_upstream_duration_seconds").record(took.as_secs_f64());
}

/// A call waited this long for its turn.
pub fn quota_wait(waited: Duration) {
    histogram!("koregate_quota_wait_seconds").record(waited.as_secs_f64());
}

/// The upstream said that the quota is spent.
pub fn account_closed(account: &str, closed_for: Duration) {
    counter!("koregate_account_closed_total", "account" => account.to_owned()).increment(1);
    tracing::warn!(
        account,
        seconds = closed_for.as_secs(),
        "the upstream says that the quota is spent: the account is closed"
    );
}

/// A failed call is tried again.
pub fn retried(account: &str, error: &dyn Display) {
    counter!("koregate_upstream_retries_total", "account" => account.to_owned()).increment(1);
    tracing::warn!(account, %error, "an upstream call failed and is tried again");
}

/// The rows of a run moved while it was paged, twice; its span is going to be halved.
pub fn torn(account: &str, why: &dyn std::fmt::Debug) {
    counter!("koregate_runs_torn_total", "account" => account.to_owned()).increment(1);
    tracing::warn!(account, ?why, "the upstream's rows moved while they were paged: the span is halved");
}

/// A run failed; its waiters are told.
pub fn run_failed(account: &str, error: &dyn Display) {
    counter!("koregate_runs_failed_total", "account" => account.to_owned()).increment(1);
    tracing::warn!(account, %error, "a run failed");
}

/// Fetched items were not kept.
pub fn not_stored(reason: &'static str) {
    counter!("koregate_not_stored_total", "reason" => reason).increment(1);
}

/// The upstream selects on another timestamp than `window.field` names.
pub fn window_field_wrong(account: &str) {
    gauge!("koregate_window_field_wrong", "account" => account.to_owned()).set(1.0);
    tracing::error!(
        account,
        "the upstream does not select on the timestamp that window.field names: windows of this account are no longer \
         cut, and only exact windows are served; set window.field to the timestamp that the upstream selects on"
    );
}
