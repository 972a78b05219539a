//! Events of the quota and of its state file.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use metrics::{Counter, counter, gauge, histogram};

/// Labels of a rolling limit of an account, whose window is named by its length, as in `60s`.
fn limit_labels(account: &str, window: Duration) -> [(&'static str, String); 2] {
    [("account", account.to_owned()), ("window", format!("{}s", window.as_secs()))]
}

/// The calls left in a rolling limit now.
pub fn quota_remaining(account: &str, window: Duration, left: u32) {
    gauge!("koregate_quota_remaining", &limit_labels(account, window)).set(f64::from(left));
}

/// The part of a limit that the gateway uses: less than the limit while an unknown client spends the same quota.
pub fn quota_budget(account: &str, window: Duration, budget: u32) {
    gauge!("koregate_quota_budget", &limit_labels(account, window)).set(f64::from(budget));
}

/// The number of calls of this priority class that wait for the quota of an account now.
pub fn quota_waiting(account: &str, class: &'static str, waiting: u32) {
    gauge!("koregate_quota_waiting", "account" => account.to_owned(), "class" => class).set(f64::from(waiting));
}

/// A call of this priority class has its permit, for which it waited `waited`.
pub fn quota_wait(class: &'static str, waited: Duration) {
    histogram!("koregate_quota_wait_seconds", "class" => class).record(waited.as_secs_f64());
}

/// A call was made that is charged to this caller.
pub fn call_spent(account: &str, caller: &str) {
    let labels = [("account", account.to_owned()), ("caller", caller.to_owned())];
    counter!("koregate_upstream_calls_spent_total", &labels).increment(1);
}

/// The upstream refused a call although the ledger had room, and no call is made for `closed_for`. `shrunk` is the
/// window of a limit and its new budget, if the refusal changed it.
pub fn quota_refused(account: &str, closed_for: Duration, shrunk: Option<(Duration, u32)>) {
    counter!("koregate_quota_refused_total", "account" => account.to_owned()).increment(1);
    let milliseconds = u64::try_from(closed_for.as_millis()).unwrap_or(u64::MAX);
    // A call that was under way at the last refusal changes nothing.
    if let Some((window, budget)) = shrunk {
        tracing::warn!(
            account,
            milliseconds,
            window_seconds = window.as_secs(),
            budget,
            "the upstream says that the quota is spent: somebody else spends it too, so the budget shrinks for a while"
        );
    }
}

/// Counts failed writes to the state file.
pub(super) fn state_file_failures() -> Counter {
    counter!("koregate_quota_state_failed_total")
}

/// The state file could not be written; only the `first` failure in a row is logged.
pub fn state_file_failed(error: &dyn Display, first: bool) {
    state_file_failures().increment(1);
    if first {
        tracing::error!(
            %error,
            "the state file of the quota cannot be written: after a restart, calls may be missing from the account"
        );
    }
}

/// The state file was written again after failures, and is complete.
pub fn state_file_recovered() {
    tracing::info!("the state file of the quota can be written again, and is complete");
}

/// The state file begins with zeros in place of records.
pub fn state_file_damaged(path: &Path) {
    tracing::error!(
        path = %path.display(),
        "the state file of the quota is damaged, as by a power failure: earlier calls are not known, so every limit \
         counts as spent for the length of its window from now on"
    );
}
