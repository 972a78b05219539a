//! Fair queue of the upstream calls of one account, and the gates that each call passes: the reasons for which a call
//! may have to wait.
//!
//! [`CallScheduler::acquire`] queues a call and returns a [`CallPermit`]. A call that is woken asks the gates in this
//! order, and waits at the first one that is closed:
//!
//! 1. **Role** ([`lease_gate`]): while another replica is the leader, the call leaves the queue; a detached replica
//!    asks the leader for a remote permit, unless it knows of a pause itself. First, because it concerns all calls,
//!    whatever their place.
//! 2. **Queue** ([`queue`]): only the first call by priority, fair share and arrival asks the gates below, so that no
//!    call overtakes it.
//! 3. **Concurrency** ([`gates`]): fewer calls are in flight than `upstream.max_concurrency`. Before the gates with a
//!    time, because it opens when a call ends, at an unknown time.
//! 4. **Backoff and ledger**, together: the pause that the upstream asked for is over (or a probe is due), and each
//!    rolling limit has room. Their time is often certain; a call that cannot begin within its timeout fails at once.
//! 5. **Pacer**: the next call is due. After the ledger, because its time is never certain and would hide a certain
//!    one.
//! 6. **Lease** ([`lease_gate`]): a call that is granted in Redis is at hand. Last, because it takes that call, which
//!    would expire unused if another gate were closed.
//!
//! The call is then entered in the state file, which cannot refuse it, before the permit is handed out.
//!
//! | file | |
//! | --- | --- |
//! | `call_scheduler` | the scheduler itself |
//! | `acquire` | the way of a call through the queue and the gates |
//! | `error` | why a call gets no permit |
//! | `queue`, `queue_place` | waiting calls and their order, and the place of a call among them |
//! | `queue/fair_share` | virtual time of each caller (pure) |
//! | `gate` | answer of a gate |
//! | `gates` | concurrency, backoff, ledger and pacer |
//! | `lease_gate` | role, granted calls, and the share without Redis |
//! | `permit` | the end of a call: answered, refused, not sent, or unknown; permits of other replicas |
//! | `lease_link` | connection to the lease driver, and to the stages that depend on the role |
//! | `lease_sync` | what the lease driver reads and writes |
//! | `lending` | remote permits, for replicas with different settings |
//! | `settlement` | calls spent and calls saved |
//! | `status`, `spare_calls` | the state for other stages, operators and callers |

mod acquire;
mod call_scheduler;
mod error;
mod gate;
mod gates;
mod lease_gate;
mod lease_link;
mod lease_sync;
mod lending;
mod permit;
mod queue;
mod queue_place;
mod settlement;
mod spare_calls;
mod status;
#[cfg(test)]
mod tests;

pub use self::call_scheduler::CallScheduler;
pub use self::error::{AcquireError, Exhausted};
pub use self::lease_gate::QuotaShare;
pub use self::permit::{CallPermit, RefusalEffect};
