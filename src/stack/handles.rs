//! The state that several stages share with each other, with the admin plane and with the server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::api::{RequestMemory, ResponseCache, Usage};
use crate::audit::AuditLog;
use crate::cache::{CacheHandles, DiskTier};
use crate::clock::Clock;
use crate::config::{Config, EncryptionKeys, RedisConfig, SeriesSettings, TracesConfig};
use crate::edge::{self, AnswerEnds, Callers};
use crate::environment::Environment;
use crate::jobs::Jobs;
use crate::paging::RunLimiters;
use crate::quota::{QuotaManager, StateFileError};
use crate::redis_client::RedisClient;
use crate::replicas::{Cipher, Mailbox, ReplicaId};
use crate::telemetry;
use crate::traces::Tracer;
use crate::upstream::UpstreamHealth;
use crate::upstream::tls::client_config;

/// The longest that the end of the process waits for chunks to be written to Redis and to the disk.
const CHUNK_WRITE_TIMEOUT: Duration = Duration::from_secs(6);

/// Handles of the shared state. Cheap to clone; all clones share the same state.
#[derive(Clone, Debug)]
pub struct Handles {
    /// The settings of the windows of each account and stream.
    pub series_settings: SeriesSettings,
    /// The callers' keys and limits.
    pub callers: Callers,
    /// Notified when a drain has exceeded its timeout; has the last problems.
    pub ends: AnswerEnds,
    /// Usage counts of each caller.
    pub usage: Usage,
    /// Ready answers of repeated requests.
    pub response_cache: ResponseCache,
    /// Memory budget of request heads and bodies.
    pub request_memory: RequestMemory,
    /// The cache, with its memory and its purges.
    pub cache: CacheHandles,
    /// Windows that are fetched later.
    pub jobs: Jobs,
    /// How many runs of each account may be in flight.
    pub run_limiters: RunLimiters,
    /// The schedulers and ledgers of all accounts.
    pub quotas: QuotaManager,
    /// Messages to other replicas; `None` without Redis.
    pub mailbox: Option<Mailbox>,
    /// Starts traces.
    pub tracer: Tracer,
    /// The audit log.
    pub audit: AuditLog,
    /// How the last calls of each account ended.
    pub upstream_health: UpstreamHealth,
}

impl Handles {
    /// The state at the start of the process. With Redis, it must be created on a Tokio runtime, where it receives
    /// messages.
    ///
    /// # Errors
    /// If the Redis client cannot be built, or the state file of the quota cannot be used.
    pub fn new(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        let clock = &environment.clock;
        let cipher = Arc::new(cipher(&config.cache.encryption)?);
        let redis = config.cache.redis.as_ref();
        let mailbox = redis.map(|redis| open_mailbox(redis, cipher.clone(), environment)).transpose()?;
        let series_settings = SeriesSettings::new(&config.window, &config.accounts);
        let disk = config.cache.disk.as_ref().map(|disk| DiskTier::new(disk, &series_settings, cipher));
        let disk = disk.map(|disk| (disk, config.quota.state_file.as_deref()));
        let quotas = share_quotas(config, mailbox.as_ref(), environment)?;
        quotas.limit_callers(&config.callers);
        let tracer = open_tracer(config, clock)?;
        let audit = AuditLog::open(config.log.audit.as_ref());
        Ok(Self {
            callers: Callers::new(&config.callers, &config.server.hosts),
            ends: AnswerEnds { clock: clock.clone(), ..AnswerEnds::default() },
            usage: Usage::new(&config.callers, &config.accounts, &quotas),
            response_cache: ResponseCache::new(config.cache.memory),
            request_memory: RequestMemory::new(config.server.limits.request_memory),
            cache: CacheHandles::new(&config.cache, &series_settings, disk, mailbox.as_ref(), &quotas, clock)
                .traced(&tracer),
            jobs: Jobs::new(config.jobs, mailbox.as_ref(), &quotas, clock, edge::problem_document),
            run_limiters: RunLimiters::new(&config.accounts, config.upstream.max_concurrency),
            quotas,
            mailbox,
            upstream_health: UpstreamHealth::default(),
            series_settings,
            tracer,
            audit: audit.context("log.audit")?,
        })
    }
}

impl Handles {
    /// Makes the counters of lost spans and lines begin at 0, once the recorder of metrics is installed.
    pub fn register_metrics(&self) {
        if self.tracer.is_exporting() {
            telemetry::register_traces();
        }
        if self.audit.is_open() {
            telemetry::register_audit();
        }
    }

    /// Waits until ended spans are exported, the audit log is written, and cached chunks are in Redis and on disk, for
    /// some seconds at most. For the end of the process.
    pub async fn flush(&self) {
        let audit = self.audit.clone();
        let written = spawn_blocking(move || audit.flush());
        let chunks = timeout(CHUNK_WRITE_TIMEOUT, self.cache.until_written());
        let (.., chunks) = tokio::join!(self.tracer.flush(), written, chunks);
        if chunks.is_err() {
            tracing::warn!(
                "some chunks were not written to Redis or to the disk before the end, and are fetched again"
            );
        }
    }
}

/// The tracer. With a collector, it must be created on a Tokio runtime, from which spans are exported.
fn open_tracer(config: &Config, clock: &Clock) -> anyhow::Result<Tracer> {
    Tracer::new(&config.traces, config.upstream.send_traceparent, clock, || collector_tls(&config.traces))
}

/// The TLS configuration for the collector of spans.
///
/// # Errors
/// If `traces.ca_file` cannot be used.
pub(super) fn collector_tls(traces: &TracesConfig) -> anyhow::Result<rustls::ClientConfig> {
    let ca_file = traces.collector.as_ref().and_then(|collector| collector.ca_file.as_deref());
    client_config(ca_file).context("traces.ca_file")
}

pub(super) fn cipher(EncryptionKeys { current, previous }: &EncryptionKeys) -> anyhow::Result<Cipher> {
    Cipher::new(current.iter().chain(previous)).context("no key can be derived from cache.encryption_key")
}

fn open_mailbox(redis: &RedisConfig, cipher: Arc<Cipher>, environment: &Environment) -> anyhow::Result<Mailbox> {
    let me = environment.replica.clone().unwrap_or_else(ReplicaId::random);
    Ok(Mailbox::new(me, RedisClient::new(redis, &environment.network)?, &redis.prefix, cipher))
}

/// The quota of each account alone, for a command that makes calls beside gateways: shared with them if there is Redis.
/// With Redis, it must be called on a Tokio runtime.
///
/// # Errors
/// As [`Handles::new`].
pub fn open_quotas(config: &Config, environment: &Environment) -> anyhow::Result<QuotaManager> {
    let cipher = Arc::new(cipher(&config.cache.encryption)?);
    let redis = config.cache.redis.as_ref();
    let mailbox = redis.map(|redis| open_mailbox(redis, cipher, environment)).transpose()?;
    Ok(share_quotas(config, mailbox.as_ref(), environment)?)
}

/// The quota of each account, shared with other replicas if there is a mailbox.
fn share_quotas(
    config: &Config,
    mailbox: Option<&Mailbox>,
    environment: &Environment,
) -> Result<QuotaManager, StateFileError> {
    let (accounts, upstream) = (&config.accounts, &config.upstream);
    let quotas = QuotaManager::new(accounts, &config.quota, upstream.max_concurrency, upstream.timeout, environment)?;
    Ok(match mailbox.zip(config.cache.redis.as_ref()) {
        Some((mailbox, redis)) => quotas.with_replicas(mailbox, redis.replicas, upstream.timeout),
        None => quotas,
    })
}
