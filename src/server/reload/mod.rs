//! Reload of the configuration of a running gateway: all of it, or nothing. ADR 53 has the design.
//!
//! - this file replaces the configuration in force by another one,
//! - `reloader` reads the configuration again, on SIGHUP and when a file has changed,
//! - `file_watch` finds out whether a file has changed.

mod file_watch;
mod reloader;

use tokio_rustls::TlsAcceptor;

use super::preflight::preflight_reload;
use super::tls::TlsListener;
use super::{Gateway, tls};
use crate::admin::ReloadRequests;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, ReloadPlan};
use crate::environment::Environment;
use crate::stack::PreparedReload;

pub use self::reloader::{Reloader, WATCH_INTERVAL};

/// All that a reload needs and that can fail.
struct Prepared {
    plan: ReloadPlan,
    stack: PreparedReload,
    tls: Option<TlsAcceptor>,
    admin_tls: Option<TlsAcceptor>,
}

impl Prepared {
    /// Checks `new` as at the start, except for what is open, and reads the files that it names.
    fn new(in_force: &Config, new: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let plan = in_force.plan_reload(new.clone())?;
        preflight_reload(new, &plan, clock)?;
        let stack = PreparedReload::new(&plan.config, &Environment::from(clock.clone()))?;
        let Config { server, admin, .. } = &plan.config;
        let tls = tls::acceptor_of(server.tls.as_ref(), TlsListener::Callers)?;
        let admin_tls = tls::acceptor_of(admin.tls.as_ref(), TlsListener::Operators)?;
        Ok(Self { plan, stack, tls, admin_tls })
    }
}

impl Gateway {
    /// Replaces the configuration in force by `new`, for all requests and handshakes that come from now on. If `new` is
    /// faulty, nothing changes. Log, metrics and the status say what became of it. Returns whether it is in force.
    pub async fn reload(&self, new: Result<Config, ConfigError>) -> bool {
        // One reload after the other.
        let mut in_force = self.config.lock().await;
        let prepared = match new {
            Ok(new) => {
                let (before, clock) = (in_force.clone(), self.clock.clone());
                // Files are read, perhaps from a network.
                let prepared = tokio::task::spawn_blocking(move || Prepared::new(&before, &new, &clock));
                prepared.await.map_err(anyhow::Error::from).flatten()
            }
            Err(faults) => Err(faults.into()),
        };
        let Prepared { plan: ReloadPlan { config, needs_restart }, stack, tls, admin_tls } = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.admin.note_failed_reload(&format!("{error:#}"));
                return false;
            }
        };
        self.stack.reload(&config, &stack);
        for (live, acceptor) in [(&self.tls, tls), (&self.admin_tls, admin_tls)] {
            if let (Some(live), Some(acceptor)) = (live, acceptor) {
                live.replace(acceptor);
            }
        }
        let named = [config.server.tls.clone(), config.admin.tls.clone()];
        tokio::task::spawn_blocking(move || tls::report_expiries(named[0].as_ref(), named[1].as_ref()));
        self.admin.reload(&config, needs_restart);
        *in_force = config;
        true
    }

    /// The requests of operators for a reload, which the caller of this function must carry out.
    pub fn accept_reload_requests(&self) -> ReloadRequests {
        self.admin.accept_reload_requests()
    }

    /// The configuration in force.
    pub async fn config(&self) -> Config {
        self.config.lock().await.clone()
    }
}
