//! The purges of this replica that wait for confirmations of other replicas.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::replicas::ReplicaId;

/// A replica has applied a purge.
pub(super) struct Confirmation {
    pub(super) from: ReplicaId,
    /// Chunks that it has removed from its memory; 0 if it does not say.
    pub(super) chunks: u64,
}

/// The purges of this replica that wait for confirmations, by their numbers.
#[derive(Default)]
pub(super) struct Confirmations {
    waiting: Mutex<BTreeMap<u64, mpsc::UnboundedSender<Confirmation>>>,
    next_number: AtomicU64,
}

impl Confirmations {
    pub(super) fn register(&self) -> (u64, mpsc::UnboundedReceiver<Confirmation>) {
        let (number, (sender, confirmed)) =
            (self.next_number.fetch_add(1, Ordering::Relaxed), mpsc::unbounded_channel());
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sender);
        (number, confirmed)
    }

    pub(super) fn remove(&self, number: u64) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    pub(super) fn confirm(&self, number: u64, confirmation: Confirmation) {
        if let Some(waiting) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(&number) {
            let _ = waiting.send(confirmation);
        }
    }
}
