//! The whole gateway against the simulator, both in this process, over real sockets.
//!
//! One binary for all of it, so that it links once. Each test starts a simulator and a gateway of its own on free
//! ports; both share one clock, which most tests set by hand, so that "now" is a fact and not a race. What is true, the
//! simulator says ([`koregate_simulator::Control::expected`]); what was spent, it counts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access_log;
mod again;
mod answers;
mod at_rest;
mod callers;
mod calls;
mod clock;
mod conformance;
mod density;
mod dry_run;
mod faults;
mod filters;
mod fleet;
mod hosts;
mod http_1_0;
mod identity;
mod imports;
mod labels;
mod link;
mod memory;
mod nginx;
mod operations;
mod piecemeal;
mod process;
mod purge;
mod quota;
mod relay;
mod replay;
mod replicas;
mod representation;
mod restarts;
mod savings;
mod secrets;
mod sharing;
mod side_by_side;
mod streaming;
mod support;
mod tap;
mod tls;
mod usage;
mod window_field;
