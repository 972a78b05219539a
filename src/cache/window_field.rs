//! Whether `window.field` is the timestamp that the upstream of an account selects on.
//!
//! Windows are cut by that timestamp, so a wrong one would make holes. An item that does not lie where it was requested
//! is a reason to doubt the field, but the item alone may be at fault. So a *field check* requests the second that the
//! item's timestamp names: if the item is returned, only its window cannot be cut; if not, nothing of the account is
//! cut. `fetch/field_check.rs` makes those calls; this file holds the states.
//!
//! | state | on | becomes |
//! | --- | --- | --- |
//! | `Trusted` | an item outside of its interval that was not checked before | `Checking` |
//! | `Checking` | the item was found, or the call has failed | `Trusted` |
//! | `Checking` | the item was not found | `Wrong` |
//! | `Trusted` | three windows with items, none of which has a timestamp, and none before that had one | `Wrong` |
//! | `Wrong` | three items in a row were found in the second that they name; or the operator clears it | `Trusted` |
//! | any | another replica reports it | `WrongElsewhere`, for [`REPORT_LIFETIME`] |

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::paging::OutsideItem;
use crate::request::Series;

/// Windows without any timestamp after which the field is wrong.
const MAX_WINDOWS_WITHOUT_TIMESTAMPS: u32 = 3;
/// Items found in a row after which a wrong field is trusted again.
const ITEMS_TO_TRUST_AGAIN: u32 = 3;
/// How long the report of another replica holds before it is read again.
const REPORT_LIFETIME: Duration = Duration::from_mins(5);
/// Time before the first recheck of a wrong field. It doubles each time that the recheck confirms the result.
const FIRST_RECHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The longest time between rechecks.
const MAX_RECHECK_INTERVAL: Duration = Duration::from_hours(1);
/// The most items, and the most series, that are remembered for each account.
const MAX_REMEMBERED: usize = 4096;

/// State of each account's `window.field`. Cheap to clone; clones share their state.
#[derive(Clone, Debug, Default)]
pub struct WindowFields {
    accounts: Arc<Mutex<BTreeMap<Arc<str>, Account>>>,
    /// Randomly keyed: no client can choose an item or a series whose hash is that of another.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Account {
    status: FieldStatus,
    /// Whether a wrong field was cleared here, and its marker for all replicas is still to be deleted.
    was_cleared: bool,
    /// Whether a run has brought items that lie where they were requested.
    some_were_placed: bool,
    windows_without_timestamps: u32,
    /// Hashes of the items that were checked.
    checked_items: HashSet<u64>,
    /// Hashes of the series whose parameters or filters shift their windows.
    shifted_series: HashSet<u64>,
}

#[derive(Debug, Default)]
enum FieldStatus {
    #[default]
    Trusted,
    /// The channel closes when the check has finished.
    Checking(watch::Receiver<()>),
    Wrong(Recheck),
    /// Another replica reports it, until then.
    WrongElsewhere(Instant),
}

/// When a wrong field is checked again.
#[derive(Debug)]
struct Recheck {
    at: Instant,
    /// Time since the last recheck.
    interval: Duration,
    /// Items in a row that were found in the second that they name.
    found: u32,
}

impl Recheck {
    fn after(interval: Duration) -> Self {
        Self { at: Instant::now() + interval, interval, found: 0 }
    }
}

/// A field check in progress. Windows of the account wait until it is dropped.
#[derive(Debug)]
pub(in crate::cache) struct FieldCheck {
    _finished: watch::Sender<()>,
}

impl Account {
    fn is_wrong(&self) -> bool {
        match self.status {
            FieldStatus::Trusted | FieldStatus::Checking(_) => false,
            FieldStatus::Wrong(_) => true,
            FieldStatus::WrongElsewhere(until) => Instant::now() < until,
        }
    }

    fn clear(&mut self) {
        let checked_items = std::mem::take(&mut self.checked_items);
        *self = Self { was_cleared: true, some_were_placed: true, checked_items, ..Self::default() };
    }

    /// Sets the result of this replica's own check; true if it is new.
    fn set_wrong(&mut self) -> bool {
        let is_new = !matches!(self.status, FieldStatus::Wrong(_));
        if is_new {
            self.status = FieldStatus::Wrong(Recheck::after(FIRST_RECHECK_INTERVAL));
            self.was_cleared = false;
        }
        is_new
    }
}

impl WindowFields {
    /// Whether windows of this series must not be cut by time.
    pub(in crate::cache) fn is_wrong(&self, series: &Series) -> bool {
        let accounts = self.lock();
        accounts.get(&series.account).is_some_and(|account| account.is_wrong() || self.is_shifted(account, series))
    }

    /// The accounts with a wrong field.
    pub fn wrong_accounts(&self) -> Vec<Arc<str>> {
        self.lock().iter().filter(|(_, account)| account.is_wrong()).map(|(name, _)| name.clone()).collect()
    }

    /// Waits while a field check of this account is in progress: its windows may turn out to be cut wrongly.
    pub(in crate::cache) async fn check_finished(&self, account: &str) {
        let finished = match self.lock().get(account).map(|account| &account.status) {
            Some(FieldStatus::Checking(finished)) => finished.clone(),
            _ => return,
        };
        let mut finished = finished;
        drop(finished.changed().await);
    }

