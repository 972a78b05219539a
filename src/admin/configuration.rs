//! The configuration in force, and its last reload.

use serde::Serialize;

use crate::config::Config;
use crate::telemetry;
use crate::window::Timestamp;

/// Which configuration is in force, and what became of the last attempt to change it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ConfigurationStatus {
    /// A hash of it without secrets, by which replicas can be compared.
    pub(super) hash: String,
    /// Since when it is in force.
    pub(super) since: String,
    /// The keys whose new values need a restart.
    pub(super) needs_restart: Vec<&'static str>,
    /// The last reload, if it failed.
    pub(super) failed_reload: Option<FailedReload>,
}

/// A reload that changed nothing.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FailedReload {
    pub(super) at: String,
    /// Each with its line or variable and its key.
    pub(super) faults: Vec<String>,
}

impl ConfigurationStatus {
    /// `config` has come into force at `now`. The metrics say so, too.
    pub(super) fn in_force(config: &Config, now: Timestamp, needs_restart: Vec<&'static str>) -> Self {
        let hash = config.fingerprint();
        telemetry::config_in_force(&hash, now.as_seconds());
        Self { hash, since: now.to_string(), needs_restart, failed_reload: None }
    }

    /// The same configuration after a reload at `now` that found `faults`, one a line.
    pub(super) fn with_faults(self, faults: &str, now: Timestamp) -> Self {
        let faults = faults.lines().map(ToOwned::to_owned).collect();
        Self { failed_reload: Some(FailedReload { at: now.to_string(), faults }), ..self }
    }
}
