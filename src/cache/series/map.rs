//! The state of each series.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use super::state::SharedSeriesState;
use crate::cache::store::{CacheEntry, Memory};
use crate::request::Series;
use crate::sync::{Mutex, MutexGuard};
use crate::window::Timestamp;

/// How many chunks are inserted between two sweeps.
const INSERTS_BETWEEN_SWEEPS: u64 = 4096;

/// The selection of a series without a filter and without parameters.
const PLAIN: [u64; 2] = [0; 2];

/// The state of each series; data with and without `agenticActivities` shares one. Cheap to clone; clones share their
/// state.
#[derive(Clone, Debug, Default)]
pub(in crate::cache) struct SeriesMap {
    series: Arc<Mutex<HashMap<SeriesMapKey, SharedSeriesState>>>,
    hashers: [RandomState; 2],
    inserts: Arc<AtomicU64>,
}

/// Key of a series. Filter and parameters, which callers choose freely and of any length, are hashed to 128 bits with
/// random keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SeriesMapKey {
    account: Arc<str>,
    stream: Arc<str>,
    selection: [u64; 2],
}

impl SeriesMap {
    /// The state of a series, inserted if it is new.
    pub(in crate::cache) fn get_or_insert(&self, series: &Series) -> SharedSeriesState {
        self.lock().entry(self.key(series)).or_default().clone()
    }

    /// The state of a series, if there is one.
    pub(in crate::cache) fn find(&self, series: &Series) -> Option<SharedSeriesState> {
        self.lock().get(&self.key(series)).cloned()
    }

    /// Removes the state of a series if it is empty and only the caller, who passes it, uses it: a series that always
    /// fails leaves nothing behind.
    pub(in crate::cache) fn remove_if_idle(&self, series: &Series, state: &SharedSeriesState) {
        let mut all = self.lock();
        if state.holders() == 2 && state.lock().is_idle() {
            all.remove(&self.key(series));
        }
    }

    /// Removes all chunk entries of those streams of an account for which `is_affected` returns true.
    pub(in crate::cache) fn clear(&self, account: &str, is_affected: impl Fn(&str) -> bool, memory: &Memory) {
        for (_, state) in self.account_series(account).into_iter().filter(|(stream, _)| is_affected(stream)) {
            state.lock().clear_entries(memory);
        }
    }

    /// Removes everything that was fetched after `timestamp`.
    pub(in crate::cache) fn remove_fetched_after(&self, timestamp: Timestamp, memory: &Memory) {
        for state in self.lock().values() {
            let keep = |entry: &CacheEntry| {
                let is_later = entry.fetched_at > timestamp;
                if is_later {
                    memory.remove(entry.id);
                }
                !is_later
            };
            let mut state = state.lock();
            state.entries.retain(keep);
            state.exact.retain(|_, entry| keep(entry));
        }
    }

    /// The series of an account: the stream and the state of each.
    pub(in crate::cache) fn account_series(&self, account: &str) -> Vec<(Arc<str>, SharedSeriesState)> {
        let all = self.lock();
        let own = all.iter().filter(|(key, _)| *key.account == *account);
        own.map(|(key, state)| (key.stream.clone(), state.clone())).collect()
    }

    /// Counts an inserted chunk; returns whether a sweep is due.
    pub(in crate::cache) fn count_insert(&self) -> bool {
        self.inserts.fetch_add(1, Ordering::Relaxed) % INSERTS_BETWEEN_SWEEPS == INSERTS_BETWEEN_SWEEPS - 1
    }

    /// Removes entries of chunks that are in no tier any more, and states that are empty and not in use.
    pub(in crate::cache) fn sweep(&self, memory: &Memory, is_on_disk: impl Fn(&CacheEntry) -> bool) {
        self.lock().retain(|_, state| {
            state.lock().sweep(memory, &is_on_disk);
            state.holders() > 1 || !state.lock().is_idle()
        });
    }

    /// The states of all series.
    pub(in crate::cache) fn all(&self) -> Vec<SharedSeriesState> {
        self.lock().values().cloned().collect()
    }

    /// The account, the stream and the state of each series, and whether it has no filter and no parameters.
    pub(in crate::cache) fn all_series(&self) -> Vec<(Arc<str>, Arc<str>, bool, SharedSeriesState)> {
        let all = self.lock();
        let view = |(key, state): (&SeriesMapKey, &SharedSeriesState)| {
            (key.account.clone(), key.stream.clone(), key.selection == PLAIN, state.clone())
        };
        all.iter().map(view).collect()
    }

    fn key(&self, series: &Series) -> SeriesMapKey {
        // Destructured, so that a new field cannot be forgotten.
        let Series { account, stream, filter, parameters, agentic: _ } = series;
        let selection = if series.is_plain() {
            PLAIN
        } else {
            self.hashers.each_ref().map(|hasher| hasher.hash_one((filter, parameters)))
        };
        SeriesMapKey { account: account.clone(), stream: stream.clone(), selection }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SeriesMapKey, SharedSeriesState>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Filter;

    #[test]
    fn key_differs_by_all_but_agentic_and_is_small() {
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
        let map = SeriesMap::default();
        let states = series.each_ref().map(|series| map.get_or_insert(series));
        for (place, series) in series.iter().enumerate() {
            let again = map.get_or_insert(&Series { agentic: true, ..series.clone() });
            let same = states.iter().position(|state| state.is_same(&again));
            assert_eq!(same, Some(place));
        }
        assert!(size_of::<SeriesMapKey>() <= 64, "whatever a caller sends");
    }
}
