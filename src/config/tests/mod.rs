//! Tests of the loader: `environment` (variables), `faults` (problems of a file), `listeners`, `secrets`; and of defaults and
//! printing here.

mod environment;
mod faults;
mod listeners;
mod secrets;
mod traces;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::keys::ALL_KEYS;
use super::*;

const DOCUMENTED: &str = include_str!("../../../config/koregate.toml");

/// The shortest configuration that loads, of four lines: additions of a test begin on line 5.
pub(super) const MINIMAL: &str =
    "[[accounts]]\naccount_id = \"acc-1\"\nclient_id = \"cs-1\"\nclient_secret = { env = \"SECRET\" }\n";

fn env(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let secrets =
        [("SECRET", "s3cr3t-of-thirty-two-bytes-or-more"), ("PROXY", "me:s3cr3t"), ("HEADERS", "x-key=s3cr3t")];
    variables.iter().chain(&secrets).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_with(toml: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("koregate.toml");
    fs::write(&file, toml).unwrap();
    let prefix = format!("{}/", dir.path().display());
    Config::load(Some(&file), env(variables)).map_err(|error| error.to_string().replace(&prefix, ""))
}

fn load(toml: &str) -> Result<Config, String> {
    load_with(toml, &[])
}

/// The documented file with its commented settings enabled, and secrets from the environment.
pub(super) fn documented_in_full() -> String {
    let uncommented = DOCUMENTED.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    with_secret(&uncommented.collect::<Vec<_>>().join("\n"))
}

fn with_secret(toml: &str) -> String {
    let toml = toml.replace("file = \"/run/secrets/koregate/proxy-credentials\"", "env = \"PROXY\"");
    // Headers are shown to no network.
    let toml = toml.replace("file = \"/run/secrets/koregate/trace-headers\"", "env = \"HEADERS\"");
    let toml = toml.replace("http://collector:4318", "https://collector:4318");
    ["kore/client-secret", "koregate/admin-token", "koregate/encryption-key", "koregate/previous-encryption-key"]
        .iter()
        .fold(toml, |toml, path| toml.replace(&format!("file = \"/run/secrets/{path}\""), "env = \"SECRET\""))
}

#[test]
fn documented_file_holds_the_defaults() {
    let minimal =
        MINIMAL.replace("acc-1", "664b33a620bd0892e0000001").replace("cs-1", "cs-00000000-0000-0000-0000-000000000000");
    let documented = load(&with_secret(DOCUMENTED)).unwrap();
    assert_eq!(documented.render(), load(&minimal).unwrap().render());

    // Only keys without a default are given.
    let required = minimal.clone()
        + "retention = \"400d\"\nstream_settings = [{ stream = \"st-1\", retention = \"30d\" }]\n"
        + &format!("[[callers]]\nname = \"bi-etl\"\napi_key_sha256 = \"{}\"\n", "0".repeat(64))
        + "certificate_san = \"spiffe://example.org/bi-etl\"\nmax_concurrent_requests = 50\n"
        + "upstream_calls_per_hour = 300\nupstream_calls_per_day = 2000\nnot_after = \"2027-01-01\"\n"
        + "[server]\nmetrics_listen = \"127.0.0.1:9091\"\n[server.tls]\ncert = \"/run/tls/tls.crt\"\nkey = \"/run/tls/tls.key\"\nclient_ca = \"/run/tls/ca.crt\"\n"
        + "[admin]\ntoken = { env = \"SECRET\" }\n"
        + "tls = { cert = \"/run/tls/tls.crt\", key = \"/run/tls/tls.key\", client_ca = \"/run/tls/ca.crt\" }\n"
        + "[upstream]\nca_file = \"/etc/ssl/private-ca.pem\"\n"
        + "proxy = { url = \"http://proxy:3128\", credentials = { env = \"PROXY\" } }\n"
        + "[log]\naudit = \"/var/log/koregate/audit.jsonl\"\n"
        + "[traces]\nendpoint = \"https://collector:4318\"\nheaders = { env = \"HEADERS\" }\n"
        + "ca_file = \"/etc/ssl/private-ca.pem\"\n"
        + "[quota]\nstate_file = \"/var/lib/koregate/quota\"\n"
        + "[cache]\nencryption_key = { env = \"SECRET\" }\nprevious_encryption_key = { env = \"SECRET\" }\n"
        + "[cache.disk]\npath = \"/var/lib/koregate/cache\"\n[cache.redis]\nurl = \"redis://127.0.0.1:6379\"\n";
    let in_full = load(&documented_in_full()).unwrap();
    assert_eq!(in_full.render(), load(&required).unwrap().render());
    assert_ne!(in_full.render(), documented.render());
}

#[test]
fn documented_file_holds_every_key() {
    fn collect(value: &toml::Value, keys: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) => table.iter().for_each(|(key, value)| {
                keys.insert(key.clone());
                collect(value, keys);
            }),
            toml::Value::Array(items) => items.iter().for_each(|item| collect(item, keys)),
            _ => {}
        }
    }
    let mut documented = BTreeSet::from(["file".to_owned()]);
    collect(&toml::Value::Table(documented_in_full().parse().unwrap()), &mut documented);
    assert_eq!(documented, ALL_KEYS.iter().map(ToString::to_string).collect());
}

