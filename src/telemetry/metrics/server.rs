//! Events of the server: its version, its connections and its certificates.

use metrics::{counter, gauge};

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

/// The second since the epoch at which a certificate in use ends: `server`, or the first of `client_ca`.
pub fn certificate_expiry(certificate: &'static str, ends_at: i64) {
    #[expect(clippy::cast_precision_loss, reason = "seconds until the year 9999 are far below 2^52")]
    gauge!("koregate_certificate_expiry_timestamp_seconds", "certificate" => certificate).set(ends_at as f64);
}
