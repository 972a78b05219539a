//! The settings in effect for each account and stream: a stream's own, else its account's, else those of `[window]`.
//! They are resolved when the configuration is loaded.

use std::sync::Arc;
use std::time::Duration;

use super::{AccountConfig, StreamConfig, WindowConfig, WindowOverrides};
use crate::live::Live;
use crate::window::{FreshnessPolicy, FreshnessTier, Retention, Timestamp, UpperBound};

/// The settings of the windows of a series, in effect.
#[derive(Clone, Debug)]
pub struct WindowSettings {
    /// See [`WindowConfig::field`].
    pub field: Arc<str>,
    /// See [`WindowConfig::upper_bound`].
    pub upper_bound: UpperBound,
    /// See [`WindowConfig::settle_after`].
    pub settle_after: Duration,
    /// See [`WindowConfig::freshness`].
    pub freshness: Vec<FreshnessTier>,
    /// How long data is kept; `None` means without a limit.
    pub retention: Option<Retention>,
    /// The policy of `settle_after` and `freshness`.
    pub freshness_policy: FreshnessPolicy,
}

impl WindowSettings {
    /// The settings of `[window]`.
    fn global(window: &WindowConfig) -> Self {
        let (settle_after, freshness) = (window.settle_after, window.freshness.clone());
        Self {
            field: window.field.clone(),
            upper_bound: window.upper_bound,
            settle_after,
            freshness_policy: FreshnessPolicy::new(settle_after, freshness.clone()),
            freshness,
            retention: None,
        }
    }

    /// The same settings with `overrides` over them.
    fn with(&self, overrides: &WindowOverrides) -> Self {
        let WindowOverrides { field, upper_bound, settle_after, freshness, retention } = overrides;
        let settle_after = settle_after.unwrap_or(self.settle_after);
        let freshness = freshness.as_ref().unwrap_or(&self.freshness).clone();
        Self {
            field: field.as_ref().unwrap_or(&self.field).clone(),
            upper_bound: upper_bound.unwrap_or(self.upper_bound),
            settle_after,
            freshness_policy: FreshnessPolicy::new(settle_after, freshness.clone()),
            freshness,
            retention: retention.map(Retention).or(self.retention),
        }
    }

    /// The earliest time that is kept at `now`; `None` without a retention.
    pub fn retained_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.retention.map(|retention| retention.since(now))
    }
}

/// The settings of all accounts and streams. Cheap to clone; a reload changes all clones.
#[derive(Clone, Debug)]
pub struct SeriesSettings(Live<Resolved>);

#[derive(Debug)]
struct Resolved {
    /// Ascending by account.
    accounts: Vec<(Arc<str>, AccountSettings)>,
    /// The settings of all other accounts.
    others: Arc<WindowSettings>,
    chunk: Duration,
    max_span: Duration,
}

#[derive(Debug)]
struct AccountSettings {
    /// The settings of all streams without their own.
    own: Arc<WindowSettings>,
    streams: StreamSettings,
}

/// The settings of streams, ascending by stream.
type StreamSettings = Vec<(Arc<str>, Arc<WindowSettings>)>;

impl SeriesSettings {
    /// Resolves what `accounts` and their streams set over `window`.
    pub fn new(window: &WindowConfig, accounts: &[AccountConfig]) -> Self {
        Self(Live::new(Resolved::new(window, accounts)))
    }

    /// Replaces the settings by those of another configuration.
    pub fn replace(&self, window: &WindowConfig, accounts: &[AccountConfig]) {
        self.0.replace(Resolved::new(window, accounts));
    }

    /// The settings of a series of this account and stream. Allocates nothing.
    pub fn for_series(&self, account: &str, stream: &str) -> Arc<WindowSettings> {
        let resolved = self.0.load();
        let Some(account) = find(&resolved.accounts, account) else { return resolved.others.clone() };
        find(&account.streams, stream).unwrap_or(&account.own).clone()
    }

    /// The earliest time that is kept of a stream at `now`; `None` without a retention.
    pub fn retained_since(&self, account: &str, stream: &str, now: Timestamp) -> Option<Timestamp> {
        self.for_series(account, stream).retained_since(now)
    }

    /// The upper bound of a stream, or the one of an account's that encloses those of all its streams.
    pub fn widest_upper_bound(&self, account: &str, stream: Option<&str>) -> UpperBound {
        if let Some(stream) = stream {
            return self.for_series(account, stream).upper_bound;
        }
        let (own, streams) = self.of_account(account);
        let is_inclusive = |settings: &WindowSettings| settings.upper_bound == UpperBound::Inclusive;
        let is_any = is_inclusive(&own) || streams.iter().any(|(_, settings)| is_inclusive(settings));
        if is_any { UpperBound::Inclusive } else { UpperBound::Exclusive }
    }

    /// The accounts of which a stream has a retention.
    pub fn accounts_with_retention(&self) -> Vec<Arc<str>> {
        let has_retention = |settings: &Arc<WindowSettings>| settings.retention.is_some();
        let resolved = self.0.load();
        let of_account = |(account, AccountSettings { own, streams }): &(Arc<str>, AccountSettings)| {
            let is_any = has_retention(own) || streams.iter().any(|(_, settings)| has_retention(settings));
            is_any.then(|| account.clone())
        };
        resolved.accounts.iter().filter_map(of_account).collect()
    }

    /// The settings of an account, and of each of its streams that has its own, in the order of the names.
    pub(super) fn of_account(&self, account: &str) -> (Arc<WindowSettings>, StreamSettings) {
        let resolved = self.0.load();
        let found = find(&resolved.accounts, account);
        let streams = found.map(|account| account.streams.clone()).unwrap_or_default();
        (found.map_or(&resolved.others, |account| &account.own).clone(), streams)
    }

    /// See [`WindowConfig::chunk`].
    pub fn chunk(&self) -> Duration {
        self.0.load().chunk
    }

    /// See [`WindowConfig::max_span`].
    pub fn max_span(&self) -> Duration {
        self.0.load().max_span
    }
}

impl Resolved {
    fn new(window: &WindowConfig, accounts: &[AccountConfig]) -> Self {
        let others = Arc::new(WindowSettings::global(window));
        let mut accounts: Vec<_> = accounts
            .iter()
            .map(|account| (account.account_id.clone(), AccountSettings::new(&others, account)))
            .collect();
        accounts.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        Self { accounts, others, chunk: window.chunk, max_span: window.max_span }
    }
}

impl AccountSettings {
    fn new(global: &WindowSettings, account: &AccountConfig) -> Self {
        let own = Arc::new(global.with(&account.window));
        let stream = |StreamConfig { stream, window }: &StreamConfig| (stream.clone(), Arc::new(own.with(window)));
        let mut streams: Vec<_> = account.stream_settings.iter().map(stream).collect();
        streams.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        Self { own, streams }
    }
}

/// The value of `name` in a list that ascends by name.
fn find<'a, T>(list: &'a [(Arc<str>, T)], name: &str) -> Option<&'a T> {
    let at = list.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
    Some(&list[at].1)
}

#[cfg(test)]
mod tests;
