//! What each caller had and what it cost, counted when the body of an answer has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::request::{Caller, NOBODY};
use super::seconds;
use crate::config;
use crate::quota::{CallScheduler, QuotaManager};
use crate::request::RateLimitStatus;

/// The counts of all callers, for each account that a caller may see: as many as there are in the configuration,
/// whatever is asked for. Cheap to clone; all clones see the same.
#[derive(Clone, Debug)]
pub struct Usage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    callers: Vec<Known>,
    quotas: QuotaManager,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    weight: u32,
    accounts: Vec<Tally>,
}

/// What a caller had of one account since the start.
#[derive(Debug)]
struct Tally {
    account: Arc<str>,
    turns: Option<Arc<CallScheduler>>,
    requests: AtomicU64,
    items: AtomicU64,
    saved: AtomicU64,
}

impl Usage {
    /// Nothing was asked for yet. Where no callers are configured, all requests are those of one.
    pub fn new(callers: &[config::CallerConfig], accounts: &[config::AccountConfig], quotas: &QuotaManager) -> Self {
        let known = |name: &Arc<str>, weight, may_see: &dyn Fn(&str) -> bool| {
            let accounts = accounts.iter().map(|account| &account.account_id).filter(|account| may_see(account));
            let tally = |account: &Arc<str>| {
                let (requests, items, saved) = Default::default();
                Tally { account: account.clone(), turns: quotas.scheduler(account).cloned(), requests, items, saved }
            };
            Known { name: name.clone(), weight, accounts: accounts.map(tally).collect() }
        };
        let mut all: Vec<Known> = callers
            .iter()
            .map(|caller| known(&caller.name, caller.weight, &|account| caller.accounts.allow(account)))
            .collect();
        if all.is_empty() {
            all.push(known(&Arc::from(NOBODY), 1, &|_| true));
        }
        Self(Arc::new(Inner { callers: all, quotas: quotas.clone() }))
    }

    fn find(&self, name: &str) -> Option<&Known> {
        self.0.callers.iter().find(|known| *known.name == *name)
    }

    /// Counts an answer that ended whole, for which the caller would have made `alone` calls by itself and which tells of
    /// `calls`. Returns the calls saved.
    pub(super) fn count(&self, caller: &str, account: &str, items: u64, alone: u64, calls: u32) -> u64 {
        let accounts = self.find(caller).map(|known| &known.accounts);
        let tally = accounts.and_then(|accounts| accounts.iter().find(|tally| *tally.account == *account));
        let Some(tally) = tally else { return 0 };
        let net = i64::try_from(alone).unwrap_or(i64::MAX) - i64::from(calls);
        let saved = tally.turns.as_ref().map_or(0, |turns| turns.settle(net));
        tally.requests.fetch_add(1, Ordering::Relaxed);
        tally.items.fetch_add(items, Ordering::Relaxed);
        tally.saved.fetch_add(saved, Ordering::Relaxed);
        saved
    }

    /// Adds the calls that an answer without an end tells of to what is set against later savings.
    pub(super) fn add_unsettled(&self, account: &str, calls: u32) {
        if let Some(turns) = self.0.quotas.scheduler(account) {
            turns.add_unsettled(calls);
        }
    }

    /// What the one who asks had, and how its own limit stands.
    pub(super) fn own(&self, caller: Option<&Caller>, standing: Option<RateLimitStatus>) -> Option<CallerUsage> {
        let known = self.find(caller.map_or(NOBODY, |caller| &caller.name))?;
        Some(Self::of(known, standing))
    }

    /// What each caller had, in the order of the configuration; `standing` gives how the limit of one stands.
    pub fn all(&self, standing: impl Fn(&str) -> Option<RateLimitStatus>) -> Vec<CallerUsage> {
        self.0.callers.iter().map(|known| Self::of(known, standing(&known.name))).collect()
    }

    fn of(known: &Known, standing: Option<RateLimitStatus>) -> CallerUsage {
        let accounts = known.accounts.iter().map(|tally| Self::of_account(known, tally));
        CallerUsage {
            caller: known.name.to_string(),
            weight: known.weight,
            limit: standing.map(CallerLimit::from),
            accounts: accounts.collect(),
        }
    }

    fn of_account(known: &Known, tally: &Tally) -> AccountUsage {
        let turns = tally.turns.as_ref();
        let (spent, of_each) = turns.map(|turns| turns.spent_by(&known.name)).unwrap_or_default();
        let remaining = turns.map(|turns| turns.limit_usage()).unwrap_or_default();
        // Both are in the order of the configuration.
        let quota = remaining.into_iter().zip(of_each).map(|(standing, (_, spent))| QuotaUsage {
            limit: standing.limit.requests,
            per_seconds: standing.limit.per.as_secs(),
            budget: standing.budget,
            left: standing.remaining,
            spent,
        });
        AccountUsage {
            account_id: tally.account.to_string(),
            requests: tally.requests.load(Ordering::Relaxed),
            items: tally.items.load(Ordering::Relaxed),
            calls: Calls { spent, saved: tally.saved.load(Ordering::Relaxed) },
            quota: quota.collect(),
            waiting: turns.map_or(0, |turns| turns.queue_length()),
        }
    }
}

/// What a caller had since the start, and what it may have now.
#[derive(Clone, Debug, Serialize)]
pub struct CallerUsage {
    /// Its name.
    pub caller: String,
    /// Its share when callers compete for the quota.
    pub weight: u32,
    /// Its own limit; `None` where no callers are configured.
    pub limit: Option<CallerLimit>,
    /// The accounts that it may see, in the order of the configuration.
    pub accounts: Vec<AccountUsage>,
}

impl CallerUsage {
    /// Windows that were answered, and upstream calls that were spent and saved, of all accounts.
    pub fn total(&self) -> (u64, u64, u64) {
        self.accounts.iter().fold((0, 0, 0), |(requests, spent, saved), account| {
            (requests + account.requests, spent + account.calls.spent, saved + account.calls.saved)
        })
    }
}

/// How a caller's own limit stands.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CallerLimit {
    /// Of requests to the gateway.
    pub requests_per_minute: u32,
    /// How many may come now.
    pub left: u32,
    /// When it will be all of them, if none comes.
    pub full_in_seconds: f64,
}

impl From<RateLimitStatus> for CallerLimit {
    fn from(standing: RateLimitStatus) -> Self {
        let RateLimitStatus { limit, left, full_in } = standing;
        Self { requests_per_minute: limit, left, full_in_seconds: seconds(full_in) }
    }
}

/// What a caller had of one account.
#[derive(Clone, Debug, Serialize)]
pub struct AccountUsage {
    /// Kore's account.
    pub account_id: String,
    /// Windows that were answered, to their ends.
    pub requests: u64,
    /// Items in these answers.
    pub items: u64,
    /// Upstream calls.
    pub calls: Calls,
    /// How the account's rolling limits stand, for all callers together.
    pub quota: Vec<QuotaUsage>,
    /// How many calls wait for their turn, of all callers together.
    pub waiting: usize,
}

/// Upstream calls of one caller and one account.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Calls {
    /// That were made and charged to it.
    pub spent: u64,
    /// That it would have made without the gateway, beyond those that its answers told of and what others overspent.
    pub saved: u64,
}

/// How one rolling limit stands.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct QuotaUsage {
    /// Calls.
    pub limit: u32,
    /// In so many seconds.
    pub per_seconds: u64,
    /// How many of them the window may hold now: less while somebody else spends the same quota.
    pub budget: u32,
    /// How many of them are left.
    pub left: u32,
    /// How many of those that the window holds were charged to the caller.
    pub spent: u32,
}
