//! Faults of files and values: the check before the start finds each, and the start itself fails for each.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::server::{Gateway, Reloader, WATCH_INTERVAL};

/// Seven lines, so that what follows begins at line 8.
const ACCOUNT: &str = "[[accounts]]\naccount_id = 'a'\nclient_id = 'c'\nclient_secret = { env = 'SECRET' }\n\
                       token = { lifetime = '1h' }\n\n\n";
const LISTEN: &str = "listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n";

/// Writes two certificates with their keys, and files that are none, into `directory`.
fn write_files(directory: &Path) {
    for name in ["one", "two"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(directory.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let garbage = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    for (name, text) in [
        ("empty", ""),
        ("text", "neither a certificate nor a key\n"),
        ("garbage", garbage),
        ("short", "0123456789abcdef0123456789abcde\n"),
        ("long", "0123456789abcdef0123456789abcdef\n"),
    ] {
        fs::write(directory.join(name), text).unwrap();
    }
}

fn load(directory: &Path, toml: &str) -> Result<Config, ConfigError> {
    let file = directory.join("koregate.toml");
    fs::write(&file, toml.replace("DIR", directory.to_str().unwrap())).unwrap();
    Config::load(Some(&file), [("SECRET".to_owned(), "hunter2".to_owned())])
}

fn tls(keys: &str) -> String {
    format!("{ACCOUNT}[server]\n{LISTEN}tls = {{ {keys} }}\n")
}

fn with(section: &str, keys: &str) -> String {
    format!("{ACCOUNT}[{section}]\n{keys}\n[server]\n{LISTEN}")
}

/// Each fault with the line and the key that the error names.
fn faults() -> Vec<(String, usize, &'static str)> {
    let listen = |key: &str, address: &str| {
        let listen = LISTEN.replacen(&format!("{key} = '127.0.0.1:0'"), &format!("{key} = '{address}'"), 1);
        format!("{ACCOUNT}[[callers]]\nname = 'a'\napi_key_sha256 = '{}'\n[server]\n{listen}", "0".repeat(64))
    };
    let redis = |keys: &str| with("cache", &format!("redis = {{ {keys} }}"));
    vec![
        (tls("cert = 'DIR/none', key = 'DIR/one.key'"), 11, "server.tls.cert"),
        (tls("cert = 'DIR', key = 'DIR/one.key'"), 11, "server.tls.cert"),
        (tls("cert = 'DIR/empty', key = 'DIR/one.key'"), 11, "server.tls.cert"),
        (tls("cert = 'DIR/text', key = 'DIR/one.key'"), 11, "server.tls.cert"),
        (tls("cert = 'DIR/one.key', key = 'DIR/one.key'"), 11, "server.tls.cert"),
        (tls("cert = 'DIR/garbage', key = 'DIR/one.key'"), 11, "server.tls.key"),
        (tls("cert = 'DIR/one.crt', key = 'DIR/none'"), 11, "server.tls.key"),
        (tls("cert = 'DIR/one.crt', key = 'DIR/text'"), 11, "server.tls.key"),
        (tls("cert = 'DIR/one.crt', key = 'DIR/one.crt'"), 11, "server.tls.key"),
        (tls("cert = 'DIR/one.crt', key = 'DIR/two.key'"), 11, "server.tls.key"),
        (tls("cert = 'DIR/one.crt', key = 'DIR/one.key', client_ca = 'DIR/none'"), 11, "server.tls.client_ca"),
        (tls("cert = 'DIR/one.crt', key = 'DIR/one.key', client_ca = 'DIR/empty'"), 11, "server.tls.client_ca"),
        (tls("cert = 'DIR/one.crt', key = 'DIR/one.key', client_ca = 'DIR/garbage'"), 11, "server.tls.client_ca"),
        (tls("cert = 'DIR/one.crt'"), 11, "server.tls.key"),
        (with("upstream", "ca_file = 'DIR/none'"), 9, "upstream.ca_file"),
        (with("upstream", "ca_file = 'DIR/text'"), 9, "upstream.ca_file"),
        (with("upstream", "\nca_file = 'DIR/garbage'"), 10, "upstream.ca_file"),
        (with("quota", "state_file = 'DIR'"), 9, "quota.state_file"),
        (with("quota", "state_file = 'DIR/text'"), 9, "quota.state_file"),
        (with("quota", "state_file = 'DIR/none/state'"), 9, "quota.state_file"),
        (with("quota", "state_file = 'DIR/text/state'"), 9, "quota.state_file"),
        (with("cache", "encryption_key = { file = 'DIR/short' }"), 9, "cache.encryption_key"),
        (with("cache", "encryption_key = { file = 'DIR/empty' }"), 9, "cache.encryption_key.file"),
        (with("cache", "encryption_key = { file = 'DIR/none' }"), 9, "cache.encryption_key.file"),
        (
            with("cache", "encryption_key = { file = 'DIR/long' }\nprevious_encryption_key = { env = 'SECRET' }"),
            10,
            "cache.previous_encryption_key",
        ),
        (redis("url = 'redis://h', encryption_key = { env = 'SECRET' }"), 9, "cache.redis.encryption_key"),
        (redis("url = 'http://h'"), 9, "cache.redis.url"),
        (redis("url = 'redis://h:port'"), 9, "cache.redis.url"),
        (redis("url = { file = 'DIR/none' }"), 9, "cache.redis.url.file"),
        (redis("url = { file = 'DIR/text' }"), 9, "cache.redis.url"),
        (with("admin", "token = { file = 'DIR/none' }"), 9, "admin.token.file"),
        // Addresses for documentation (RFC 5737), which no machine has.
        (listen("listen", "192.0.2.1:0"), 12, "server.listen"),
        (listen("admin_listen", "192.0.2.1:0"), 13, "server.admin_listen"),
    ]
}

#[tokio::test]
async fn preflight_and_start_fail_for_the_same_faults() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path());
    let faults = faults();
    assert!(faults.len() >= 30);
    for (toml, line, key) in faults {
        let loaded = load(directory.path(), &toml);
        let error = match &loaded {
            Err(error) => error.to_string(),
            Ok(config) => {
                let refused = preflight(config, &Clock::system()).expect_err(&toml).to_string();
                assert!(Gateway::start(config, Clock::system()).await.is_err(), "{toml}");
                refused
            }
        };
        assert!(error.contains(&format!("koregate.toml:{line}: {key}: ")), "{toml}\n{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// A gateway goes on without its disk, so only the check before the start refuses a path that can never be one.
#[test]
fn disk_path_that_can_be_no_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path());
    for path in ["DIR/text", "DIR/text/cache", "/proc/none/cache"] {
        let toml = with("cache.disk", &format!("path = '{path}'"));
        let error = preflight(&load(directory.path(), &toml).unwrap(), &Clock::system()).unwrap_err();
        assert!(error.to_string().contains("koregate.toml:9: cache.disk.path: "), "{error}");
    }
}

#[tokio::test]
async fn reload_does_not_check_what_the_process_has_open() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path());
    let volume = directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let toml = |hash: &str| {
        with("quota", "state_file = 'DIR/volume/state'")
            + &format!("[log]\naudit = 'DIR/volume/audit'\n[[callers]]\nname = 'a'\napi_key_sha256 = '{hash}'\n")
    };
    let config = |digit: &str| load(directory.path(), &toml(&digit.repeat(64)));
    let gateway = Gateway::start(&config("0").unwrap(), Clock::system()).await.unwrap();
    fs::remove_dir_all(&volume).unwrap();
    let rotated = config("1").unwrap();
    assert_eq!(preflight(&rotated, &Clock::system()).unwrap_err().to_string().lines().count(), 2);
    assert!(gateway.reload(Ok(rotated)).await);
    assert_eq!(gateway.config().await.callers[0].api_key_sha256, [[0x11; 32]]);
    let changed = load(directory.path(), &toml(&"2".repeat(64)).replace("volume/state", "volume/other"));
    assert!(!gateway.reload(changed).await, "a path that has changed is checked");
}

