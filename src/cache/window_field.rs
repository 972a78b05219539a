//! Whether `window.field` is the timestamp that the upstream of an account selects on. The streams of an account whose
//! settings name the same field and the same upper bound share the finding; see [`FieldScope`].
//!
//! Windows are cut by that timestamp, so a wrong one would make holes. An item that does not lie where it was requested
//! is a reason to doubt the field, but the item alone may be at fault. So a *field check* requests the second that the
//! item's timestamp names: if the item is returned, only its window cannot be cut; if not, nothing of the scope is
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

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::WindowSettings;
use crate::paging::OutsideItem;
use crate::request::Series;
use crate::window::UpperBound;

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

/// The series that share a finding: those of an account with the same field and upper bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cache) struct FieldScope {
    pub(in crate::cache) account: Arc<str>,
    pub(in crate::cache) field: Arc<str>,
    pub(in crate::cache) upper_bound: UpperBound,
}

impl FieldScope {
    /// The scope of the series of an account with these settings.
    pub(in crate::cache) fn new(account: &Arc<str>, settings: &WindowSettings) -> Self {
        let (account, field) = (account.clone(), settings.field.clone());
        Self { account, field, upper_bound: settings.upper_bound }
    }

    /// Whether series of the same account with these settings belong to the scope.
    pub(in crate::cache) fn has(&self, settings: &WindowSettings) -> bool {
        self.field == settings.field && self.upper_bound == settings.upper_bound
    }
}

/// State of each `window.field`. Cheap to clone; clones share their state.
#[derive(Clone, Debug, Default)]
pub struct WindowFields {
    accounts: Arc<Mutex<BTreeMap<Arc<str>, AccountFields>>>,
    /// Randomly keyed: no client can choose an item or a series whose hash is that of another.
    hasher: RandomState,
}

/// The fields of an account.
#[derive(Debug, Default)]
struct AccountFields {
    /// One for each scope that was met; almost always one.
    fields: Vec<(FieldScope, Field)>,
    /// Whether the operator has cleared the account: that holds for scopes that are met later, too, whose markers of an
    /// earlier process may still be there.
    was_cleared: bool,
}

impl AccountFields {
    fn get_or_insert(&mut self, scope: &FieldScope) -> &mut Field {
        let found = self.fields.iter().position(|(known, _)| known == scope);
        let index = found.unwrap_or_else(|| {
            let field = if self.was_cleared { Field::cleared(HashSet::new()) } else { Field::default() };
            self.fields.push((scope.clone(), field));
            self.fields.len() - 1
        });
        &mut self.fields[index].1
    }

    fn is_wrong(&self) -> bool {
        self.fields.iter().any(|(_, field)| field.is_wrong())
    }
}

#[derive(Debug, Default)]
struct Field {
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

impl Field {
    /// A field that is trusted again.
    fn cleared(checked_items: HashSet<u64>) -> Self {
        Self { was_cleared: true, some_were_placed: true, checked_items, ..Self::default() }
    }

    fn is_wrong(&self) -> bool {
        match self.status {
            FieldStatus::Trusted | FieldStatus::Checking(_) => false,
            FieldStatus::Wrong(_) => true,
            FieldStatus::WrongElsewhere(until) => Instant::now() < until,
        }
    }

