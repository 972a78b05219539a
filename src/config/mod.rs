//! What the operator decides: the types of the configuration, one struct a section of the file.
//!
//! Durations are written `"30s"`, `"24h"`, `"400d"`; sizes `"256MiB"`. How a file and the environment become these
//! types, and how a mistake is traced to its line, goes from file to file like this: `load` merges the sources into one
//! tree of `node`s that know where they were written; `section` and `read` take it apart key by key; `validate` and
//! `accounts` know which keys there are, what they default to, and what makes sense together.

mod accounts;
mod error;
mod keys;
mod load;
mod parse;
mod redis_url;
mod render;
mod secret;
mod table_reader;
#[cfg(test)]
mod tests;
mod units;
mod url;
mod validate;
mod value_tree;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

pub use self::error::ConfigError;
pub use self::load::process_environment;
pub use self::redis_url::{RedisKind, RedisUrl};

pub use crate::window::{FreshnessTier, UpperBound};

/// The whole configuration, valid: nothing that holds one needs to check it again.
#[derive(Clone, Debug)]
pub struct Config {
    /// The two listeners.
    pub server: ServerConfig,
    /// What operators may do, and how they are told from others.
    pub admin: AdminConfig,
    /// Kore's side.
    pub upstream: UpstreamConfig,
    /// The Kore accounts, at least one, each `account_id` once.
    pub accounts: Vec<AccountConfig>,
    /// How time is cut and when it is closed.
    pub window: WindowConfig,
    /// How callers share the quota.
    pub quota: QuotaConfig,
    /// Where chunks are kept.
    pub cache: CacheConfig,
    /// Who may call; empty only while `server.listen` is on loopback.
    pub callers: Vec<CallerConfig>,
}

/// `[server]`
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where callers come in.
    pub listen: SocketAddr,
    /// Where operators come in.
    pub admin_listen: SocketAddr,
    /// Names that `Host` may have at `listen`, in lower case, beside loopback names and IP addresses. Empty with callers:
    /// any name.
    pub hosts: Vec<String>,
    /// TLS for callers; `None` is plain HTTP.
    pub tls: Option<ServerTlsConfig>,
    /// How long requests under way may take to end after SIGTERM.
    pub drain_timeout: Duration,
    /// What callers may take of the process.
    pub limits: ServerLimits,
}

/// The keys of `[server]` that bound what callers take of the process: connections, memory, time.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// The most connections of callers; at least 1.
    pub max_connections: usize,
    /// The most connections from one address, or from one /64 of IPv6; at least 1.
    pub max_connections_per_peer: usize,
    /// The most requests whose answers are being made; at least 1.
    pub max_requests: usize,
    /// The most bytes of a request's head, from 8 KiB to 1 MiB.
    pub max_head_size: usize,
    /// Bytes of memory for large heads and for bodies of requests, of all connections together.
    pub request_memory: u64,
    /// How long a connection whose peer takes nothing of an answer stays open.
    pub send_timeout: Duration,
    /// Bytes of memory for answers that are written and not taken, of all connections together.
    pub send_memory: u64,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Required as `authorization: Bearer` for all but health and metrics; visible ASCII. Never printed.
    pub token: Option<SecretString>,
    /// Names that `Host` may have at `server.admin_listen`, in lower case, beside loopback names and IP addresses.
    pub hosts: Vec<String>,
    /// How many streams that no account or caller names have a label of their own in metrics.
    pub metric_streams: usize,
}

/// `server.tls`
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
    /// The longest that one call may take, from connecting to the last byte.
    pub timeout: Duration,
    /// How many calls may be under way at once, for each account.
    pub max_concurrency: usize,
    /// PEM file with private authorities, beside those of the system.
    pub ca_file: Option<PathBuf>,
}

/// One `[[accounts]]`
#[derive(Clone, Debug)]
pub struct AccountConfig {
    /// Kore's `accountId`.
    pub account_id: Arc<str>,
    /// The claim `appId` of the token.
    pub client_id: String,
    /// What signs the token. Never printed.
    pub client_secret: SecretString,
    /// The streams that may be asked for.
    pub streams: NamePatterns,
    /// How tokens are made.
    pub token: TokenConfig,
    /// The rolling limits of the account, at least one, each with a `per` of its own.
    pub limits: Vec<QuotaLimit>,
}

