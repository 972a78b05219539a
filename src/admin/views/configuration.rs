//! The configuration in force, and its last reload.

use serde::Serialize;

use crate::config::Config;
use crate::telemetry;
use crate::window::Timestamp;

/// Which configuration is in force, and what became of the last attempt to change it.
#[derive(Clone, Debug, Serialize)]
pub(in crate::admin) struct ConfigurationStatus {
    /// A hash of it without secrets, by which replicas can be compared.
    pub(in crate::admin) hash: String,
    /// Since when it is in force.
    pub(in crate::admin) since: String,
    /// The keys whose new values need a restart.
    pub(in crate::admin) needs_restart: Vec<&'static str>,
    /// The last reload, if it failed.
    pub(in crate::admin) failed_reload: Option<FailedReload>,
}

/// A reload that changed nothing.
#[derive(Clone, Debug, Serialize)]
pub(in crate::admin) struct FailedReload {
    pub(in crate::admin) at: String,
    /// Each with its line or variable and its key.
    pub(in crate::admin) faults: Vec<String>,
}

impl ConfigurationStatus {
    /// `config` has come into force at `now`. The metrics say so, too.
    pub(in crate::admin) fn in_force(config: &Config, now: Timestamp, needs_restart: Vec<&'static str>) -> Self {
        let hash = config.fingerprint();
        telemetry::config_in_force(&hash, now.as_seconds());
        Self { hash, since: now.floor_second().to_string(), needs_restart, failed_reload: None }
    }

    /// The same configuration after a reload at `now` that found `faults`, one a line.
    pub(in crate::admin) fn with_faults(self, faults: &str, now: Timestamp) -> Self {
        let faults = faults.lines().map(ToOwned::to_owned).collect();
        Self { failed_reload: Some(FailedReload { at: now.floor_second().to_string(), faults }), ..self }
    }
}
