//! The requests that wait for a run: their priority orders its calls, and its owner is charged for them.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::queue_timeout::QueueTimeout;
use crate::sync::{Mutex, MutexGuard};
use crate::traces::Span;

/// Priority of a fetch, in the order in which calls are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// A request waits for the answer.
    Interactive,
    /// Cached data is kept fresh; a delay does no harm.
    Refresh,
    /// A backfill, an export or a verification. Uses only what is left beyond `quota.interactive_reserve`.
    Background,
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Refresh, Self::Background];

    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Refresh => "refresh",
            Self::Background => "background",
        }
    }
}

/// The caller of a request, and the request's priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The caller's name; the same for all requests where no callers are configured.
    pub caller: Arc<str>,
    /// The caller's share of the quota under contention; at least 1.
    pub weight: u32,
    /// Priority of this request.
    pub priority: Priority,
}

#[cfg(test)]
impl Requester {
    /// An interactive requester without competitors.
    pub(crate) fn anyone() -> Self {
        Self { caller: "c".into(), weight: 1, priority: Priority::Interactive }
    }
}

/// The set of requests that wait for one run, and the accounting of its calls. It has three interfaces:
///
/// - *Waiting requests* join, and learn what the run cost ([`RunWaiters::join`], [`RunWaiters::charge`]).
/// - *The fetch* reports pages, and asks whether the run is still wanted ([`RunWaiters::on_page`],
///   [`RunWaiters::is_abandoned`]).
/// - *The scheduler* orders the run's calls by the most urgent waiter, and begins and ends them ([`RunWaiters::first`],
///   [`RunWaiters::begin`], [`RunWaiters::calling`]).
///
/// A run is charged to the requester that caused it, whichever requests join later, unless that one's own limit of calls
/// is spent ([`RunWaiters::payers`]). Its priority is that of the most
/// urgent waiter; without waiters, that of its cause.
#[derive(Debug)]
pub struct RunWaiters {
    cause: Requester,
    /// The span of the run.
    span: Span,
    /// Locked for bookkeeping only, never across an await.
    state: Mutex<State>,
    /// Notified of each change. A run is one task, so there is at most one listener.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    waiting: Vec<Waiter>,
    next_ticket: u64,
    /// Calls made, retries included.
    calls: u32,
    /// Number of those calls that an answer has reported.
    told: u32,
    /// Queueing time of the last call.
    last_wait: Duration,
    /// Calls under way.
    under_way: u32,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    requester: Requester,
    /// Timeout of its wait for the quota; `None` without a limit.
    queue_timeout: Option<Arc<QueueTimeout>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// No call was made: the run can still be abandoned.
    NotBegun,
    /// A call was made: the run continues without waiters.
    Begun,
    /// All waiters left before the first call.
    Abandoned,
}

impl RunWaiters {
    /// A run without waiters that has not begun.
    pub fn new(cause: Requester) -> Arc<Self> {
        Self::traced(cause, Span::NONE)
    }

