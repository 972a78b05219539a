//! Printer of the effective configuration: TOML with every key, and secrets redacted.

use std::fmt::{Display, Write as _};
use std::path::Path;

use secrecy::ExposeSecret as _;

use super::parse::Keyword as _;
use super::{
    AccountConfig, AuditTarget, CallerConfig, CallerLimits, Config, DiskConfig, EncryptionKeys, FreshnessTier,
    NamePatterns, ProxyConfig, RedisConfig, SeriesSettings, ServerLimits, ServerTlsConfig, TraceCollector,
    TracesConfig, WindowSettings, schema, url,
};
use crate::hex;
use crate::units::{print_duration, print_size};
use crate::window::Retention;

const REDACTED: &str = "[redacted]";

impl Config {
    /// What [`render`](Self::render) prints, as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        schema::parse_toml(&self.render())
    }

    /// TOML with every key in effect, defaults included. Secrets and the password of Redis are printed as `[redacted]`,
    /// and digests of API keys as their first eight digits, so the text does not load as it is.
    pub fn render(&self) -> String {
        let Self { server, admin, upstream, accounts, window, quota, jobs, cache, log, traces, callers, origins: _ } =
            self;
        let mut out = TomlWriter(String::new());

        out.line("[server]");
        out.key("listen", text(server.listen));
        out.key("admin_listen", text(server.admin_listen));
        if let Some(metrics_listen) = server.metrics_listen {
            out.key("metrics_listen", text(metrics_listen));
        }
        out.key("hosts", list(server.hosts.iter().map(text)));
        if let Some(tls) = &server.tls {
            out.key("tls", inline_tls(tls));
        }
        out.key("drain_timeout", text(print_duration(server.drain_timeout)));
        out.server_limits(&server.limits);

        out.line("\n[admin]");
        if admin.token.is_some() {
            out.key("token", text(REDACTED));
        }
        out.key("hosts", list(admin.hosts.iter().map(text)));
        out.key("metric_streams", admin.metric_streams);
        if let Some(tls) = &admin.tls {
            out.key("tls", inline_tls(tls));
        }

        out.line("\n[upstream]");
        out.key("base_url", text(upstream.base_url.to_string().trim_end_matches('/')));
        out.key("timeout", text(print_duration(upstream.timeout)));
        out.key("max_concurrency", upstream.max_concurrency);
        if let Some(file) = &upstream.ca_file {
            out.key("ca_file", path(file));
        }
        if let Some(proxy) = &upstream.proxy {
            out.key("proxy", inline_proxy(proxy));
        }
        out.key("send_traceparent", upstream.send_traceparent);

        let settings = SeriesSettings::new(window, accounts);
        for account in accounts {
            out.account(account, &settings);
        }

        out.line("\n[window]");
        out.key("field", text(&window.field));
        out.key("upper_bound", text(window.upper_bound.keyword()));
        out.key("settle_after", text(print_duration(window.settle_after)));
        out.key("freshness", tiers(&window.freshness));
        out.key("chunk", text(print_duration(window.chunk)));
        out.key("max_span", text(print_duration(window.max_span)));

        out.line("\n[quota]");
        out.key("queue_timeout", text(print_duration(quota.queue_timeout)));
        out.key("max_wait", text(print_duration(quota.max_wait)));
        // `{:?}` prints zero as the float `0.0`.
        out.key("interactive_reserve", format!("{:?}", quota.interactive_reserve));
        if let Some(file) = &quota.state_file {
            out.key("state_file", path(file));
        }

        out.line("\n[jobs]");
        out.key("per_caller", jobs.per_caller);
        out.key("keep_for", text(print_duration(jobs.keep_for)));

        out.line("\n[cache]");
        out.key("memory", text(print_size(cache.memory)));
        if let Some(DiskConfig { path: directory, size }) = &cache.disk {
            out.key("disk", format!("{{ path = {}, size = {} }}", path(directory), text(print_size(*size))));
        }
        if let Some(redis) = &cache.redis {
            out.key("redis", inline_redis(redis));
        }
        let EncryptionKeys { current, previous } = &cache.encryption;
        for (name, key) in [("encryption_key", current), ("previous_encryption_key", previous)] {
            if key.is_some() {
                out.key(name, text(REDACTED));
            }
        }

        out.line("\n[log]");
        out.key("level", text(log.level.keyword()));
        match &log.audit {
            None => {}
            Some(AuditTarget::Stdout) => out.key("audit", text("stdout")),
            Some(AuditTarget::File(file)) => out.key("audit", path(file)),
        }
        out.traces(traces);

        for caller in callers {
            out.caller(caller);
        }
        out.0
    }
}

