//! Values that travel with a request through the stages: which rows it is about, who asks and how urgently, who waits
//! for a run, and how long a wait for the quota may take.
//!
//! - [`series_key`](Series): everything that identifies an answer besides its time.
//! - [`item_ids`](IdFilter): hashes of the ids by which items are erased.
//! - [`waiters`](RunWaiters): the requests that wait for a run, from the cache down to the scheduler.
//! - [`queue_timeout`](QueueTimeout): the limit on the time that a request waits for the quota.
//! - [`wait_meter`](WaitMeter): the time that a request has waited for the quota.
//! - [`rate_limit_status`](RateLimitStatus): the states of the caller's own limit and of the upstream's limits.

mod item_ids;
mod queue_timeout;
mod rate_limit_status;
mod series_key;
mod wait_meter;
mod waiters;

pub use self::item_ids::{IdFilter, IdHashes, IdKind};
pub use self::queue_timeout::{QueueTimeout, QueueWait};
pub use self::rate_limit_status::{RateLimitStatus, UpstreamLimit, UpstreamLimits};
pub use self::series_key::{Filter, FilterError, FilterNames, KnownFilter, Series};
pub use self::wait_meter::WaitMeter;
pub use self::waiters::{CallGuard, Priority, Requester, RunWaiters, WaiterGuard};
