//! The rules of imports: no stage of the stack may name a stage above it. All `crate::` paths of `src/` are compared
//! with the tables below; code under `#[cfg(test)]`, comments and strings are exempt.

use super::paths::{is_word, paths, words};
use super::sources::{Source, read_sources};

/// The stages in the order in which a request passes them; a stage may name only those behind it.
const STAGES: [&str; 11] =
    ["edge", "api", "jobs", "cache", "paging", "retry", "quota", "token", "upstream", "request", "window"];

/// Modules that each stage except `window` may name.
const SHARED_MODULES: [&str; 13] = [
    "config",
    "live",
    "clock",
    "network",
    "blocking",
    "sync",
    "telemetry",
    "traces",
    "audit",
    "mapped_bytes",
    "units",
    "hex",
    "writable",
];
/// Stages that share state with other replicas, and may name Redis and the messages.
const REPLICATED: [&str; 3] = ["jobs", "cache", "quota"];

/// Modules that each module beside the stages may name; `stages` stands for all stages.
const OTHERS: [(&str, &[&str]); 23] = [
    // Named by all, names none.
    ("telemetry", &[]),
    ("clock", &["window"]),
    // What a simulation replaces.
    ("network", &[]),
    ("environment", &["clock", "network", "replicas"]),
    // Values that a reload replaces.
    ("live", &[]),
    // Locks, flags and tasks that a test can schedule.
    ("sync", &[]),
    // Work that would hold up other tasks.
    ("blocking", &["sync"]),
    // Bytes that are sent without a copy.
    ("mapped_bytes", &["sync"]),
    // Records in files; knows nothing of what they mean.
    ("segment_log", &["writable"]),
    // Whether a file could be made in a directory.
    ("writable", &[]),
    // Text of durations, sizes and bytes.
    ("units", &[]),
    ("hex", &[]),
    // Problem documents, for those that answer requests.
    ("problem", &[]),
    ("config", &["live", "window", "units", "hex"]),
    // Spans, and lines about who read what; know nothing of the stages that write them.
    ("traces", &["config", "clock", "network", "telemetry", "window"]),
    ("audit", &["config", "telemetry", "window"]),
    // Knows nothing of the data that it transfers.
    ("redis_client", &["config", "clock", "network", "telemetry", "traces", "hex"]),
    // The messages between replicas, with the values that travel with a request; knows no stage.
    ("replicas", &["redis_client", "request", "window", "config", "clock", "telemetry", "hex"]),
    // Builds the stages.
    (
        "stack",
        &[
            "stages",
            "environment",
            "replicas",
            "redis_client",
            "config",
            "clock",
            "telemetry",
            "traces",
            "audit",
            "writable",
        ],
    ),
    (
        "admin",
        &[
            "stack",
            "stages",
            "problem",
            "live",
            "replicas",
            "redis_client",
            "config",
            "clock",
            "telemetry",
            "blocking",
            "units",
            "hex",
        ],
    ),
    (
        "server",
        &["admin", "stack", "stages", "environment", "problem", "live", "config", "clock", "telemetry", "mapped_bytes"],
    ),
    (
        "cli",
        &[
            "server",
            "admin",
            "stack",
            "stages",
            "environment",
            "redis_client",
            "config",
            "clock",
            "telemetry",
            "traces",
            "units",
            "hex",
        ],
    ),
    ("lib", &[]),
];

/// Crates that only one file may name, so that they can be replaced there.
const CONTAINED: [&str; 3] = ["moka", "redis", "governor"];
/// Files that may name the whole configuration.
const CONFIG_READERS: [&str; 8] =
    ["config/", "cli/", "admin/", "server/mod.rs", "server/preflight.rs", "server/reload/", "stack.rs", "stack/"];
/// Paths of the standard library that a pure module may not name.
const IMPURE: [&str; 7] = ["net", "fs", "io", "env", "process", "thread", "time::Instant"];
/// Sources of the time of day.
const WALL_CLOCKS: [&str; 3] = ["SystemTime", "Timestamp::now", "Zoned::now"];

#[test]
fn imports_follow_the_stack() {
    let sources = read_sources();
    assert!(sources.len() > 60, "only {} files were found", sources.len());
    let violations: Vec<String> = sources.iter().flat_map(violations_of).chain(spread_crates(&sources)).collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// All violations of one file.
pub(super) fn violations_of(source: &Source) -> Vec<String> {
    let mut found = import_violations(source);
    let path = source.path.as_str();
    let mut forbid = |what: &str, why: &str| found.push(format!("{path}: {what}: {why}"));

    if !CONFIG_READERS.iter().any(|place| path.starts_with(place)) && !words(&source.code, "Config").is_empty() {
        forbid("Config", "a stage gets its own section, not the whole configuration");
    }
    if source.top() != "cli" && !words(&source.code, "koregate_simulator").is_empty() {
        forbid("koregate_simulator", "only the commands `demo` and `simulate` run a simulator");
    }
    for status in statuses(&source.code) {
        let chosen_here = match source.top() {
            // The admin plane has statuses of its own; `upstream` reads statuses of responses.
            "admin" | "upstream" => true,
            "api" => matches!(status, "NOT_MODIFIED" | "ACCEPTED"),
            _ => path == "problem/types.rs",
        };
        if !chosen_here {
            forbid(
                &format!("StatusCode::{status}"),
                "statuses of errors are chosen by their type, in problem/types.rs",
            );
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
    found
}

/// Paths of one file that its module may not name.
fn import_violations(source: &Source) -> Vec<String> {
    let top = source.top();
    let mut named = paths(&source.code, "crate");
    // Enough `super` segments lead to the root, as `crate` does.
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
        let shared: &[&str] = match top {
            // Writes the responses of errors.
            "edge" => &["problem"],
            // Keeps chunks on disk.
            "cache" => &["replicas", "redis_client", "environment", "segment_log"],
            _ if REPLICATED.contains(&top) => &["replicas", "redis_client", "environment"],
            _ => &[],
        };
        return Some(STAGES[place + 1..].iter().chain(&SHARED_MODULES).chain(shared).copied().collect());
    }
    let (_, named) = OTHERS.iter().find(|(module, _)| *module == top)?;
    Some(named.iter().flat_map(|name| if *name == "stages" { STAGES.to_vec() } else { vec![*name] }).collect())
}

/// Contained crates that are named in more than one file.
pub(super) fn spread_crates(sources: &[Source]) -> Vec<String> {
    let naming = |name: &str| -> Vec<&str> {
        let uses = |source: &&Source| {
            // A module of the same name shadows the crate.
            let own_module = source.code.contains(&format!("mod {name};"));
            !own_module && !paths(&source.code, name).is_empty()
        };
        sources.iter().filter(uses).map(|source| source.path.as_str()).collect()
    };
    CONTAINED
        .iter()
        .map(|name| (name, naming(name)))
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
