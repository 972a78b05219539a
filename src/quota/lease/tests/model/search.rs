//! The enumerator: runs all sequences of faults within a scope, depth first, and leaves a run where it comes to a state
//! that was seen before.

use std::collections::HashMap;

use super::fault::{Fault, FaultDurations, FaultKind};
use super::properties::Violation;
use super::report::{Counterexample, OverrunRecord, SearchReport};
use super::world::{ModelSettings, ModelWorld};

/// A search ends after so many counterexamples, each with faults of other kinds.
const MAX_COUNTEREXAMPLES: usize = 12;

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

/// A search in progress.
pub(super) struct ModelSearch {
    scope: SearchScope,
    /// The states that were seen, each with how many steps after the last fault.
    seen: HashMap<u64, u32>,
    schedule: Vec<(u32, Fault)>,
    pub(super) report: SearchReport,
}

impl ModelSearch {
    pub(super) fn new(scope: SearchScope) -> Self {
        Self { scope, seen: HashMap::new(), schedule: Vec::new(), report: SearchReport::default() }
    }

    /// Runs all sequences of faults from the state that the settings lead to.
    pub(super) fn run(&mut self, settings: ModelSettings) {
        self.seen.clear();
        self.explore(ModelWorld::new(settings));
        self.report.distinct += self.seen.len();
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
                    if self.report.counterexamples.len() >= MAX_COUNTEREXAMPLES {
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
        let found = Counterexample { settings, schedule, tick, violation };
        // One of a kind is enough.
        if self.report.counterexamples.iter().all(|known| known.kinds() != found.kinds()) {
            self.report.counterexamples.push(found);
        }
        true
    }
}
