//! What replicas share: the way to Redis.
//!
//! [`Link`] takes [`Command`]s and gives [`Reply`]s, and each call ends in time whatever Redis does; [`Post`] carries
//! letters between replicas over it. Below them, a `lane` is one connection with its breaker, `wire` is the one file that
//! names the crate `redis`, and `reply_limit` bounds what that reads into memory.

mod breaker;
mod command;
mod dial;
mod error;
mod lane;
mod link;
mod post;
mod reply_limit;
mod scan;
mod subscription;
mod wire;

pub use command::{Command, Reply, Script};
pub use error::LinkError;
pub use link::{Health, Link};
pub use post::{Mail, Post, ReplicaId, To, Topic};
pub use scan::Scan;
pub use subscription::{Event, Subscription};
