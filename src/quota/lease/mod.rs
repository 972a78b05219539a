//! The lease on the quota of an account, by which replicas share it.
//!
//! One replica, the leader, holds the lease and makes all calls of the account, so its queue and its ledger are those
//! of all replicas. Each call is recorded in Redis before it is made, and is granted only if every rolling window has
//! room according to what is recorded: the next leader reads it. Without Redis no replica can hold the lease, and each
//! one calls within its share of the limits.
//!
//! # Files
//! - `shared_quota`: the part of one replica in the quota, with its state.
//! - `state`: the states and the transitions below.
//! - `admission`: whether a call may begin, by the state.
//! - `exchange`: how an exchange with Redis is put together, and which event its reply means.
//! - `partition`: what happens when Redis is lost, and the calls assumed afterwards; `outage`: the share of a replica.
//! - `sync_interval`: the intervals of exchanges and heartbeats, and pulses.
//! - `agreed_limits`: the lowest limits of all replicas, which hold while they have different ones.
//! - `contact`: when Redis has answered; `members`: which replicas are alive; `call_log`: all calls that may count.
//! - `sync`: the arguments and the reply of `sync.lua`, which runs an exchange in Redis.
//! - `timing`: the durations that several files use.
//! - `channel`: the keys and commands in Redis. All other files are pure: time is an argument, and what goes to Redis
//!   and comes back are values. The tasks that run exchanges, heartbeats and pulses, and receive messages, are in
//!   `quota/lease_driver.rs` and `quota/pulse.rs`.
//!
//! # States
//! - **Joining**: the leader is not known. No calls. Data: an outage after which calls are still to be assumed.
//! - **Leading**: this replica holds the lease. Calls that Redis grants, between `spends_from` and `until`. Data:
//!   these two, the granted calls that have not begun, and how many calls to ask for.
//! - **Following**: another replica holds the lease. No calls: misses are forwarded to the leader. Data: the leader.
//! - **Partitioned**: Redis does not answer. Calls within this replica's share of each limit, and none while an
//!   exchange is in flight. Data: the shares, the number of replicas, the outage.
//!
//! A new replica is Joining. A leader whose lease has run out stays Leading without calls (its [`Role`] is unknown)
//! until the next event.
//!
//! # Events
//! - **Held**: the reply to an exchange names this replica as the holder. Redis gives a free lease to a replica that
//!   has been in contact for 2.5 s (1.2 s if it has seen no other).
//! - **HeldByOther**: the reply names another replica.
//! - **Vacant**: the reply names no holder.
//! - **Unreachable**: an exchange failed, and no attempt of the last 1.25 s was answered.
//!
//! # Transitions
//! | from | Held | HeldByOther | Vacant | Unreachable |
//! | --- | --- | --- | --- | --- |
//! | Joining | Leading (a) | Following (b) | Joining | Partitioned |
//! | Leading | Leading (c) | Following (d) | Joining (d) | Partitioned (d) |
//! | Following | Leading | Following | Joining | Partitioned |
//! | Partitioned | Leading (a, e) | Following (b, e) | Joining (e) | no event |
//!
//! - (a) If there was an outage, calls are assumed for the replicas that have not come back.
//! - (b) An outage is dropped: the leader assumes the calls. In Joining it is kept.
//! - (c) `until` is extended. If the lease had run out and was acquired anew, `spends_from` begins anew.
//! - (d) Granted calls that have not begun are cancelled in Redis.
//! - (e) Not before one exchange can record all calls that are left to record.
//!
//! The calls of a new leader begin at once if the ledger in Redis is complete, and after one lease duration if not.
//!
//! Other events change the data of a state only: a pulse extends `until`, and heartbeats of further replicas make the
//! shares smaller. A replica that leaves changes its state by the same table, but its exchanges return the lease and
//! never acquire it.

mod admission;
mod agreed_limits;
mod call_log;
mod channel;
mod contact;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod members;
mod outage;
mod partition;
mod shared_quota;
mod state;
mod sync;
mod sync_interval;
#[cfg(test)]
mod tests;
mod timing;

pub(super) use self::admission::Pass;
pub(super) use self::call_log::CallName;
pub(super) use self::channel::{Heartbeats, LeaseChannel};
pub(super) use self::shared_quota::{QuotaChange, SharedQuota};
pub(super) use self::sync::ExchangeRequest;
pub(super) use self::sync_interval::{PULSE_INTERVAL, SyncSchedule};
pub(super) use self::timing::LEASE_DURATION;
