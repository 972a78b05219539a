//! The upstream: faults of its responses, credentials, and accounts that it refuses.

mod credentials;
mod faults;
mod refused_account;