/// `accounts.token`
#[derive(Clone, Copy, Debug)]
pub struct TokenConfig {
    /// From `iat` to `exp`.
    pub lifetime: Duration,
    /// How long before `exp` a new one is made; shorter than `lifetime`.
    pub refresh_ahead: Duration,
    /// How the `auth` header carries it.
    pub scheme: TokenScheme,
    /// Whether each call needs a token of its own.
    pub jti: JtiMode,
}

/// How the `auth` header carries the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenScheme {
    /// The token alone, as every known client sends it.
    Bare,
    /// `Bearer <token>`, as Kore's table says.
    Bearer,
}

/// Whether each call needs a token of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JtiMode {
    /// One token serves all calls until it is refreshed.
    Off,
    /// The app enforces JTI: a fresh token with a fresh `jti` for every call.
    PerRequest,
}

/// One rolling limit: at most `requests` in any span of length `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaLimit {
    /// Calls; at least one.
    pub requests: u32,
    /// Length of the rolling window; more than zero.
    pub per: Duration,
}

/// `["*"]`, or a list of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePatterns {
    /// `"*"` was among them.
    All,
    /// These and no other.
    Only(Vec<String>),
}

impl NamePatterns {
    /// Those that are named; none of `["*"]`.
    pub fn listed(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::All => &[][..],
            Self::Only(names) => names,
        };
        names.iter().map(String::as_str)
    }

    /// Whether `name` is among them.
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
    /// Whether an item exactly at `to` belongs to the window.
    pub upper_bound: UpperBound,
    /// What is older than this is closed.
    pub settle_after: Duration,
    /// How old a copy of younger data may be: ascending in both members.
    pub freshness: Vec<FreshnessTier>,
    /// The longest chunk, in whole seconds.
    pub chunk: Duration,
    /// The longest window that may be asked for.
    pub max_span: Duration,
}

/// `[quota]`
#[derive(Clone, Debug)]
pub struct QuotaConfig {
    /// The longest that a request waits for the quota without a page of its own coming.
    pub queue_timeout: Duration,
    /// The share of each limit, from 0 to 1, that background work leaves alone.
    pub interactive_reserve: f64,
    /// Where calls are written down before they are made; `None` keeps them in memory only.
    pub state_file: Option<PathBuf>,
}

/// `[cache]`
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Bytes of memory for chunks, index included.
    pub memory: u64,
    /// The tier that replicas share.
    pub redis: Option<RedisConfig>,
}

/// `cache.redis`
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// May carry a password, so it is a secret; what it says, [`RedisUrl::parse`] tells.
    pub url: SecretString,
    /// Prefix of all keys.
    pub prefix: String,
    /// How long a chunk is kept.
    pub ttl: Duration,
    /// The longest that a call to Redis may take.
    pub timeout: Duration,
    /// Bytes of the largest value that is written or read; no reply is larger than four of them.
    pub max_value: u64,
    /// How many replicas are taken to share the quota by one that cannot ask Redis since it began; at least 1.
    pub replicas: usize,
    /// Seals the values.
    pub encryption_key: Option<SecretString>,
    /// Opens those that were sealed before the key was changed; only beside `encryption_key`.
    pub previous_encryption_key: Option<SecretString>,
}

/// One `[[callers]]`
#[derive(Clone, Debug)]
pub struct CallerConfig {
    /// The label in logs and metrics.
    pub name: Arc<str>,
    /// SHA-256 of each of its API keys: at least one, and none that stands elsewhere too.
    pub api_key_sha256: Vec<[u8; 32]>,
    /// The accounts it may see.
    pub accounts: NamePatterns,
    /// The streams it may see.
    pub streams: NamePatterns,
    /// Its own limit.
    pub requests_per_minute: std::num::NonZeroU32,
    /// Its share when callers compete for the quota; at least 1.
    pub weight: u32,
}
