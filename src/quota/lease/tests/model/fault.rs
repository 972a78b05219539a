//! The faults of the model: what can go wrong in a step, and how far the documents let it exceed a limit.

use std::fmt;

use super::replica::ExchangeFate;
use super::world::{ModelWorld, PLACES};

/// A fault. Places count from zero; times are in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    /// Redis forgets everything, and no replica reaches it.
    Flush(u32),
    /// No replica reaches Redis.
    Down(u32),
    /// One replica does not reach Redis.
    Cut(usize, u32),
    Kill(usize),
    /// A replica is killed, and another one starts in its place.
    Restart(usize),
    /// A replica starts in a place where one has ended.
    Start(usize),
    /// A replica returns its lease and ends.
    Leave(usize),
    /// A replica stands still.
    Suspend(usize, u32),
    /// What happens to the next exchange of a replica.
    Exchange(usize, ExchangeFate),
    /// A replica receives no announcements.
    Deafen(usize, u32),
    /// The next call of a replica takes as long as the longest.
    LongCall(usize),
    /// The demand for calls ends, or begins again.
    ToggleDemand,
}

/// The kind of a fault, by which the report is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum FaultKind {
    Flush,
    Down,
    Cut,
    Kill,
    Restart,
    Start,
    Leave,
    Suspend,
    LateReply,
    LateRequest,
    LostReply,
    StrayRequest,
    Deafen,
    LongCall,
    ToggleDemand,
}

/// How long the faults last that last for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultDurations {
    pub(super) flushed: &'static [u32],
    pub(super) down: &'static [u32],
    pub(super) cut: &'static [u32],
    pub(super) suspended: &'static [u32],
    pub(super) late: &'static [u32],
    pub(super) stray: &'static [u32],
    pub(super) deaf: &'static [u32],
}

impl Fault {
    pub(super) fn kind(self) -> FaultKind {
        match self {
            Self::Flush(_) => FaultKind::Flush,
            Self::Down(_) => FaultKind::Down,
            Self::Cut(..) => FaultKind::Cut,
            Self::Kill(_) => FaultKind::Kill,
            Self::Restart(_) => FaultKind::Restart,
            Self::Start(_) => FaultKind::Start,
            Self::Leave(_) => FaultKind::Leave,
            Self::Suspend(..) => FaultKind::Suspend,
            Self::Exchange(_, ExchangeFate::LateReply(_)) => FaultKind::LateReply,
            Self::Exchange(_, ExchangeFate::LateRequest(_)) => FaultKind::LateRequest,
            Self::Exchange(_, ExchangeFate::StrayRequest(_)) => FaultKind::StrayRequest,
            Self::Exchange(_, ExchangeFate::LostReply | ExchangeFate::Prompt) => FaultKind::LostReply,
            Self::Deafen(..) => FaultKind::Deafen,
            Self::LongCall(_) => FaultKind::LongCall,
            Self::ToggleDemand => FaultKind::ToggleDemand,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flush(ticks) => write!(out, "Redis forgets everything, and is away for {ticks} steps"),
            Self::Down(ticks) => write!(out, "Redis is away for {ticks} steps"),
            Self::Cut(place, ticks) => write!(out, "replica {place} does not reach Redis for {ticks} steps"),
            Self::Kill(place) => write!(out, "replica {place} is killed"),
            Self::Restart(place) => write!(out, "replica {place} is killed and started again"),
            Self::Start(place) => write!(out, "replica {place} starts"),
            Self::Leave(place) => write!(out, "replica {place} leaves"),
            Self::Suspend(place, ticks) => write!(out, "replica {place} is suspended for {ticks} steps"),
            Self::Exchange(place, fate) => write!(out, "the next exchange of replica {place}: {fate:?}"),
            Self::Deafen(place, ticks) => write!(out, "replica {place} misses announcements for {ticks} steps"),
            Self::LongCall(place) => write!(out, "the next call of replica {place} is a long one"),
            Self::ToggleDemand => write!(out, "the demand ends or begins"),
        }
    }
}

impl ModelWorld {
    /// The faults of these kinds that can happen now.
    pub(super) fn possible_faults(&self, kinds: &[FaultKind], durations: &FaultDurations) -> Vec<Fault> {
        let mut faults = vec![Fault::ToggleDemand];
        let is_up = !self.is_down();
        if is_up {
            faults.extend(durations.flushed.iter().map(|ticks| Fault::Flush(*ticks)));
            faults.extend(durations.down.iter().map(|ticks| Fault::Down(*ticks)));
        }
        for place in 0..PLACES {
            self.add_faults_of(place, durations, &mut faults);
        }
        faults.retain(|fault| kinds.contains(&fault.kind()));
        faults
    }

