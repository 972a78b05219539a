//! The configuration: its types, one struct for each section of the file, and the loader that fills them.
//!
//! - `load` merges the file and the environment into one tree,
//! - `value_tree` is that tree of raw values, each with its line or variable,
//! - `table_reader` reads a table of the tree key by key and collects problems,
//! - `parse` parses single values; durations are written `"30s"`, `"24h"`, `"400d"`, sizes `"256MiB"`
//!   (see `units`),
//! - `validate`, `accounts` and `callers` define the keys, their defaults, and the checks between keys,
//! - `callers::cache_control` is what callers may demand of cached data,
//! - `observability` reads where spans and the audit log are written to,
//! - `window_settings` reads the settings of windows, `series_settings` resolves them for each account and stream,
//! - `secret` reads secrets from files and variables; `url` parses URLs, also of Redis and of proxies,
//! - `keys` lists all keys, and suggests one for a misspelt key,
//! - `schema` makes the JSON Schema of a configuration from what the readers read,
//! - `reload` says which keys a running gateway can change,
//! - `error` describes problems, and `render` prints a configuration without secrets,
//! - `fuzz` is a fuzz target.

mod accounts;
mod callers;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod keys;
mod load;
mod observability;
mod parse;
mod reload;
mod render;
mod schema;
mod secret;
mod series_settings;
mod table_reader;
#[cfg(test)]
mod tests;
mod url;
mod validate;
mod value_tree;
mod window_settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

pub use self::callers::cache_control::{CacheControlGrants, CacheDirective};
pub use self::callers::types::{CallerConfig, CallerLimits, LimitMode, PriorityClass};
pub use self::error::{ConfigError, FaultyKey, KeyFault, KeyOrigins};
pub use self::load::{Loaded, process_environment};
pub use self::observability::types::{
    AuditTarget, LogConfig, TraceCollector, TraceProtocol, TraceSampling, TracesConfig,
};
pub use self::reload::{NEEDS_RESTART, NamedFiles, RELOADABLE, ReloadPlan};
pub use self::series_settings::{SeriesSettings, WindowSettings};
pub use self::url::redis::{RedisKind, RedisUrl};

pub use crate::window::{FreshnessTier, UpperBound};

/// A whole configuration, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listeners.
    pub server: ServerConfig,
    /// The admin listener: its token, its host names, and the labels of its metrics.
    pub admin: AdminConfig,
    /// The upstream: Kore.
    pub upstream: UpstreamConfig,
    /// The Kore accounts, at least one, each `account_id` once.
    pub accounts: Vec<AccountConfig>,
    /// How windows are cut into chunks, and when data is settled.
    pub window: WindowConfig,
    /// How callers share the quota.
    pub quota: QuotaConfig,
    /// The memory and Redis tiers of the cache.
    pub cache: CacheConfig,
    /// Requests that are answered later.
    pub jobs: JobsConfig,
    /// The audit log.
    pub log: LogConfig,
    /// The export of spans.
    pub traces: TracesConfig,
    /// The callers; empty only if `server.listen` is on loopback.
    pub callers: Vec<CallerConfig>,
    /// Where the keys were written.
    pub origins: KeyOrigins,
}

/// `[server]`
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The listener for callers.
    pub listen: SocketAddr,
    /// The listener for operators.
    pub admin_listen: SocketAddr,
    /// A further listener that serves metrics and health only; `None` means that there is none.
    pub metrics_listen: Option<SocketAddr>,
    /// Host names that `Host` may have at `listen`, in lower case, beside loopback names and IP addresses. If it is
    /// empty and callers are configured, any name.
    pub hosts: Vec<String>,
    /// TLS for callers; `None` means plain HTTP.
    pub tls: Option<ServerTlsConfig>,
    /// The longest that requests under way may take to end after SIGTERM.
    pub drain_timeout: Duration,
    /// Limits on what clients may use.
    pub limits: ServerLimits,
}

