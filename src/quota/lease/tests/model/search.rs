//! The enumerator: runs all sequences of faults within a scope, depth first, and leaves a run where it comes to a state
//! that was seen before.

use std::collections::{BTreeMap, HashMap};

use super::fault::{Fault, FaultDurations, FaultKind};
use super::properties::Violation;
use super::world::{ModelSettings, ModelWorld, UpstreamCall};

/// The sequences of faults that are run.
#[derive(Clone, Copy, Debug)]
pub(super) struct SearchScope {
    pub(super) kinds: &'static [FaultKind],
    pub(super) durations: FaultDurations,
    /// The largest number of faults in a run.
    pub(super) faults: usize,
    /// The first fault happens within so many steps, and each other one within so many steps of the one before.
    pub(super) spread: [u32; 2],
    /// Faults happen in one of so many steps.
    pub(super) stride: u32,
    /// After the last fault is over, a run goes on for so many steps.
    pub(super) rest: u32,
}

/// A run that ends in a state where a property does not hold.
#[derive(Clone, Debug)]
pub(super) struct Counterexample {
    pub(super) settings: ModelSettings,
    pub(super) schedule: Vec<(u32, Fault)>,
    pub(super) tick: u32,
    pub(super) violation: Violation,
}

/// The largest overrun that runs with faults of some kinds have reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OverrunRecord {
    pub(super) largest: u32,
    /// What the documents say for the run that reached it.
    pub(super) documented: u32,
}

#[derive(Debug, Default)]
pub(super) struct SearchReport {
    pub(super) states: u64,
    pub(super) runs: u64,
    pub(super) deepest: u32,
    pub(super) overruns: BTreeMap<Vec<FaultKind>, OverrunRecord>,
    pub(super) counterexamples: Vec<Counterexample>,
}

/// A search in progress.
pub(super) struct ModelSearch {
    scope: SearchScope,
    /// The states that were seen, each with how many steps after the last fault.
    seen: HashMap<u64, u32>,
    schedule: Vec<(u32, Fault)>,
    pub(super) report: SearchReport,
    /// After so many counterexamples, the search ends.
    pub(super) enough: usize,
}

impl ModelSearch {
    pub(super) fn new(scope: SearchScope) -> Self {
        Self { scope, seen: HashMap::new(), schedule: Vec::new(), report: SearchReport::default(), enough: 1 }
    }

    /// Runs all sequences of faults from the state that the settings lead to.
    pub(super) fn run(&mut self, settings: ModelSettings) {
        self.seen.clear();
        self.explore(ModelWorld::new(settings));
    }

    fn explore(&mut self, mut world: ModelWorld) {
        let used = self.schedule.len();
        let spread = if used == self.scope.faults { 0 } else { self.scope.spread[used.min(1)] };
        let mut rested = 0;
        for waited in 0u32.. {
            if used < self.scope.faults && waited < spread && waited.is_multiple_of(self.scope.stride) {
                for fault in world.possible_faults(self.scope.kinds, &self.scope.durations) {
                    let mut after = world.clone();
                    after.happen(fault);
                    self.schedule.push((world.tick, fault));
                    self.explore(after);
                    self.schedule.pop();
                    if self.report.counterexamples.len() >= self.enough {
                        return;
                    }
                }
            }
            if waited >= spread && rested >= self.scope.rest {
                self.note(&world, world.violation_at_rest());
                break;
            }
            world.step();
            rested = if world.is_quiet() { rested + 1 } else { 0 };
            self.report.states += 1;
            if self.note(&world, world.violation()) {
                break;
            }
            let key = world.fingerprint();
            let seen = self.seen.entry(key).or_insert(u32::MAX);
            if *seen <= waited {
                break;
            }
            *seen = waited;
        }
        self.report.runs += 1;
        self.report.deepest = self.report.deepest.max(world.tick - world.settings.warm_up);
    }

    /// Notes the overrun of a state, and whether a property does not hold there.
    fn note(&mut self, world: &ModelWorld, violation: Option<Violation>) -> bool {
        if world.overrun() > 0 || violation.is_some() {
            let kinds = world.faults.iter().map(|fault| fault.kind()).collect();
            let record = self.report.overruns.entry(kinds).or_default();
            if world.overrun() > record.largest {
                *record = OverrunRecord { largest: world.overrun(), documented: world.documented_overrun };
            }
        }
        let Some(violation) = violation else { return false };
        let (settings, schedule, tick) = (world.settings, self.schedule.clone(), world.tick);
        self.report.counterexamples.push(Counterexample { settings, schedule, tick, violation });
        true
    }
}

impl Counterexample {
    /// The run, step by step: its faults, the calls that begin, and the states that change.
    pub(super) fn describe(&self) -> String {
        let mut settings = self.settings;
        settings.warm_up = 0;
        let mut world = ModelWorld::new(settings);
        let mut lines = vec![format!("{:?} with {}", self.violation, self.settings.name)];
        let first = self.schedule.first().map_or(self.tick, |(tick, _)| *tick).saturating_sub(26);
        let mut described = String::new();
        loop {
            let tick = world.tick;
            for (_, fault) in self.schedule.iter().filter(|(at, _)| *at == tick) {
                lines.push(format!("{tick:>4}  {fault}"));
                world.happen(*fault);
            }
            let before: Vec<_> = world.upstream.iter().map(|call| (call.id, call.number)).collect();
            if world.tick >= self.tick {
                break;
            }
            world.step();
            if world.tick < first {
                continue;
            }
            let is_new = |call: &&UpstreamCall| !before.contains(&(call.id, call.number));
            for call in world.upstream.iter().filter(is_new) {
                lines.push(format!("{:>4}  call {}:{} begins, until {}", world.tick, call.id, call.number, call.ends));
            }
            let now = format!("{}; {} counted", world.describe(), world.counted());
            if now != described {
                lines.push(format!("{:>4}  {now}", world.tick));
                described = now;
            }
        }
        lines.join("\n")
    }
}
