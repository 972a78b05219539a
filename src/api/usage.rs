//! Usage of each caller and its cost, counted when the body of an answer has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::request::{ANONYMOUS_CALLER, Caller};
use crate::config;
use crate::live::Live;
use crate::quota::{CallScheduler, QuotaManager};
use crate::request::RateLimitStatus;
use crate::units::seconds;

/// Counts of all callers, for each account that a caller may read: as many as the configuration implies, whatever
/// requests arrive. Cheap to clone; all clones share the counts.
#[derive(Clone, Debug)]
pub struct Usage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    callers: Live<Vec<Arc<CallerCounts>>>,
    quotas: QuotaManager,
}

#[derive(Debug)]
struct CallerCounts {
    name: Arc<str>,
    weight: u32,
    accounts: Vec<Arc<AccountCounts>>,
}

/// Counts of one caller and account since the start.
#[derive(Debug)]
struct AccountCounts {
    account: Arc<str>,
    scheduler: Option<Arc<CallScheduler>>,
    requests: AtomicU64,
    items: AtomicU64,
    saved: AtomicU64,
}

impl AccountCounts {
    fn new(account: &Arc<str>, quotas: &QuotaManager) -> Self {
        let (requests, items, saved) = Default::default();
        Self { account: account.clone(), scheduler: quotas.scheduler(account), requests, items, saved }
    }
}

impl Usage {
    /// Empty counts. Where no callers are configured, all requests share one caller.
    pub fn new(callers: &[config::CallerConfig], accounts: &[config::AccountConfig], quotas: &QuotaManager) -> Self {
        let usage = Self(Arc::new(Inner { callers: Live::default(), quotas: quotas.clone() }));
        usage.configure(callers, accounts);
        usage
    }

    /// Replaces callers and accounts. The counts of those that stay go on; those of others are dropped.
    pub fn configure(&self, callers: &[config::CallerConfig], accounts: &[config::AccountConfig]) {
        let known = self.0.callers.load();
        let caller_counts = |name: &Arc<str>, weight, may_see: &dyn Fn(&str) -> bool| {
            let known = known.iter().find(|known| known.name == *name);
            let accounts = accounts.iter().map(|account| &account.account_id).filter(|account| may_see(account));
            let counts = |account: &Arc<str>| {
                let known = known.and_then(|known| known.accounts.iter().find(|counts| counts.account == *account));
                known.cloned().unwrap_or_else(|| Arc::new(AccountCounts::new(account, &self.0.quotas)))
            };
            Arc::new(CallerCounts { name: name.clone(), weight, accounts: accounts.map(counts).collect() })
        };
        let mut all: Vec<_> = callers
            .iter()
            .map(|caller| caller_counts(&caller.name, caller.weight, &|account| caller.accounts.allow(account)))
            .collect();
        if all.is_empty() {
            all.push(caller_counts(&Arc::from(ANONYMOUS_CALLER), 1, &|_| true));
        }
        self.0.callers.replace(all);
    }

    fn find(&self, name: &str) -> Option<Arc<CallerCounts>> {
        self.0.callers.load().iter().find(|caller_counts| *caller_counts.name == *name).cloned()
    }

    /// Counts an answer that ended completely, for which the caller would have made `alone` calls by itself and which
    /// reports `calls`. Returns the calls saved.
    pub(super) fn count(&self, caller: &str, account: &str, items: u64, alone: u64, calls: u32) -> u64 {
        let Some(caller_counts) = self.find(caller) else { return 0 };
        let counts = caller_counts.accounts.iter().find(|counts| *counts.account == *account);
        let Some(counts) = counts else { return 0 };
        let net = i64::try_from(alone).unwrap_or(i64::MAX) - i64::from(calls);
        let saved = counts.scheduler.as_ref().map_or(0, |scheduler| scheduler.settle(net));
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.items.fetch_add(items, Ordering::Relaxed);
        counts.saved.fetch_add(saved, Ordering::Relaxed);
        saved
    }

    /// Adds the calls of an aborted answer to those that are set against later savings.
    pub(super) fn add_unsettled(&self, account: &str, calls: u32) {
        if let Some(scheduler) = self.0.quotas.scheduler(account) {
            scheduler.add_unsettled(calls);
        }
    }

    /// Usage and limit of the requesting caller.
    pub(super) fn own(&self, caller: Option<&Caller>, limit_status: Option<RateLimitStatus>) -> Option<CallerUsage> {
        let caller_counts = self.find(caller.map_or(ANONYMOUS_CALLER, |caller| &caller.name))?;
        Some(Self::of(&caller_counts, limit_status))
    }

