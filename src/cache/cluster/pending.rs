//! A remote fetch of this replica while it is unanswered.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::replicas::{FetchReply, RemoteFetch};
use crate::request::{QueueTimeout, QueueWait};
use crate::window::Timestamp;

/// An unanswered remote fetch.
#[derive(Debug)]
pub(super) struct PendingRemoteFetch {
    pub(super) account: Arc<str>,
    pub(super) request: RemoteFetch,
    /// Entries fetched since then are fresh enough.
    pub(super) fresh_since: Timestamp,
    /// The queue timeout of the request that waits.
    pub(super) queue_timeout: Arc<QueueTimeout>,
    pub(super) replies: mpsc::UnboundedSender<FetchReply>,
}

impl PendingRemoteFetch {
    pub(super) fn account(&self) -> &str {
        &self.account
    }

    /// The request as it is sent at `now`.
    pub(super) fn request(&self, now: Timestamp) -> RemoteFetch {
        let age_ms = u64::try_from(now.since(self.fresh_since).as_millis()).unwrap_or(u64::MAX);
        let queue_wait = QueueWait { time: self.queue_timeout.waited().time, ..self.request.queue_wait };
        RemoteFetch { age_ms, queue_wait, ..self.request.clone() }
    }
}