#[tokio::test(start_paused = true)]
async fn failed_reload_is_tried_again_without_a_change() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path());
    let toml = |hash: &str| {
        tls("cert = 'DIR/one.crt', key = 'DIR/one.key'")
            + &format!("[[callers]]\nname = 'a'\napi_key_sha256 = '{}'\n", hash.repeat(64))
    };
    let config = load(directory.path(), &toml("0")).unwrap();
    let environment = [("SECRET".to_owned(), "hunter2".to_owned())];
    let (mut reloader, _) = Reloader::load(Some(directory.path().join("koregate.toml")), environment);
    let gateway = Gateway::start(&config, Clock::system()).await.unwrap();
    load(directory.path(), &toml("1")).unwrap();
    fs::rename(directory.path().join("one.key"), directory.path().join("key")).unwrap();
    assert!(reloader.reload(&gateway).await.is_none());
    let failed = tokio::time::Instant::now();
    reloader.wait_until_due(WATCH_INTERVAL).await;
    assert!(failed.elapsed() >= Duration::from_secs(30) && failed.elapsed() <= Duration::from_secs(36));
}

#[tokio::test]
async fn preflight_and_start_accept_what_is_sound_and_preflight_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path());
    let toml = tls("cert = 'DIR/one.crt', key = 'DIR/one.key', client_ca = 'DIR/two.crt'")
        + "[upstream]\nca_file = 'DIR/two.crt'\n[quota]\nstate_file = 'DIR/state'\n"
        + "[cache]\nencryption_key = { file = 'DIR/long' }\ndisk = { path = 'DIR/cache/deep' }\n";
    let config = load(directory.path(), &toml).unwrap();
    let entries = || fs::read_dir(directory.path()).unwrap().count();
    let before = entries();
    preflight(&config, &Clock::system()).unwrap();
    assert_eq!(entries(), before);
    let gateway = Gateway::start(&config, Clock::system()).await.unwrap();
    // Beside a gateway that runs with it, and holds its port, its state file and its directory.
    let listening = format!("[server]\nlisten = '{}'", gateway.addr());
    let toml = toml.replace("[server]\nlisten = '127.0.0.1:0'", &listening);
    preflight(&load(directory.path(), &toml).unwrap(), &Clock::system()).unwrap();
    assert!(gateway.drain().await);
}