    /// The same for a run with a span.
    pub fn traced(cause: Requester, span: Span) -> Arc<Self> {
        let (waiting, next_ticket, calls, told, last_wait, under_way) = Default::default();
        let state = State { progress: Progress::NotBegun, waiting, next_ticket, calls, told, last_wait, under_way };
        Arc::new(Self { cause, span, state: Mutex::new(state), changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The span of the run, a child of that of the request which began it.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The requester that is charged for the run's calls.
    pub fn cause(&self) -> &Requester {
        &self.cause
    }
}

/// Interface of waiting requests.
impl RunWaiters {
    /// Joins the run until the guard is dropped. The request's timeout stops while a call is under way and restarts
    /// with each page. `None` if the run has just been abandoned.
    pub fn join(
        self: &Arc<Self>,
        requester: Requester,
        queue_timeout: Option<&Arc<QueueTimeout>>,
    ) -> Option<WaiterGuard> {
        let mut state = self.lock();
        if state.progress == Progress::Abandoned {
            return None;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        if let Some(queue_timeout) = queue_timeout.filter(|_| state.under_way > 0) {
            queue_timeout.pause();
        }
        state.waiting.push(Waiter { ticket, requester, queue_timeout: queue_timeout.cloned() });
        drop(state);
        self.changed.notify_one();
        Some(WaiterGuard { waiters: self.clone(), ticket })
    }

    /// The calls that no answer has reported yet; marks them as reported.
    pub fn charge(&self) -> u32 {
        let mut state = self.lock();
        let untold = state.calls.saturating_sub(state.told);
        state.told = state.calls;
        untold
    }
}

/// Interface of the fetch.
impl RunWaiters {
    /// Restarts the timeouts of all waiters: a page has arrived.
    pub fn on_page(&self) {
        self.lock().queue_timeouts().for_each(|queue_timeout| queue_timeout.reset());
    }

    /// Adds calls that another replica has made for the run.
    pub fn add(&self, calls: u32) {
        let mut state = self.lock();
        state.calls = state.calls.saturating_add(calls);
    }

    /// Whether a call was made.
    pub fn has_begun(&self) -> bool {
        self.lock().progress == Progress::Begun
    }

    /// Whether all waiters left before the first call.
    pub fn is_abandoned(&self) -> bool {
        self.lock().progress == Progress::Abandoned
    }

    /// Queueing time of the last call.
    pub fn last_wait(&self) -> Duration {
        self.lock().last_wait
    }
}

/// Interface of the scheduler.
impl RunWaiters {
    /// Marks a call as under way until the guard is dropped; the waiters' timeouts stop meanwhile.
    pub fn calling(self: &Arc<Self>) -> CallGuard {
        let mut state = self.lock();
        state.under_way += 1;
        if state.under_way == 1 {
            state.queue_timeouts().for_each(|queue_timeout| queue_timeout.pause());
        }
        drop(state);
        CallGuard(self.clone())
    }

    /// Begins a call that was queued for `waited`. Returns `false` if the run was abandoned; the call must not be made
    /// then.
    pub fn begin(&self, waited: Duration) -> bool {
        let mut state = self.lock();
        if state.progress == Progress::Abandoned {
            return false;
        }
        state.progress = Progress::Begun;
        state.calls += 1;
        state.last_wait = waited;
        state.queue_timeouts().for_each(|queue_timeout| queue_timeout.record_queued(waited));
        true
    }

    /// Takes back the call that has just begun: no connection was opened for it.
    pub fn take_back(&self) {
        let mut state = self.lock();
        state.calls = state.calls.saturating_sub(1);
    }

    /// Completes when a request has joined or left since the last call of this function.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The most urgent waiter with the lowest `rank`, and that rank; the cause if no request waits.
    pub fn first<T: Ord>(&self, rank: impl Fn(&Requester) -> T) -> (T, Requester) {
        let state = self.lock();
        let waiting = state.waiting.iter().map(|waiter| &waiter.requester);
        let first = waiting.min_by_key(|requester| (requester.priority, rank(requester))).unwrap_or(&self.cause);
        (rank(first), first.clone())
    }

    /// The requesters that may pay for a call, in the order in which they do: the cause, and then those that wait.
    pub fn payers(&self) -> Vec<Requester> {
        let state = self.lock();
        let waiting = state.waiting.iter().map(|waiter| waiter.requester.clone());
        std::iter::once(self.cause.clone()).chain(waiting).collect()
    }

    /// The longest queue timeout of the waiters; zero without any.
    pub fn longest_timeout(&self) -> Duration {
        self.lock().queue_timeouts().map(|queue_timeout| queue_timeout.limit()).max().unwrap_or_default()
    }

    /// Priority of the most urgent waiter.
    pub fn priority(&self) -> Priority {
        self.first(|_| ()).1.priority
    }
}

impl State {
    fn queue_timeouts(&self) -> impl Iterator<Item = &Arc<QueueTimeout>> {
        self.waiting.iter().filter_map(|waiter| waiter.queue_timeout.as_ref())
    }
}

/// Membership of one request in a run; ends when dropped.
#[derive(Debug)]
pub struct WaiterGuard {
    waiters: Arc<RunWaiters>,
    ticket: u64,
}

impl Drop for WaiterGuard {
    fn drop(&mut self) {
        let mut state = self.waiters.lock();
        if let Some(place) = state.waiting.iter().position(|waiter| waiter.ticket == self.ticket) {
            let waiter = state.waiting.remove(place);
            if let Some(queue_timeout) = waiter.queue_timeout.filter(|_| state.under_way > 0) {
                queue_timeout.resume();
            }
        }
        if state.waiting.is_empty() && state.progress == Progress::NotBegun {
            state.progress = Progress::Abandoned;
        }
        drop(state);
        self.waiters.changed.notify_one();
    }
}

/// A call of a run under way; ends when dropped.
#[derive(Debug)]
pub struct CallGuard(Arc<RunWaiters>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            state.queue_timeouts().for_each(|queue_timeout| queue_timeout.resume());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requester(caller: &str, priority: Priority) -> Requester {
        Requester { caller: caller.into(), weight: 1, priority }
    }

    #[test]
    fn run_has_the_priority_of_its_most_urgent_waiter() {
        let waiters = RunWaiters::new(requester("a", Priority::Background));
        let a = waiters.join(requester("a", Priority::Background), None);
        assert_eq!(waiters.priority(), Priority::Background);
        let b = waiters.join(requester("b", Priority::Interactive), None);
        let c = waiters.join(requester("c", Priority::Interactive), None);
        assert_eq!(waiters.first(|requester| requester.caller.clone()).1, requester("b", Priority::Interactive));
        drop((b, c));
        assert_eq!(waiters.priority(), Priority::Background);
        assert_eq!(&*waiters.cause().caller, "a");
        drop(a);
    }

    #[test]
    fn run_without_waiters_is_not_begun() {
        let waiters = RunWaiters::new(requester("a", Priority::Interactive));
        let (one, two) = (
            waiters.join(requester("a", Priority::Interactive), None),
            waiters.join(requester("b", Priority::Interactive), None),
        );
        drop(one);
        assert!(!waiters.is_abandoned());
        drop(two);
        assert!(waiters.is_abandoned() && !waiters.begin(Duration::ZERO));
        assert!(waiters.join(requester("c", Priority::Interactive), None).is_none());
    }

    #[test]
    fn begun_run_continues_without_waiters() {
        let waiters = RunWaiters::new(requester("a", Priority::Interactive));
        let waiting = waiters.join(requester("a", Priority::Interactive), None);
        assert!(waiters.begin(Duration::ZERO));
        drop(waiting);
        assert!(!waiters.is_abandoned() && waiters.begin(Duration::ZERO));
        assert!(waiters.join(requester("b", Priority::Interactive), None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn queue_timeout_pauses_during_a_call_and_resets_with_a_page() {
        let queue_timeout = || Arc::new(QueueTimeout::new(Duration::from_secs(30)));
        let waited = |queue_timeout: &QueueTimeout| queue_timeout.waited().time.as_secs();
        let waiters = RunWaiters::new(requester("a", Priority::Interactive));
        let (first, leaves, late) = (queue_timeout(), queue_timeout(), queue_timeout());
        let join = |queue_timeout| waiters.join(requester("a", Priority::Interactive), Some(queue_timeout)).unwrap();
        let (_first, leaving) = (join(&first), join(&leaves));
        let seconds = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        seconds(4).await;
        let calls = [waiters.calling(), waiters.calling()];
        seconds(2).await;
        let _late = join(&late);
        drop(leaving);
        seconds(2).await;
        drop(calls);
        assert_eq!([&first, &leaves, &late].map(|one| waited(one)), [4, 6, 6]);
        waiters.on_page();
        seconds(1).await;
        assert_eq!([&first, &leaves, &late].map(|one| waited(one)), [1, 7, 1], "one who has left waits for itself");
    }
}
