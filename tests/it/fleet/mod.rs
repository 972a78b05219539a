//! A simulated fleet: gateways (all stages, from the edge down), the upstream and Redis, in one thread, on simulated
//! time, network and randomness. A seed decides everything: what is asked for, what goes wrong, and when.
//!
//! | file | contents |
//! | --- | --- |
//! | `host` | machines: a tokio runtime each, with a paused clock |
//! | `network` | connections between them, latency, cut links |
//! | `redis_model` | a model of Redis that runs `sync.lua` |
//! | `faults` | what goes wrong, drawn from the seed |
//! | `world` | the fleet and its time |
//! | `client`, `purges` | requests and purges, and what is recorded of them |
//! | `oracle` | what the upstream's rows were at each moment |
//! | `run` | one seed, from its beginning to its checks |
//! | `trace` | what happened, for a comparison of two runs |
//!
//! The crate turmoil was considered: it can neither suspend a machine while time goes on, nor set its time of day, and
//! its connections are replaced here by 200 lines, since a gateway takes any stream of bytes
//! ([`koregate::network`]).

mod client;
mod faults;
mod host;
mod network;
mod oracle;
mod purges;
mod redis_model;
mod run;
mod trace;
mod world;

use std::path::Path;
use std::time::Duration;

use koregate_simulator::{Latency, Profile, StreamProfile};

use crate::support::{Settings, Timestamp};

const REDIS_PORT: u16 = 6379;
const GATEWAYS: usize = 3;
/// The true time of day at which a run begins, since the Unix epoch: 2026-02-25T12:00:00Z.
const START: Duration = Duration::from_secs(1_772_020_800);
/// Machines take turns of this length.
const TICK: Duration = Duration::from_millis(5);
/// When faults have ended, since the run began.
const FAULTS_END: Duration = Duration::from_secs(30);
const STREAMS: [&str; 2] = ["st-fleet-1", "st-fleet-2"];
const UPSTREAM_LATENCY: Duration = Duration::from_millis(30);
/// Calls and the length of each limit.
const LIMITS: [(u32, Duration); 2] = [(16, Duration::from_secs(2)), (50, Duration::from_secs(10))];
const SETTLE_AFTER: Duration = Duration::from_hours(6);
const MAX_AGE: Duration = Duration::from_secs(5);

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp::from_nanos(i64::try_from(since_epoch.as_nanos()).unwrap())
}

/// Two streams with four rows an hour for three days, of which a page has at most eight.
fn upstream_profile() -> Profile {
    let streams = STREAMS.map(|id| StreamProfile { exact: true, ..StreamProfile::new(id, 96) });
    let mut profile = Profile { streams: streams.into(), days: 3, ..Profile::default() };
    profile.end = Some(timestamp(START).into());
    profile.latency = Latency { fixed: UPSTREAM_LATENCY, jitter: Duration::from_millis(5) };
    profile.api.page_limit = 8;
    profile
}

fn settings(state_file: &Path) -> Settings {
    let limits = LIMITS.map(|(requests, per)| format!("{{ requests = {requests}, per = '{}s' }}", per.as_secs()));
    Settings::default()
        .limits(&format!("[{}]", limits.join(", ")))
        .section("upstream", "timeout = '5s'")
        .section("window", "settle_after = '6h'\nfreshness = [{ younger_than = '6h', max_age = '5s' }]")
        .section("quota", &format!("queue_timeout = '5s'\nstate_file = '{}'", state_file.display()))
        .section("cache", "memory = '64MiB'")
        .redis_with(&format!("redis://127.0.0.1:{REDIS_PORT}"), "replicas = 3")
}

/// Runs the seed in a thread of its own, whose random numbers nothing else has drawn from.
fn run_seed(seed: u64) -> run::Report {
    std::thread::spawn(move || run::run(seed)).join().unwrap_or_else(|_| panic!("seed {seed} has panicked"))
}

#[test]
fn same_seed_has_the_same_trace() {
    for seed in [1, 2] {
        let (one, other) = (run_seed(seed), run_seed(seed));
        if one.hash != other.hash {
            let difference = one.trace.lines().zip(other.trace.lines()).find(|(one, other)| one != other);
            panic!("seed {seed}: {difference:#?}");
        }
    }
}

#[test]
fn fleet_keeps_its_promises() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (first, seeds) = (number("FLEET_FIRST", 0), number("FLEET_SEEDS", 10));
    for seed in first..first + seeds {
        let started = std::time::Instant::now();
        let report = run_seed(seed);
        println!("seed {seed} {:?} {:?} {:?} {:?}", report.class, report.overruns, report.reached, started.elapsed());
        for violation in &report.violations {
            println!("    {violation}");
        }
        if std::env::var("FLEET_TRACE").is_ok() {
            println!("{}", report.trace);
        }
    }
}