#[test]
fn minimal_configuration_has_the_documented_defaults() {
    let config = load(MINIMAL).unwrap();
    let account = &config.accounts[0];
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.upstream.base_url.to_string(), "https://platform.kore.ai/");
    assert_eq!((&*account.account_id, &*account.client_id), ("acc-1", "cs-1"));
    assert_eq!(account.client_secret.expose_secret(), "s3cr3t-of-thirty-two-bytes-or-more");
    assert_eq!(account.streams, NamePatterns::All);
    assert_eq!((account.token.scheme, account.token.jti), (TokenScheme::Bare, JtiMode::Off));
    assert_eq!((account.limits[0].requests, account.limits[0].per), (60, Duration::from_mins(1)));
    assert_eq!((account.limits[1].requests, account.limits[1].per), (1800, Duration::from_hours(1)));
    assert_eq!(config.window.upper_bound, UpperBound::Inclusive);
    assert_eq!(config.window.freshness.len(), 3);
    assert_eq!(config.cache.memory, 256 << 20);
    let limits = config.server.limits;
    assert_eq!((limits.max_connections, limits.max_connections_per_peer), (4096, 1024));
    assert!(config.cache.redis.is_none() && config.quota.state_file.is_none() && config.callers.is_empty());
}

/// Every keyword of the enums and every kind of value, none of them a default.
pub(super) const UNUSUAL: &str = r#"
streams = ["st-1", "st-2"]
token = { lifetime = "59m", refresh_ahead = "0s", scheme = "bearer", jti = "per-request" }
quota = { limits = [{ requests = 18000, per = "1h" }] }
retention = "400d"
window = { settle_after = "2d", freshness = [{ younger_than = "2d", max_age = "1m" }] }
stream_settings = [
  { stream = "st-2", window = { field = "other \"start\"", upper_bound = "inclusive", freshness = [] } },
  { stream = "st-1", retention = "30d" },
]

[server]
listen = "[::1]:0"
admin_listen = "0.0.0.0:0"
metrics_listen = "127.0.0.1:9091"
hosts = ["Koregate.internal."]
tls = { cert = "a \"quoted\" path", key = "k.pem" }
drain_timeout = "1500ms"
max_connections = 10
max_connections_per_peer = 3
max_requests = 7
max_head_size = "8KiB"
request_memory = 1000000
send_timeout = "5s"
send_memory = "1MiB"

[admin]
token = { env = "SECRET" }
hosts = ["ops.example"]
metric_streams = 0
tls = { cert = "admin.pem", key = "k.pem", client_ca = "ca.pem" }

[upstream]
base_url = "http://[::1]:9000/"
timeout = "90s"
max_concurrency = 1
ca_file = "ca.pem"
send_traceparent = true

[window]
field = "metrics.start"
upper_bound = "exclusive"
settle_after = "0s"
freshness = []
chunk = "24h"
max_span = "36500d"

[quota]
queue_timeout = "0s"
max_wait = "90s"
interactive_reserve = 0
state_file = "state/quota"

[jobs]
per_caller = 0
keep_for = "1d"

[cache]
memory = 1000000
disk = { path = "cache", size = "1GiB" }
redis = { url = "redis://:hunter2@localhost/3", prefix = "kg:", ttl = "1d", timeout = "1s", encryption_key = { env = "SECRET" } }

[log]
level = "warn"
audit = "stdout"

[traces]
endpoint = "https://c:4317"
protocol = "grpc"
service_name = "kg"
sample_ratio = 0.25
headers = { env = "HEADERS" }

[[callers]]
name = "Berichte für alle"
api_key_sha256 = "ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef0123456789"
accounts = ["acc-1"]
streams = ["st-9", "*"]
requests_per_minute = 1
weight = 3
cache_control = ["no-cache"]
max_priority = "background"
not_after = "2027-01-01"
max_concurrent_requests = 50
upstream_calls_per_hour = 300
upstream_calls_per_day = 2000
mode = "shadow"

