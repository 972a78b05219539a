//! The state of the gateway, for the status page and as JSON.
//!
//! | file | contents |
//! | --- | --- |
//! | `status.rs` | the state of all parts |
//! | `configuration.rs` | the configuration in force, and its last reload |
//! | `history.rs` | calls and quota of the last hours; pure |
//! | `problems.rs` | the last problems and the history, as JSON |
//! | `calendar.rs` | cached days of a stream; pure |
//! | `coverage.rs` | cached days of all streams |
//! | `runs.rs` | runs under way |

pub(super) mod calendar;
pub(super) mod configuration;
pub(super) mod coverage;
pub(super) mod history;
pub(super) mod problems;
pub(super) mod runs;
pub(super) mod status;
