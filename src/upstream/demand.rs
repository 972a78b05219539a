//! Who wants a run, and how urgently: what its calls are ordered by, and whom they are charged to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::patience::Patience;
use crate::window::Span;

/// How urgent a fetch is. What comes first here goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Somebody waits for the answer.
    Interactive,
    /// Something is kept fresh; nobody minds if it comes a little later.
    Refresh,
    /// A backfill, an export or a verification: it may take what is left, and leaves the reserve alone.
    Background,
}

impl Class {
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
pub struct Asker {
    /// The caller's name; the same for all where none are configured.
    pub caller: Arc<str>,
    /// Its share of the quota when callers compete for it; at least 1.
    pub weight: u32,
    /// How urgent this request of its is.
    pub class: Class,
}

#[cfg(test)]
impl Asker {
    /// A caller that nobody competes with, and who waits.
    pub(crate) fn anyone() -> Self {
        Self { caller: "c".into(), weight: 1, class: Class::Interactive }
    }
}

/// The demand for one run, shared by those who wait for it and the stages that serve it.
///
/// A run is charged to the asker who caused it, whoever else comes to wait for it. Its urgency is that of the most
/// urgent who waits; when nobody does any more, it is its cause's again.
#[derive(Debug)]
pub struct Demand {
    cause: Asker,
    /// Held for bookkeeping only, never across an await.
    state: Mutex<State>,
    /// Told of each change. A run is one task, so there is one listener at the most.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    waiting: Vec<(u64, Asker, Span)>,
    next_ticket: u64,
    /// Calls that were made, retries included.
    calls: u32,
    /// How many of them some answer has told of.
    told: u32,
    /// How long the last call waited for its turn.
    last_wait: Duration,
    /// Calls under way.
    under_way: u32,
    /// The patience of those who wait for it, or for what waits for it.
    clocks: Vec<Clock>,
}

#[derive(Debug)]
struct Clock {
    ticket: u64,
    /// What of the run is wanted; `None` if nothing is, and it is only waited for.
    need: Option<Span>,
    patience: Arc<Patience>,
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

impl Demand {
    /// A run that nobody waits for yet, and that has not begun.
    pub fn new(cause: Asker) -> Arc<Self> {
        Self::with(cause, Progress::NotBegun)
    }

    /// The rest of a run that has begun: it goes on, whoever waits.
    pub fn going_on(cause: Asker) -> Arc<Self> {
        Self::with(cause, Progress::Begun)
    }

