//! Tests of the two classes of keys, and of what a reload keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::config::table_reader::LoadContext;
use crate::config::value_tree::ConfigNode;

const BASE: &str = r#"
[server]
hosts = ["a.example"]
[[accounts]]
account_id = "a"
client_id = "c"
client_secret = { env = "SECRET" }
stream_settings = [{ stream = "s", window = { field = "end", settle_after = "2h" } }]
[[callers]]
name = "bi"
api_key_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"#;

fn load_with(text: &str, secret: &str) -> Config {
    let environment = BTreeMap::from([("SECRET".to_owned(), secret.to_owned())]);
    let tree = ConfigNode::from_file(&Arc::from("koregate.toml"), text).unwrap();
    Config::from_tree(Some(tree), &LoadContext::new(environment)).unwrap()
}

fn load(text: &str) -> Config {
    load_with(text, "0123456789012345678901234567890123456789")
}

/// The dotted names of all keys below a schema, without indexes.
fn keys(schema: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    let items = schema.get("items").filter(|items| items.get("properties").is_some());
    let Some(properties) = items.unwrap_or(schema).get("properties").and_then(serde_json::Value::as_object) else {
        found.push(path.to_owned());
        return;
    };
    for (key, schema) in properties {
        keys(schema, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, found);
    }
}

