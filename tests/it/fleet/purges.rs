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
    /// When it was answered, and how.
    answered: Option<(Duration, Answer)>,
    /// When its gateway forgot it.
    forgotten_at: Option<Duration>,
}

/// What the answer to a purge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// All gateways have confirmed it.
    ConfirmedByAll,
    /// It is in Redis.
    Recorded,
    /// It is in effect on the gateway alone, which forgets it when it is restarted.
    HereOnly,
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
        records.push(PurgeRecord { gateway, stream, from, to, begun_at: now(), answered: None, forgotten_at: None });
        records.len() - 1
    }

    /// Records how it ended, with so many `others` that could confirm it.
    pub(super) fn end(&self, number: usize, result: &PurgeResult, others: usize) {
        let answer = match &result.delivery {
            Some(Ok(delivery)) if delivery.confirmed >= others => Answer::ConfirmedByAll,
            Some(Ok(_)) => Answer::Recorded,
            Some(Err(_)) | None => Answer::HereOnly,
        };
        self.lock()[number].answered = Some((now(), answer));
    }

    /// Records that a gateway without a disk is restarted at `now`.
    pub(super) fn forget(&self, gateway: usize, now: Duration) {
        for purge in self.lock().iter_mut().filter(|purge| purge.gateway == gateway) {
            purge.forgotten_at.get_or_insert(now);
        }
    }

    /// The earliest time at which what a gateway serves for a row may have been fetched, if the request came
    /// `asked_at`.
    pub(super) fn oldest_fetch(&self, gateway: usize, stream: &str, row: Duration, asked_at: Duration) -> Duration {
        let records = self.lock();
        let applies = records.iter().filter(|purge| {
            let is_kept = purge.forgotten_at.is_none_or(|at| asked_at < at);
            let is_in_effect = match purge.answered.filter(|(at, _)| *at < asked_at) {
                None => false,
                Some((_, Answer::ConfirmedByAll)) => true,
                Some((_, Answer::Recorded)) => purge.gateway == gateway,
                Some((_, Answer::HereOnly)) => purge.gateway == gateway && is_kept,
            };
            is_in_effect && purge.stream == stream && row >= purge.from && row < purge.to
        });
        applies.map(|purge| purge.begun_at).max().unwrap_or_default()
    }
}
