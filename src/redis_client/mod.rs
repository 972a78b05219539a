//! A Redis client in which each call ends in time, whatever Redis does.
//!
//! | file | contents |
//! | --- | --- |
//! | `client.rs` | [`RedisClient`]: runs [`Command`]s and scripts, and gives [`Reply`]s |
//! | `command.rs` | commands, scripts and replies |
//! | `subscription.rs` | channels that are subscribed to for as long as the program runs |
//! | `scan.rs` | all keys with a prefix, on all masters |
//! | `connection.rs` | one connection, which is reconnected and has a breaker |
//! | `health.rs` | whether Redis answers |
//! | `breaker.rs` | the circuit breaker |
//! | `connector.rs` | connects to one server or a Cluster; the only file that names the crate `redis` |
//! | `sentinel.rs` | finds the master that Sentinels name |
//! | `memory_policy.rs` | advice for the memory settings of Redis |
//! | `dial.rs` | TCP and TLS |
//! | `reply_limit.rs` | bounds the size of replies before they are parsed |
//! | `key.rs` | names as parts of keys |
//! | `error.rs` | why a call has no replies |
//! | `fuzz.rs` | a fuzz target |

mod breaker;
mod client;
mod command;
mod connection;
mod connector;
mod dial;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod health;
mod key;
mod memory_policy;
mod reply_limit;
mod scan;
mod sentinel;
mod subscription;

pub use self::client::RedisClient;
pub use self::command::{Command, Reply, Script};
pub use self::error::ConnectionError;
pub use self::health::Health;
pub use self::key::key_segment;
pub use self::scan::Scan;
pub use self::subscription::{Event, Subscription};
