//! The state that connections, [`Control`](crate::Control) and [`Simulator`](crate::Simulator) share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jiff::Timestamp;

use crate::call_history::CallHistory;
use crate::data::SimulatedStream;
use crate::faults::FaultPlan;
use crate::limits::ArrivalLog;
use crate::profile::Profile;
use crate::time::UnixTime;

/// The wall clock of a simulator, as a function that returns the current time.
pub(crate) struct WallClock(Box<dyn Fn() -> Timestamp + Send + Sync>);

impl WallClock {
    pub(crate) fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Box::new(now))
    }

    pub(crate) fn now(&self) -> UnixTime {
        (self.0)().into()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").field(&self.now()).finish()
    }
}

/// The state of a running simulator.
#[derive(Debug)]
pub(crate) struct SimulatorState {
    pub(crate) clock: WallClock,
    pub(crate) streams: Vec<SimulatedStream>,
    /// Replaced as a whole, so that a call sees the same profile from start to end.
    profile: RwLock<Arc<Profile>>,
    calls: Mutex<CallState>,
    shuffles: AtomicU64,
}

/// The state that changes with every call, behind one lock so that arrivals have a total order.
#[derive(Debug, Default)]
pub(crate) struct CallState {
    pub(crate) history: CallHistory,
    /// The arrivals that count against the rate limits, by account.
    pub(crate) arrivals: HashMap<String, ArrivalLog>,
    /// Each `jti` received, with the expiry of its token.
    pub(crate) used_jtis: HashMap<String, UnixTime>,
    pub(crate) fault_plan: Option<FaultPlan>,
}

impl SimulatorState {
    pub(crate) fn new(profile: Profile, streams: Vec<SimulatedStream>, clock: WallClock) -> Self {
        Self {
            clock,
            streams,
            profile: RwLock::new(Arc::new(profile)),
            calls: Mutex::default(),
            shuffles: AtomicU64::new(0),
        }
    }

    pub(crate) fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.profile.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change_profile(&self, change: impl FnOnce(&mut Profile)) {
        let mut profile = self.profile.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut profile));
    }

    pub(crate) fn calls(&self) -> MutexGuard<'_, CallState> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stream(&self, id: &str) -> Option<&SimulatedStream> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    /// A number that is unique to one call: the seed of its unstable sort order.
    pub(crate) fn next_shuffle_seed(&self) -> u64 {
        self.shuffles.fetch_add(1, Ordering::Relaxed)
    }
}

impl CallState {
    /// Counts one successful call against the fault plan. Returns the plan if this call is to fail.
    pub(crate) fn next_fault(&mut self) -> Option<FaultPlan> {
        let plan = self.fault_plan.as_mut()?;
        plan.next_fault().is_some().then_some(*plan)
    }
}

/// Keeps a call counted as in flight until it is dropped. [`CallHistory::record_arrival`] has counted it before.
#[derive(Debug)]
pub(crate) struct InFlightGuard(Arc<SimulatorState>);

impl InFlightGuard {
    pub(crate) const fn new(state: Arc<SimulatorState>) -> Self {
        Self(state)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.calls().history.record_departure();
    }
}
