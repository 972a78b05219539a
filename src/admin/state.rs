//! The state of the admin plane, which all its connections share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::access::Access;
use super::page::ExampleRequest;
use super::pending_repeats::PendingRepeats;
use super::views::calendar::date;
use super::views::configuration::ConfigurationStatus;
use super::views::coverage::LastCoverage;
use super::views::history::History;
use crate::api::CallerUsage;
use crate::clock::Clock;
use crate::config::{Config, NamePatterns};
use crate::live::Live;
use crate::quota::CallScheduler;
use crate::request::Priority;
use crate::stack::Handles;
use crate::telemetry;
use crate::telemetry::MetricsHandle;
use crate::window::Timestamp;

/// The age of a day that is settled in most configurations, whatever the time of day.
const SETTLED_AGE: Duration = Duration::from_hours(72);

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
    pub(super) last_coverage: LastCoverage,
    pub(super) page: PageState,
}

/// The state of the status page alone.
pub(super) struct PageState {
    history: Mutex<History>,
    /// The configuration in force, without secrets.
    config: Live<String>,
    /// The address of the listener for callers.
    data_addr: OnceLock<SocketAddr>,
    example: ExampleFacts,
}

/// The parts of the configuration that a request to try depends on.
struct ExampleFacts {
    is_tls: bool,
    stream: Option<String>,
    /// The first of several accounts.
    account: Option<Arc<str>>,
    needs_key: bool,
}

impl ExampleFacts {
    fn of(config: &Config) -> Self {
        let several = config.accounts.len() > 1;
        let accounts = config.accounts.iter().map(|account| &account.streams);
        let named = accounts.chain(config.callers.iter().map(|caller| &caller.streams));
        Self {
            is_tls: config.server.tls.is_some(),
            stream: named.flat_map(NamePatterns::listed).next().map(str::to_owned),
            account: config.accounts.first().filter(|_| several).map(|account| account.account_id.clone()),
            needs_key: !config.callers.is_empty(),
        }
    }
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
            last_coverage: LastCoverage::default(),
            page: PageState {
                history: Mutex::default(),
                config: Live::new(config.render()),
                data_addr: OnceLock::new(),
                example: ExampleFacts::of(config),
            },
        }))
    }

    /// Applies what a reload changes in the admin plane. The new values of `needs_restart` wait for the next start.
    pub fn reload(&self, config: &Config, needs_restart: Vec<&'static str>) {
        label_streams(config);
        self.0.access.configure(&config.admin);
        self.0.page.config.replace(config.render());
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

    /// Sets the address of the listener for callers, which the status page names.
    pub fn set_data_addr(&self, addr: SocketAddr) {
        self.0.page.data_addr.get_or_init(|| addr);
    }

    /// The configuration in force, without secrets.
    pub(super) fn config(&self) -> Arc<String> {
        self.0.page.config.load()
    }

    /// A request to try at `now`; `None` while no callers are served.
    pub(super) fn example(&self, now: Timestamp) -> Option<ExampleRequest<'_>> {
        let ExampleFacts { is_tls, stream, account, needs_key } = &self.0.page.example;
        Some(ExampleRequest {
            addr: *self.0.page.data_addr.get()?,
            is_tls: *is_tls,
            stream: stream.as_deref(),
            account: account.as_deref(),
            needs_key: *needs_key,
            day: date(now - SETTLED_AGE),
        })
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.0.page.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The accounts in the order of their ids, each with its scheduler.
    pub(super) fn schedulers(&self) -> Vec<(Arc<str>, Arc<CallScheduler>)> {
        let mut all: Vec<_> = self.0.handles.quotas.iter().collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
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
