//! The state of the admin plane, which all its connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::access::Access;
use super::configuration::ConfigurationStatus;
use super::pending_repeats::PendingRepeats;
use crate::api::CallerUsage;
use crate::clock::Clock;
use crate::config::{Config, NamePatterns};
use crate::live::Live;
use crate::request::Priority;
use crate::stack::Handles;
use crate::telemetry;
use crate::telemetry::MetricsHandle;
use crate::window::Timestamp;

/// Phase of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Starting,
    Ready,
    Draining,
}

/// The admin plane. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct Admin(pub(super) Arc<AdminInner>);

pub(super) struct AdminInner {
    pub(super) access: Access,
    pub(super) phase: AtomicU8,
    pub(super) started: Timestamp,
    pub(super) clock: Clock,
    pub(super) handles: Handles,
    pub(super) memory_limit: u64,
    pub(super) repeats: PendingRepeats,
    pub(super) metrics: &'static MetricsHandle,
    pub(super) configuration: Live<ConfigurationStatus>,
    /// `None` if nothing reloads the configuration.
    pub(super) reload_requests: Live<Option<mpsc::Sender<oneshot::Sender<bool>>>>,
}

impl AdminInner {
    /// Copies of chunk data, as inflated blocks and in the response cache.
    pub(super) fn hot_bytes(&self) -> u64 {
        self.handles.cache.memory.hot_bytes() + self.handles.response_cache.bytes()
    }
}

impl Admin {
    /// The admin plane of a stack with these handles.
    pub fn new(handles: &Handles, config: &Config, clock: Clock) -> Self {
        label_streams(config);
        let metrics = telemetry::init_metrics();
        let configuration = ConfigurationStatus::in_force(config, clock.now(), Vec::new());
        Self(Arc::new(AdminInner {
            access: Access::new(&config.admin),
            phase: AtomicU8::new(Phase::Starting as u8),
            started: clock.now(),
            clock,
            handles: handles.clone(),
            memory_limit: config.cache.memory,
            repeats: PendingRepeats::default(),
            metrics,
            configuration: Live::new(configuration),
            reload_requests: Live::default(),
        }))
    }

    /// Applies what a reload changes in the admin plane. The new values of `needs_restart` wait for the next start.
    pub fn reload(&self, config: &Config, needs_restart: Vec<&'static str>) {
        label_streams(config);
        self.0.access.configure(&config.admin);
        let status = ConfigurationStatus::in_force(config, self.0.clock.now(), needs_restart);
        telemetry::config_reloaded(&status.hash, &status.needs_restart);
        self.0.configuration.replace(status);
    }

    /// Notes that a reload has changed nothing because of these faults.
    pub fn note_failed_reload(&self, faults: &str) {
        telemetry::config_reload_failed(faults);
        let status = ConfigurationStatus::clone(&self.0.configuration.load());
        self.0.configuration.replace(status.with_faults(faults, self.0.clock.now()));
    }

    /// Marks the process as ready.
    pub fn set_ready(&self) {
        self.0.phase.store(Phase::Ready as u8, Ordering::SeqCst);
    }

    /// Marks the process as draining: it should get no new requests.
    pub fn set_draining(&self) {
        self.0.phase.store(Phase::Draining as u8, Ordering::SeqCst);
    }

    pub(super) fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    pub(super) fn callers(&self) -> Vec<CallerUsage> {
        self.0.handles.usage.all(|caller| self.0.handles.callers.limit_status(caller))
    }

    /// The metrics in Prometheus' text format, with current gauges.
    pub(super) fn metrics(&self) -> String {
        for (account, scheduler) in self.0.handles.quotas.iter() {
            for limit_status in scheduler.limit_usage() {
                telemetry::quota_remaining(&account, limit_status.limit.per, limit_status.remaining);
                telemetry::quota_budget(&account, limit_status.limit.per, limit_status.budget);
            }
            for class in Priority::ALL {
                telemetry::quota_waiting(&account, class.label(), scheduler.queue_length_of(class));
            }
        }
        telemetry::cache_bytes("memory", self.0.handles.cache.memory.bytes());
        if let Some(disk) = &self.0.handles.cache.disk {
            telemetry::cache_bytes("disk", disk.bytes());
        }
        telemetry::cache_bytes("hot", self.0.hot_bytes());
        telemetry::cache_bytes("pinned", self.0.handles.cache.memory.pinned_bytes());
        self.0.metrics.render()
    }
}

/// Gives the streams that the configuration names labels in the metrics.
fn label_streams(config: &Config) {
    let of_accounts = config.accounts.iter().map(|account| &account.streams);
    let streams = of_accounts.chain(config.callers.iter().map(|caller| &caller.streams)).flat_map(NamePatterns::listed);
    let with_settings = config.accounts.iter().flat_map(|account| &account.stream_settings);
    let streams = streams.chain(with_settings.map(|settings| &*settings.stream));
    telemetry::label_streams(streams, config.admin.metric_streams);
}
