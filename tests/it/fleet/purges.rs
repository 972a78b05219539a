//! The purges of a run, and what must not be served after them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use koregate::cache::PurgeResult;

use super::host::now;

/// A purge.
#[derive(Debug)]
struct PurgeRecord {
    gateway: usize,
    stream: &'static str,
    /// Time since the Unix epoch.
    from: Duration,
    to: Duration,
    /// Times since the simulation began.
    begun_at: Duration,
    /// When it was confirmed, and whether by all gateways.
    confirmed: Option<(Duration, bool)>,
}

/// All purges of a run. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct PurgeRecords(Arc<Mutex<Vec<PurgeRecord>>>);

impl PurgeRecords {
    fn lock(&self) -> MutexGuard<'_, Vec<PurgeRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a purge begins. Returns its number.
    pub(super) fn begin(&self, gateway: usize, stream: &'static str, from: Duration, to: Duration) -> usize {
        let mut records = self.lock();
        records.push(PurgeRecord { gateway, stream, from, to, begun_at: now(), confirmed: None });
        records.len() - 1
    }

    /// Records how it ended, with so many `others` that could confirm it.
    pub(super) fn end(&self, number: usize, result: &PurgeResult, others: usize) {
        let by_all = match &result.delivery {
            Some(Ok(delivery)) => delivery.confirmed >= others,
            Some(Err(_)) | None => false,
        };
        self.lock()[number].confirmed = Some((now(), by_all));
    }

    /// The earliest time at which what a gateway serves for a row may have been fetched, if the request came
    /// `asked_at`.
    pub(super) fn oldest_fetch(&self, gateway: usize, stream: &str, row: Duration, asked_at: Duration) -> Duration {
        let records = self.lock();
        let applies = records.iter().filter(|purge| {
            let is_known =
                purge.confirmed.is_some_and(|(at, by_all)| at < asked_at && (by_all || purge.gateway == gateway));
            is_known && purge.stream == stream && row >= purge.from && row < purge.to
        });
        applies.map(|purge| purge.begun_at).max().unwrap_or_default()
    }
}
