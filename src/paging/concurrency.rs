//! How many runs of an account are in flight at once, and fairness between callers, for runs; and how fast the
//! account's upstream is.
//!
//! A run holds a permit from its first call to its last. Few runs are in flight at a time, so that each gets calls
//! often enough to finish. Each caller has permits of its own, so that one caller's long windows do not block another's
//! runs, and one permit for short runs alone, so that its long windows do not block its own short ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config;
use crate::live::Live;
use crate::request::{Priority, Requester};

/// Page latency below which parallel runs gain too little: sixty pages, a minute's usual quota, take less than four
/// seconds one after another.
const SLOW_PAGE: Duration = Duration::from_millis(60);
/// Number of recent pages whose minimum latency is taken as the upstream's: slower ones may have waited for this
/// machine.
const PAGES_TIMED: usize = 8;

/// The limiters of all accounts. Cheap to clone; all clones share the same limiters.
#[derive(Clone, Debug, Default)]
pub struct RunLimiters(Live<BTreeMap<Arc<str>, Arc<RunLimiter>>>);

impl RunLimiters {
    /// A limiter for each account, of at most `max_concurrency` runs.
    pub fn new(accounts: &[config::AccountConfig], max_concurrency: usize) -> Self {
        let limiter = |account: &config::AccountConfig| (account.account_id.clone(), RunLimiter::new(max_concurrency));
        Self(Live::new(accounts.iter().map(limiter).collect()))
    }

    /// Adds limiters for the accounts that have none.
    pub fn add_accounts(&self, accounts: &[config::AccountConfig], max_concurrency: usize) {
        let known = self.0.load();
        let mut limiters = BTreeMap::clone(&known);
        for account in accounts {
            limiters.entry(account.account_id.clone()).or_insert_with(|| RunLimiter::new(max_concurrency));
        }
        self.0.replace(limiters);
    }

    /// The limiter of an account; `None` if it is not configured.
    pub fn of(&self, account: &str) -> Option<Arc<RunLimiter>> {
        self.0.load().get(account).cloned()
    }

    #[cfg(test)]
    pub(crate) fn single(account: &str, limiter: Arc<RunLimiter>) -> Self {
        Self(Live::new(BTreeMap::from([(account.into(), limiter)])))
    }
}

/// The permits of one account.
#[derive(Debug)]
pub struct RunLimiter {
    most: u32,
    /// Locked for bookkeeping only, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<RunGroup, Runs>,
    /// Latency of the last pages, without their wait for the quota.
    page_times: VecDeque<Duration>,
}

/// Runs that compete for the same permits: background runs and all others have separate permits.
type RunGroup = (Priority, Arc<str>);

#[derive(Debug, Default)]
struct Runs {
    weight: u32,
    begun: u32,
    /// Whether the permit for short runs is taken.
    short_begun: bool,
    waiting: VecDeque<Waiting>,
}

/// A run that waits for a permit.
#[derive(Debug)]
struct Waiting {
    length: RunLength,
    give: oneshot::Sender<RunPermit>,
}

/// How long a run is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunLength {
    /// A few pages.
    Short,
    /// More pages, or an unknown number.
    Long,
}

impl RunLimiter {
    /// At most `most` concurrent runs per priority group; more only with more callers than that, since each caller has
    /// at least one permit.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: u32::try_from(most).unwrap_or(u32::MAX), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit, in the order of this caller's requests. Dropping the future gives up the place without a
    /// permit.
    pub(super) async fn acquire(self: &Arc<Self>, requester: &Requester, length: RunLength) -> RunPermit {
        // The sender keeps its place in the queue until a permit is sent.
        self.enqueue(requester, length).await.unwrap_or(RunPermit(None))
    }

    /// Number of further runs of this caller that could begin at once.
    pub fn idle(&self, requester: &Requester) -> usize {
        let state = self.lock();
        let group = (requester.priority, requester.caller.clone());
        let busy = |((priority, _), runs): &(&RunGroup, &Runs)| *priority <= requester.priority && !runs.is_idle();
        let others = state.groups.iter().filter(busy).filter(|(other, _)| **other != group);
        let weights = u64::from(requester.weight) + others.map(|(_, runs)| u64::from(runs.weight)).sum::<u64>();
        let share = (u64::from(self.most) * u64::from(requester.weight) / weights.max(1)).max(1);
        let taken = state.groups.get(&group).map_or(0, |own| u64::from(own.begun) + own.waiting.len() as u64);
        usize::try_from(share.saturating_sub(taken)).unwrap_or(usize::MAX)
    }

