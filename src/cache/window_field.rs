//! Whether `window.field` is the timestamp that the upstream of an account selects on: the verdict, and what led to it.
//!
//! Windows are cut by that timestamp, so a wrong one would make holes. An item that does not lie where it was asked for
//! is a reason to doubt, but it may be the item's own fault. So the second that its timestamp names is asked for
//! (`trial`): if the item is there, only its window cannot be cut; if it is not, nothing of the account is.
//!
//! | state | on | becomes |
//! | --- | --- | --- |
//! | `Trusted` | an item out of place that was not looked for before | `OnTrial` |
//! | `OnTrial` | the item was found, or the call has failed | `Trusted` |
//! | `OnTrial` | the item was not found | `Wrong` |
//! | `Trusted` | three windows with items, none of which has a timestamp, and none before that had one | `Wrong` |
//! | `Wrong` | three different items in a row were found in the second that they name; or the operator says so | `Trusted` |
//! | any | another replica says so | `Wrong`, for [`HEARSAY`] |

mod check;

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::paging::MisplacedItem;
use crate::request::Series;

/// So many windows without any timestamp show that there is no such field.
const WINDOWS_WITHOUT_TIMESTAMPS: u32 = 3;
/// So many items in a row that lie where they should take a verdict back.
const ITEMS_TO_ACQUIT: u32 = 3;
/// What another replica has said is asked again after this.
const HEARSAY: Duration = Duration::from_mins(5);
/// A verdict is reviewed after this; after twice as long each time that it is confirmed,
const FIRST_REVIEW: Duration = Duration::from_secs(10);
/// but not less often than this.
const LAST_REVIEW: Duration = Duration::from_hours(1);
/// So many items and series are remembered.
const REMEMBERED: usize = 4096;

/// What is known of each account's `window.field`. Cheap to clone; all clones see the same.
#[derive(Clone, Debug, Default)]
pub struct WindowFields {
    accounts: Arc<Mutex<BTreeMap<Arc<str>, Account>>>,
    /// Keyed by chance: nobody can choose an item or a series to be taken for another.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Account {
    verdict: Verdict,
    /// Whether a verdict was taken back, and what all replicas see of it is still to be deleted.
    was_acquitted: bool,
    /// Whether a run has brought items that lie where they were asked for.
    some_were_placed: bool,
    windows_without_timestamps: u32,
    /// Items that were looked for, by hash.
    looked_for: HashSet<u64>,
    /// Series with parameters or bodies that shift their windows, by hash.
    shifted: HashSet<u64>,
}

#[derive(Debug, Default)]
enum Verdict {
    #[default]
    Trusted,
    /// Closed when the trial has ended.
    OnTrial(watch::Receiver<()>),
    Wrong(Review),
    /// Another replica says so.
    WrongUntil(Instant),
}

/// When a verdict is looked at again.
#[derive(Debug)]
struct Review {
    at: Instant,
    /// How long after the last one.
    pause: Duration,
    /// How many items in a row were found where they should be.
    found: u32,
}

impl Review {
    fn after(pause: Duration) -> Self {
        Self { at: Instant::now() + pause, pause, found: 0 }
    }
}

/// An item that is to be looked for. While it is held, windows of the account wait.
#[derive(Debug)]
pub(super) struct FieldCheck {
    _ended: watch::Sender<()>,
}

impl Account {
    fn is_wrong(&self) -> bool {
        match self.verdict {
            Verdict::Trusted | Verdict::OnTrial(_) => false,
            Verdict::Wrong(_) => true,
            Verdict::WrongUntil(end) => Instant::now() < end,
        }
    }

    fn clear(&mut self) {
        let looked_for = std::mem::take(&mut self.looked_for);
        *self = Self { was_acquitted: true, some_were_placed: true, looked_for, ..Self::default() };
    }

    /// Remembers the verdict that was found here; true if it is news.
    fn condemn(&mut self) -> bool {
        let is_news = !matches!(self.verdict, Verdict::Wrong(_));
        if is_news {
            self.verdict = Verdict::Wrong(Review::after(FIRST_REVIEW));
            self.was_acquitted = false;
        }
        is_news
    }
}

impl WindowFields {
    /// Whether windows of this series must not be cut.
    pub(super) fn is_wrong(&self, series: &Series) -> bool {
        let accounts = self.lock();
        accounts.get(&series.account).is_some_and(|account| account.is_wrong() || self.is_shifted(account, series))
    }

    /// The accounts with a wrong field.
    pub fn wrong_accounts(&self) -> Vec<Arc<str>> {
        self.lock().iter().filter(|(_, account)| account.is_wrong()).map(|(name, _)| name.clone()).collect()
    }

    /// Waits while an item of this account is being looked for: its windows may turn out to be cut wrongly.
    pub(super) async fn check_finished(&self, account: &str) {
        let trial = match self.lock().get(account).map(|account| &account.verdict) {
            Some(Verdict::OnTrial(trial)) => trial.clone(),
            _ => return,
        };
        let mut trial = trial;
        drop(trial.changed().await);
    }

