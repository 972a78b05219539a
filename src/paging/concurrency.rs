//! The run limiter: how many runs of an account may be under way, and whose; and how quick its upstream is.
//!
//! A run holds a permit from its first call to its last. Those that have begun are few, so that their turns come often
//! enough for each of them to end; and each caller has permits of its own, so that one caller's long windows do not keep
//! another's runs from beginning. Besides, each has one permit for short runs alone, so that its own long windows do not
//! either.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config;
use crate::request::{Priority, Requester};

/// Where pages come as quickly as this, runs side by side gain too little: sixty pages, a minute's usual quota, take no
/// four seconds one after the other.
const SLOW_PAGE: Duration = Duration::from_millis(60);
/// Of so many pages, the quickest says how quick the upstream is: others may have waited for this machine.
const PAGES_TIMED: usize = 8;

/// The limiter of each account. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct RunLimiters(Arc<HashMap<Arc<str>, Arc<RunLimiter>>>);

impl RunLimiters {
    /// A limiter for each account, of at most `max_concurrency` runs.
    pub fn new(accounts: &[config::AccountConfig], max_concurrency: usize) -> Self {
        let limiter = |account: &config::AccountConfig| (account.account_id.clone(), RunLimiter::new(max_concurrency));
        Self(Arc::new(accounts.iter().map(limiter).collect()))
    }

    /// The limiter of an account; `None` if it is not configured.
    pub fn of(&self, account: &str) -> Option<&Arc<RunLimiter>> {
        self.0.get(account)
    }

    #[cfg(test)]
    pub(crate) fn single(account: &str, limiter: Arc<RunLimiter>) -> Self {
        Self(Arc::new(HashMap::from([(account.into(), limiter)])))
    }
}

/// The permits of one account.
#[derive(Debug)]
pub struct RunLimiter {
    most: u32,
    /// Held for bookkeeping only, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    parties: HashMap<Party, Runs>,
    /// How long the last pages took, without their wait for the quota.
    page_times: VecDeque<Duration>,
}

/// Whose runs compete for permits: background work and what somebody waits for have permits of their own.
type Party = (Priority, Arc<str>);

#[derive(Debug, Default)]
struct Runs {
    weight: u32,
    begun: u32,
    /// Whether a short run has the permit that is for such.
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
    /// More, or nobody knows.
    Long,
}

impl RunLimiter {
    /// At most `most` runs of a class at once; more only if there are more callers, since each has one at least.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: u32::try_from(most).unwrap_or(u32::MAX), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit, in the order in which the runs of this caller asked. Whoever stops waiting loses nothing.
    pub(super) async fn acquire(self: &Arc<Self>, asker: &Requester, length: RunLength) -> RunPermit {
        // What is asked for is kept until it is given.
        self.enqueue(asker, length).await.unwrap_or(RunPermit(None))
    }

    /// How many runs of this caller could begin at once.
    pub fn idle(&self, asker: &Requester) -> usize {
        let state = self.lock();
        let party = (asker.class, asker.caller.clone());
        let busy = |((class, _), runs): &(&Party, &Runs)| *class <= asker.class && !runs.is_idle();
        let others = state.parties.iter().filter(busy).filter(|(other, _)| **other != party);
        let weights = u64::from(asker.weight) + others.map(|(_, runs)| u64::from(runs.weight)).sum::<u64>();
        let share = (u64::from(self.most) * u64::from(asker.weight) / weights.max(1)).max(1);
        let taken = state.parties.get(&party).map_or(0, |own| u64::from(own.begun) + own.waiting.len() as u64);
        usize::try_from(share.saturating_sub(taken)).unwrap_or(usize::MAX)
    }

    /// The most runs of a class at once, if one caller is alone.
    pub fn lanes(&self) -> u32 {
        self.most
    }

    /// Whether the upstream is slow enough for runs side by side to be worth their calls.
    pub fn pages_are_slow(&self) -> bool {
        self.lock().page_times.iter().min().is_some_and(|quickest| *quickest >= SLOW_PAGE)
    }

    fn enqueue(self: &Arc<Self>, asker: &Requester, length: RunLength) -> oneshot::Receiver<RunPermit> {
        let (give, given) = oneshot::channel();
        let mut state = self.lock();
        let runs = state.parties.entry((asker.class, asker.caller.clone())).or_default();
        runs.weight = asker.weight;
        runs.waiting.push_back(Waiting { length, give });
        let refused = self.give(&mut state.parties);
        drop(state);
        drop(refused);
        given
    }

    /// Gives permits to those who wait, as far as their callers' shares go. What is returned was given to nobody, and is
    /// to be dropped without the lock.
    fn give(self: &Arc<Self>, parties: &mut HashMap<Party, Runs>) -> Vec<RunPermit> {
        let mut refused = Vec::new();
        let mut weights: HashMap<Priority, u64> = HashMap::new();
        for runs in parties.values_mut() {
            runs.waiting.retain(|waiting| !waiting.give.is_closed());
        }
        for ((class, _), runs) in parties.iter().filter(|(_, runs)| !runs.is_idle()) {
            *weights.entry(*class).or_default() += u64::from(runs.weight);
        }
        for (party, runs) in parties.iter_mut().filter(|(_, runs)| !runs.is_idle()) {
            let all = weights.get(&party.0).copied().unwrap_or(1).max(1);
            let share = u64::from(self.most) * u64::from(runs.weight) / all;
            while let Some((waiting, place)) = runs.next(share.max(1)) {
                let held = HeldPermit { limiter: self.clone(), party: party.clone(), place };
                if let Err(permit) = waiting.give.send(RunPermit(Some(held))) {
                    refused.push(permit);
                }
            }
        }
        refused
    }
}

