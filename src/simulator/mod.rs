//! A faithful upstream on loopback: Kore's Raw Data API v2, with every behaviour that its documentation leaves open as
//! a switch, and with data that is made up, seeded, and known to the byte.
//!
//! A call goes `server` (the socket) → `endpoint` (arrival, token, limits, arguments) → `data` (which items, which
//! bytes) → `answer` (the envelope) or a fault. All that is counted is in `ledger`; tests hold it through [`Control`].

mod answer;
mod auth;
mod body;
mod control;
mod data;
mod endpoint;
mod faults;
mod ledger;
mod limits;
mod profile;
mod query;
mod server;
mod shared;
mod switchboard;
#[cfg(test)]
mod tests;

pub use self::control::Control;
pub use self::data::Filter;
pub use self::faults::{Fault, FaultPlan};
pub use self::ledger::{Call, Counts, Outcome};
pub use self::profile::{Credential, Envelope, Latency, Limit, Order, Profile, SelectOn, StreamProfile, TokenScheme};
pub use self::server::Simulator;
