//! The admin plane: health, metrics, the status page and purges, on a listener of its own.
//!
//! | file | contents |
//! | --- | --- |
//! | `service.rs` | [`AdminService`]: admits each request and answers it by its path; [`MetricsService`] |
//! | `state.rs` | [`Admin`]: the state that all connections share |
//! | `access.rs` | host names, the admin token, and refusals |
//! | `session.rs`, `same_origin.rs` | sessions of browsers, and changes that other pages ask for; pure |
//! | `sign_in.rs` | opens and ends sessions |
//! | `views/` | the state of the gateway, for the page and as JSON: types, and what is pure |
//! | `gather/` | gathers the views from the stages |
//! | `sampler.rs` | observes the gateway for the history and the last problems |
//! | `page/` | the status page |
//! | `purge.rs` | purges |
//! | `pending_repeats.rs` | the purges that wait to be repeated |
//! | `reload.rs` | reloads by request |
//! | `cordon.rs` | stops upstream calls for an account or a stream |
//! | `trust.rs` | trusts `window.field` again |
//! | `response.rs` | responses that must not be cached |

mod access;
mod cordon;
mod gather;
mod page;
mod pending_repeats;
mod purge;
mod reload;
mod response;
mod same_origin;
mod sampler;
mod service;
mod session;
mod sign_in;
mod state;
mod trust;
mod views;

pub use self::reload::ReloadRequests;
pub use self::service::{AdminService, MetricsService};
pub use self::state::Admin;
