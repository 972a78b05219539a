//! How long a dead leader delays the other replicas: another one is the leader within [`LEASE_DURATION`] and
//! `PULSE_INTERVAL` (`sync_interval.rs`), together 1.9 s. A request whose leader stays silent fails
//! `LEADER_SILENCE_TIMEOUT` (`cache/answer/wait.rs`) after its queue timeout.
//!
//! The other durations here, and the size of a batch of granted calls, are used by several files of the lease, too.

use std::time::Duration;

/// The duration of a lease, and of the session in Redis that keeps it valid: so long the lease of a dead leader lasts
/// at most. A replica that has had no answer for so long knows that no lease is valid, if no other has had one either.
pub(in crate::quota) const LEASE_DURATION: Duration = Duration::from_millis(1250);
/// The largest number of calls that are granted at once: so many may be lost with a leader that dies.
pub(super) const GRANT_BATCH_SIZE: u32 = 8;
/// How long calls wait before Redis is asked again that granted none, and before they look again while the leader is
/// being found out.
pub(super) const GRANT_RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// A call of a replica that is not heard of any more counts within this. So long a replica may be suspended or cut off
/// with calls in flight; and so long the calls in flight of one that has died are missed by all.
pub(super) const CALL_SILENCE_TIMEOUT: Duration = Duration::from_secs(5);
