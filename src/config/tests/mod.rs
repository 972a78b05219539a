//! What a configuration may be, and what each fault says.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::keys::KEYS;
use super::*;

const DOCUMENTED: &str = include_str!("../../config/koregate.toml");

/// The least that loads: four lines, so that what a test adds begins on line 5.
const MINIMAL: &str =
    "[[accounts]]\naccount_id = \"acc-1\"\nclient_id = \"cs-1\"\nclient_secret = { env = \"SECRET\" }\n";

fn env(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let secret = ("SECRET", "s3cr3t");
    variables.iter().chain([&secret]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
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

fn load_env(variables: &[(&str, &str)]) -> Result<Config, String> {
    Config::load(None, env(variables)).map_err(|error| error.to_string())
}

const KORE: [(&str, &str); 4] = [
    ("KORE_HOST", "platform.kore.ai"),
    ("KORE_ACCOUNT_ID", "acc-1"),
    ("KORE_CLIENT_ID", "cs-1"),
    ("KORE_CLIENT_SECRET", "s3cr3t"),
];

/// The documented file with what is commented out put in force, and secrets from the environment.
fn documented_in_full() -> String {
    let uncommented = DOCUMENTED.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    with_secret(&uncommented.collect::<Vec<_>>().join("\n"))
}

fn with_secret(toml: &str) -> String {
    ["/run/secrets/kore/client-secret", "/run/secrets/koregate/encryption-key"]
        .iter()
        .fold(toml.to_owned(), |toml, path| toml.replace(&format!("file = \"{path}\""), "env = \"SECRET\""))
}

#[test]
fn the_documented_file_holds_the_defaults() {
    let minimal =
        MINIMAL.replace("acc-1", "664b33a620bd0892e0000001").replace("cs-1", "cs-00000000-0000-0000-0000-000000000000");
    let documented = load(&with_secret(DOCUMENTED)).unwrap();
    assert_eq!(documented.render(), load(&minimal).unwrap().render());

    // What has no default is given, all else is left out.
    let required = minimal.clone()
        + &format!("[[callers]]\nname = \"bi-etl\"\napi_key_sha256 = \"{}\"\n", "0".repeat(64))
        + "[server.tls]\ncert = \"/run/tls/tls.crt\"\nkey = \"/run/tls/tls.key\"\nclient_ca = \"/run/tls/ca.crt\"\n"
        + "[upstream]\nca_file = \"/etc/ssl/private-ca.pem\"\n"
        + "[cache.redis]\nurl = \"redis://127.0.0.1:6379\"\nencryption_key = { env = \"SECRET\" }\n";
    let in_full = load(&documented_in_full()).unwrap();
    assert_eq!(in_full.render(), load(&required).unwrap().render());
    assert_ne!(in_full.render(), documented.render());
}

#[test]
fn the_documented_file_holds_every_key() {
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
    assert_eq!(documented, KEYS.iter().map(ToString::to_string).collect());
}

#[test]
fn the_contract_s_defaults() {
    let config = load(MINIMAL).unwrap();
    let account = &config.accounts[0];
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.upstream.base_url.to_string(), "https://platform.kore.ai/");
    assert_eq!((&*account.account_id, &*account.client_id), ("acc-1", "cs-1"));
    assert_eq!(account.client_secret.expose_secret(), "s3cr3t");
    assert_eq!(account.streams, Names::All);
    assert_eq!((account.token.scheme, account.token.jti), (Scheme::Bare, Jti::Off));
    assert_eq!((account.limits[0].requests, account.limits[0].per), (60, Duration::from_mins(1)));
    assert_eq!((account.limits[1].requests, account.limits[1].per), (1800, Duration::from_hours(1)));
    assert_eq!(config.window.upper_bound, UpperBound::Inclusive);
    assert_eq!(config.window.freshness.len(), 3);
    assert_eq!(config.cache.memory, 256 << 20);
    assert!(config.cache.redis.is_none() && config.callers.is_empty());
}