/// The length of the longest entry of `list` that is `key` or a table around it.
fn match_length(list: &[&str], key: &str) -> usize {
    let is_within =
        |entry: &&&str| key.strip_prefix(**entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    list.iter().filter(is_within).map(|entry| entry.len()).max().unwrap_or_default()
}

#[test]
fn each_key_is_in_one_of_the_two_classes() {
    let mut all = Vec::new();
    keys(&Config::schema(), "", &mut all);
    assert!(all.len() > 70, "{all:?}");
    for key in &all {
        assert_ne!(match_length(&RELOADABLE, key), match_length(&NEEDS_RESTART, key), "{key}");
    }
    for entry in RELOADABLE.iter().chain(&NEEDS_RESTART) {
        assert!(all.iter().any(|key| match_length(&[*entry], key) > 0), "{entry} is no key");
    }
}

#[test]
fn operators_read_the_same_lists() {
    let page = include_str!("../../../docs/operating.md");
    for entry in RELOADABLE.iter().chain(&NEEDS_RESTART) {
        let last = entry.rsplit('.').next().unwrap_or(entry);
        assert!(page.contains(&format!("`{entry}`")) || page.contains(&format!("`{last}`")), "{entry}");
    }
}

/// The keys that need a restart when `line` is written into its table.
fn kept(table: &str, line: &str) -> (Config, Vec<&'static str>) {
    let text = if BASE.contains(table) {
        BASE.replacen(table, &format!("{table}\n{line}"), 1)
    } else {
        format!("{BASE}\n{table}\n{line}")
    };
    let ReloadPlan { config, needs_restart } = load(BASE).plan_reload(load(&text)).unwrap();
    (config, needs_restart)
}

#[test]
fn key_that_needs_a_restart_is_kept_and_named() {
    let before = load(BASE).render();
    for (table, line, key) in [
        ("[server]", "listen = \"127.0.0.1:1\"", "server.listen"),
        ("[server]", "max_head_size = \"8KiB\"", "server.max_head_size"),
        ("[server]", "tls = { cert = \"c\", key = \"k\" }", "server.tls"),
        ("[admin]", "metric_streams = 5", "admin.metric_streams"),
        ("[upstream]", "base_url = \"https://other.example\"", "upstream.base_url"),
        ("[window]", "field = \"end\"", "window.field"),
        ("[window]", "chunk = \"30m\"", "window.chunk"),
        ("[quota]", "state_file = \"/tmp/quota\"", "quota.state_file"),
        ("[jobs]", "per_caller = 1", "jobs"),
        ("[cache]", "memory = \"1GiB\"", "cache.memory"),
        ("[cache]", "disk = { path = \"/tmp\" }", "cache.disk"),
        ("[cache]", "redis = { url = \"redis://127.0.0.1\" }", "cache.redis"),
        ("[cache]", "encryption_key = { env = \"SECRET\" }", "cache.encryption_key"),
        ("[[accounts]]", "window = { field = \"end\" }", "accounts.window"),
    ] {
        let (config, named) = kept(table, line);
        assert_eq!(named, [key], "{line}");
        assert_eq!(config.render(), before, "{line}");
    }
}

#[test]
fn reloadable_key_is_taken() {
    for (table, line) in [
        ("[server]", "#"),
        ("[server]", "drain_timeout = \"1s\""),
        ("[log]", "level = \"debug\""),
        ("[admin]", "token = { env = \"SECRET\" }"),
        ("[upstream]", "ca_file = \"/ca.pem\""),
        ("[window]", "settle_after = \"1h\"\nfreshness = []\nmax_span = \"1d\""),
        ("[quota]", "interactive_reserve = 0.1\nmax_wait = \"1m\""),
        ("[[accounts]]", "quota = { limits = [{ requests = 1, per = \"1m\" }] }\nretention = \"30d\""),
        ("[[callers]]", "weight = 3\nrequests_per_minute = 5"),
        ("[[accounts]]", "account_id = \"b\"\nclient_id = \"c\"\nclient_secret = { env = \"SECRET\" }\n[[accounts]]"),
    ] {
        let (config, named) = kept(table, line);
        assert_eq!(named, [""; 0], "{line}");
        assert_eq!(config.render() == load(BASE).render(), line == "#", "{line}");
    }
}

#[test]
fn field_of_a_stream_without_settings_is_kept() {
    let without =
        BASE.replace("stream_settings = [{ stream = \"s\", window = { field = \"end\", settle_after = \"2h\" } }]", "");
    let ReloadPlan { config, needs_restart } = load(BASE).plan_reload(load(&without)).unwrap();
    assert_eq!(needs_restart, ["accounts.stream_settings"]);
    let [StreamConfig { window, .. }] = config.accounts[0].stream_settings.as_slice() else { panic!() };
    assert_eq!((window.field.as_deref(), window.settle_after), (Some("end"), None));
}

#[test]
fn listener_that_stays_open_needs_callers() {
    let open = BASE.replace("[server]", "[server]\nlisten = \"0.0.0.0:8080\"");
    let callers = BASE.find("[[callers]]").unwrap();
    let error = load(&open).plan_reload(load(&BASE[..callers])).unwrap_err().to_string();
    assert!(error.starts_with("koregate.toml: callers: there are none"), "{error}");
}

#[test]
fn fingerprint_tells_configurations_apart_and_secrets_not() {
    let fingerprint = |text: &str, secret: &str| load_with(text, secret).fingerprint();
    assert_eq!(fingerprint(BASE, "one"), fingerprint(BASE, "two"));
    assert_ne!(fingerprint(BASE, "one"), fingerprint(&BASE.replace("a.example", "b.example"), "one"));
    assert_eq!(fingerprint(BASE, "one").len(), 12);
}

#[test]
fn faulty_configuration_tells_the_files_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let account = "[[accounts]]\naccount_id = \"a\"\nclient_id = \"c\"\n";
    let text =
        format!("[upstream]\nca_file = \"/ca.pem\"\n{account}client_secret = {{ file = {:?} }}\n", path("secret"));
    std::fs::write(path("koregate.toml"), text).unwrap();
    let load = || Config::load_with_files(Some(&path("koregate.toml")), []);
    let faulty = load();
    assert!(faulty.config.is_err());
    assert_eq!(faulty.files.0, [path("koregate.toml"), path("secret")]);
    std::fs::write(path("secret"), "s").unwrap();
    let loaded = load();
    assert!(loaded.config.is_ok());
    assert_eq!(loaded.files.0, ["/ca.pem".into(), path("koregate.toml"), path("secret")]);
}
