//! The shelf of each series.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::series::SharedSeriesState;
use super::store::CacheEntry;
use super::store::Memory;
use crate::request::Series;
use crate::window::Timestamp;

/// The shelf of each series. The two kinds of richness share one. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct SeriesMap {
    shelves: Arc<Mutex<HashMap<SeriesMapKey, SharedSeriesState>>>,
    hashers: [RandomState; 2],
}

/// Under which the shelf of a series is found. What callers choose freely, and as long as they like, is hashed: 128 bits,
/// keyed by chance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SeriesMapKey {
    account: Arc<str>,
    stream: Arc<str>,
    selection: [u64; 2],
}

impl SeriesMap {
    /// The shelf of a series, made if it is new.
    pub(super) fn of(&self, series: &Series) -> SharedSeriesState {
        self.lock().entry(self.key(series)).or_default().clone()
    }

    /// The shelf of a series, if there is one.
    pub(super) fn find(&self, series: &Series) -> Option<SharedSeriesState> {
        self.lock().get(&self.key(series)).cloned()
    }

    /// Takes the shelf of a series down if nothing lies on it and nobody but the caller, who holds it, uses it: series
    /// that only ever fail leave nothing behind.
    pub(super) fn remove_if_idle(&self, series: &Series, held: &SharedSeriesState) {
        let mut shelves = self.lock();
        if held.holders() == 2 && held.lock().is_idle() {
            shelves.remove(&self.key(series));
        }
    }

    /// Forgets all that was kept for an account.
    pub(super) fn clear(&self, account: &str, memory: &Memory) {
        for (_, shelf) in self.account_series(account) {
            shelf.lock().clear_entries(memory);
        }
    }

    /// Forgets what was fetched after `moment`.
    pub(super) fn remove_fetched_after(&self, moment: Timestamp, memory: &Memory) {
        for shelf in self.lock().values() {
            let keep = |copy: &CacheEntry| {
                let is_later = copy.fetched_at > moment;
                if is_later {
                    memory.remove(copy.id);
                }
                !is_later
            };
            let mut shelf = shelf.lock();
            shelf.entries.retain(keep);
            shelf.exact.retain(|_, copy| keep(copy));
        }
    }

    /// The shelves of an account, each with its stream.
    pub(super) fn account_series(&self, account: &str) -> Vec<(Arc<str>, SharedSeriesState)> {
        let shelves = self.lock();
        let own = shelves.iter().filter(|(key, _)| *key.account == *account);
        own.map(|(key, shelf)| (key.stream.clone(), shelf.clone())).collect()
    }

    /// Forgets what has gone from memory, and shelves that hold nothing and that nobody uses.
    pub(super) fn sweep(&self, memory: &Memory) {
        self.lock().retain(|_, shelf| {
            shelf.lock().sweep(memory);
            shelf.holders() > 1 || !shelf.lock().is_idle()
        });
    }

    fn key(&self, series: &Series) -> SeriesMapKey {
        // Taken apart, so that a new member cannot be forgotten.
        let Series { account, stream, filter, parameters, agentic: _ } = series;
        let selection = if series.is_plain() {
            [0; 2]
        } else {
            self.hashers.each_ref().map(|hasher| hasher.hash_one((filter, parameters)))
        };
        SeriesMapKey { account: account.clone(), stream: stream.clone(), selection }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SeriesMapKey, SharedSeriesState>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Filter;

    #[test]
    fn shelves_are_told_apart_by_all_but_richness_and_keep_no_bodies() {
        let plain = Series {
            account: "a".into(),
            stream: "s".into(),
            filter: Filter::None,
            parameters: vec![],
            agentic: false,
        };
        let body = |byte: u8| Filter::Opaque(vec![byte; 1 << 20].into());
        let tz = |zone: &str| vec![("tz".to_owned(), zone.to_owned())];
        let series = [
            plain.clone(),
            Series { stream: "t".into(), ..plain.clone() },
            Series { account: "b".into(), ..plain.clone() },
            Series { filter: body(1), ..plain.clone() },
            Series { filter: body(2), ..plain.clone() },
            Series { parameters: tz("1"), ..plain.clone() },
            Series { parameters: tz("2"), ..plain.clone() },
        ];
        let shelves = SeriesMap::default();
        let of_each = series.each_ref().map(|series| shelves.of(series));
        for (place, series) in series.iter().enumerate() {
            let again = shelves.of(&Series { agentic: true, ..series.clone() });
            let same = of_each.iter().position(|shelf| shelf.is_same(&again));
            assert_eq!(same, Some(place));
        }
        assert!(size_of::<SeriesMapKey>() <= 64, "whatever a caller sends");
    }
}
