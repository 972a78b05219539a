//! Integration tests: gateways against the simulator, both in this process, over real sockets; and the binary as a
//! process.
//!
//! All tests are one binary, which links once. Each test starts a simulator and a gateway of its own on free ports,
//! with one clock for both, which most tests set by hand. The simulator supplies the expected items
//! ([`koregate_simulator::Control::expected`]) and counts the upstream calls.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod caching;
mod commands;
mod disk;
mod faults;
mod fleet;
mod layout;
mod memory;
mod operations;
mod protocol;
mod purge;
mod quota;
mod recipes;
mod redis_client;
mod replicas;
mod requests;
mod responses;
mod security;
mod streaming;
mod support;
mod upstream;
