//! Work that takes so much processor time that it would hold up other tasks of its thread.

use std::cell::Cell;

use crate::sync::{JoinHandle, spawn, spawn_blocking};

thread_local! {
    static IS_IN_PLACE: Cell<bool> = const { Cell::new(false) };
}

/// Makes all work that is started on this thread from now on a task of the runtime: in a simulation, the order of events
/// must not depend on threads of the machine.
pub fn run_in_place() {
    IS_IN_PLACE.set(true);
}

/// Starts `work` on a thread of its own.
pub(crate) fn spawn_work<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    if IS_IN_PLACE.get() { spawn(async move { work() }) } else { spawn_blocking(work) }
}