/// TOML that is being written.
struct TomlWriter(String);

impl TomlWriter {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn key(&mut self, key: &str, value: impl Display) {
        writeln!(self.0, "{key} = {value}").expect("writing to a String cannot fail");
    }

    fn traces(&mut self, TracesConfig { collector, protocol, service_name, sampling, resource: _ }: &TracesConfig) {
        self.line("\n[traces]");
        if let Some(TraceCollector { endpoint, headers, ca_file }) = collector {
            self.key("endpoint", text(endpoint));
            if !headers.is_empty() {
                self.key("headers", text(REDACTED));
            }
            if let Some(file) = ca_file {
                self.key("ca_file", path(file));
            }
        }
        self.key("protocol", text(protocol.keyword()));
        self.key("service_name", text(service_name));
        self.key("sample_ratio", format!("{:?}", sampling.ratio));
    }

    fn server_limits(&mut self, limits: &ServerLimits) {
        self.key("max_connections", limits.max_connections);
        self.key("max_connections_per_peer", limits.max_connections_per_peer);
        self.key("max_requests", limits.max_requests);
        self.key("max_head_size", text(print_size(limits.max_head_size as u64)));
        self.key("request_memory", text(print_size(limits.request_memory)));
        self.key("send_timeout", text(print_duration(limits.send_timeout)));
        self.key("send_memory", text(print_size(limits.send_memory)));
    }

    /// An account, with the settings in effect for it and for its streams.
    fn account(&mut self, account: &AccountConfig, settings: &SeriesSettings) {
        let AccountConfig {
            account_id,
            client_id,
            client_secret: _,
            streams,
            token,
            limits,
            window: _,
            stream_settings: _,
        } = account;
        self.line("\n[[accounts]]");
        self.key("account_id", text(account_id));
        self.key("client_id", text(client_id));
        self.key("client_secret", text(REDACTED));
        self.key("streams", names(streams));
        let [lifetime, refresh_ahead] = [token.lifetime, token.refresh_ahead].map(|time| text(print_duration(time)));
        let [scheme, jti] = [token.scheme.keyword(), token.jti.keyword()].map(text);
        self.key(
            "token",
            format!("{{ lifetime = {lifetime}, refresh_ahead = {refresh_ahead}, scheme = {scheme}, jti = {jti} }}"),
        );
        let limits = limits
            .iter()
            .map(|limit| format!("{{ requests = {}, per = {} }}", limit.requests, text(print_duration(limit.per))));
        self.key("quota", format!("{{ limits = {} }}", list(limits)));
        let (own, of_streams) = settings.of_account(account_id);
        if let Some(retention) = retention(&own) {
            self.key("retention", retention);
        }
        self.key("window", inline_window(&own));
        let of_streams: Vec<_> = of_streams.iter().map(|(stream, settings)| inline_stream(stream, settings)).collect();
        if !of_streams.is_empty() {
            self.key("stream_settings", list(of_streams));
        }
    }

    fn caller(&mut self, caller: &CallerConfig) {
        let CallerConfig {
            name,
            api_key_sha256,
            certificate_san,
            accounts,
            streams,
            weight,
            cache_control,
            max_priority,
            not_after,
            limits,
        } = caller;
        self.line("\n[[callers]]");
        self.key("name", text(name));
        match api_key_sha256.as_slice() {
            [] => {}
            [one] => self.key("api_key_sha256", digest(one)),
            several => self.key("api_key_sha256", list(several.iter().map(digest))),
        }
        if let Some(san) = certificate_san {
            self.key("certificate_san", text(san));
        }
        self.key("accounts", names(accounts));
        self.key("streams", names(streams));
        self.caller_limits(limits);
        self.key("weight", weight);
        self.key("cache_control", list(cache_control.names().map(text)));
        self.key("max_priority", text(max_priority.keyword()));
        if let Some(not_after) = not_after {
            self.key("not_after", text(not_after));
        }
    }