    /// Usage of each caller, in the order of the configuration; `limit_status` returns the state of a caller's limit.
    pub fn all(&self, limit_status: impl Fn(&str) -> Option<RateLimitStatus>) -> Vec<CallerUsage> {
        self.0
            .callers
            .load()
            .iter()
            .map(|caller_counts| Self::of(caller_counts, limit_status(&caller_counts.name)))
            .collect()
    }

    fn of(caller_counts: &CallerCounts, limit_status: Option<RateLimitStatus>) -> CallerUsage {
        let accounts = caller_counts.accounts.iter().map(|counts| Self::of_account(caller_counts, counts));
        CallerUsage {
            caller: caller_counts.name.to_string(),
            weight: caller_counts.weight,
            limit: limit_status.map(CallerLimit::from),
            accounts: accounts.collect(),
        }
    }

    fn of_account(caller_counts: &CallerCounts, counts: &AccountCounts) -> AccountUsage {
        let scheduler = counts.scheduler.as_ref();
        let (spent, of_each) = scheduler.map(|scheduler| scheduler.spent_by(&caller_counts.name)).unwrap_or_default();
        let remaining = scheduler.map(|scheduler| scheduler.limit_usage()).unwrap_or_default();
        // Both are in the order of the configuration.
        let quota = remaining.into_iter().zip(of_each).map(|(limit_status, (_, spent))| QuotaUsage {
            limit: limit_status.limit.requests,
            per_seconds: limit_status.limit.per.as_secs(),
            budget: limit_status.budget,
            left: limit_status.remaining,
            spent,
        });
        AccountUsage {
            account_id: counts.account.to_string(),
            requests: counts.requests.load(Ordering::Relaxed),
            items: counts.items.load(Ordering::Relaxed),
            calls: Calls { spent, saved: counts.saved.load(Ordering::Relaxed) },
            quota: quota.collect(),
            waiting: scheduler.map_or(0, |scheduler| scheduler.queue_length()),
        }
    }
}

/// Usage of a caller since the start, and the state of its limits.
#[derive(Clone, Debug, Serialize)]
pub struct CallerUsage {
    /// The caller's name.
    pub caller: String,
    /// Share of the quota under contention.
    pub weight: u32,
    /// The caller's rate limit; `None` where no callers are configured.
    pub limit: Option<CallerLimit>,
    /// The accounts that the caller may read, in the order of the configuration.
    pub accounts: Vec<AccountUsage>,
}

impl CallerUsage {
    /// Answered windows, and calls spent and saved, over all accounts.
    pub fn total(&self) -> (u64, u64, u64) {
        self.accounts.iter().fold((0, 0, 0), |(requests, spent, saved), account| {
            (requests + account.requests, spent + account.calls.spent, saved + account.calls.saved)
        })
    }
}

/// State of a caller's rate limit.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CallerLimit {
    /// Requests per minute.
    pub requests_per_minute: u32,
    /// Requests that are admitted now.
    pub left: u32,
    /// Seconds until the limit is full again without requests.
    pub full_in_seconds: f64,
}

impl From<RateLimitStatus> for CallerLimit {
    fn from(limit_status: RateLimitStatus) -> Self {
        let RateLimitStatus { limit, left, full_in, more_in: _ } = limit_status;
        Self { requests_per_minute: limit, left, full_in_seconds: seconds(full_in) }
    }
}

/// A caller's usage of one account.
#[derive(Clone, Debug, Serialize)]
pub struct AccountUsage {
    /// Kore's account.
    pub account_id: String,
    /// Windows answered completely.
    pub requests: u64,
    /// Items in these answers.
    pub items: u64,
    /// Upstream calls.
    pub calls: Calls,
    /// How the account's rolling limits stand, for all callers together.
    pub quota: Vec<QuotaUsage>,
    /// Queued calls of all callers.
    pub waiting: usize,
}

/// Upstream calls of one caller and one account.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Calls {
    /// Calls made and charged to the caller.
    pub spent: u64,
    /// Calls saved: those that the caller would have made without the gateway, less those reported and overspending by
    /// others.
    pub saved: u64,
}

/// State of one rolling limit.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct QuotaUsage {
    /// The limit, in calls.
    pub limit: u32,
    /// The length of its window, in seconds.
    pub per_seconds: u64,
    /// Calls that the window may hold now: fewer while another client spends the same quota.
    pub budget: u32,
    /// Calls left.
    pub left: u32,
    /// Calls in the window that were charged to the caller.
    pub spent: u32,
}
