//! Which way imports may point, read from the sources themselves.
//!
//! The house is a stack, and stays one only if no stage knows of those above it. So this reads every `crate::` path of
//! `src/` and holds it to the table below. What stands under `#[cfg(test)]`, in comments and in strings is exempt.

use std::fs;
use std::path::Path;

/// The stages in the order in which a request meets them: each may name those behind it and none before it.
const STAGES: [&str; 10] =
    ["edge", "api", "cache", "paging", "retry", "quota", "token", "upstream", "request", "window"];

/// What any stage but `window` may name beside the stages behind it.
const BESIDE: [&str; 6] = ["config", "clock", "telemetry", "mapped_bytes", "units", "hex"];

/// The stages that share something with other replicas, and so may name the way to it.
const SHARE: [&str; 2] = ["cache", "quota"];

/// What each module beside the stages may name, beside itself.
const OTHERS: [(&str, &[&str]); 12] = [
    // Counts and logs what it is told; seen by all, sees nobody.
    ("telemetry", &[]),
    ("clock", &["window"]),
    // Made above, sent below, known in between to nobody.
    ("mapped_bytes", &[]),
    // Text of durations, sizes and bytes.
    ("units", &[]),
    ("hex", &[]),
    ("config", &["window", "units", "hex"]),
    // The way to Redis; knows nothing of what goes over it.
    ("redis_client", &["config", "clock", "telemetry", "hex"]),
    // Puts the stages together.
    ("stack", &["stages", "redis_client", "config", "clock", "telemetry"]),
    ("admin", &["stack", "stages", "redis_client", "config", "clock", "telemetry"]),
    ("server", &["admin", "stack", "stages", "config", "clock", "telemetry", "mapped_bytes"]),
    ("cli", &["server", "admin", "stack", "stages", "config", "clock", "telemetry", "units", "hex"]),
    ("lib", &[]),
];

/// Crates whose types stay inside of one file, so that each can be exchanged there.
const CONTAINED: [&str; 3] = ["moka", "redis", "governor"];

/// Who sees the whole configuration; a stage gets its own section.
const SEE_CONFIG: [&str; 5] = ["config/", "cli/", "admin/", "server/mod.rs", "stack.rs"];

/// What a pure module has no use for, as paths in the standard library.
const IMPURE: [&str; 7] = ["net", "fs", "io", "env", "process", "thread", "time::Instant"];

/// What tells the time of day.
const WALL_CLOCKS: [&str; 3] = ["SystemTime", "Timestamp::now", "Zoned::now"];

/// A file of `src/` as the compiler sees it without `cfg(test)`: comments, strings and tests are blank.
struct Source {
    /// Relative to `src/`, with `/` between its parts.
    path: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), code: without_tests(&without_words(text)) }
    }

    /// The module below the root that the file belongs to.
    fn top(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// How many modules above this file's there are, up to the root.
    fn depth(&self) -> usize {
        let folders = self.path.matches('/').count();
        folders + usize::from(!self.path.ends_with("mod.rs"))
    }
}

