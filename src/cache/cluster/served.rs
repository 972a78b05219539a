//! A remote fetch of another replica that this one answers.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::replicas::Message;
use crate::request::QueueTimeout;

/// A remote fetch of another replica.
#[derive(Debug)]
pub(super) struct ServedRemoteFetch {
    pub(super) attempt: u8,
    /// When it was last requested.
    pub(super) last_requested: Instant,
    pub(super) state: ServeState,
}

#[derive(Debug)]
pub(super) enum ServeState {
    /// Being answered. Dropping the task drops what it waits for.
    InProgress {
        queue_timeout: Arc<QueueTimeout>,
        _task: AbortOnDropHandle<()>,
    },
    Replied {
        at: Instant,
        reply: Arc<Message>,
    },
}
