//! The metrics, each named and labelled in one place.

mod request;
mod sampler;
mod streams;

use std::fmt::Display;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

pub use self::request::{Request, request};
pub use self::streams::label_streams;

/// Upper bounds in seconds: from a hit in memory to a long wait for the quota.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

/// Begins to count. Once a process: later calls give the same handle.
pub fn init_metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS).unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Were another recorder there already, these metrics would stay empty; nothing else in this program makes one.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        handle
    })
}

fn describe() {
    describe_counter!("koregate_requests_total", "Requests that have ended, by how");
    describe_counter!(
        "koregate_connections_cut_total",
        "Connections that were refused or cut, by the limit they were beyond"
    );
    describe_counter!("koregate_upstream_calls_total", "Calls to the upstream, by result");
    describe_counter!(
        "koregate_upstream_calls_avoided_total",
        "Calls that callers would have made beyond those that were spent"
    );
    describe_counter!("koregate_upstream_retries_total", "Calls to the upstream that were tried again");
    describe_counter!("koregate_upstream_calls_spent_total", "Calls to the upstream, by the caller who is charged");
    describe_counter!("koregate_quota_refused_total", "Calls that the upstream refused in spite of the ledger");
    describe_counter!("koregate_quota_state_failed_total", "Writes to the state file of the quota that failed");
    describe_counter!("koregate_runs_torn_total", "Runs whose rows moved while they were paged");
    describe_counter!("koregate_runs_failed_total", "Runs that failed");
    describe_counter!("koregate_errands_total", "Windows that one replica brings for another, by side and result");
    describe_counter!("koregate_redis_calls_total", "Calls to Redis, by result");
    describe_counter!("koregate_purges_total", "Purges that operators asked for, by result");
    describe_counter!("koregate_not_stored_total", "Fetches that were not kept, by reason");
    describe_gauge!("koregate_quota_remaining", "Calls that each rolling limit leaves now");
    describe_gauge!("koregate_quota_budget", "Calls of each rolling limit that are not left to somebody else");
    describe_gauge!("koregate_fleet_role", "1 for how this replica stands among those that share an account's quota");
    describe_counter!(
        "koregate_fleet_apart_total",
        "Times that this replica found that the one who calls is set otherwise"
    );
    describe_counter!("koregate_fleet_exchanges_failed_total", "Exchanges with the other replicas that failed");
    describe_gauge!("koregate_quota_waiting", "Calls that wait for their turn");
    describe_gauge!("koregate_redis_up", "1 if Redis answers on this connection, 0 while it is left alone");
    describe_gauge!("koregate_cache_bytes", Unit::Bytes, "Bytes that the cache holds");
    describe_gauge!(
        "koregate_window_field_wrong",
        "1 if the account's window.field is not what the upstream selects on"
    );
    describe_gauge!("koregate_clock_wrong", "1 if this machine's clock differs from the upstream's by over a minute");
    describe_counter!(
        "koregate_window_field_trials_total",
        "Items that were looked for in the second that their timestamp names"
    );
    describe_histogram!("koregate_request_duration_seconds", Unit::Seconds, "From a request to the end of its answer");
    describe_histogram!("koregate_upstream_duration_seconds", Unit::Seconds, "From a call to the end of its answer");
    describe_histogram!("koregate_redis_duration_seconds", Unit::Seconds, "From a call to Redis to its replies");
    describe_histogram!("koregate_quota_wait_seconds", Unit::Seconds, "How long calls waited for their turn");
}

/// A connection was not served, or not to its end, because of the limit that this key of `[server]` sets.
pub fn connection_cut(limit: &'static str) {
    counter!("koregate_connections_cut_total", "limit" => limit).increment(1);
    tracing::debug!(limit, "a connection was cut");
}

/// What the quota of an account leaves.
pub fn quota_remaining(account: &str, window: Duration, left: u32) {
    let labels = [("account", account.to_owned()), ("window", format!("{}s", window.as_secs()))];
    gauge!("koregate_quota_remaining", &labels).set(f64::from(left));
}

/// Records the new role of this replica for an account. `replicas_and_share`: the replicas among which the quota is
/// divided while they cannot reach each other, and the share of each.
pub fn fleet_role(account: &str, role: &'static str, replicas_and_share: Option<(usize, String)>) {
    for each in ["unknown", "calls", "follows", "alone"] {
        let labels = [("account", account.to_owned()), ("role", each.to_owned())];
        gauge!("koregate_fleet_role", &labels).set(f64::from(u8::from(each == role)));
    }
    if let Some((replicas, share)) = replicas_and_share {
        tracing::warn!(
            account,
            replicas,
            share,
            "the other replicas cannot be reached: making do with a share of the quota"
        );
    } else {
        tracing::info!(account, role, "who makes the upstream calls of this account");
    }
}

