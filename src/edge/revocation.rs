//! The end of answers to a key that has been removed from the configuration.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::access::AccessRecord;

/// The reason why such an answer is aborted.
pub(super) const REVOKED: &str = "the caller's key has been removed from the configuration";

/// Whether an answer must end because its key is gone. Never, without callers.
pub(super) struct Revocation {
    token: Option<CancellationToken>,
    /// Made when the answer first waits, since few do.
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Revocation {
    pub(super) fn of(record: &AccessRecord) -> Self {
        let token = record.authenticated.as_ref().map(|authenticated| authenticated.revoked.clone());
        Self { token, waiting: None }
    }

    /// Whether the answer must end now.
    pub(super) fn has_come(&self) -> bool {
        self.token.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Waits, beside the answer, until it must end.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(token) = &self.token else { return Poll::Pending };
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()));
        waiting.as_mut().poll(context)
    }
}