    /// Most concurrent runs of a single caller without competitors.
    pub fn max_parallel_runs(&self) -> u32 {
        self.most
    }

    /// Whether pages are slow enough for parallel runs to be worth their extra calls.
    pub fn pages_are_slow(&self) -> bool {
        self.lock().page_times.iter().min().is_some_and(|quickest| *quickest >= SLOW_PAGE)
    }

    fn enqueue(self: &Arc<Self>, requester: &Requester, length: RunLength) -> oneshot::Receiver<RunPermit> {
        let (give, given) = oneshot::channel();
        let mut state = self.lock();
        let runs = state.groups.entry((requester.priority, requester.caller.clone())).or_default();
        runs.weight = requester.weight;
        runs.waiting.push_back(Waiting { length, give });
        let refused = self.give(&mut state.groups);
        drop(state);
        drop(refused);
        given
    }

    /// Grants permits to waiting runs within their callers' shares. Returns the permits whose receivers are gone; the
    /// caller drops them after it has released the lock.
    fn give(self: &Arc<Self>, groups: &mut BTreeMap<RunGroup, Runs>) -> Vec<RunPermit> {
        let mut refused = Vec::new();
        let mut weights: BTreeMap<Priority, u64> = BTreeMap::new();
        for runs in groups.values_mut() {
            runs.waiting.retain(|waiting| !waiting.give.is_closed());
        }
        for ((priority, _), runs) in groups.iter().filter(|(_, runs)| !runs.is_idle()) {
            *weights.entry(*priority).or_default() += u64::from(runs.weight);
        }
        for (group, runs) in groups.iter_mut().filter(|(_, runs)| !runs.is_idle()) {
            let all = weights.get(&group.0).copied().unwrap_or(1).max(1);
            let share = u64::from(self.most) * u64::from(runs.weight) / all;
            while let Some((waiting, place)) = runs.next(share.max(1)) {
                let held_permit = HeldPermit { limiter: self.clone(), group: group.clone(), place };
                if let Err(permit) = waiting.give.send(RunPermit(Some(held_permit))) {
                    refused.push(permit);
                }
            }
        }
        refused
    }
}

impl Runs {
    /// The next run that may begin if its caller may have `share` runs, and the kind of permit that it gets.
    fn next(&mut self, share: u64) -> Option<(Waiting, Place)> {
        if u64::from(self.begun) < share {
            let waiting = self.waiting.pop_front()?;
            self.begun += 1;
            return Some((waiting, Place::Shared));
        }
        let first_short = self.waiting.iter().position(|waiting| waiting.length == RunLength::Short);
        let waiting = self.waiting.remove(first_short.filter(|_| !self.short_begun)?)?;
        self.short_begun = true;
        Some((waiting, Place::Short))
    }

    fn is_idle(&self) -> bool {
        self.begun == 0 && !self.short_begun && self.waiting.is_empty()
    }
}

/// A permit for one run, released when dropped.
#[derive(Debug)]
pub(super) struct RunPermit(Option<HeldPermit>);

#[derive(Debug)]
struct HeldPermit {
    limiter: Arc<RunLimiter>,
    group: RunGroup,
    place: Place,
}

/// Kind of a caller's permit.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// One of the caller's share.
    Shared,
    /// The extra permit for short runs.
    Short,
}

impl RunPermit {
    /// Records the latency of a page, without its wait for the quota.
    pub(super) fn on_page(&self, took: Duration) {
        let Some(HeldPermit { limiter, .. }) = &self.0 else { return };
        let mut state = limiter.lock();
        state.page_times.push_back(took);
        if state.page_times.len() > PAGES_TIMED {
            state.page_times.pop_front();
        }
    }
}

