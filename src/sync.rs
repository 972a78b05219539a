//! Locks, flags and tasks of the code whose interleavings are checked: single-flight and purge (`cache/series`,
//! `cache/fetch`, `cache/purge`), the waiters of a run and the queue of calls (`request/waiters`, `quota/scheduler`),
//! and the registry of mapped bytes.
//!
//! They are those of the standard library and of tokio. With the feature `interleavings`, for `just interleavings`
//! only, they are those of [shuttle](https://docs.rs/shuttle), which runs all tasks on one thread and decides at each
//! of them which task runs next. So the tests named `interleavings` run the code of the product, with thousands of
//! schedules each. A task that is never woken is reported as a deadlock, because the clock stands still and no timeout
//! expires.
//!
//! Shuttle and not loom: loom tries all schedules, which a request that passes a hundred locks has too many of, and
//! needs `Arc` and every other primitive replaced, those within tokio's channels included. What it would find in
//! addition, the reorderings of a weak memory model, concerns atomics alone. Here these are two flags of a fetch:
//! `closed` is read and written under the lock of the series, and `charged` only chooses who reports calls that are
//! counted under the lock of the waiters.
//!
//! tokio's `watch` and `Notify` stay as they are: they need no runtime, and with shuttle each of their calls is one
//! step. So no lock of this module may be taken in a closure that tokio or moka calls while they hold one of their own.

#[cfg(not(feature = "interleavings"))]
mod real {
    pub(crate) use std::sync::atomic::AtomicBool;
    pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock, RwLock};

    pub(crate) use tokio::task::{JoinHandle, spawn, spawn_blocking};
    pub(crate) use tokio::time::sleep;
}

#[cfg(feature = "interleavings")]
mod scheduled;

#[cfg(not(feature = "interleavings"))]
pub(crate) use self::real::*;
#[cfg(feature = "interleavings")]
pub(crate) use self::scheduled::*;
