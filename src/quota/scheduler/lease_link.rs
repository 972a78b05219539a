//! Connection of a scheduler to the lease driver, and to the stages that depend on its role.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, watch};

use crate::quota::lease::LeaseChannel;
use crate::quota::role::Role;

/// Connection of a scheduler to the lease driver and to the stages that depend on its role.
#[derive(Debug)]
pub(super) struct LeaseLink {
    pub(super) role: watch::Sender<Role>,
    /// Notified when a call waits for an exchange with Redis.
    pub(super) exchange_wanted: Arc<Notify>,
    /// Whether this replica's limits have changed, so that the others are to be told.
    pub(super) limits_changed: AtomicBool,
    /// Whether another replica has perhaps new limits, so that they are to be read.
    pub(super) members_wanted: AtomicBool,
    /// Channel to the other replicas; empty if there are none.
    pub(super) channel: OnceLock<LeaseChannel>,
}

impl Default for LeaseLink {
    fn default() -> Self {
        Self {
            members_wanted: AtomicBool::default(),
            role: watch::Sender::new(Role::Leader),
            exchange_wanted: Arc::default(),
            limits_changed: AtomicBool::default(),
            channel: OnceLock::new(),
        }
    }
}

impl LeaseLink {
    pub(super) fn channel(&self) -> Option<&LeaseChannel> {
        self.channel.get()
    }
}
