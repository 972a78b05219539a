//! Security: callers, the admin plane, hosts, TLS, and secrets in outputs.

mod admin_plane;
mod callers;
mod hosts;
mod secrets;
mod tls;
