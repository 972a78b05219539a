//! Answer of a gate to a call.

use super::error::AcquireError;
use crate::quota::limiter::MonotonicTime;
use crate::replicas::ReplicaId;

/// Answer of a gate: it is open, and may hand out a value; or it is closed.
pub(super) type Gate<T = ()> = Result<T, Closed>;

/// Why a gate does not let a call through, and what the call does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// The call asks again at `time`, or when it is woken. If `is_certain`, nothing can open the gate before `time`.
    Until { time: MonotonicTime, is_certain: bool },
    /// The call asks again when it is woken: another call is before it, or has to end first.
    UntilWoken,
    /// The call leaves the queue, and asks this replica, the leader, for a permit.
    Remote(ReplicaId),
    /// The call leaves the queue with this error.
    For(AcquireError),
}
