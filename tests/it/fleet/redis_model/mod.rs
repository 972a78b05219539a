//! A model of Redis: the commands that koregate uses, expiry, channels and scripts, in memory.
//!
//! - `store`: the data and the commands; `sorted_sets`: the commands of sorted sets
//! - `script`: runs scripts, `sync.lua` as it is
//! - `server`: the protocol and the channels

mod script;
mod server;
mod sorted_sets;
mod store;

pub(super) use self::server::RedisModel;