    fn with(cause: Asker, progress: Progress) -> Arc<Self> {
        let (waiting, next_ticket, calls, told, last_wait, under_way, clocks) = Default::default();
        let state = State { progress, waiting, next_ticket, calls, told, last_wait, under_way, clocks };
        let state = Mutex::new(state);
        Arc::new(Self { cause, state, changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is charged for its calls.
    pub fn cause(&self) -> &Asker {
        &self.cause
    }

    /// One more waits, for `need` of it, until what is returned is dropped. `None` if it has been abandoned just now.
    pub fn join(self: &Arc<Self>, asker: Asker, need: Span) -> Option<Waiting> {
        let mut state = self.lock();
        if state.progress == Progress::Abandoned {
            return None;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push((ticket, asker, need));
        drop(state);
        self.changed.notify_one();
        Some(Waiting { demand: self.clone(), ticket, clock: None })
    }

    /// The same for one whose patience depends on what comes of it.
    pub fn join_with(self: &Arc<Self>, patience: &Arc<Patience>, asker: Asker, need: Span) -> Option<Waiting> {
        let mut waiting = self.join(asker, need)?;
        waiting.clock = Some(self.clock(patience, Some(need)));
        Some(waiting)
    }

    /// Somebody waits for what waits for this run: until what is returned is dropped, a call for it is one for that one.
    pub fn look_on(self: &Arc<Self>, patience: &Arc<Patience>) -> LookingOn {
        self.clock(patience, None)
    }

    fn clock(self: &Arc<Self>, patience: &Arc<Patience>, need: Option<Span>) -> LookingOn {
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.clocks.push(Clock { ticket, need, patience: patience.clone() });
        if state.under_way > 0 {
            patience.pause();
        }
        drop(state);
        LookingOn { demand: self.clone(), ticket }
    }

    /// A call is under way until what is returned is dropped: those who wait do not wait for the quota.
    pub fn calling(self: &Arc<Self>) -> Calling {
        let mut state = self.lock();
        state.under_way += 1;
        if state.under_way == 1 {
            state.clocks.iter().for_each(|clock| clock.patience.pause());
        }
        drop(state);
        Calling(self.clone())
    }

    /// A page has come that tells of this part: those who want something of it see that the quota serves them.
    pub fn came(&self, part: Span) {
        let state = self.lock();
        let theirs = state.clocks.iter().filter(|clock| clock.need.is_some_and(|need| need.overlaps(part)));
        theirs.for_each(|clock| clock.patience.begin_anew());
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

    /// Another replica has made so many calls for it.
    pub fn add(&self, calls: u32) {
        let mut state = self.lock();
        state.calls = state.calls.saturating_add(calls);
    }

    /// The calls that no answer has told of yet; from now on they are told of.
    pub fn charge(&self) -> u32 {
        let mut state = self.lock();
        let untold = state.calls.saturating_sub(state.told);
        state.told = state.calls;
        untold
    }

    /// Whether a call was made, or it is the rest of a run that made one.
    pub fn has_begun(&self) -> bool {
        self.lock().progress == Progress::Begun
    }

    /// Whether nobody wanted it any more before it had begun.
    pub fn is_abandoned(&self) -> bool {
        self.lock().progress == Progress::Abandoned
    }

    /// Ends when somebody came or left since the last look.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Of the most urgent who wait, the one to whom `rank` gives the least, with what it gives; if nobody waits, the cause.
    pub fn first<T: Ord>(&self, rank: impl Fn(&Asker) -> T) -> (T, Asker) {
        let state = self.lock();
        let waiting = state.waiting.iter().map(|(_, asker, _)| asker);
        let first = waiting.min_by_key(|asker| (asker.class, rank(asker))).unwrap_or(&self.cause);
        (rank(first), first.clone())
    }

    /// The class of the most urgent who waits.
    pub fn class(&self) -> Class {
        self.first(|_| ()).1.class
    }

    /// What each who waits needs of it, and how urgently.
    pub fn needs(&self) -> Vec<(Span, Class)> {
        self.lock().waiting.iter().map(|(_, asker, need)| (*need, asker.class)).collect()
    }

    /// How long its last call waited for its turn.
    pub fn last_wait(&self) -> Duration {
        self.lock().last_wait
    }
}

/// Somebody waits for a run; dropped, it does not any more.
#[derive(Debug)]
pub struct Waiting {
    demand: Arc<Demand>,
    ticket: u64,
    /// Dropped with it.
    clock: Option<LookingOn>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.demand.lock();
        state.waiting.retain(|(ticket, ..)| *ticket != self.ticket);
        if state.waiting.is_empty() && state.progress == Progress::NotBegun {
            state.progress = Progress::Abandoned;
        }
        drop(state);
        self.demand.changed.notify_one();
    }
}

/// Somebody's patience depends on a run.
#[derive(Debug)]
pub struct LookingOn {
    demand: Arc<Demand>,
    ticket: u64,
}

impl Drop for LookingOn {
    fn drop(&mut self) {
        let mut state = self.demand.lock();
        let Some(place) = state.clocks.iter().position(|clock| clock.ticket == self.ticket) else { return };
        let Clock { patience, .. } = state.clocks.swap_remove(place);
        if state.under_way > 0 {
            patience.go_on();
        }
    }
}

/// A call of a run is under way.
#[derive(Debug)]
pub struct Calling(Arc<Demand>);

impl Drop for Calling {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            state.clocks.iter().for_each(|clock| clock.patience.go_on());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Moment;

    fn asker(caller: &str, class: Class) -> Asker {
        Asker { caller: caller.into(), weight: 1, class }
    }

    #[test]
    fn a_run_is_as_urgent_as_the_most_urgent_who_waits() {
        let demand = Demand::new(asker("a", Class::Background));
        let a = demand.join(asker("a", Class::Background), Span::EVER);
        assert_eq!(demand.class(), Class::Background);
        let b = demand.join(asker("b", Class::Interactive), Span::EVER);
        let c = demand.join(asker("c", Class::Interactive), Span::EVER);
        assert_eq!(demand.first(|asker| asker.caller.clone()).1, asker("b", Class::Interactive));
        drop((b, c));
        assert_eq!(demand.class(), Class::Background);
        assert_eq!(&*demand.cause().caller, "a");
        drop(a);
    }

    #[test]
    fn what_nobody_wants_any_more_is_not_begun() {
        let demand = Demand::new(asker("a", Class::Interactive));
        let (one, two) = (
            demand.join(asker("a", Class::Interactive), Span::EVER),
            demand.join(asker("b", Class::Interactive), Span::EVER),
        );
        drop(one);
        assert!(!demand.is_abandoned());
        drop(two);
        assert!(demand.is_abandoned() && !demand.begin(Duration::ZERO));
        assert!(demand.join(asker("c", Class::Interactive), Span::EVER).is_none());
    }

    #[test]
    fn what_has_begun_goes_on() {
        let demand = Demand::new(asker("a", Class::Interactive));
        let waiting = demand.join(asker("a", Class::Interactive), Span::EVER);
        assert!(demand.begin(Duration::ZERO));
        drop(waiting);
        assert!(!demand.is_abandoned() && demand.begin(Duration::ZERO));
        assert!(demand.join(asker("b", Class::Interactive), Span::EVER).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_patient_while_a_call_is_under_way_and_when_something_of_its_own_comes() {
        let span = |start, end| Span::new(Moment::from_seconds(start), Moment::from_seconds(end));
        let patience = || Arc::new(Patience::new(Duration::from_secs(30)));
        let waited = |patience: &Patience| patience.waited().time.as_secs();
        let demand = Demand::new(asker("a", Class::Interactive));
        let (early, late, onlooker) = (patience(), patience(), patience());
        let join = |patience, need| demand.join_with(patience, asker("a", Class::Interactive), need).unwrap();
        let (waits, _late) = (join(&early, span(0, 10)), join(&late, span(50, 60)));
        let looks_on = demand.look_on(&onlooker);
        let seconds = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        seconds(4).await;
        let calls = [demand.calling(), demand.calling()];
        seconds(2).await;
        let joined = patience();
        let comes = join(&joined, span(0, 100));
        drop(looks_on);
        seconds(2).await;
        drop(calls);
        assert_eq!([&early, &late, &onlooker, &joined].map(|one| waited(one)), [4, 4, 6, 0]);
        demand.came(span(5, 20));
        seconds(1).await;
        assert_eq!([&early, &late, &onlooker, &joined].map(|one| waited(one)), [1, 5, 7, 1]);
        let call = demand.calling();
        drop((waits, comes));
        seconds(1).await;
        drop(call);
        assert_eq!([&early, &late, &joined].map(|one| waited(one)), [2, 5, 2], "who has left waits for itself");
    }
}
