//! Whether a gateway can start with a configuration on this machine. `serve` and `check` ask the same question, so that
//! neither refuses what the other accepts.
//!
//! What another process holds at the moment (a port, the lock of a directory or of the state file) is no fault of the
//! configuration: `check` may run beside the gateway that it is meant for. A reload asks less: see [`preflight_reload`].

#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::tls::TlsListener;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, FaultyKey, KeyFault, ReloadPlan};
use crate::stack;

/// Checks the files, directories and addresses that `config` names. Creates nothing, and calls nobody.
///
/// # Errors
/// All faults, each with its line or variable and its key.
pub fn preflight(config: &Config, clock: &Clock) -> Result<(), ConfigError> {
    config.origins.refuse(find_faults(config, clock))
}

/// Checks the same of a configuration that a running gateway takes by `plan`, except for keys that need a restart and have
/// not changed: this process has their files open, and a volume that fails must not keep a removed key valid.
///
/// # Errors
/// As [`preflight`].
pub(super) fn preflight_reload(new: &Config, plan: &ReloadPlan, clock: &Clock) -> Result<(), ConfigError> {
    let mut faults = find_faults(new, clock);
    faults.retain(|fault| !plan.is_unchanged(fault.key));
    new.origins.refuse(faults)
}

fn find_faults(config: &Config, clock: &Clock) -> Vec<KeyFault> {
    let mut faults = stack::preflight(config, &clock.clone().into());
    for (key, tls, listener) in [
        ("server.tls", &config.server.tls, TlsListener::Callers),
        ("admin.tls", &config.admin.tls, TlsListener::Operators),
    ] {
        let validity = tls.as_ref().map(|tls| super::validity_at(tls, listener));
        faults.extend(validity.and_then(Result::err).map(|error| fault_of(&error, key)));
    }
    let server = &config.server;
    let metrics = server.metrics_listen.map(|addr| ("server.metrics_listen", addr));
    let listeners = [("server.listen", server.listen), ("server.admin_listen", server.admin_listen)];
    for (key, addr) in listeners.into_iter().chain(metrics) {
        faults.extend(
            check_address(addr)
                .err()
                .map(|error| KeyFault { key, message: format!("{addr} cannot be listened on: {error}") }),
        );
    }
    faults
}

/// The fault of an error, whose key stands in a [`FaultyKey`] of its context.
fn fault_of(error: &anyhow::Error, default_key: &'static str) -> KeyFault {
    match error.downcast_ref::<FaultyKey>() {
        Some(FaultyKey { key, .. }) => {
            let text = format!("{error:#}");
            let message = text.strip_prefix(key).and_then(|text| text.strip_prefix(": ")).unwrap_or(&text).to_owned();
            KeyFault { key, message }
        }
        None => KeyFault { key: default_key, message: format!("{error:#}") },
    }
}

/// Binds `addr` for a moment. An address in use is usable.
fn check_address(addr: SocketAddr) -> io::Result<()> {
    match TcpListener::bind(addr) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => Err(error),
        _ => Ok(()),
    }
}
