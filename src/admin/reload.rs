//! `POST /api/v1/reload`: reloads the configuration.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::sync::{mpsc, oneshot};

use super::access::AdminRequester;
use super::response::{json, text};
use super::state::Admin;

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