/// The replica that makes the calls of an account cannot bring what this one can read.
pub fn fleet_apart(account: &str) {
    counter!("koregate_fleet_apart_total", "account" => account.to_owned()).increment(1);
    tracing::warn!(
        account,
        "the replica that makes the calls of this account has another encryption_key, window.field, upper_bound or chunk, \
         or another time of day, or has brought what is too large to be handed over: this one fetches for itself, with turns from that one"
    );
}

/// An exchange with the other replicas failed.
pub fn fleet_exchange_failed(why: &str) {
    counter!("koregate_fleet_exchanges_failed_total").increment(1);
    tracing::debug!(why, "an exchange with the other replicas failed");
}

/// How many calls of an account wait for their turn.
pub fn quota_waiting(account: &str, waiting: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a queue is far shorter than 2^52")]
    gauge!("koregate_quota_waiting", "account" => account.to_owned()).set(waiting as f64);
}

/// How much a tier of the cache holds.
pub fn cache_bytes(tier: &'static str, bytes: u64) {
    #[expect(clippy::cast_precision_loss, reason = "memory is far smaller than 2^52 bytes")]
    gauge!("koregate_cache_bytes", "tier" => tier).set(bytes as f64);
}

/// One call to the upstream ended.
pub fn upstream_call(account: &str, result: &'static str, took: Duration) {
    counter!("koregate_upstream_calls_total", "account" => account.to_owned(), "result" => result).increment(1);
    histogram!("koregate_upstream_duration_seconds").record(took.as_secs_f64());
}

/// A call of this class waited this long for its turn.
pub fn quota_wait(class: &'static str, waited: Duration) {
    histogram!("koregate_quota_wait_seconds", "class" => class).record(waited.as_secs_f64());
}

/// A call was made that is charged to this caller.
pub fn call_spent(account: &str, caller: &str) {
    let labels = [("account", account.to_owned()), ("caller", caller.to_owned())];
    counter!("koregate_upstream_calls_spent_total", &labels).increment(1);
}

