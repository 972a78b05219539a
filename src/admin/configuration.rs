//! The configuration in force, its last reload, and `POST /api/v1/reload`.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::access::AdminRequester;
use super::response::{json, text};
use super::state::Admin;
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
        Self { hash, since: now.floor_second().to_string(), needs_restart, failed_reload: None }
    }

    /// The same configuration after a reload at `now` that found `faults`, one a line.
    pub(super) fn with_faults(self, faults: &str, now: Timestamp) -> Self {
        let faults = faults.lines().map(ToOwned::to_owned).collect();
        Self { failed_reload: Some(FailedReload { at: now.floor_second().to_string(), faults }), ..self }
    }
}

/// The path of a reload by request.
pub(super) const PATH: &str = "/api/v1/reload";
/// Requests that may wait for a reload.
const MAX_WAITING_REQUESTS: usize = 8;

/// Requests for a reload. The sender of each is told whether the configuration could be replaced.
pub type ReloadRequests = mpsc::Receiver<oneshot::Sender<bool>>;

impl Admin {
    /// Accepts requests for a reload from now on, which the caller of this function must carry out.
    pub fn accept_reload_requests(&self) -> ReloadRequests {
        let (sender, requests) = mpsc::channel(MAX_WAITING_REQUESTS);
        self.0.reload_requests.replace(Some(sender));
        requests
    }

    /// Has the configuration reloaded, and answers with what is in force then.
    pub(super) async fn reload_now(&self, requester: AdminRequester) -> Response<Full<Bytes>> {
        let Some(requests) = Option::clone(&self.0.reload_requests.load()) else {
            return text(
                StatusCode::CONFLICT,
                "text/plain",
                "this gateway has no configuration that it could read again\n",
            );
        };
        tracing::info!(%requester, "a reload was requested");
        let (done, is_done) = oneshot::channel();
        let is_replaced = match requests.send(done).await {
            Ok(()) => is_done.await.ok(),
            Err(_) => None,
        };
        let status = match is_replaced {
            Some(true) => StatusCode::OK,
            Some(false) => StatusCode::UNPROCESSABLE_ENTITY,
            None => StatusCode::SERVICE_UNAVAILABLE,
        };
        json(status, &*self.0.configuration.load())
    }
}