    /// Records a run of a plain series (without filter and parameters) whose items lie where they were requested.
    pub(in crate::cache) fn record_placed(&self, account: &Arc<str>) {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        account.some_were_placed = true;
        account.windows_without_timestamps = 0;
    }

    /// Records a run of a plain series with items, none of which has a timestamp. True if that shows the field wrong.
    pub(in crate::cache) fn record_unplaced(&self, account: &Arc<str>) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        account.windows_without_timestamps += 1;
        let is_evidence = account.windows_without_timestamps >= MAX_WINDOWS_WITHOUT_TIMESTAMPS;
        is_evidence && !account.some_were_placed && account.set_wrong()
    }

    /// Starts a field check for an item outside of its interval; `None` if the item was checked before, or the
    /// field is not trusted.
    pub(in crate::cache) fn start_check(&self, account: &Arc<str>, item: &OutsideItem) -> Option<FieldCheck> {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        let is_trusted = matches!(account.status, FieldStatus::Trusted);
        if !is_trusted || account.checked_items.contains(&self.hasher.hash_one(&item.id)) {
            return None;
        }
        let (sender, finished) = watch::channel(());
        account.status = FieldStatus::Checking(finished);
        Some(FieldCheck { _finished: sender })
    }

    /// Finishes a field check. `found`: whether the item was in the second that it names; `None` if the call has
    /// failed. True if that shows the field wrong.
    pub(in crate::cache) fn finish_check(&self, account: &Arc<str>, item: &OutsideItem, found: Option<bool>) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        if found.is_some() && account.checked_items.len() < MAX_REMEMBERED {
            account.checked_items.insert(self.hasher.hash_one(&item.id));
        }
        if found == Some(false) {
            return account.set_wrong();
        }
        if matches!(account.status, FieldStatus::Checking(_)) {
            account.status = FieldStatus::Trusted;
        }
        false
    }

    /// Whether a recheck of a wrong field is due; the caller makes it. A field that another replica reports wrong is
    /// rechecked by this one from then on if it `makes_calls`.
    pub(in crate::cache) fn start_recheck(&self, account: &str, makes_calls: bool) -> bool {
        let mut accounts = self.lock();
        let Some(account) = accounts.get_mut(account) else { return false };
        match &mut account.status {
            FieldStatus::Wrong(recheck) if Instant::now() >= recheck.at => {
                recheck.at = Instant::now() + recheck.interval;
                true
            }
            FieldStatus::WrongElsewhere(until) if makes_calls && Instant::now() < *until => {
                account.status = FieldStatus::Wrong(Recheck::after(FIRST_RECHECK_INTERVAL));
                false
            }
            FieldStatus::Trusted
            | FieldStatus::Checking(_)
            | FieldStatus::Wrong(_)
            | FieldStatus::WrongElsewhere(_) => false,
        }
    }

    /// Finishes a recheck: another item was found in the second that it names, or not. True if the field is trusted
    /// again.
    pub(in crate::cache) fn finish_recheck(&self, account: &str, found: bool) -> bool {
        let mut accounts = self.lock();
        let Some(account) = accounts.get_mut(account) else { return false };
        let FieldStatus::Wrong(recheck) = &mut account.status else { return false };
        if !found {
            *recheck = Recheck::after((recheck.interval * 2).min(MAX_RECHECK_INTERVAL));
            return false;
        }
        recheck.found += 1;
        recheck.at = Instant::now();
        let is_enough = recheck.found >= ITEMS_TO_TRUST_AGAIN;
        if is_enough {
            account.clear();
        }
        is_enough
    }

    /// Whether a wrong field was cleared here, so that its marker in Redis is to be deleted; true once.
    pub(in crate::cache) fn take_cleared(&self, account: &str) -> bool {
        let mut accounts = self.lock();
        accounts.get_mut(account).is_some_and(|account| std::mem::take(&mut account.was_cleared))
    }

    /// Records that another replica reports the field of an account wrong. True if that is new.
    pub(in crate::cache) fn mark_wrong_elsewhere(&self, account: &Arc<str>) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        let is_new = !account.is_wrong();
        if is_new {
            account.status = FieldStatus::WrongElsewhere(Instant::now() + REPORT_LIFETIME);
        }
        is_new
    }

    /// Trusts the field of an account and its series again. True if the field was wrong.
    pub fn clear(&self, account: &Arc<str>) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        let was_wrong = account.is_wrong();
        account.clear();
        was_wrong
    }

    /// Records that the parameters or the filter of a series shift its windows.
    pub(in crate::cache) fn mark_shifted(&self, series: &Series) {
        let mut accounts = self.lock();
        let account = accounts.entry(series.account.clone()).or_default();
        if account.shifted_series.len() < MAX_REMEMBERED {
            account.shifted_series.insert(self.hash(series));
        }
    }

    fn is_shifted(&self, account: &Account, series: &Series) -> bool {
        if account.shifted_series.is_empty() || !series.may_shift() {
            return false;
        }
        // When the set is full, any series may be shifted.
        account.shifted_series.len() >= MAX_REMEMBERED || account.shifted_series.contains(&self.hash(series))
    }

    fn hash(&self, series: &Series) -> u64 {
        let Series { account: _, stream, filter, parameters, agentic: _ } = series;
        self.hasher.hash_one((stream, filter, parameters))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
