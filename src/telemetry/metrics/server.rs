//! Events of the server: its version, its configuration, its connections and its certificates.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Instant;

use metrics::{Counter, counter, gauge};

use super::log_sampler::LogSampler;
use super::request::RequestFacts;

/// The fingerprint of the configuration in force: a label, so that only the present one is in the metrics.
static FINGERPRINT: RwLock<String> = RwLock::new(String::new());

/// The version of this process.
pub(super) fn build_info() {
    let labels =
        [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH), ("os", std::env::consts::OS)];
    gauge!("koregate_build_info", &labels).set(1.0);
}

/// A connection was refused or cut because of the limit that `limit`, a key of `[server]`, sets.
pub fn connection_cut(limit: &'static str) {
    counter!("koregate_connections_cut_total", "limit" => limit).increment(1);
    tracing::debug!(limit, "a connection was cut");
}

/// The admin listener refused a request with this status. Anyone who reaches it can send many, so their lines are limited.
pub fn admin_refused(status: u16, asked: &RequestFacts<'_>) {
    static SAMPLER: Mutex<LogSampler> = Mutex::new(LogSampler::new());
    counter!("koregate_admin_refusals_total", "status" => status.to_string()).increment(1);
    let admitted = SAMPLER.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
    if let Some(suppressed) = admitted {
        let suppressed = (suppressed > 0).then_some(suppressed);
        let (peer, method, path) = (asked.peer.map(tracing::field::display), asked.method(), asked.path());
        tracing::info!(status, peer, method, path, suppressed, "an admin request was refused");
    }
}

/// Log lines that were lost, because the reader of standard error has stalled.
pub fn log_lines_lost() -> Counter {
    counter!("koregate_log_lines_lost_total")
}

/// The second since the epoch at which a certificate in use ends: `server`, or the first of `client_ca`.
pub fn certificate_expiry(certificate: &'static str, ends_at: i64) {
    #[expect(clippy::cast_precision_loss, reason = "seconds until the year 9999 are far below 2^52")]
    gauge!("koregate_certificate_expiry_timestamp_seconds", "certificate" => certificate).set(ends_at as f64);
}

/// The configuration with this fingerprint is in force since that second of the epoch.
pub fn config_in_force(fingerprint: &str, since: i64) {
    fingerprint.clone_into(&mut FINGERPRINT.write().unwrap_or_else(PoisonError::into_inner));
    gauge!("koregate_config_reload_success").set(1.0);
    #[expect(clippy::cast_precision_loss, reason = "seconds until the year 9999 are far below 2^52")]
    gauge!("koregate_config_last_reload_timestamp_seconds").set(since as f64);
}

/// A reload changed what is in force. `needs_restart` are the keys whose new values wait for the next start.
pub fn config_reloaded(fingerprint: &str, needs_restart: &[&str]) {
    tracing::info!(config = fingerprint, "the configuration was reloaded");
    if !needs_restart.is_empty() {
        let keys = needs_restart.join(", ");
        tracing::warn!(keys, "the new values of these keys need a restart; the old ones stay in force");
    }
}

/// A reload found faults, and changed nothing.
pub fn config_reload_failed(faults: &str) {
    gauge!("koregate_config_reload_success").set(0.0);
    let faults = faults.replace('\n', "; ");
    tracing::error!(faults, "the configuration cannot be reloaded; what was in force before stays in force");
}

/// Adds the fingerprint of the configuration in force.
pub(super) fn render_configuration(text: &mut String) {
    const NAME: &str = "koregate_config_info";
    let fingerprint = FINGERPRINT.read().unwrap_or_else(PoisonError::into_inner);
    if !fingerprint.is_empty() {
        let _ = write!(
            text,
            "# HELP {NAME} 1, with the hash of the configuration in force, without secrets\n# TYPE {NAME} gauge\n\
             {NAME}{{hash=\"{fingerprint}\"}} 1\n\n"
        );
    }
}