/// The upstream said that the quota is spent, in spite of the ledger. `shrunk` is the limit's window and what is left of
/// the limit, if it has told something new.
pub fn quota_refused(account: &str, closed_for: Duration, shrunk: Option<(Duration, u32)>) {
    counter!("koregate_quota_refused_total", "account" => account.to_owned()).increment(1);
    let milliseconds = u64::try_from(closed_for.as_millis()).unwrap_or(u64::MAX);
    // A call that was under way when the last refusal came tells nothing new.
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

/// What of a limit is budgeted: less than the limit while somebody else spends the same quota.
pub fn quota_budget(account: &str, window: Duration, budget: u32) {
    let labels = [("account", account.to_owned()), ("window", format!("{}s", window.as_secs()))];
    gauge!("koregate_quota_budget", &labels).set(f64::from(budget));
}

/// The state file of the quota could not be written; only the `first` time is worth a line in the log.
pub fn state_file_failed(error: &dyn Display, first: bool) {
    counter!("koregate_quota_state_failed_total").increment(1);
    if first {
        tracing::error!(
            %error,
            "the state file of the quota cannot be written: after a restart, calls may be missing from the account"
        );
    }
}

/// The state file of the quota holds again all that it should.
pub fn state_file_complete() {
    tracing::info!("the state file of the quota can be written again; what was missing in it stands there now");
}

/// The state file of the quota begins with zeros in place of what was written.
pub fn state_file_lost(path: &Path) {
    tracing::error!(
        path = %path.display(),
        "the state file of the quota is damaged, as by a power failure: what was spent is not known, so every limit counts \
         as spent for the length of its window from now on"
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

/// What became of a value of the second tier.
pub fn tier_read(result: &'static str) {
    counter!("koregate_redis_reads_total", "result" => result).increment(1);
}

/// What became of a write to the second tier.
pub fn tier_write(result: &'static str) {
    counter!("koregate_redis_writes_total", "result" => result).increment(1);
}

/// A value of the second tier was sealed with a key that is not here.
pub fn tier_wrong_key() {
    static TOLD: std::sync::Once = std::sync::Once::new();
    tier_read("wrong_key");
    TOLD.call_once(|| {
        tracing::error!(
            "values in Redis were sealed with another key than cache.redis.encryption_key: they are misses"
        );
    });
}

/// An operator has purged: what is told of it.
#[derive(Clone, Copy)]
pub struct PurgeRecord<'a> {
    /// Of which account.
    pub account: &'a str,
    /// Of which stream; `None` is of all.
    pub stream: Option<&'a str>,
    /// From when on, as it was spelled; `None` is from ever.
    pub from: Option<&'a str>,
    /// Until when, as it was spelled; `None` is for ever.
    pub to: Option<&'a str>,
    /// Who asked for it.
    pub requester: &'a dyn Display,
    /// Its number.
    pub epoch: u64,
    /// How far it came, in a word.
    pub result: &'static str,
    /// Chunks that have left this replica's memory.
    pub memory_chunks: usize,
    /// Chunks that were deleted from Redis; `None` if nothing was to be deleted, or nothing could be.
    pub redis_chunks: Option<u64>,
    /// Replicas that have confirmed it.
    pub confirmed: usize,
    /// What has not been done.
    pub left: Option<&'a str>,
}

/// An operator has purged.
pub fn purge(told: &PurgeRecord<'_>) {
    let PurgeRecord {
        account,
        stream,
        from,
        to,
        requester,
        epoch,
        result,
        memory_chunks,
        redis_chunks,
        confirmed,
        left,
    } = *told;
    counter!("koregate_purges_total", "account" => account.to_owned(), "result" => result).increment(1);
    match left {
        None => tracing::info!(
            account,
            stream,
            from,
            to,
            %requester,
            epoch,
            result,
            memory_chunks,
            redis_chunks,
            confirmed,
            "an operator has purged"
        ),
        Some(left) => tracing::warn!(
            account,
            stream,
            from,
            to,
            %requester,
            epoch,
            result,
            memory_chunks,
            redis_chunks,
            confirmed,
            left,
            "an operator has purged, but not all is done"
        ),
    }
}

/// A purge that Redis did not take at first has been taken, and the others told.
pub fn purge_made_up_for(account: &str, epoch: u64, confirmed: usize) {
    tracing::info!(account, epoch, confirmed, "a purge that Redis did not take at first is there now");
}

/// What became of a window that one replica was to bring for another: `asked` by this one, or `carried` by it.
pub fn errand(side: &'static str, result: &'static str) {
    counter!("koregate_errands_total", "side" => side, "result" => result).increment(1);
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

/// The upstream selects on the timestamp that `window.field` names after all.
pub fn window_field_right(account: &str) {
    gauge!("koregate_window_field_wrong", "account" => account.to_owned()).set(0.0);
    tracing::warn!(account, "items lie where window.field says after all: windows of this account are cut again");
}

/// The clock of this machine and that of the upstream differ by more than a minute, or agree again.
pub fn clock_wrong(is_wrong: bool) {
    gauge!("koregate_clock_wrong").set(if is_wrong { 1.0 } else { 0.0 });
    if is_wrong {
        tracing::error!(
            "the clock of this machine differs from the upstream's by more than a minute: nothing is kept as settled until \
             it is right"
        );
    } else {
        tracing::warn!("the clock of this machine is right again");
    }
}

/// An item was looked for in the second that its timestamp names: it was there, or not; `None` if nobody could tell.
pub fn window_field_trial(account: &str, found: Option<bool>) {
    let result = match found {
        Some(true) => "found",
        Some(false) => "absent",
        None => "unknown",
    };
    counter!("koregate_window_field_trials_total", "account" => account.to_owned(), "result" => result).increment(1);
    tracing::warn!(account, result, "an item was looked for where window.field says");
}

/// One call to Redis ended; `None` if it was not let through.
pub fn redis_call(result: &'static str, took: Option<Duration>) {
    counter!("koregate_redis_calls_total", "result" => result).increment(1);
    if let Some(took) = took {
        histogram!("koregate_redis_duration_seconds").record(took.as_secs_f64());
    }
}

/// Redis has failed several times in a row on this connection, and is left alone.
pub fn redis_down(connection: &'static str, error: &dyn Display) {
    gauge!("koregate_redis_up", "connection" => connection).set(0.0);
    tracing::warn!(connection, %error, "Redis fails: koregate goes on without it until it answers again");
}

/// Redis has answered on this connection; `again` if it was left alone before.
pub fn redis_up(connection: &'static str, again: bool) {
    gauge!("koregate_redis_up", "connection" => connection).set(1.0);
    if again {
        tracing::info!(connection, "Redis answers again");
    }
}

/// Redis is set up in a way that will do harm.
pub fn redis_memory(harm: &'static str) {
    tracing::warn!(harm, "the memory of Redis has no good bounds");
}
