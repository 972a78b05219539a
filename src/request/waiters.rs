//! Who wants a run, and how urgently: what its calls are ordered by, and whom they are charged to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::queue_timeout::QueueTimeout;

/// How urgent a fetch is. What comes first here goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// Somebody waits for the answer.
    Interactive,
    /// Something is kept fresh; nobody minds if it comes a little later.
    Refresh,
    /// A backfill, an export or a verification: it may take what is left, and leaves the reserve alone.
    Background,
}

impl Priority {
    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Refresh => "refresh",
            Self::Background => "background",
        }
    }
}

/// Who asks, and how urgently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The caller's name; the same for all where none are configured.
    pub caller: Arc<str>,
    /// Its share of the quota when callers compete for it; at least 1.
    pub weight: u32,
    /// How urgent this request of its is.
    pub class: Priority,
}

#[cfg(test)]
impl Requester {
    /// A caller that nobody competes with, and who waits.
    pub(crate) fn anyone() -> Self {
        Self { caller: "c".into(), weight: 1, class: Priority::Interactive }
    }
}

/// The demand for one run: the set of those who wait for it, and what has been done for them. It has three faces, one
/// for each who uses it:
///
/// - *Those who wait* join it, and learn what it cost ([`RunWaiters::join`], [`RunWaiters::charge`]).
/// - *The fetch* tells of its pages, and asks whether it is still wanted ([`RunWaiters::on_page`], [`RunWaiters::is_abandoned`]).
/// - *The scheduler* orders its calls by the most urgent who waits, and begins and ends them ([`RunWaiters::first`],
///   [`RunWaiters::begin`], [`RunWaiters::calling`]).
///
/// A run is charged to the asker who caused it, whoever else comes to wait for it. Its urgency is that of the most
/// urgent who waits; when nobody does any more, it is its cause's again.
#[derive(Debug)]
pub struct RunWaiters {
    cause: Requester,
    /// Held for bookkeeping only, never across an await.
    state: Mutex<State>,
    /// Told of each change. A run is one task, so there is one listener at the most.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    waiting: Vec<Waiter>,
    next_ticket: u64,
    /// Calls that were made, retries included.
    calls: u32,
    /// How many of them some answer has told of.
    told: u32,
    /// How long the last call waited for its turn.
    last_wait: Duration,
    /// Calls under way.
    under_way: u32,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    asker: Requester,
    /// How long it waits for the quota; `None` if it waits for as long as it takes.
    patience: Option<Arc<QueueTimeout>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// No call was made: it can still be taken back.
    NotBegun,
    /// A call was made: it goes on, whoever waits.
    Begun,
    /// Nobody wanted it any more before it had begun.
    Abandoned,
}

