//! What a search has found, for a reader: counts, the largest overrun for each set of faults, and counterexamples as
//! sequences of steps.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::{Fault, FaultKind};
use super::properties::Violation;
use super::world::{ModelSettings, ModelWorld, TICK, UpstreamCall};

/// The steps before the first fault that the description of a counterexample begins with.
const STEPS_BEFORE: u32 = 8;

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
    pub(super) distinct: usize,
    pub(super) runs: u64,
    /// The steps of the longest run.
    pub(super) deepest: u32,
    pub(super) overruns: BTreeMap<Vec<FaultKind>, OverrunRecord>,
    pub(super) counterexamples: Vec<Counterexample>,
}

impl SearchReport {
    pub(super) fn add(&mut self, other: Self) {
        self.states += other.states;
        self.distinct += other.distinct;
        self.runs += other.runs;
        self.deepest = self.deepest.max(other.deepest);
        for (kinds, record) in other.overruns {
            let known = self.overruns.entry(kinds).or_default();
            *known = if record.largest > known.largest { record } else { *known };
        }
        self.counterexamples.extend(other.counterexamples);
    }

    #[track_caller]
    pub(super) fn assert_no_counterexample(&self) {
        let described: Vec<_> = self.counterexamples.iter().map(Counterexample::describe).collect();
        assert!(described.is_empty(), "{} runs break a property:\n{}", described.len(), described.join("\n\n"));
    }
}

impl fmt::Display for SearchReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, distinct, runs, deepest, .. } = self;
        let seconds = (TICK * *deepest).as_secs();
        writeln!(
            out,
            "{states} states ({distinct} distinct), {runs} runs, the longest of {deepest} steps ({seconds} s)"
        )?;
        writeln!(out, "calls above the limit, by faults of the run (none for all others):")?;
        for (kinds, OverrunRecord { largest, documented }) in &self.overruns {
            writeln!(out, "  {largest}, documented {documented}: {kinds:?}")?;
        }
        Ok(())
    }
}

impl Counterexample {
    /// The kinds of the faults.
    pub(super) fn kinds(&self) -> Vec<FaultKind> {
        let mut kinds: Vec<_> = self.schedule.iter().map(|(_, fault)| fault.kind()).collect();
        kinds.sort_unstable();
        kinds
    }

    /// The run, step by step: its faults, the calls that begin, and what changes.
    fn describe(&self) -> String {
        let mut world = ModelWorld::new(self.settings);
        let first = self.schedule.first().map_or(self.tick, |(tick, _)| *tick).saturating_sub(STEPS_BEFORE);
        let mut lines = vec![format!("{:?} in the setting {:?}", self.violation, self.settings.name)];
        let mut described = String::new();
        loop {
            let tick = world.tick;
            for (_, fault) in self.schedule.iter().filter(|(at, _)| *at == tick) {
                lines.push(format!("{tick:>4}  {fault}"));
                world.happen(*fault);
            }
            if tick >= self.tick {
                return lines.join("\n");
            }
            let before: Vec<_> = world.upstream.iter().map(|call| (call.id, call.number)).collect();
            world.step();
            let is_new = |call: &&UpstreamCall| !before.contains(&(call.id, call.number));
            for call in world.upstream.iter().filter(is_new).filter(|_| tick >= first) {
                let UpstreamCall { id, number, ends, .. } = call;
                lines
                    .push(format!("{:>4}  call {number} of the {id}th replica begins, and ends at {ends}", world.tick));
            }
            let now = format!("{}; {} counted", world.describe(), world.counted());
            if tick >= first && now != described {
                lines.push(format!("{:>4}  {now}", world.tick));
                described = now;
            }
        }
    }
}
