//! Work that takes so much processor time that it would hold up other tasks of its thread.

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::sync::{JoinHandle, spawn, spawn_blocking};

/// Starts `work` on a thread of its own. A runtime with one thread, as tests and simulations have it, runs it as a task,
/// so that the order of events there does not depend on the machine.
pub(crate) fn spawn_work<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => spawn(async move { work() }),
        _ => spawn_blocking(work),
    }
}
