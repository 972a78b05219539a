//! What replicas share: the way to Redis.
//!
//! [`Link`] takes [`Command`]s and gives [`Reply`]s, and each call ends in time whatever Redis does; [`Post`] carries
//! letters between replicas over it. Below them, a `lane` is one connection with its breaker, and `wire` is the one file
//! that names the crate `redis`.

mod breaker;
mod command;
mod error;
mod lane;
mod link;
mod post;
mod scan;
mod subscription;
mod wire;

pub use command::{Command, Reply, Script};
pub use error::LinkError;
pub use link::{Health, Link};
pub use post::{Mail, Post, ReplicaId, To, Topic};
pub use scan::Scan;
pub use subscription::{Event, Subscription};
