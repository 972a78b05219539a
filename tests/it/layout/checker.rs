//! Tests of the import rules themselves, with made-up sources.

use super::imports::{spread_crates, violations_of};
use super::paths::paths;
use super::sources::{Source, read_sources, test_modules};

fn violations(path: &str, text: &str) -> Vec<String> {
    violations_of(&Source::new(path, text))
}

#[test]
fn broken_rule_of_each_kind_is_found() {
    for (path, text, names) in [
        ("quota/scheduler/mod.rs", "use crate::cache::Memory;", "crate::cache"),
        ("quota/scheduler/mod.rs", "use crate::{config::Limit, edge};", "crate::edge"),
        (
            "quota/scheduler/mod.rs",
            "use crate::{\n    token::{Mint, mint::{self, X}},\n    paging::Run as R,\n};",
            "crate::paging",
        ),
        ("quota/mod.rs", "fn f() -> crate::retry::RetryLayer {}", "crate::retry"),
        ("quota/mod.rs", "use super::api;", "crate::api"),
        ("quota/scheduler/mod.rs", "fn f() { super::super::stack::f() }", "crate::stack"),
        ("upstream/page.rs", "use koregate_simulator::Fault;", "koregate_simulator"),
        ("telemetry/logs.rs", "use crate::window::Timestamp;", "crate::window"),
        ("config/mod.rs", "use crate::token::mint::mint;", "crate::token"),
        ("window/interval.rs", "use crate::clock::Clock;", "crate::clock"),
        ("window/interval.rs", "use std::{fmt, fs::File};", "std::fs::File"),
        ("window/interval.rs", "use std::time::{Duration, Instant};", "Instant"),
        ("window/interval.rs", "use tokio::sync::Notify;", "tokio"),
        ("window/interval.rs", "let now = jiff::Timestamp::now();", "Timestamp::now"),
        ("cache/mod.rs", "let now = std::time::SystemTime::now();", "SystemTime"),
        ("paging/mod.rs", "fn new(config: &config::Config) {}", "Config"),
        ("api/mod.rs", "let status = StatusCode::BAD_REQUEST;", "StatusCode::BAD_REQUEST"),
        ("edge/mod.rs", "let status = http::StatusCode::OK;", "StatusCode::OK"),
        ("main.rs", "use koregate::{cli, server::Gateway};", "koregate::server"),
        ("paging/mod.rs", "use crate::redis_client::RedisClient;", "crate::redis_client"),
        ("redis_client/client.rs", "use crate::cache::Memory;", "crate::cache"),
        ("redis_client/client.rs", "use crate::replicas::Mailbox;", "crate::replicas"),
        ("replicas/codec.rs", "use crate::quota::Role;", "crate::quota"),
        ("paging/mod.rs", "use crate::replicas::Mailbox;", "crate::replicas"),
        ("warm/mod.rs", "use crate::stack::Stack;", "no rule"),
    ] {
        let found = violations(path, text);
        assert!(found.iter().any(|violation| violation.contains(names)), "{path}: {text}: {found:?}");
    }
}

#[test]
fn allowed_code_breaks_no_rule() {
    for (path, text) in [
        ("quota/scheduler/mod.rs", "use crate::{config::{self, Limit}, token, upstream::*, window::Interval};"),
        ("quota/scheduler/mod.rs", "use super::ledger::Ledger;\nuse crate::quota::Pace;"),
        ("quota/scheduler/mod.rs", "use crate::redis_client::RedisClient;"),
        ("cache/mod.rs", "use crate::replicas::Mailbox;"),
        ("api/mod.rs", "*status = StatusCode::NOT_MODIFIED;"),
        ("problem/types.rs", "StatusCode::NOT_FOUND"),
        ("window/interval.rs", "use std::{fmt, time::Duration};"),
        ("server/tls.rs", "use rustls::ServerConfig;"),
        ("quota/scheduler/mod.rs", "/* /* crate::edge */ crate::edge */ // crate::edge\nlet s = \"\\\"crate::edge\";"),
        ("quota/scheduler/mod.rs", "let s = (r#\"\" crate::edge\"#, br\"crate::edge\", '\"', b'\\'', 'a');"),
        (
            "quota/scheduler/mod.rs",
            "fn f<'a>(x: &'a str) {}\n#[cfg(test)]\nmod tests { use crate::edge::{A, B}; fn f() { '}' } }",
        ),
        (
            "quota/scheduler/mod.rs",
            "#[cfg(test)]\nuse crate::edge;\n#[cfg(test)]\n#[allow(dead_code)]\nfn f(a: [u8; 2]) { crate::api }",
        ),
    ] {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn code_behind_exempt_code_is_checked() {
    for text in [
        "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::edge;",
        "#[cfg(test)]\nmod tests;\nuse crate::edge;",
        "let s = \"// \"; use crate::edge;",
        "let c = '\"'; use crate::edge; let d = '\"';",
        "fn f<'a>() { crate::edge } fn g<'a>() {}",
    ] {
        assert_eq!(violations("quota/scheduler/mod.rs", text).len(), 1, "{text}");
    }
}

#[test]
fn test_module_file_is_recognised() {
    assert_eq!(test_modules("paging/mod.rs", "#[cfg(test)]\nmod tests;"), ["paging/tests"]);
    assert_eq!(test_modules("paging/scan.rs", "mod a;\n#[cfg(test)]\nmod tests;\nmod b;"), ["paging/scan/tests"]);
    assert_eq!(test_modules("paging/scan.rs", "#[cfg(test)]\nmod tests { }\nmod b;"), Vec::<String>::new());
    let fuzzing = "#[cfg(any(test, feature =          ))]\n#[doc(hidden)]\npub(crate) mod fuzz;\nmod b;";
    assert_eq!(test_modules("paging/mod.rs", fuzzing), ["paging/fuzz"]);
}

#[test]
fn contained_crate_in_two_files_is_found() {
    let source = |path: &str, text: &str| Source::new(path, text);
    let one = source("cache/memory.rs", "use moka::sync::Cache;");
    for (text, count) in [
        ("fn f(cache: &moka::sync::Cache<u8, u8>) {}", 1),
        ("use ::moka::sync::Cache;", 1),
        ("use moka as m;", 1),
        ("mod moka;\nuse self::moka::X;\nfn f() { moka::f() }", 0),
        ("use super::moka::X; let a = self.moka; // moka::X", 0),
    ] {
        let found =
            spread_crates(&[source("cache/mod.rs", text), Source { path: one.path.clone(), code: one.code.clone() }]);
        assert_eq!(found.len(), count, "{text}: {found:?}");
    }
}

#[test]
fn contained_crates_are_named_in_one_file() {
    let sources = read_sources();
    let contained =
        [("moka", "cache/store/memory.rs"), ("governor", "edge/rate_limit.rs"), ("redis", "redis_client/connector.rs")];
    for (name, file) in contained {
        let named = sources.iter().filter(|source| !paths(&source.code, name).is_empty());
        assert_eq!(named.map(|source| source.path.as_str()).collect::<Vec<_>>(), [file]);
    }
}
