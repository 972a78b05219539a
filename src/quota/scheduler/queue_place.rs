//! Place of a call in the queue.

use std::sync::Arc;

use tokio::sync::Notify;

use super::call_scheduler::CallScheduler;
use crate::request::RunWaiters;

/// Place of a call in the queue. Dropped, it is given back: the call was begun, gave up, or its task was cancelled.
pub(super) struct QueuePlace<'a> {
    scheduler: &'a CallScheduler,
    pub(super) ticket: u64,
    pub(super) woken: Arc<Notify>,
    pub(super) waiters: &'a Arc<RunWaiters>,
}

impl<'a> QueuePlace<'a> {
    /// Enters the queue of `scheduler` with a call for `waiters`.
    pub(super) fn enter(scheduler: &'a CallScheduler, waiters: &'a Arc<RunWaiters>) -> Self {
        let (ticket, woken) = scheduler.lock().queue.push(waiters);
        Self { scheduler, ticket, woken, waiters }
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.scheduler.lock().queue.remove(self.ticket);
    }
}
