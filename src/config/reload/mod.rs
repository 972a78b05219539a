//! Whether a key can be reloaded, and how a new configuration is made one that a running gateway can take.
//!
//! Each key is in one of two lists: [`RELOADABLE`] are in force for the next request, and those of [`NEEDS_RESTART`] keep
//! their values until the process starts again. `docs/operating.md` has the same lists for operators, and a test
//! compares all with the schema.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use secrecy::{ExposeSecret as _, SecretString};

use super::{AccountConfig, Config, ConfigError, KeyFault, RedisConfig, StreamConfig, WindowOverrides};
use crate::hex;

/// The keys that a reload changes; a table stands for all its keys that are not in [`NEEDS_RESTART`].
pub const RELOADABLE: [&str; 13] = [
    "server.hosts",
    "server.tls",
    "server.drain_timeout",
    "admin.token",
    "admin.tls",
    "admin.hosts",
    "log.level",
    "upstream.ca_file",
    "upstream.proxy",
    "accounts",
    "window",
    "quota",
    "callers",
];

/// The keys whose values stay until the process starts again: sockets, memory and files are made at the start, and data is
/// cached by the others.
pub const NEEDS_RESTART: [&str; 28] = [
    "server.listen",
    "server.admin_listen",
    "server.metrics_listen",
    "server.max_connections",
    "server.max_connections_per_peer",
    "server.max_requests",
    "server.max_head_size",
    "server.request_memory",
    "server.send_timeout",
    "server.send_memory",
    "admin.metric_streams",
    "upstream.base_url",
    "upstream.timeout",
    "upstream.max_concurrency",
    "upstream.send_traceparent",
    "accounts.window.field",
    "accounts.window.upper_bound",
    "accounts.stream_settings.window.field",
    "accounts.stream_settings.window.upper_bound",
    "window.field",
    "window.upper_bound",
    "window.chunk",
    "quota.queue_timeout",
    "quota.state_file",
    "jobs",
    "cache",
    "log.audit",
    "traces",
];

/// A configuration that a running gateway can take.
#[derive(Clone, Debug)]
pub struct ReloadPlan {
    /// The new values, except for the keys that need a restart.
    pub config: Config,
    /// The keys whose new values need a restart, each once.
    pub needs_restart: Vec<&'static str>,
}

impl ReloadPlan {
    /// Whether a key needs a restart, and has the value that it had.
    pub fn is_unchanged(&self, key: &str) -> bool {
        let is_within = |tables: &[&str]| {
            let is_key =
                |table: &&str| key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            tables.iter().any(is_key)
        };
        is_within(&NEEDS_RESTART) && !is_within(&self.needs_restart)
    }
}

/// Lets `$new` keep the values of `$old` for these keys, and names the keys that differ.
macro_rules! keep {
    ($kept:ident, $old:ident, $new:ident: $($key:literal = $($field:ident).+;)+) => {$(
        if $new.$($field).+ != $old.$($field).+ {
            $new.$($field).+ = $old.$($field).+.clone();
            $kept.push($key);
        }
    )+};
}

impl Config {
    /// How a gateway that runs with `self` takes `new`.
    ///
    /// # Errors
    /// If what is left of `new` without the keys that need a restart must not be used.
    pub fn plan_reload(&self, new: Self) -> Result<ReloadPlan, ConfigError> {
        let (old, mut config, mut kept) = (self, new, Vec::new());
        keep! { kept, old, config:
            "server.listen" = server.listen;
            "server.admin_listen" = server.admin_listen;
            "server.metrics_listen" = server.metrics_listen;
            "server.max_connections" = server.limits.max_connections;
            "server.max_connections_per_peer" = server.limits.max_connections_per_peer;
            "server.max_requests" = server.limits.max_requests;
            "server.max_head_size" = server.limits.max_head_size;
            "server.request_memory" = server.limits.request_memory;
            "server.send_timeout" = server.limits.send_timeout;
            "server.send_memory" = server.limits.send_memory;
            "admin.metric_streams" = admin.metric_streams;
            "upstream.base_url" = upstream.base_url;
            "upstream.timeout" = upstream.timeout;
            "upstream.max_concurrency" = upstream.max_concurrency;
            "upstream.send_traceparent" = upstream.send_traceparent;
            "window.field" = window.field;
            "window.upper_bound" = window.upper_bound;
            "window.chunk" = window.chunk;
            "quota.queue_timeout" = quota.queue_timeout;
            "quota.state_file" = quota.state_file;
            "jobs" = jobs;
            "cache.memory" = cache.memory;
            "cache.disk" = cache.disk;
            "log.audit" = log.audit;
            "traces" = traces;
        }
        for (key, old, new) in [
            ("admin.tls", &old.admin.tls, &mut config.admin.tls),
            ("server.tls", &old.server.tls, &mut config.server.tls),
        ] {
            if new.is_some() != old.is_some() {
                new.clone_from(old);
                kept.push(key);
            }
        }
        keep_redis(old, &mut config, &mut kept);
        keep_cuts(&old.accounts, &mut config.accounts, &mut kept);
        kept.dedup();
        let is_open = config.callers.is_empty() && !config.server.listen.ip().is_loopback();
        let message = format!(
            "there are none, and the listener at {} is open to the network; to listen on loopback only, restart",
            config.server.listen
        );
        let faults = if is_open { vec![KeyFault { key: "callers", message }] } else { Vec::new() };
        config.origins.refuse(faults)?;
        Ok(ReloadPlan { config, needs_restart: kept })
    }

