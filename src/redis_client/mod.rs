//! What replicas share: the way to Redis.
//!
//! [`RedisClient`] takes [`Command`]s and gives [`Reply`]s, and each call ends in time whatever Redis does; [`Mailbox`] carries
//! letters between replicas over it. Below them, a `lane` is one connection with its breaker, `wire` is the one file that
//! names the crate `redis`, and `reply_limit` bounds what that reads into memory.

mod breaker;
mod client;
mod command;
mod connection;
mod connector;
mod dial;
mod error;
mod mailbox;
mod reply_limit;
mod scan;
mod subscription;

pub use self::client::{Health, RedisClient};
pub use self::command::{Command, Reply, Script};
pub use self::error::ConnectionError;
pub use self::mailbox::{Incoming, Mailbox, Recipient, ReplicaId, Topic};
pub use self::scan::Scan;
pub use self::subscription::{Event, Subscription};