    fn add_faults_of(&self, place: usize, durations: &FaultDurations, faults: &mut Vec<Fault>) {
        let Some(replica) = &self.replicas[place] else { return faults.push(Fault::Start(place)) };
        let (link, is_up) = (&replica.link, !self.is_down());
        if self.tick < replica.suspended_until {
            return faults.push(Fault::Kill(place));
        }
        faults.push(Fault::Restart(place));
        faults.extend(durations.suspended.iter().map(|ticks| Fault::Suspend(place, *ticks)));
        if self.alive().count() > 1 {
            faults.push(Fault::Kill(place));
            if is_up && self.tick >= link.cut_until && replica.pending.is_none() {
                faults.push(Fault::Leave(place));
            }
        }
        if !replica.is_next_call_long {
            faults.push(Fault::LongCall(place));
        }
        if self.tick >= link.deaf_until {
            faults.extend(durations.deaf.iter().map(|ticks| Fault::Deafen(place, *ticks)));
        }
        if is_up && self.tick >= link.cut_until {
            faults.extend(durations.cut.iter().map(|ticks| Fault::Cut(place, *ticks)));
            if link.fate == ExchangeFate::Prompt && replica.pending.is_none() {
                let late = durations.late.iter();
                let late = late.flat_map(|ticks| [ExchangeFate::LateReply(*ticks), ExchangeFate::LateRequest(*ticks)]);
                let stray = durations.stray.iter().map(|ticks| ExchangeFate::StrayRequest(*ticks));
                let fates = late.chain(stray).chain([ExchangeFate::LostReply]);
                faults.extend(fates.map(|fate| Fault::Exchange(place, fate)));
            }
        }
    }

    /// Lets a fault happen, and adds what the documents let it exceed a limit.
    pub(super) fn happen(&mut self, fault: Fault) {
        self.documented_overrun += self.documented_overrun_of(fault);
        self.faults.push(fault);
        self.faults.sort_by_key(|fault| fault.kind());
        let tick = self.tick;
        match fault {
            Fault::Flush(ticks) => {
                self.redis.flush();
                self.down_until = tick + ticks + 1;
            }
            Fault::Down(ticks) => self.down_until = tick + ticks + 1,
            Fault::ToggleDemand => self.has_demand = !self.has_demand,
            Fault::Kill(place) => self.kill(place),
            Fault::Restart(place) => {
                self.kill(place);
                self.start(place);
            }
            Fault::Start(place) => self.start(place),
            Fault::Leave(place) => {
                let now = self.local_time(place);
                if let Some(mut replica) = self.replicas[place].take() {
                    replica.leave(self, now);
                    self.replicas[place] = Some(replica);
                }
                self.kill(place);
            }
            Fault::Cut(place, _)
            | Fault::Suspend(place, _)
            | Fault::Exchange(place, _)
            | Fault::Deafen(place, _)
            | Fault::LongCall(place) => {
                let Some(replica) = &mut self.replicas[place] else { return };
                match fault {
                    Fault::Cut(_, ticks) => replica.link.cut_until = tick + ticks + 1,
                    Fault::Suspend(_, ticks) => replica.suspended_until = tick + ticks + 1,
                    Fault::Exchange(_, fate) => replica.link.fate = fate,
                    Fault::Deafen(_, ticks) => replica.link.deaf_until = tick + ticks + 1,
                    _ => replica.is_next_call_long = true,
                }
            }
        }
    }

    /// The calls above a limit that a fault may cause, as `docs/limits.md` says.
    fn documented_overrun_of(&self, fault: Fault) -> u32 {
        // A replica that has not reached Redis yet is as one that starts later.
        let new = self.alive().filter(|replica| !replica.quota.contact.has_answered()).count();
        let is_outage = self.is_down() || self.alive().any(|replica| replica.quota.state.outage().is_some());
        let has_seen = |kinds: &[FaultKind]| {
            kinds.contains(&fault.kind()) || self.faults.iter().any(|fault| kinds.contains(&fault.kind()))
        };
        // Of a ledger that is lost, the others record their own calls only: those that the leader made are lost with it
        // for a next leader that has not heard of them.
        let all = self.settings.limit.requests.saturating_sub(self.documented_overrun);
        let is_leader_gone = has_seen(&[FaultKind::Kill, FaultKind::Restart, FaultKind::Suspend]);
        if has_seen(&[FaultKind::Flush]) && has_seen(&[FaultKind::Deafen]) && is_leader_gone {
            return all;
        }
        match fault {
            Fault::Down(_) | Fault::Flush(1..) => self.share(PLACES) * u32::try_from(new).unwrap(),
            // It uses its share while the others use the full quota.
            Fault::Cut(..) => self.share(self.alive().count()),
            // It may become that leader.
            Fault::Start(_) | Fault::Restart(_) if has_seen(&[FaultKind::Flush]) => all,
            // Its share is beside those of the others. If it becomes the leader, it assumes no calls of those that died.
            Fault::Start(_) | Fault::Restart(_) if is_outage || self.is_cut() => 2 * self.share(PLACES),
            _ => 0,
        }
    }

    fn is_cut(&self) -> bool {
        self.alive().any(|replica| self.tick < replica.link.cut_until)
    }
}
