//! Events of the cache, and of the checks that it relies on: `window.field` and the clock.

use std::fmt::Display;

use metrics::{Gauge, counter, gauge};

/// The bytes that a tier of the cache holds now.
pub fn cache_bytes(tier: &'static str, bytes: u64) {
    #[expect(clippy::cast_precision_loss, reason = "memory is far smaller than 2^52 bytes")]
    gauge!("koregate_cache_bytes", "tier" => tier).set(bytes as f64);
}

/// Registers the reasons for which items are not cached, as `init_metrics` registers what has no labels.
pub fn register_not_stored(reasons: impl IntoIterator<Item = &'static str>) {
    for reason in reasons {
        counter!("koregate_not_stored_total", "reason" => reason).increment(0);
    }
}

/// Fetched items were not cached.
pub fn not_stored(reason: &'static str) {
    counter!("koregate_not_stored_total", "reason" => reason).increment(1);
}

/// Chunks in memory, or cells in Redis, were deleted because they are older than the retention.
pub fn retention_removed(tier: &'static str, count: u64) {
    if count > 0 {
        counter!("koregate_retention_removed_total", "tier" => tier).increment(count);
        tracing::info!(tier, count, "what is older than the retention was deleted");
    }
}

/// Data older than the retention could not be deleted from Redis.
pub fn retention_sweep_failed(account: &str, error: &dyn Display) {
    tracing::warn!(account, %error, "what is older than the retention could not be deleted from Redis; it is tried again");
}

/// The upstream selects on another timestamp than `field`, the `window.field` of an account or of streams of it.
pub fn window_field_wrong(account: &str, field: &str) {
    gauge!("koregate_window_field_wrong", "account" => account.to_owned()).set(1.0);
    tracing::error!(
        account,
        field,
        "the upstream does not select on the timestamp that window.field names: windows of this account that are cut \
         by it are no longer cut, and only exact windows are served; set window.field to the timestamp that the \
         upstream selects on"
    );
}

/// The verdict of [`window_field_wrong`] is withdrawn; for all fields of the account without a `field`.
/// `is_all_right`: whether no other field of the account is wrong.
pub fn window_field_right(account: &str, field: Option<&str>, is_all_right: bool) {
    if is_all_right {
        gauge!("koregate_window_field_wrong", "account" => account.to_owned()).set(0.0);
    }
    tracing::warn!(
        account,
        field,
        "items lie where window.field says after all: windows of this account are cut again"
    );
}

/// The second of an item's timestamp was searched for the item: whether it was found, `None` if that is unknown.
pub fn window_field_trial(account: &str, field: &str, found: Option<bool>) {
    let result = match found {
        Some(true) => "found",
        Some(false) => "absent",
        None => "unknown",
    };
    counter!("koregate_window_field_trials_total", "account" => account.to_owned(), "result" => result).increment(1);
    tracing::warn!(account, field, result, "an item was looked for in the second that window.field names");
}

/// 1 while the clock of this machine is wrong.
pub(super) fn clock_gauge() -> Gauge {
    gauge!("koregate_clock_wrong")
}

/// The clocks of this machine and of the upstream began to differ by more than a minute, or agree again.
pub fn clock_wrong(is_wrong: bool) {
    clock_gauge().set(if is_wrong { 1.0 } else { 0.0 });
    if is_wrong {
        tracing::error!(
            "the clock of this machine differs from the upstream's by more than a minute: nothing is kept as settled \
             until it is right"
        );
    } else {
        tracing::warn!("the clock of this machine is right again");
    }
}
