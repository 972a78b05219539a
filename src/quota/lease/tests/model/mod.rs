//! Model check.

mod fault;
mod fingerprint;
mod properties;
mod replica;
mod search;
mod world;

use std::time::Duration;

pub(in crate::quota::lease) use self::fingerprint::Fingerprint;

use self::fault::{FaultDurations, FaultKind};
use self::search::{ModelSearch, SearchScope};
use self::world::ModelSettings;
use crate::config::QuotaLimit;

const ALL: &[FaultKind] = &[
    FaultKind::Flush, FaultKind::Down, FaultKind::Cut, FaultKind::Kill, FaultKind::Restart, FaultKind::Start,
    FaultKind::Leave, FaultKind::Suspend, FaultKind::LateReply, FaultKind::LateRequest, FaultKind::LostReply,
    FaultKind::StrayRequest, FaultKind::Deafen, FaultKind::LongCall, FaultKind::ToggleDemand,
];

#[test]
fn try_it() {
    let settings = ModelSettings {
        name: "busy",
        limit: QuotaLimit { requests: 4, per: Duration::from_secs(3) },
        call_ticks: 1, longest_call_ticks: 8, slow_place: Some(0), is_reversed: false, warm_up: 80,
    };
    let durations = FaultDurations { down: &[1, 11, 24], cut: &[11, 24], suspended: &[4, 12, 20], late: &[1, 2], stray: &[4], deaf: &[12] };
    let faults = std::env::var("F").map_or(1, |f| f.parse().unwrap());
    let scope = SearchScope { kinds: ALL, durations, faults, spread: [30, 30], stride: 1, rest: 60 };
    let started = std::time::Instant::now();
    let mut search = ModelSearch::new(scope);
    search.enough = std::env::var("E").map_or(3, |f| f.parse().unwrap());
    search.run(settings);
    for c in &search.report.counterexamples { println!("{}\n", c.describe()); }
    for (k, o) in &search.report.overruns { println!("{k:?} {o:?}"); }
    println!("{} states, {} runs, {} deep, {:?}", search.report.states, search.report.runs, search.report.deepest, started.elapsed());
    assert!(search.report.counterexamples.is_empty());
}
