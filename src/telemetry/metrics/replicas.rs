//! Events between replicas that share the quota of an account.

use metrics::{Counter, counter, gauge};

/// The role of this replica for an account has changed. `replicas_and_share` is the number of replicas that divide the
/// quota, and the share of this one, if they cannot reach each other.
pub fn replica_role(account: &str, role: &'static str, replicas_and_share: Option<(usize, String)>) {
    for each in ["unknown", "calls", "follows", "alone"] {
        let labels = [("account", account.to_owned()), ("role", each.to_owned())];
        gauge!("koregate_fleet_role", &labels).set(f64::from(u8::from(each == role)));
    }
    if let Some((replicas, share)) = replicas_and_share {
        tracing::warn!(
            account,
            replicas,
            share,
            "the other replicas cannot be reached: this one uses a share of the quota"
        );
    } else {
        tracing::info!(account, role, "this replica has another role for the account");
    }
}

/// The leader of an account cannot fetch for this replica, because their settings differ.
pub fn replicas_differ(account: &str) {
    counter!("koregate_fleet_apart_total", "account" => account.to_owned()).increment(1);
    tracing::warn!(
        account,
        "the leader of this account has another encryption_key, window.field, upper_bound or chunk, or another time of \
         day, or has fetched a chunk that is too large to be handed over: this replica fetches for itself, with permits \
         from the leader"
    );
}

/// Counts failed exchanges with Redis about the common quota.
pub(super) fn failed_exchanges() -> Counter {
    counter!("koregate_fleet_exchanges_failed_total")
}

/// An exchange with Redis about the common quota failed.
pub fn lease_sync_failed(reason: &str) {
    failed_exchanges().increment(1);
    tracing::debug!(why = reason, "an exchange with Redis about the common quota failed");
}

/// A window that the leader was to fetch for a follower has `result`; `side` is `asked` in the follower and `carried`
/// in the leader.
pub fn remote_fetch(side: &'static str, result: &'static str) {
    counter!("koregate_errands_total", "side" => side, "result" => result).increment(1);
}