    fn caller_limits(&mut self, limits: &CallerLimits) {
        self.key("requests_per_minute", limits.requests_per_minute);
        for (key, limit) in [
            ("max_concurrent_requests", limits.max_concurrent_requests),
            ("upstream_calls_per_hour", limits.upstream_calls_per_hour),
            ("upstream_calls_per_day", limits.upstream_calls_per_day),
        ] {
            if let Some(limit) = limit {
                self.key(key, limit);
            }
        }
        self.key("mode", text(limits.mode.keyword()));
    }
}

fn retention(settings: &WindowSettings) -> Option<String> {
    settings.retention.map(|Retention(kept)| text(print_duration(kept)))
}

fn inline_window(settings: &WindowSettings) -> String {
    let WindowSettings { field, upper_bound, settle_after, freshness, retention: _, freshness_policy: _ } = settings;
    let [field, bound] = [&**field, upper_bound.keyword()].map(text);
    let (settle_after, freshness) = (text(print_duration(*settle_after)), tiers(freshness));
    format!("{{ field = {field}, upper_bound = {bound}, settle_after = {settle_after}, freshness = {freshness} }}")
}

fn inline_stream(stream: &str, settings: &WindowSettings) -> String {
    let retention = retention(settings).map(|kept| format!(", retention = {kept}")).unwrap_or_default();
    format!("{{ stream = {}{retention}, window = {} }}", text(stream), inline_window(settings))
}

fn tiers(freshness: &[FreshnessTier]) -> String {
    list(freshness.iter().map(|tier| {
        let [younger_than, max_age] = [tier.younger_than, tier.max_age].map(|time| text(print_duration(time)));
        format!("{{ younger_than = {younger_than}, max_age = {max_age} }}")
    }))
}

/// The first eight digits of a digest, which tell it from others.
fn digest(digest: &[u8; 32]) -> String {
    text(format!("{}…", hex::encode(&digest[..4])))
}

fn inline_proxy(proxy: &ProxyConfig) -> String {
    match proxy {
        ProxyConfig::Environment { .. } => text(url::proxy::ENVIRONMENT),
        ProxyConfig::Fixed { url, credentials } => {
            let url = text(url.to_string().trim_end_matches('/'));
            let credentials = credentials.as_ref().map(|_| format!(", credentials = {}", text(REDACTED)));
            format!("{{ url = {url}{} }}", credentials.unwrap_or_default())
        }
    }
}

fn inline_tls(tls: &ServerTlsConfig) -> String {
    let ServerTlsConfig { cert, key, client_ca } = tls;
    let client_ca = client_ca.as_ref().map(|file| format!(", client_ca = {}", path(file))).unwrap_or_default();
    format!("{{ cert = {}, key = {}{client_ca} }}", path(cert), path(key))
}

fn inline_redis(redis: &RedisConfig) -> String {
    let RedisConfig { url, prefix, ttl, timeout, max_value, replicas } = redis;
    let url = text(url::redis::redact(url.expose_secret()));
    let [ttl, timeout] = [ttl, timeout].map(|time| text(print_duration(*time)));
    let max_value = text(print_size(*max_value));
    let prefix = text(prefix);
    format!(
        "{{ url = {url}, prefix = {prefix}, ttl = {ttl}, timeout = {timeout}, max_value = {max_value}, \
         replicas = {replicas} }}"
    )
}

/// A TOML string, quoted and escaped.
fn text(value: impl Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}

fn path(path: &Path) -> String {
    text(path.display())
}

fn names(names: &NamePatterns) -> String {
    match names {
        NamePatterns::All => list([text("*")]),
        NamePatterns::Only(names) => list(names.iter().map(text)),
    }
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}