    /// A run of a series that nothing shifts has brought items, each where it was asked for.
    pub(super) fn record_placed(&self, account: &Arc<str>) {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        account.some_were_placed = true;
        account.windows_without_timestamps = 0;
    }

    /// A run of a series that nothing shifts has brought items, none of which has a timestamp. True if the field is found
    /// wrong by that.
    pub(super) fn record_unplaced(&self, account: &Arc<str>) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        account.windows_without_timestamps += 1;
        let is_evidence = account.windows_without_timestamps >= WINDOWS_WITHOUT_TIMESTAMPS;
        is_evidence && !account.some_were_placed && account.condemn()
    }

    /// An item does not lie where it was asked for: whether it is to be looked for where its timestamp says.
    pub(super) fn start_check(&self, account: &Arc<str>, item: &MisplacedItem) -> Option<FieldCheck> {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        let is_trusted = matches!(account.verdict, Verdict::Trusted);
        if !is_trusted || account.looked_for.contains(&self.hasher.hash_one(&item.id)) {
            return None;
        }
        let (ended, trial) = watch::channel(());
        account.verdict = Verdict::OnTrial(trial);
        Some(FieldCheck { _ended: ended })
    }

    /// A trial has ended: the item was found where its timestamp says, or was not; `None` if nobody knows. True if the
    /// field is found wrong by that.
    pub(super) fn finish_check(&self, account: &Arc<str>, item: &MisplacedItem, found: Option<bool>) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        if found.is_some() && account.looked_for.len() < REMEMBERED {
            account.looked_for.insert(self.hasher.hash_one(&item.id));
        }
        if found == Some(false) {
            return account.condemn();
        }
        if matches!(account.verdict, Verdict::OnTrial(_)) {
            account.verdict = Verdict::Trusted;
        }
        false
    }

    /// Whether it is time to look at the verdict over an account again. Whoever is told so does. A verdict of another
    /// replica is this one's to review if it `calls`.
    pub(super) fn start_recheck(&self, account: &str, calls: bool) -> bool {
        let mut accounts = self.lock();
        let Some(account) = accounts.get_mut(account) else { return false };
        match &mut account.verdict {
            Verdict::Wrong(review) if Instant::now() >= review.at => {
                review.at = Instant::now() + review.pause;
                true
            }
            Verdict::WrongUntil(end) if calls && Instant::now() < *end => {
                account.verdict = Verdict::Wrong(Review::after(FIRST_REVIEW));
                false
            }
            Verdict::Trusted | Verdict::OnTrial(_) | Verdict::Wrong(_) | Verdict::WrongUntil(_) => false,
        }
    }

    /// A review has ended: another item was found where its timestamp says, or was not. True if the verdict is taken back.
    pub(super) fn finish_recheck(&self, account: &str, found: bool) -> bool {
        let mut accounts = self.lock();
        let Some(account) = accounts.get_mut(account) else { return false };
        let Verdict::Wrong(review) = &mut account.verdict else { return false };
        if !found {
            *review = Review::after((review.pause * 2).min(LAST_REVIEW));
            return false;
        }
        review.found += 1;
        review.at = Instant::now();
        let is_enough = review.found >= ITEMS_TO_ACQUIT;
        if is_enough {
            account.clear();
        }
        is_enough
    }

    /// Whether a verdict that stands where all replicas see it was taken back here, so that it is to be deleted. Asked once.
    pub(super) fn take_cleared(&self, account: &str) -> bool {
        let mut accounts = self.lock();
        accounts.get_mut(account).is_some_and(|account| std::mem::take(&mut account.was_acquitted))
    }

    /// Another replica has found the field of an account wrong. True if that is news.
    pub(super) fn mark_wrong_elsewhere(&self, account: &Arc<str>) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        let is_news = !account.is_wrong();
        if is_news {
            account.verdict = Verdict::WrongUntil(Instant::now() + HEARSAY);
        }
        is_news
    }

    /// Takes the verdict over an account back, and over its series. True if there was one over the account.
    pub fn clear(&self, account: &Arc<str>) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(account.clone()).or_default();
        let was_wrong = account.is_wrong();
        account.clear();
        was_wrong
    }

    /// The windows of a series are shifted by a parameter or a body of its own.
    pub(super) fn mark_shifted(&self, series: &Series) {
        let mut accounts = self.lock();
        let account = accounts.entry(series.account.clone()).or_default();
        if account.shifted.len() < REMEMBERED {
            account.shifted.insert(self.hash(series));
        }
    }

    fn is_shifted(&self, account: &Account, series: &Series) -> bool {
        if account.shifted.is_empty() || !series.may_shift() {
            return false;
        }
        // Where so many are, others may have been forgotten.
        account.shifted.len() >= REMEMBERED || account.shifted.contains(&self.hash(series))
    }

    fn hash(&self, series: &Series) -> u64 {
        let Series { account: _, stream, filter, parameters, agentic: _ } = series;
        self.hasher.hash_one((stream, filter, parameters))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
