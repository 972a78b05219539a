//! The whole gateway against the simulator, both in this process, over real sockets.
//!
//! One binary for all of it, so that it links once. Each test starts a simulator and a gateway of its own on free
//! ports; both share one clock, which most tests set by hand, so that "now" is a fact and not a race. What is true, the
//! simulator says ([`koregate::simulator::Control::expected`]); what was spent, it counts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod caching;
mod commands;
mod layout;
mod memory;
mod operations;
mod protocol;
mod purge;
mod quota;
mod redis_client;
mod replicas;
mod requests;
mod responses;
mod security;
mod streaming;
mod support;
mod upstream;