#[test]
fn no_import_points_back_up_the_stack() {
    let sources = read_sources();
    assert!(sources.len() > 60, "only {} files were found", sources.len());
    let wrong: Vec<String> = sources.iter().flat_map(broken_by).chain(spread(&sources)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// All rules that one file breaks.
fn broken_by(source: &Source) -> Vec<String> {
    let mut wrong = wrong_imports(source);
    let path = source.path.as_str();
    let mut forbid = |what: &str, why: &str| wrong.push(format!("{path}: {what}: {why}"));

    if !SEE_CONFIG.iter().any(|place| path.starts_with(place)) && !words(&source.code, "Config").is_empty() {
        forbid("Config", "a stage gets its own section, not the whole configuration");
    }
    if source.top() != "cli" && !words(&source.code, "koregate_simulator").is_empty() {
        forbid("koregate_simulator", "only the commands `demo` and `simulate` run a simulator");
    }
    for status in statuses(&source.code) {
        let chosen_here = match source.top() {
            // Its own words for operators, and what is read off the wire.
            "admin" | "upstream" => true,
            "api" => status == "NOT_MODIFIED",
            _ => path == "edge/problem.rs",
        };
        if !chosen_here {
            forbid(&format!("StatusCode::{status}"), "statuses of errors are chosen in edge/problem.rs");
        }
    }
    if path != "clock.rs" {
        for clock in WALL_CLOCKS.iter().filter(|clock| !words(&source.code, clock).is_empty()) {
            forbid(clock, "the time of day comes from clock.rs, so that a test can set it");
        }
    }
    if source.top() == "window" {
        for root in ["tokio", "hyper", "futures_util"] {
            if !paths(&source.code, root).is_empty() {
                forbid(root, "window/ is pure");
            }
        }
        for used in paths(&source.code, "std") {
            let used = used.join("::");
            if IMPURE.iter().any(|impure| used == *impure || used.starts_with(&format!("{impure}::"))) {
                forbid(&format!("std::{used}"), "window/ is pure: no I/O, and time is an argument");
            }
        }
        if !words(&source.code, "Instant").is_empty() {
            forbid("Instant", "window/ is pure: time is an argument");
        }
    }
    wrong
}

fn wrong_imports(source: &Source) -> Vec<String> {
    let top = source.top();
    let mut named = paths(&source.code, "crate");
    // From the root, `super` after `super` is `crate` by another name.
    for beyond in paths(&source.code, "super") {
        let ups = 1 + beyond.iter().take_while(|part| *part == "super").count();
        if ups >= source.depth() && source.depth() > 0 {
            named.push(beyond[ups - 1..].to_vec());
        }
    }
    if top == "main" {
        let named = paths(&source.code, "koregate");
        return named
            .iter()
            .filter(|path| path.first().is_none_or(|module| module != "cli"))
            .map(|path| format!("main.rs: koregate::{}: main runs the command line and nothing else", path.join("::")))
            .collect();
    }
    let Some(allowed) = allowed(top) else {
        return vec![format!("{}: {top}: no rule says what it may import; add one", source.path)];
    };
    named
        .iter()
        .filter_map(|path| path.first())
        .filter(|module| *module != top && !allowed.contains(&module.as_str()))
        .map(|module| format!("{}: crate::{module}: {top} may name only {allowed:?}", source.path))
        .collect()
}

/// The modules that `top` may name.
fn allowed(top: &str) -> Option<Vec<&'static str>> {
    if top == "window" {
        return Some(Vec::new());
    }
    if let Some(place) = STAGES.iter().position(|stage| *stage == top) {
        let fleet = SHARE.contains(&top).then_some("redis_client");
        return Some(STAGES[place + 1..].iter().chain(&BESIDE).copied().chain(fleet).collect());
    }
    let (_, named) = OTHERS.iter().find(|(module, _)| *module == top)?;
    Some(named.iter().flat_map(|name| if *name == "stages" { STAGES.to_vec() } else { vec![*name] }).collect())
}

/// The contained crates that are named in more than one file.
fn spread(sources: &[Source]) -> Vec<String> {
    let naming = |name: &str| -> Vec<&str> {
        let uses = |source: &&Source| {
            // A module of the same name is not the crate.
            let own_module = source.code.contains(&format!("mod {name};"));
            !own_module && !paths(&source.code, name).is_empty()
        };
        sources.iter().filter(uses).map(|source| source.path.as_str()).collect()
    };
    let told = |name: &&str| (name.to_string(), naming(name));
    CONTAINED
        .iter()
        .map(told)
        .filter(|(_, files)| files.len() > 1)
        .map(|(name, files)| format!("{name} is named in more than one file: {}", files.join(", ")))
        .collect()
}

/// The names behind `StatusCode::`.
fn statuses(code: &str) -> Vec<&str> {
    words(code, "StatusCode")
        .into_iter()
        .filter_map(|at| code[at..].strip_prefix("StatusCode::"))
        .map(|rest| rest.split(|char: char| !is_word(char)).next().unwrap_or_default())
        .collect()
}

/// Where `name` stands in `code` as a word of its own.
fn words(code: &str, name: &str) -> Vec<usize> {
    let found = code.match_indices(name).map(|(at, _)| at);
    found.filter(|at| !code[..*at].ends_with(is_word) && !code[at + name.len()..].starts_with(is_word)).collect()
}

/// All paths that begin with `root`, without it; a tree in braces is many paths.
fn paths(code: &str, root: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for at in words(code, root) {
        let before = code[..at].trim_end();
        let behind_another = before.strip_suffix("::").is_some_and(|before| before.ends_with(is_word));
        if behind_another || before.ends_with('.') {
            continue;
        }
        let rest = code[at + root.len()..].trim_start();
        if let Some(rest) = rest.strip_prefix("::") {
            tree(rest, &mut Vec::new(), &mut found);
        } else if before.ends_with("use") {
            found.push(Vec::new());
        }
    }
    found
}

/// Reads one use-tree from the start of `code` into paths that begin with `prefix`; gives what stands behind it.
fn tree<'a>(code: &'a str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(behind) = rest.strip_prefix('}') {
                return behind;
            }
            let left = rest.len();
            rest = tree(rest, prefix, found).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if rest.len() == left {
                // Nothing a use-tree is made of: not ours to understand.
                return rest;
            }
        }
    }
    let end = code.find(|char: char| !is_word(char) && char != '*').unwrap_or(code.len());
    let (name, rest) = code.split_at(end);
    if name.is_empty() {
        return code;
    }
    prefix.push(name.to_owned());
    let trimmed = rest.trim_start();
    let behind = if let Some(further) = trimmed.strip_prefix("::") {
        tree(further, prefix, found)
    } else {
        found.push(prefix.clone());
        let alias = trimmed.strip_prefix("as ");
        alias.map_or(rest, |alias| alias.trim_start().trim_start_matches(is_word))
    };
    prefix.pop();
    behind
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The same code with every comment, string and character blanked out, byte for byte.
fn without_words(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !code.ends_with(is_word) || code.ends_with('b') => raw_string(rest).unwrap_or(0),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (blank, behind) = rest.split_at(length);
            code.extend(blank.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
            rest = behind;
        }
    }
    code
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&end)? + end.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, _))) => text[escaped + 1..].find('\'').map_or(0, |end| escaped + 1 + end + 1),
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 0,
    }
}

