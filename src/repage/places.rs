//! Places for runs: how many of an account's runs may be under way, and whose.
//!
//! A run holds a place from its first call to its last. Those who have begun are few, so that their turns come often
//! enough for each of them to end; and each caller has places of its own, so that one caller's long runs do not keep
//! another's from beginning.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::upstream::{Asker, Class};

/// The places of one account.
#[derive(Debug)]
pub(super) struct Places {
    most: u32,
    /// Held for bookkeeping only, never across an await.
    parties: Mutex<HashMap<Party, Runs>>,
}

/// Whose runs compete for places: background work and what somebody waits for have places of their own.
type Party = (Class, Arc<str>);

#[derive(Debug, Default)]
struct Runs {
    weight: u32,
    begun: u32,
    waiting: VecDeque<oneshot::Sender<Place>>,
}

impl Places {
    /// At most `most` runs of a class at once; more only if there are more callers, since each has a place at least.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: u32::try_from(most).unwrap_or(u32::MAX), parties: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Party, Runs>> {
        self.parties.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place, in the order in which the runs of this caller asked. Whoever stops waiting loses nothing.
    pub(super) async fn take(self: &Arc<Self>, asker: &Asker) -> Place {
        // What is asked for is kept until it is given.
        self.ask(asker).await.unwrap_or(Place(None))
    }

    fn ask(self: &Arc<Self>, asker: &Asker) -> oneshot::Receiver<Place> {
        let (give, given) = oneshot::channel();
        let mut parties = self.lock();
        let runs = parties.entry((asker.class, asker.caller.clone())).or_default();
        runs.weight = asker.weight;
        runs.waiting.push_back(give);
        let refused = self.give(&mut parties);
        drop(parties);
        drop(refused);
        given
    }

    /// Gives places to those who wait, as far as their callers' shares go. What is returned was given to nobody, and is
    /// to be dropped without the lock.
    fn give(self: &Arc<Self>, parties: &mut HashMap<Party, Runs>) -> Vec<Place> {
        let mut refused = Vec::new();
        let mut weights: HashMap<Class, u64> = HashMap::new();
        for runs in parties.values_mut() {
            runs.waiting.retain(|waiting| !waiting.is_closed());
        }
        for ((class, _), runs) in parties.iter().filter(|(_, runs)| !runs.is_idle()) {
            *weights.entry(*class).or_default() += u64::from(runs.weight);
        }
        for (party, runs) in parties.iter_mut().filter(|(_, runs)| !runs.is_idle()) {
            let all = weights.get(&party.0).copied().unwrap_or(1).max(1);
            let share = u64::from(self.most) * u64::from(runs.weight) / all;
            while u64::from(runs.begun) < share.max(1) {
                let Some(waiting) = runs.waiting.pop_front() else { break };
                runs.begun += 1;
                if let Err(place) = waiting.send(Place(Some((self.clone(), party.clone())))) {
                    refused.push(place);
                }
            }
        }
        refused
    }
}

impl Runs {
    fn is_idle(&self) -> bool {
        self.begun == 0 && self.waiting.is_empty()
    }
}

/// A place for one run, free again when dropped.
#[derive(Debug)]
pub(super) struct Place(Option<(Arc<Places>, Party)>);

impl Place {
    /// How many calls its run may have under way at once: an equal part of what its caller has by its weight, among all
    /// whose runs are under way and no less urgent.
    pub(super) fn width(&self) -> usize {
        let Some((places, party)) = &self.0 else { return 1 };
        let parties = places.lock();
        let others = parties.iter().filter(|((class, _), runs)| *class <= party.0 && runs.begun > 0);
        let weights: u64 = others.map(|(_, runs)| u64::from(runs.weight)).sum();
        let Some(own) = parties.get(party) else { return 1 };
        let share = u64::from(places.most) * u64::from(own.weight) / weights.max(1);
        usize::try_from(share / u64::from(own.begun.max(1))).unwrap_or(usize::MAX).max(1)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, party)) = self.0.take() else { return };
        let mut parties = places.lock();
        if let Some(runs) = parties.get_mut(&party) {
            runs.begun = runs.begun.saturating_sub(1);
            if runs.is_idle() {
                parties.remove(&party);
            }
        }
        let refused = places.give(&mut parties);
        drop(parties);
        drop(refused);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn asker(caller: &str, weight: u32, class: Class) -> Asker {
        Asker { caller: caller.into(), weight, class }
    }

    /// Takes places until one would have to wait for one.
    fn take_all(places: &Arc<Places>, asker: &Asker) -> Vec<Place> {
        std::iter::from_fn(|| places.take(asker).now_or_never()).take(100).collect()
    }

    #[tokio::test]
    async fn a_caller_alone_has_all_places() {
        let places = Places::new(8);
        assert_eq!(take_all(&places, &asker("a", 1, Class::Interactive)).len(), 8);
        assert_eq!(take_all(&places, &asker("a", 1, Class::Interactive)).len(), 8, "all were given back");
    }

    #[tokio::test]
    async fn nobody_keeps_another_from_beginning() {
        let places = Places::new(8);
        let a = take_all(&places, &asker("a", 1, Class::Interactive));
        let b = take_all(&places, &asker("b", 3, Class::Interactive));
        let c = take_all(&places, &asker("a", 1, Class::Background));
        assert_eq!((a.len(), b.len(), c.len()), (8, 6, 8));
        drop(a);
        assert_eq!(take_all(&places, &asker("a", 1, Class::Interactive)).len(), 2, "a quarter, now that b is there");
    }

    #[tokio::test]
    async fn what_a_run_may_do_at_once_is_its_part_of_its_callers_share() {
        let places = Places::new(8);
        let alone = places.take(&asker("a", 1, Class::Interactive)).await;
        let in_the_background = places.take(&asker("b", 1, Class::Background)).await;
        assert_eq!((alone.width(), in_the_background.width()), (8, 4), "what is more urgent is not held up");
        let another = places.take(&asker("a", 1, Class::Interactive)).await;
        assert_eq!((alone.width(), another.width()), (4, 4));
        let of_weight = places.take(&asker("c", 3, Class::Interactive)).await;
        assert_eq!((alone.width(), of_weight.width()), (1, 6));
        drop((another, of_weight));
        assert_eq!(alone.width(), 8);
    }

    #[tokio::test]
    async fn a_place_goes_to_who_asked_first_and_still_wants_it() {
        let places = Places::new(1);
        let asker = asker("a", 1, Class::Interactive);
        let first = places.take(&asker).await;
        let mut gone = Box::pin(places.take(&asker));
        let mut waits = Box::pin(places.take(&asker));
        assert!(gone.as_mut().now_or_never().is_none() && waits.as_mut().now_or_never().is_none());
        drop(gone);
        drop(first);
        drop(waits.now_or_never().expect("it is free"));
        assert!(places.lock().is_empty(), "idle callers leave nothing behind");
    }
}