/// The keys of `[server]` that limit the connections, memory and time that clients may use.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Maximum connections of callers; at least 1.
    pub max_connections: usize,
    /// Maximum connections from one address, or from one /64 of IPv6; at least 1.
    pub max_connections_per_peer: usize,
    /// Maximum requests whose answers are being prepared; at least 1.
    pub max_requests: usize,
    /// Maximum bytes of a request head, from 8 KiB to 1 MiB.
    pub max_head_size: usize,
    /// Maximum bytes of memory for large heads and for request bodies, of all connections together.
    pub request_memory: u64,
    /// The longest that a peer may acknowledge nothing of an answer before its connection is cut.
    pub send_timeout: Duration,
    /// Maximum bytes of answers that were written and not read, of all connections together.
    pub send_memory: u64,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Required as `authorization: Bearer` except for health and metrics; visible ASCII. Never printed.
    pub token: Option<SecretString>,
    /// Host names that `Host` may have at `server.admin_listen`, in lower case, beside loopback names and IP addresses.
    pub hosts: Vec<String>,
    /// Maximum streams that no account or caller names and that have a label of their own in metrics.
    pub metric_streams: usize,
    /// TLS for operators; `None` means plain HTTP.
    pub tls: Option<ServerTlsConfig>,
}

/// `server.tls` and `admin.tls`
#[derive(Clone, Debug)]
pub struct ServerTlsConfig {
    /// PEM file with the certificate chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// PEM file with the authorities of client certificates; `Some` makes TLS mutual.
    pub client_ca: Option<PathBuf>,
}

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Scheme and authority, without a path; `http` only for loopback.
    pub base_url: http::Uri,
    /// The longest that one call may take, from the connection to the last byte.
    pub timeout: Duration,
    /// Maximum simultaneous calls of each account.
    pub max_concurrency: usize,
    /// PEM file with private certificate authorities, in addition to those of the system.
    pub ca_file: Option<PathBuf>,
    /// The proxy through which calls go; `None` calls directly, whatever the environment says.
    pub proxy: Option<ProxyConfig>,
    /// Whether calls carry the `traceparent` and `tracestate` of the request that they are made for.
    pub send_traceparent: bool,
}

/// `upstream.proxy`
#[derive(Clone, Debug)]
pub enum ProxyConfig {
    /// The same proxy for all calls.
    Fixed {
        /// `http`, a host and a port.
        url: http::Uri,
        /// `user:password`. Never printed.
        credentials: Option<SecretString>,
    },
    /// The proxy that `HTTPS_PROXY` and `NO_PROXY` name, as curl reads them; lower case counts first.
    Environment {
        /// `HTTPS_PROXY`, which may hold a password; `None` if it is not set. Never printed.
        https_proxy: Option<SecretString>,
        /// `NO_PROXY`; may be empty.
        no_proxy: String,
    },
}

/// An `[[accounts]]`
#[derive(Clone, Debug)]
pub struct AccountConfig {
    /// Kore's `accountId`.
    pub account_id: Arc<str>,
    /// The claim `appId` of tokens.
    pub client_id: String,
    /// The secret that signs tokens. Never printed.
    pub client_secret: SecretString,
    /// The streams that may be requested.
    pub streams: NamePatterns,
    /// Lifetime and form of tokens.
    pub token: TokenConfig,
    /// The rolling limits of the account: at least one, with different `per`.
    pub limits: Vec<QuotaLimit>,
    /// Settings of the account over `[window]`.
    pub window: WindowOverrides,
    /// Settings of single streams over the account; each stream once.
    pub stream_settings: Vec<StreamConfig>,
}

/// An `accounts.stream_settings`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Kore's `streamId`.
    pub stream: Arc<str>,
    /// Settings of the stream over its account.
    pub window: WindowOverrides,
}

/// `retention` and the table `window` of an account or of a stream: what they set over `[window]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowOverrides {
    /// See [`WindowConfig::field`].
    pub field: Option<Arc<str>>,
    /// See [`WindowConfig::upper_bound`].
    pub upper_bound: Option<UpperBound>,
    /// See [`WindowConfig::settle_after`].
    pub settle_after: Option<Duration>,
    /// See [`WindowConfig::freshness`].
    pub freshness: Option<Vec<FreshnessTier>>,
    /// The age beyond which data is neither served, kept nor fetched; whole seconds.
    pub retention: Option<Duration>,
}