/// The same code without the items under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    const TEST: &str = "#[cfg(test)]";
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(TEST) {
        let (before, item) = rest.split_at(at);
        kept.push_str(before);
        rest = &item[item_length(item)..];
    }
    kept + rest
}

/// How far an item goes, from its attributes to the brace or the semicolon that ends it.
fn item_length(item: &str) -> usize {
    let mut depth = 0;
    for (at, char) in item.char_indices() {
        match char {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth -= 1;
                if depth == 0 && char == '}' {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// The files that are a test module of their own: those that `#[cfg(test)] mod …;` in `code` names, as paths without
/// an ending.
fn test_modules(path: &str, code: &str) -> Vec<String> {
    let folder =
        path.strip_suffix("mod.rs").map_or_else(|| format!("{}/", path.trim_end_matches(".rs")), str::to_owned);
    let folder = if path == "lib.rs" || path == "main.rs" { String::new() } else { folder };
    let behind = code.match_indices("#[cfg(test)]").map(|(at, attribute)| code[at + attribute.len()..].trim_start());
    behind
        .filter_map(|item| item.strip_prefix("mod ")?.split_once(';'))
        .filter(|(name, _)| name.chars().all(is_word))
        .map(|(name, _)| format!("{folder}{name}"))
        .collect()
}

fn read_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of src") {
            let path = entry.expect("an entry of src").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(&root).expect("below src").to_str().expect("UTF-8").replace('\\', "/");
                texts.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    let tests: Vec<_> = texts.iter().flat_map(|(path, text)| test_modules(path, &without_words(text))).collect();
    let is_test = |path: &str| {
        tests
            .iter()
            .any(|test| path.strip_prefix(test.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
    };
    texts.retain(|(path, _)| !is_test(path));
    texts.iter().map(|(path, text)| Source::new(path, text)).collect()
}

mod the_checker {
    use super::*;

    fn wrong(path: &str, text: &str) -> Vec<String> {
        broken_by(&Source::new(path, text))
    }

    #[test]
    fn finds_each_kind_of_broken_rule() {
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
            ("telemetry/logs.rs", "use crate::window::Moment;", "crate::window"),
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
            ("warm/mod.rs", "use crate::stack::Stack;", "no rule"),
        ] {
            let found = wrong(path, text);
            assert!(found.iter().any(|told| told.contains(names)), "{path}: {text}: {found:?}");
        }
    }

    #[test]
    fn finds_nothing_in_what_is_allowed() {
        for (path, text) in [
            ("quota/scheduler/mod.rs", "use crate::{config::{self, Limit}, token, upstream::*, window::Span};"),
            ("quota/scheduler/mod.rs", "use super::ledger::Ledger;\nuse crate::quota::Pace;"),
            ("quota/scheduler/mod.rs", "use crate::redis_client::RedisClient;"),
            ("api/mod.rs", "*status = StatusCode::NOT_MODIFIED;"),
            ("edge/problem.rs", "StatusCode::NOT_FOUND"),
            ("window/interval.rs", "use std::{fmt, time::Duration};"),
            ("server/tls.rs", "use rustls::ServerConfig;"),
            (
                "quota/scheduler/mod.rs",
                "/* /* crate::edge */ crate::edge */ // crate::edge\nlet s = \"\\\"crate::edge\";",
            ),
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
            assert_eq!(wrong(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn looks_on_behind_what_is_exempt() {
        for text in [
            "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::edge;",
            "#[cfg(test)]\nmod tests;\nuse crate::edge;",
            "let s = \"// \"; use crate::edge;",
            "let c = '\"'; use crate::edge; let d = '\"';",
            "fn f<'a>() { crate::edge } fn g<'a>() {}",
        ] {
            assert_eq!(wrong("quota/scheduler/mod.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn knows_a_test_module_in_a_file_of_its_own() {
        assert_eq!(test_modules("paging/mod.rs", "#[cfg(test)]\nmod tests;"), ["paging/tests"]);
        assert_eq!(test_modules("paging/scan.rs", "mod a;\n#[cfg(test)]\nmod tests;\nmod b;"), ["paging/scan/tests"]);
        assert_eq!(test_modules("paging/scan.rs", "#[cfg(test)]\nmod tests { }\nmod b;"), Vec::<String>::new());
    }

    #[test]
    fn finds_a_crate_that_is_named_in_two_files() {
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
                spread(&[source("cache/mod.rs", text), Source { path: one.path.clone(), code: one.code.clone() }]);
            assert_eq!(found.len(), count, "{text}: {found:?}");
        }
    }

    #[test]
    fn sees_the_crates_that_are_contained_now() {
        let sources = read_sources();
        let contained = [
            ("moka", "cache/store/memory.rs"),
            ("governor", "edge/rate_limit.rs"),
            ("redis", "redis_client/connector.rs"),
        ];
        for (name, file) in contained {
            let named = sources.iter().filter(|source| !paths(&source.code, name).is_empty());
            assert_eq!(named.map(|source| source.path.as_str()).collect::<Vec<_>>(), [file]);
        }
    }
}