    fn clear(&mut self) {
        *self = Self::cleared(std::mem::take(&mut self.checked_items));
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
    /// Whether windows of this series, with these settings, must not be cut by time. Allocates nothing.
    pub(in crate::cache) fn is_wrong(&self, series: &Series, settings: &WindowSettings) -> bool {
        let accounts = self.lock();
        let mut fields = accounts.get(&series.account).into_iter().flat_map(|account| &account.fields);
        let own = fields.find(|(scope, _)| scope.has(settings));
        own.is_some_and(|(_, field)| field.is_wrong() || self.is_shifted(field, series))
    }

    /// Whether a field of an account is wrong.
    pub(in crate::cache) fn is_account_wrong(&self, account: &str) -> bool {
        self.lock().get(account).is_some_and(AccountFields::is_wrong)
    }

    /// The wrong fields, each with its account. One that is wrong with both upper bounds stands once.
    pub fn wrong_fields(&self) -> BTreeSet<(Arc<str>, Arc<str>)> {
        let accounts = self.lock();
        let fields = accounts.values().flat_map(|account| &account.fields);
        fields.filter(|(_, field)| field.is_wrong()).map(|(it, _)| (it.account.clone(), it.field.clone())).collect()
    }

    /// Waits while a field check of this scope is in progress: its windows may turn out to be cut wrongly.
    pub(in crate::cache) async fn check_finished(&self, scope: &FieldScope) {
        let finished = self.with(scope, |field| match &field.status {
            FieldStatus::Checking(finished) => Some(finished.clone()),
            _ => None,
        });
        if let Some(mut finished) = finished {
            drop(finished.changed().await);
        }
    }

    /// Records a run of a plain series (without filter and parameters) whose items lie where they were requested.
    pub(in crate::cache) fn record_placed(&self, scope: &FieldScope) {
        self.with(scope, |field| {
            field.some_were_placed = true;
            field.windows_without_timestamps = 0;
        });
    }

    /// Records a run of a plain series with items, none of which has a timestamp. True if that shows the field wrong.
    pub(in crate::cache) fn record_unplaced(&self, scope: &FieldScope) -> bool {
        self.with(scope, |field| {
            field.windows_without_timestamps += 1;
            let is_evidence = field.windows_without_timestamps >= MAX_WINDOWS_WITHOUT_TIMESTAMPS;
            is_evidence && !field.some_were_placed && field.set_wrong()
        })
    }

    /// Starts a field check for an item outside of its interval; `None` if the item was checked before, or the
    /// field is not trusted.
    pub(in crate::cache) fn start_check(&self, scope: &FieldScope, item: &OutsideItem) -> Option<FieldCheck> {
        self.with(scope, |field| {
            let is_trusted = matches!(field.status, FieldStatus::Trusted);
            if !is_trusted || field.checked_items.contains(&self.hasher.hash_one(&item.id)) {
                return None;
            }
            let (sender, finished) = watch::channel(());
            field.status = FieldStatus::Checking(finished);
            Some(FieldCheck { _finished: sender })
        })
    }

    /// Finishes a field check. `found`: whether the item was in the second that it names; `None` if the call has
    /// failed. True if that shows the field wrong.
    pub(in crate::cache) fn finish_check(&self, scope: &FieldScope, item: &OutsideItem, found: Option<bool>) -> bool {
        self.with(scope, |field| {
            if found.is_some() && field.checked_items.len() < MAX_REMEMBERED {
                field.checked_items.insert(self.hasher.hash_one(&item.id));
            }
            if found == Some(false) {
                return field.set_wrong();
            }
            if matches!(field.status, FieldStatus::Checking(_)) {
                field.status = FieldStatus::Trusted;
            }
            false
        })
    }

    /// Whether a recheck of a wrong field is due; the caller makes it. A field that another replica reports wrong is
    /// rechecked by this one from then on if it `makes_calls`.
    pub(in crate::cache) fn start_recheck(&self, scope: &FieldScope, makes_calls: bool) -> bool {
        self.with(scope, |field| match &mut field.status {
            FieldStatus::Wrong(recheck) if Instant::now() >= recheck.at => {
                recheck.at = Instant::now() + recheck.interval;
                true
            }
            FieldStatus::WrongElsewhere(until) if makes_calls && Instant::now() < *until => {
                field.status = FieldStatus::Wrong(Recheck::after(FIRST_RECHECK_INTERVAL));
                false
            }
            FieldStatus::Trusted
            | FieldStatus::Checking(_)
            | FieldStatus::Wrong(_)
            | FieldStatus::WrongElsewhere(_) => false,
        })
    }

    /// Finishes a recheck: another item was found in the second that it names, or not. True if the field is trusted
    /// again.
    pub(in crate::cache) fn finish_recheck(&self, scope: &FieldScope, found: bool) -> bool {
        self.with(scope, |field| {
            let FieldStatus::Wrong(recheck) = &mut field.status else { return false };
            if !found {
                *recheck = Recheck::after((recheck.interval * 2).min(MAX_RECHECK_INTERVAL));
                return false;
            }
            recheck.found += 1;
            recheck.at = Instant::now();
            let is_enough = recheck.found >= ITEMS_TO_TRUST_AGAIN;
            if is_enough {
                field.clear();
            }
            is_enough
        })
    }

    /// Whether a wrong field was cleared here, so that its marker in Redis is to be deleted; true once.
    pub(in crate::cache) fn take_cleared(&self, scope: &FieldScope) -> bool {
        self.with(scope, |field| std::mem::take(&mut field.was_cleared))
    }

    /// Records that another replica reports the field of a scope wrong. True if that is new.
    pub(in crate::cache) fn mark_wrong_elsewhere(&self, scope: &FieldScope) -> bool {
        self.with(scope, |field| {
            let is_new = !field.is_wrong();
            if is_new {
                field.status = FieldStatus::WrongElsewhere(Instant::now() + REPORT_LIFETIME);
            }
            is_new
        })
    }

    /// Trusts the fields of an account and its series again. True if one of them was wrong.
    pub fn clear(&self, account: &Arc<str>) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        let was_wrong = account.is_wrong();
        account.was_cleared = true;
        account.fields.iter_mut().for_each(|(_, field)| field.clear());
        was_wrong
    }

    /// Records that the parameters or the filter of a series shift its windows.
    pub(in crate::cache) fn mark_shifted(&self, series: &Series, settings: &WindowSettings) {
        self.with(&FieldScope::new(&series.account, settings), |field| {
            if field.shifted_series.len() < MAX_REMEMBERED {
                field.shifted_series.insert(self.hash(series));
            }
        });
    }

    fn is_shifted(&self, field: &Field, series: &Series) -> bool {
        if field.shifted_series.is_empty() || !series.may_shift() {
            return false;
        }
        // When the set is full, any series may be shifted.
        field.shifted_series.len() >= MAX_REMEMBERED || field.shifted_series.contains(&self.hash(series))
    }

    fn hash(&self, series: &Series) -> u64 {
        let Series { account: _, stream, filter, parameters, agentic: _ } = series;
        self.hasher.hash_one((stream, filter, parameters))
    }

    fn with<T>(&self, scope: &FieldScope, change: impl FnOnce(&mut Field) -> T) -> T {
        change(self.lock().entry(scope.account.clone()).or_default().get_or_insert(scope))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, AccountFields>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