/// `accounts.token`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// The time from `iat` to `exp`.
    pub lifetime: Duration,
    /// The time before `exp` at which a new token is made; shorter than `lifetime`.
    pub refresh_ahead: Duration,
    /// The form of the `auth` header.
    pub scheme: TokenScheme,
    /// Whether each call needs a token of its own.
    pub jti: JtiMode,
}

/// The form of the `auth` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenScheme {
    /// The token alone, as every known client sends it.
    Bare,
    /// `Bearer <token>`, as Kore's documentation says.
    Bearer,
}

/// Whether each call needs a token of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JtiMode {
    /// A token serves all calls until it is refreshed.
    Off,
    /// A new token with a new `jti` for each call, for apps that enforce JTI.
    PerRequest,
}

/// A rolling limit: at most `requests` in any interval of the length `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaLimit {
    /// Maximum calls; at least one.
    pub requests: u32,
    /// Length of the rolling window; more than zero.
    pub per: Duration,
}

/// `["*"]`, or a list of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePatterns {
    /// Any name: the list contains `"*"`.
    All,
    /// The listed names only.
    Only(Vec<String>),
}

impl NamePatterns {
    /// The listed names; none for `["*"]`.
    pub fn listed(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::All => &[][..],
            Self::Only(names) => names,
        };
        names.iter().map(String::as_str)
    }

    /// Whether `name` is allowed.
    pub fn allow(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|allowed| allowed == name),
        }
    }
}

/// `[window]`
#[derive(Clone, Debug)]
pub struct WindowConfig {
    /// The member of an item that holds the timestamp the upstream selects on.
    pub field: Arc<str>,
    /// Whether the upstream counts an item exactly at `to`.
    pub upper_bound: UpperBound,
    /// The age at which data is settled.
    pub settle_after: Duration,
    /// The maximum age of cached open data, by the age of the data; ascending in both members.
    pub freshness: Vec<FreshnessTier>,
    /// The longest chunk, in whole seconds.
    pub chunk: Duration,
    /// The longest window that may be requested.
    pub max_span: Duration,
}

/// `[quota]`
#[derive(Clone, Debug)]
pub struct QuotaConfig {
    /// The longest that a request waits for the quota without receiving a page.
    pub queue_timeout: Duration,
    /// The longest that a request may ask to wait instead (`Prefer: wait`); whole seconds.
    pub max_wait: Duration,
    /// The share of each limit that background work does not use, from 0 to 0.9.
    pub interactive_reserve: f64,
    /// The file that records calls before they are made; `None` keeps them in memory only.
    pub state_file: Option<PathBuf>,
}

/// `[jobs]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobsConfig {
    /// Maximum unfinished jobs of each caller; zero refuses all.
    pub per_caller: u32,
    /// How long a finished job is kept; whole seconds.
    pub keep_for: Duration,
}

/// `[cache]`
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Maximum bytes of memory, index included.
    pub memory: u64,
    /// The tier that outlives the process; `None` means that there is none.
    pub disk: Option<DiskConfig>,
    /// The tier that replicas share; `None` means that there is none.
    pub redis: Option<RedisConfig>,
    /// The keys that encrypt what is on disk and in Redis.
    pub encryption: EncryptionKeys,
}

/// `cache.encryption_key` and `cache.previous_encryption_key`, or those of `cache.redis`
#[derive(Clone, Debug, Default)]
pub struct EncryptionKeys {
    /// The key that encrypts values; `None` stores them unencrypted.
    pub current: Option<SecretString>,
    /// The key before the last rotation, which still decrypts values; only with `current`.
    pub previous: Option<SecretString>,
}

/// `cache.disk`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// The directory, which no other process may use at the same time.
    pub path: PathBuf,
    /// Maximum bytes of files.
    pub size: u64,
}

/// `cache.redis`
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// The URL, which may contain a password; see [`RedisUrl::parse`].
    pub url: SecretString,
    /// Prefix of all keys.
    pub prefix: String,
    /// Time to live of chunks.
    pub ttl: Duration,
    /// The longest that a call to Redis may take.
    pub timeout: Duration,
    /// Maximum bytes of a value that is written or read. Replies are limited to four times as much.
    pub max_value: u64,
    /// The number of replicas that a replica assumes if it has not reached Redis since its start; at least 1.
    pub replicas: usize,
}