[[callers]]
name = "rotating"
max_priority = "refresh"
api_key_sha256 = [
  "1111111111111111111111111111111111111111111111111111111111111111",
  "2222222222222222222222222222222222222222222222222222222222222222",
]
"#;

#[test]
fn rendered_configuration_has_no_secrets_and_reads_back() {
    let rendered = load(&format!("{MINIMAL}{UNUSUAL}")).unwrap().render();
    assert_eq!(
        rendered,
        r#"[server]
listen = "[::1]:0"
admin_listen = "0.0.0.0:0"
metrics_listen = "127.0.0.1:9091"
hosts = ["koregate.internal"]
tls = { cert = 'a "quoted" path', key = "k.pem" }
drain_timeout = "1500ms"
max_connections = 10
max_connections_per_peer = 3
max_requests = 7
max_head_size = "8KiB"
request_memory = "1000000"
send_timeout = "5s"
send_memory = "1MiB"

[admin]
token = "[redacted]"
hosts = ["ops.example"]
metric_streams = 0
tls = { cert = "admin.pem", key = "k.pem", client_ca = "ca.pem" }

[upstream]
base_url = "http://[::1]:9000"
timeout = "90s"
max_concurrency = 1
ca_file = "ca.pem"
send_traceparent = true

[[accounts]]
account_id = "acc-1"
client_id = "cs-1"
client_secret = "[redacted]"
streams = ["st-1", "st-2"]
token = { lifetime = "59m", refresh_ahead = "0s", scheme = "bearer", jti = "per-request" }
quota = { limits = [{ requests = 18000, per = "1h" }] }
retention = "400d"
window = { field = "metrics.start", upper_bound = "exclusive", settle_after = "2d", freshness = [{ younger_than = "2d", max_age = "1m" }] }
stream_settings = [{ stream = "st-1", retention = "30d", window = { field = "metrics.start", upper_bound = "exclusive", settle_after = "2d", freshness = [{ younger_than = "2d", max_age = "1m" }] } }, { stream = "st-2", retention = "400d", window = { field = 'other "start"', upper_bound = "inclusive", settle_after = "2d", freshness = [] } }]

[window]
field = "metrics.start"
upper_bound = "exclusive"
settle_after = "0s"
freshness = []
chunk = "1d"
max_span = "36500d"

[quota]
queue_timeout = "0s"
max_wait = "90s"
interactive_reserve = 0.0
state_file = "state/quota"

[jobs]
per_caller = 0
keep_for = "1d"

[cache]
memory = "1000000"
disk = { path = "cache", size = "1GiB" }
redis = { url = "redis://:[redacted]@localhost/3", prefix = "kg:", ttl = "1d", timeout = "1s", max_value = "16MiB", replicas = 8 }
encryption_key = "[redacted]"

[log]
level = "warn"
audit = "stdout"

[traces]
endpoint = "https://c:4317/"
headers = "[redacted]"
protocol = "grpc"
service_name = "kg"
sample_ratio = 0.25

[[callers]]
name = "Berichte für alle"
api_key_sha256 = "abcdef01…"
accounts = ["acc-1"]
streams = ["*"]
requests_per_minute = 1
max_concurrent_requests = 50
upstream_calls_per_hour = 300
upstream_calls_per_day = 2000
mode = "shadow"
weight = 3
cache_control = ["no-cache"]
max_priority = "background"
not_after = "2027-01-01"

[[callers]]
name = "rotating"
api_key_sha256 = ["11111111…", "22222222…"]
accounts = ["*"]
streams = ["*"]
requests_per_minute = 600
mode = "enforce"
weight = 1
cache_control = ["only-if-cached", "max-stale"]
max_priority = "refresh"
"#
    );
    let restored = rendered
        .replace("headers = \"[redacted]\"", "headers = { env = \"HEADERS\" }")
        .replace("\"[redacted]\"", "{ env = \"SECRET\" }")
        .replace("[redacted]", "hunter2")
        .replace('…', &"0".repeat(56));
    assert_eq!(load(&restored).unwrap().render(), rendered);
}

#[test]
fn debug_output_shows_no_secret() {
    let shown = format!("{:?}", load(&format!("{MINIMAL}{UNUSUAL}")).unwrap());
    assert!(!shown.contains("s3cr3t") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn unreadable_file_is_named() {
    let error = Config::load(Some("no/such/koregate.toml".as_ref()), env(&[])).unwrap_err().to_string();
    assert!(error.starts_with("no/such/koregate.toml: the configuration cannot be read: "), "{error}");
}
