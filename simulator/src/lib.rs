//! A simulator of Kore's Raw Data API v2 for tests and the demo: it serves generated data on a local HTTP listener.
//!
//! Kore's documentation leaves many behaviours open. Each of them is a setting of the [`Profile`], so that a client can
//! be tested against every variant. The data derives from a seed, and [`Control::expected`] returns the exact items of
//! a window, so that a test can compare a client's result byte by byte.
//!
//! The crate shares no code with the gateway, because a simulator that shared a mistake with it could not reveal that
//! mistake. Points in time cross the interface as [`jiff::Timestamp`].
//!
//! # Path of a call
//!
//! 1. `server` accepts the connection.
//! 2. `handler` records the arrival, checks the token (`auth`) and the rate limits (`limits`), and parses the arguments
//!    (`query`).
//! 3. `data` selects the items of the window and renders their bytes.
//! 4. `response` puts the envelope around them, or `fault_response` replaces the response by a fault.
//!
//! `call_history` records every call, and [`Control`] gives tests access to the records. `admin_api` offers part of
//! [`Control`] over HTTP, under `/simulator/`.

mod admin_api;
mod auth;
mod call_history;
mod control;
mod data;
mod fault_response;
mod faults;
mod handler;
mod limits;
mod profile;
mod query;
mod response;
mod scripted_body;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod time;

pub use self::call_history::{CallCounts, CallOutcome, RecordedCall};
pub use self::control::Control;
pub use self::data::ItemFilter;
pub use self::faults::{Fault, FaultPlan};
pub use self::profile::{
    AcceptedScheme, ApiVariant, Credential, EnvelopeOrder, ItemChanges, Latency, Profile, RateLimits, RollingLimit,
    SelectOn, SortOrder, StreamProfile, TokenRules,
};
pub use self::query::QueryParameters;
pub use self::server::Simulator;