impl RunWaiters {
    /// A run that nobody waits for yet, and that has not begun.
    pub fn new(cause: Requester) -> Arc<Self> {
        let (waiting, next_ticket, calls, told, last_wait, under_way) = Default::default();
        let state = State { progress: Progress::NotBegun, waiting, next_ticket, calls, told, last_wait, under_way };
        Arc::new(Self { cause, state: Mutex::new(state), changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is charged for its calls.
    pub fn cause(&self) -> &Requester {
        &self.cause
    }
}

/// The face of those who wait.
impl RunWaiters {
    /// One more waits, until what is returned is dropped. Its patience stands still while a call is under way, and begins
    /// anew with each page. `None` if the run has just been abandoned.
    pub fn join(self: &Arc<Self>, asker: Requester, patience: Option<&Arc<QueueTimeout>>) -> Option<WaiterGuard> {
        let mut state = self.lock();
        if state.progress == Progress::Abandoned {
            return None;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        if let Some(patience) = patience.filter(|_| state.under_way > 0) {
            patience.pause();
        }
        state.waiting.push(Waiter { ticket, asker, patience: patience.cloned() });
        drop(state);
        self.changed.notify_one();
        Some(WaiterGuard { demand: self.clone(), ticket })
    }

    /// The calls that no answer has told of yet; from now on they are told of.
    pub fn charge(&self) -> u32 {
        let mut state = self.lock();
        let untold = state.calls.saturating_sub(state.told);
        state.told = state.calls;
        untold
    }
}

/// The face of the fetch.
impl RunWaiters {
    /// A page has come: those who wait see that the quota serves them.
    pub fn on_page(&self) {
        self.lock().patiences().for_each(|patience| patience.begin_anew());
    }

    /// Another replica has made so many calls for it.
    pub fn add(&self, calls: u32) {
        let mut state = self.lock();
        state.calls = state.calls.saturating_add(calls);
    }

    /// Whether a call was made.
    pub fn has_begun(&self) -> bool {
        self.lock().progress == Progress::Begun
    }

    /// Whether nobody wanted it any more before it had begun.
    pub fn is_abandoned(&self) -> bool {
        self.lock().progress == Progress::Abandoned
    }

    /// How long its last call waited for its turn.
    pub fn last_wait(&self) -> Duration {
        self.lock().last_wait
    }
}

/// The face of the scheduler.
impl RunWaiters {
    /// A call is under way until what is returned is dropped: those who wait do not wait for the quota.
    pub fn calling(self: &Arc<Self>) -> CallGuard {
        let mut state = self.lock();
        state.under_way += 1;
        if state.under_way == 1 {
            state.patiences().for_each(|patience| patience.pause());
        }
        drop(state);
        CallGuard(self.clone())
    }

    /// A call is about to be made, after it has waited this long for its turn. `false` if nobody wants it any more: then
    /// it must not be made.
    pub fn begin(&self, waited: Duration) -> bool {
        let mut state = self.lock();
        if state.progress == Progress::Abandoned {
            return false;
        }
        state.progress = Progress::Begun;
        state.calls += 1;
        state.last_wait = waited;
        true
    }

    /// The call that has just begun never left.
    pub fn take_back(&self) {
        let mut state = self.lock();
        state.calls = state.calls.saturating_sub(1);
    }

    /// Ends when somebody came or left since the last look.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Of the most urgent who wait, the one to whom `rank` gives the least, with what it gives; if nobody waits, the cause.
    pub fn first<T: Ord>(&self, rank: impl Fn(&Requester) -> T) -> (T, Requester) {
        let state = self.lock();
        let waiting = state.waiting.iter().map(|waiter| &waiter.asker);
        let first = waiting.min_by_key(|asker| (asker.class, rank(asker))).unwrap_or(&self.cause);
        (rank(first), first.clone())
    }

    /// The class of the most urgent who waits.
    pub fn class(&self) -> Priority {
        self.first(|_| ()).1.class
    }
}

impl State {
    fn patiences(&self) -> impl Iterator<Item = &Arc<QueueTimeout>> {
        self.waiting.iter().filter_map(|waiter| waiter.patience.as_ref())
    }
}

/// Somebody waits for a run; dropped, it does not any more.
#[derive(Debug)]
pub struct WaiterGuard {
    demand: Arc<RunWaiters>,
    ticket: u64,
}

impl Drop for WaiterGuard {
    fn drop(&mut self) {
        let mut state = self.demand.lock();
        if let Some(place) = state.waiting.iter().position(|waiter| waiter.ticket == self.ticket) {
            let waiter = state.waiting.remove(place);
            if let Some(patience) = waiter.patience.filter(|_| state.under_way > 0) {
                patience.go_on();
            }
        }
        if state.waiting.is_empty() && state.progress == Progress::NotBegun {
            state.progress = Progress::Abandoned;
        }
        drop(state);
        self.demand.changed.notify_one();
    }
}

/// A call of a run is under way.
#[derive(Debug)]
pub struct CallGuard(Arc<RunWaiters>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            state.patiences().for_each(|patience| patience.go_on());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(caller: &str, class: Priority) -> Requester {
        Requester { caller: caller.into(), weight: 1, class }
    }

    #[test]
    fn a_run_is_as_urgent_as_the_most_urgent_who_waits() {
        let demand = RunWaiters::new(asker("a", Priority::Background));
        let a = demand.join(asker("a", Priority::Background), None);
        assert_eq!(demand.class(), Priority::Background);
        let b = demand.join(asker("b", Priority::Interactive), None);
        let c = demand.join(asker("c", Priority::Interactive), None);
        assert_eq!(demand.first(|asker| asker.caller.clone()).1, asker("b", Priority::Interactive));
        drop((b, c));
        assert_eq!(demand.class(), Priority::Background);
        assert_eq!(&*demand.cause().caller, "a");
        drop(a);
    }

    #[test]
    fn what_nobody_wants_any_more_is_not_begun() {
        let demand = RunWaiters::new(asker("a", Priority::Interactive));
        let (one, two) = (
            demand.join(asker("a", Priority::Interactive), None),
            demand.join(asker("b", Priority::Interactive), None),
        );
        drop(one);
        assert!(!demand.is_abandoned());
        drop(two);
        assert!(demand.is_abandoned() && !demand.begin(Duration::ZERO));
        assert!(demand.join(asker("c", Priority::Interactive), None).is_none());
    }

    #[test]
    fn what_has_begun_goes_on() {
        let demand = RunWaiters::new(asker("a", Priority::Interactive));
        let waiting = demand.join(asker("a", Priority::Interactive), None);
        assert!(demand.begin(Duration::ZERO));
        drop(waiting);
        assert!(!demand.is_abandoned() && demand.begin(Duration::ZERO));
        assert!(demand.join(asker("b", Priority::Interactive), None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_stands_still_during_a_call_and_begins_anew_with_a_page() {
        let patience = || Arc::new(QueueTimeout::new(Duration::from_secs(30)));
        let waited = |patience: &QueueTimeout| patience.waited().time.as_secs();
        let demand = RunWaiters::new(asker("a", Priority::Interactive));
        let (first, leaves, late) = (patience(), patience(), patience());
        let join = |patience| demand.join(asker("a", Priority::Interactive), Some(patience)).unwrap();
        let (_first, leaving) = (join(&first), join(&leaves));
        let seconds = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        seconds(4).await;
        let calls = [demand.calling(), demand.calling()];
        seconds(2).await;
        let _late = join(&late);
        drop(leaving);
        seconds(2).await;
        drop(calls);
        assert_eq!([&first, &leaves, &late].map(|one| waited(one)), [4, 6, 6]);
        demand.on_page();
        seconds(1).await;
        assert_eq!([&first, &leaves, &late].map(|one| waited(one)), [1, 7, 1], "one who has left waits for itself");
    }
}