    /// The files besides the configuration itself and the secrets that the configuration names.
    pub fn named_files(&self) -> Vec<PathBuf> {
        let tls = self.server.tls.iter().chain(&self.admin.tls);
        let tls = tls.flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
        tls.chain([self.upstream.ca_file.as_ref()]).flatten().cloned().collect()
    }

    /// A hash of the configuration as it is printed, without secrets: equal for replicas that are configured alike.
    pub fn fingerprint(&self) -> String {
        hex::encode(&digest(&SHA256, self.render().as_bytes()).as_ref()[..6])
    }
}

/// Keeps Redis, and the keys of encryption. Secrets are compared, and none is named.
fn keep_redis(old: &Config, new: &mut Config, kept: &mut Vec<&'static str>) {
    let is_same = |left: Option<&SecretString>, right: Option<&SecretString>| {
        left.map(SecretString::expose_secret) == right.map(SecretString::expose_secret)
    };
    let same_redis = |left: &RedisConfig, right: &RedisConfig| {
        let rest =
            |redis: &RedisConfig| (redis.prefix.clone(), redis.ttl, redis.timeout, redis.max_value, redis.replicas);
        is_same(Some(&left.url), Some(&right.url)) && rest(left) == rest(right)
    };
    let (before, after) = (&old.cache.encryption, &new.cache.encryption);
    let differs = [
        ("cache.encryption_key", !is_same(before.current.as_ref(), after.current.as_ref())),
        ("cache.previous_encryption_key", !is_same(before.previous.as_ref(), after.previous.as_ref())),
        (
            "cache.redis",
            match (&old.cache.redis, &new.cache.redis) {
                (Some(before), Some(after)) => !same_redis(before, after),
                (before, after) => before.is_some() != after.is_some(),
            },
        ),
    ];
    kept.extend(differs.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key));
    new.cache.redis.clone_from(&old.cache.redis);
    new.cache.encryption = before.clone();
}

/// Keeps the field and the bound by which the data of accounts and streams is cut.
fn keep_cuts(old: &[AccountConfig], new: &mut [AccountConfig], kept: &mut Vec<&'static str>) {
    for new in new {
        let Some(old) = old.iter().find(|old| old.account_id == new.account_id) else { continue };
        if keep_cut(Some(&old.window), &mut new.window) {
            kept.push("accounts.window");
        }
        let mut has_kept = false;
        for stream in &mut new.stream_settings {
            let before = old.stream_settings.iter().find(|before| before.stream == stream.stream);
            has_kept |= keep_cut(before.map(|before| &before.window), &mut stream.window);
        }
        for before in &old.stream_settings {
            let is_gone = new.stream_settings.iter().all(|stream| stream.stream != before.stream);
            let WindowOverrides { field, upper_bound, .. } = &before.window;
            if is_gone && (field.is_some() || upper_bound.is_some()) {
                let mut window = WindowOverrides::default();
                has_kept |= keep_cut(Some(&before.window), &mut window);
                new.stream_settings.push(StreamConfig { stream: before.stream.clone(), window });
            }
        }
        if has_kept {
            kept.push("accounts.stream_settings");
        }
    }
}

/// Keeps field and bound of `old`. Returns whether they were others.
fn keep_cut(old: Option<&WindowOverrides>, new: &mut WindowOverrides) -> bool {
    let (field, upper_bound) = old.map(|old| (old.field.clone(), old.upper_bound)).unwrap_or_default();
    let differs = new.field != field || new.upper_bound != upper_bound;
    (new.field, new.upper_bound) = (field, upper_bound);
    differs
}

/// All files that a configuration names, and the configuration itself.
#[derive(Clone, Debug, Default)]
pub struct NamedFiles(pub Vec<PathBuf>);

impl NamedFiles {
    /// Adds further files, each once.
    #[must_use]
    pub fn with(mut self, files: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        self.0.extend(files.into_iter().map(|file| file.as_ref().to_owned()));
        self.0.sort_unstable();
        self.0.dedup();
        self
    }
}

#[cfg(test)]
mod tests;
