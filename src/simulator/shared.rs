//! What the connections, the control and the simulator's handle hold in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::data::Stream;
use super::faults::FaultPlan;
use super::ledger::Ledger;
use super::profile::Profile;
use crate::clock::Clock;

/// The state of a running simulator.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) streams: Vec<Stream>,
    /// Exchanged whole, so that each call sees one profile from its start to its end.
    profile: RwLock<Arc<Profile>>,
    ledger: Mutex<Ledger>,
    turns: AtomicU64,
}

impl Shared {
    pub(super) fn new(profile: Profile, streams: Vec<Stream>, clock: Clock) -> Self {
        Self {
            clock,
            streams,
            profile: RwLock::new(Arc::new(profile)),
            ledger: Mutex::default(),
            turns: AtomicU64::new(0),
        }
    }

    pub(super) fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.profile.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Profile)) {
        let mut profile = self.profile.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut profile));
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stream(&self, id: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    /// A number that no other call gets: what unstable orders are drawn from.
    pub(super) fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

impl Ledger {
    /// The plan, if the next good call is one that it turns bad.
    pub(super) fn next_fault(&mut self) -> Option<FaultPlan> {
        let plan = self.plan.as_mut()?;
        plan.take().is_some().then_some(*plan)
    }
}

/// Counts a call as under way until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Shared>);

impl UnderWay {
    /// The ledger has counted the call already, when it arrived.
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ledger().leave();
    }
}
