//! Tests of the schema, with a validator.

use std::collections::BTreeSet;

use super::*;
use crate::config::keys::ALL_KEYS;
use crate::config::tests::{MINIMAL, UNUSUAL, documented_in_full};

/// The schema of the key at `path`.
fn of<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(schema, |schema, key| match key.strip_suffix("[0]") {
        Some(list) => &schema["properties"][list]["items"],
        None => &schema["properties"][key],
    })
}

/// Whether the schema accepts the TOML text; the validator's errors if not.
fn validate(toml: &str) -> Result<(), String> {
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("schema.json", Config::schema()).unwrap();
    let schema = compiler.compile("schema.json", &mut schemas).unwrap();
    schemas.validate(&parse_toml(toml), schema).map_err(|error| error.to_string())
}

#[test]
fn documented_file_fits_the_schema() {
    validate(DOCUMENTED).unwrap();
    validate(&documented_in_full()).unwrap();
    validate(&format!("{MINIMAL}{UNUSUAL}")).unwrap();
}

#[test]
fn schema_refuses_what_the_loader_refuses() {
    validate(SMALLEST).unwrap();
    let account = "accounts = [{ account_id = 'a', client_id = 'c', client_secret = { env = 'S' } }]\n";
    for wrong in [
        "[server]\nlistn = '127.0.0.1:1'",
        "[server]\nlisten = 8080",
        "[server]\nmax_requests = 0",
        "[server.tls]\ncert = 'a'",
        "[window]\nchunk = '1 hour'",
        "[window]\nupper_bound = 'open'",
        "[window]\nfreshness = [{ max_age = '1s' }]",
        "[quota]\ninteractive_reserve = 0.95",
        "[cache]\nmemory = '1 MB'",
        "[cache]\nencryption_key = 'literal'",
        "[cache]\nencryption_key = { env = 'A', file = 'b' }",
        "[cache.redis]\nprefix = 'kg'",
        "[[callers]]\nname = 'c'\napi_key_sha256 = '00'",
        "[[callers]]\nname = 'c'\napi_key_sha256 = []",
        "[unknown]",
    ] {
        assert!(validate(&format!("{account}{wrong}")).is_err(), "{wrong}");
    }
    assert!(validate("").is_err(), "no account");
}

#[test]
fn schema_has_exactly_the_known_keys() {
    fn collect<'a>(schema: &'a Value, keys: &mut BTreeSet<&'a str>) {
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            keys.insert(key);
            collect(schema, keys);
        }
        for schema in schema["anyOf"].as_array().into_iter().flatten().chain(schema.get("items")) {
            collect(schema, keys);
        }
    }
    let schema = Config::schema();
    let mut keys = BTreeSet::new();
    collect(&schema, &mut keys);
    assert_eq!(keys, BTreeSet::from(ALL_KEYS));
}

#[test]
fn schema_states_defaults_and_requirements() {
    let schema = Config::schema();
    for (path, default) in [
        ("server.listen", json!("127.0.0.1:8080")),
        ("server.max_head_size", json!("32KiB")),
        ("quota.interactive_reserve", json!(0.2)),
        ("window.upper_bound", json!("inclusive")),
        ("accounts[0].token.jti", json!("off")),
        ("accounts[0].streams", json!(["*"])),
        ("accounts[0].quota.limits", json!([{ "requests": 60, "per": "1m" }, { "requests": 1800, "per": "1h" }])),
        ("cache.redis.ttl", json!("400d")),
        ("cache.disk.size", json!("10GiB")),
        ("callers[0].weight", json!(1)),
    ] {
        assert_eq!(of(&schema, path)["default"], default, "{path}");
    }
    for path in ["accounts", "callers", "cache.disk", "accounts[0].account_id", "accounts[0].window.field"] {
        assert!(of(&schema, path).get("default").is_none(), "{path}");
    }
    assert_eq!(schema["required"], json!(["accounts"]));
    assert_eq!(of(&schema, "accounts[0]")["required"], json!(["account_id", "client_id", "client_secret"]));
    assert_eq!(of(&schema, "accounts[0].stream_settings[0]")["required"], json!(["stream"]));
    assert_eq!(of(&schema, "cache.redis")["required"], json!(["url"]));
}

#[test]
fn schema_describes_keys_by_the_comments_of_the_documented_file() {
    let schema = Config::schema();
    for (path, part) in [
        ("server.listen", "Loopback is right for a sidecar"),
        ("server.max_connections_per_peer", "The most connections of callers"),
        ("upstream.ca_file", "private authorities"),
        ("accounts[0].retention", "neither served, kept nor fetched"),
        ("window", "all accounts and streams that do not set it"),
        ("callers", "one table for each service"),
        ("cache.redis", "volatile-lru"),
    ] {
        let description = of(&schema, path)["description"].as_str().unwrap_or_default();
        assert!(description.contains(part), "{path}: {description}");
    }
}

/// The keys in the first columns of the tables of keys of a page's section.
fn documented_keys<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let section =
        page.split("\n## ").find_map(|section| section.strip_prefix(&format!("{heading}\n"))).unwrap_or_default();
    let tables = section.split("\n\n").filter_map(|table| table.trim_start().strip_prefix("| key | "));
    let rows = tables.flat_map(str::lines).filter_map(|row| row.strip_prefix("| `")?.split(" | ").next());
    rows.flat_map(|cell| cell.split(", ")).map(|key| key.trim_matches('`')).collect()
}

#[test]
fn configuration_page_has_exactly_the_keys_of_the_schema() {
    let schema = Config::schema();
    let page = include_str!("../../../docs/configuration.md");
    let traces = include_str!("../../../docs/tracing-and-audit.md");
    for (table, described) in schema["properties"].as_object().unwrap() {
        let documented = match table.as_str() {
            "traces" => documented_keys(traces, "Traces"),
            _ => documented_keys(page, table),
        };
        let table_schema = described.get("items").unwrap_or(described);
        for key in &documented {
            assert!(of(table_schema, key).is_object(), "{table}.{key} is documented, but no key");
        }
        for key in keys_in(table_schema) {
            let has_row = documented.iter().any(|row| key == *row || key.starts_with(&format!("{row}.")));
            assert!(has_row, "{table}.{key} is not documented");
        }
    }
}

/// All keys below `schema` that hold a value or a list, dotted.
fn keys_in(schema: &Value) -> Vec<String> {
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    let nested = properties.iter().flat_map(|(key, schema)| match &keys_in(schema)[..] {
        [] => vec![key.clone()],
        inner => inner.iter().map(|inner| format!("{key}.{inner}")).collect(),
    });
    nested.collect()
}
