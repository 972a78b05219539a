//! Security: callers, hosts, TLS, and secrets in outputs.

mod callers;
mod hosts;
mod secrets;
mod tls;
