//! The admin plane: health, metrics, the status page and purges, on a listener of its own.
//!
//! | file | contents |
//! | --- | --- |
//! | `service.rs` | [`AdminService`]: admits each request and answers it by its path |
//! | `state.rs` | [`Admin`]: the state that all connections share |
//! | `access.rs` | host names, the admin token, and refusals |
//! | `configuration.rs` | the configuration in force, its last reload, and reloads by request |
//! | `status.rs` | the state of the gateway, as JSON |
//! | `page.rs` | the status page |
//! | `purge.rs` | purges |
//! | `pending_repeats.rs` | the purges that wait to be repeated |
//! | `cordon.rs` | stops upstream calls for an account or a stream |
//! | `trust.rs` | trusts `window.field` again |
//! | `response.rs` | responses that must not be cached |

mod access;
mod configuration;
mod cordon;
mod page;
mod pending_repeats;
mod purge;
mod response;
mod service;
mod state;
mod status;
mod trust;

pub use self::configuration::ReloadRequests;
pub use self::service::AdminService;
pub use self::state::Admin;