impl Runs {
    /// The next run that may begin, if so many may in all, and which permit it gets.
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

/// A permit for one run, free again when dropped.
#[derive(Debug)]
pub(super) struct RunPermit(Option<HeldPermit>);

#[derive(Debug)]
struct HeldPermit {
    limiter: Arc<RunLimiter>,
    party: Party,
    place: Place,
}

/// Which of a caller's permits it is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// One of its share.
    Shared,
    /// The one for short runs.
    Short,
}

impl RunPermit {
    /// A page has come, which took so long without its wait for the quota.
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
        let Some(HeldPermit { limiter, party, place }) = self.0.take() else { return };
        let mut state = limiter.lock();
        if let Some(runs) = state.parties.get_mut(&party) {
            match place {
                Place::Shared => runs.begun = runs.begun.saturating_sub(1),
                Place::Short => runs.short_begun = false,
            }
            if runs.is_idle() {
                state.parties.remove(&party);
            }
        }
        let refused = limiter.give(&mut state.parties);
        drop(state);
        drop(refused);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn asker(caller: &str, weight: u32, class: Priority) -> Requester {
        Requester { caller: caller.into(), weight, class }
    }

    /// Takes permits until one would have to wait for one.
    fn take_all(limiter: &Arc<RunLimiter>, asker: &Requester) -> Vec<RunPermit> {
        std::iter::from_fn(|| limiter.acquire(asker, RunLength::Long).now_or_never()).take(100).collect()
    }

    #[tokio::test]
    async fn short_run_begins_beside_any_number_of_long_ones() {
        let limiter = RunLimiter::new(2);
        let asker = asker("a", 1, Priority::Interactive);
        let long = take_all(&limiter, &asker);
        let mut waits = Box::pin(limiter.acquire(&asker, RunLength::Long));
        assert!(waits.as_mut().now_or_never().is_none());
        let short = limiter.acquire(&asker, RunLength::Short).now_or_never().expect("it has a permit of its own");
        let mut second = Box::pin(limiter.acquire(&asker, RunLength::Short));
        assert!(second.as_mut().now_or_never().is_none(), "of which there is one");
        drop(short);
        let second = second.now_or_never().expect("it is free again");
        drop(long);
        drop((second, waits.now_or_never().expect("permits of the share are free")));
        assert!(limiter.lock().parties.is_empty());
    }

    #[tokio::test]
    async fn permits_single_caller_gets_all() {
        let limiter = RunLimiter::new(8);
        assert_eq!(take_all(&limiter, &asker("a", 1, Priority::Interactive)).len(), 8);
        assert_eq!(take_all(&limiter, &asker("a", 1, Priority::Interactive)).len(), 8, "all were given back");
    }

    #[tokio::test]
    async fn permits_several_callers_are_shared_by_weight() {
        let limiter = RunLimiter::new(8);
        let a = take_all(&limiter, &asker("a", 1, Priority::Interactive));
        let b = take_all(&limiter, &asker("b", 3, Priority::Interactive));
        let c = take_all(&limiter, &asker("a", 1, Priority::Background));
        assert_eq!((a.len(), b.len(), c.len()), (8, 6, 8));
        drop(a);
        assert_eq!(
            take_all(&limiter, &asker("a", 1, Priority::Interactive)).len(),
            2,
            "a quarter, now that b is there"
        );
    }

    #[tokio::test]
    async fn idle_permits_are_the_callers_share_less_what_it_has() {
        let limiter = RunLimiter::new(8);
        let (a, b) = (asker("a", 1, Priority::Interactive), asker("b", 1, Priority::Background));
        assert_eq!(limiter.idle(&a), 8);
        let _one = limiter.acquire(&a, RunLength::Long).await;
        assert_eq!((limiter.idle(&a), limiter.idle(&b)), (7, 4), "what is more urgent is not held up");
        let _in_the_background = limiter.acquire(&b, RunLength::Long).await;
        assert_eq!(limiter.idle(&a), 7);
        let _of_weight = limiter.acquire(&asker("c", 3, Priority::Interactive), RunLength::Long).await;
        assert_eq!(limiter.idle(&a), 1);
    }

    #[tokio::test]
    async fn permit_goes_to_the_first_who_still_waits() {
        let limiter = RunLimiter::new(1);
        let asker = asker("a", 1, Priority::Interactive);
        let first = limiter.acquire(&asker, RunLength::Long).await;
        let mut gone = Box::pin(limiter.acquire(&asker, RunLength::Long));
        let mut waits = Box::pin(limiter.acquire(&asker, RunLength::Long));
        assert!(gone.as_mut().now_or_never().is_none() && waits.as_mut().now_or_never().is_none());
        drop(gone);
        drop(first);
        drop(waits.now_or_never().expect("it is free"));
        assert!(limiter.lock().parties.is_empty(), "idle callers leave nothing behind");
    }

    #[tokio::test]
    async fn upstream_is_slow_if_its_quickest_page_is() {
        let limiter = RunLimiter::new(1);
        assert!(!limiter.pages_are_slow(), "nothing is known");
        let permit = limiter.acquire(&asker("a", 1, Priority::Interactive), RunLength::Long).await;
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
