//! Several replicas: shared chunks, the elected leader and its followers, and the quota that they share.
//!
//! `replica_set` starts a leader with followers, `otlp_collector` receives spans; the other files are tests.

mod failover;
mod follower;
mod idle_traffic;
mod jobs;
#[cfg(feature = "otlp")]
mod otlp_collector;
mod redis_failures;
mod redis_values;
mod replica_set;
mod retention;
mod rolling_update;
mod shared_cache;
mod shared_fetch;
mod shared_quota;
mod streaming;
#[cfg(feature = "otlp")]
mod traces;