impl Drop for RunPermit {
    fn drop(&mut self) {
        let Some(HeldPermit { limiter, group, place }) = self.0.take() else { return };
        let mut state = limiter.lock();
        if let Some(runs) = state.groups.get_mut(&group) {
            match place {
                Place::Shared => runs.begun = runs.begun.saturating_sub(1),
                Place::Short => runs.short_begun = false,
            }
            if runs.is_idle() {
                state.groups.remove(&group);
            }
        }
        let refused = limiter.give(&mut state.groups);
        drop(state);
        drop(refused);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn requester(caller: &str, weight: u32, priority: Priority) -> Requester {
        Requester { caller: caller.into(), weight, priority }
    }

    /// Takes permits until the next would have to wait.
    fn take_all(limiter: &Arc<RunLimiter>, requester: &Requester) -> Vec<RunPermit> {
        std::iter::from_fn(|| limiter.acquire(requester, RunLength::Long).now_or_never()).take(100).collect()
    }

    #[tokio::test]
    async fn short_run_begins_beside_any_number_of_long_ones() {
        let limiter = RunLimiter::new(2);
        let requester = requester("a", 1, Priority::Interactive);
        let long = take_all(&limiter, &requester);
        let mut waits = Box::pin(limiter.acquire(&requester, RunLength::Long));
        assert!(waits.as_mut().now_or_never().is_none());
        let short = limiter.acquire(&requester, RunLength::Short).now_or_never().expect("it has a permit of its own");
        let mut second = Box::pin(limiter.acquire(&requester, RunLength::Short));
        assert!(second.as_mut().now_or_never().is_none(), "of which there is one");
        drop(short);
        let second = second.now_or_never().expect("it is free again");
        drop(long);
        drop((second, waits.now_or_never().expect("permits of the share are free")));
        assert!(limiter.lock().groups.is_empty());
    }

    #[tokio::test]
    async fn permits_single_caller_gets_all() {
        let limiter = RunLimiter::new(8);
        assert_eq!(take_all(&limiter, &requester("a", 1, Priority::Interactive)).len(), 8);
        assert_eq!(take_all(&limiter, &requester("a", 1, Priority::Interactive)).len(), 8, "all were given back");
    }

    #[tokio::test]
    async fn permits_several_callers_are_shared_by_weight() {
        let limiter = RunLimiter::new(8);
        let a = take_all(&limiter, &requester("a", 1, Priority::Interactive));
        let b = take_all(&limiter, &requester("b", 3, Priority::Interactive));
        let c = take_all(&limiter, &requester("a", 1, Priority::Background));
        assert_eq!((a.len(), b.len(), c.len()), (8, 6, 8));
        drop(a);
        assert_eq!(
            take_all(&limiter, &requester("a", 1, Priority::Interactive)).len(),
            2,
            "a quarter, now that b is there"
        );
    }

    #[tokio::test]
    async fn idle_permits_are_the_callers_share_less_what_it_has() {
        let limiter = RunLimiter::new(8);
        let (a, b) = (requester("a", 1, Priority::Interactive), requester("b", 1, Priority::Background));
        assert_eq!(limiter.idle(&a), 8);
        let _one = limiter.acquire(&a, RunLength::Long).await;
        assert_eq!((limiter.idle(&a), limiter.idle(&b)), (7, 4), "what is more urgent is not held up");
        let _in_the_background = limiter.acquire(&b, RunLength::Long).await;
        assert_eq!(limiter.idle(&a), 7);
        let _of_weight = limiter.acquire(&requester("c", 3, Priority::Interactive), RunLength::Long).await;
        assert_eq!(limiter.idle(&a), 1);
    }

    #[tokio::test]
    async fn permit_goes_to_the_first_who_still_waits() {
        let limiter = RunLimiter::new(1);
        let requester = requester("a", 1, Priority::Interactive);
        let first = limiter.acquire(&requester, RunLength::Long).await;
        let mut gone = Box::pin(limiter.acquire(&requester, RunLength::Long));
        let mut waits = Box::pin(limiter.acquire(&requester, RunLength::Long));
        assert!(gone.as_mut().now_or_never().is_none() && waits.as_mut().now_or_never().is_none());
        drop(gone);
        drop(first);
        drop(waits.now_or_never().expect("it is free"));
        assert!(limiter.lock().groups.is_empty(), "idle callers leave nothing behind");
    }

    #[tokio::test]
    async fn upstream_is_slow_if_its_quickest_page_is() {
        let limiter = RunLimiter::new(1);
        assert!(!limiter.pages_are_slow(), "nothing is known");
        let permit = limiter.acquire(&requester("a", 1, Priority::Interactive), RunLength::Long).await;
        let seen = |millis| {
            permit.on_page(Duration::from_millis(millis));
            limiter.pages_are_slow()
        };
        assert_eq!([seen(150), seen(20), seen(150)], [true, false, false]);
        for _ in 0..PAGES_TIMED {
            seen(150);
        }
        assert!(limiter.pages_are_slow());
    }
}
