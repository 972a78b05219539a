//! Labels of the log, the metrics and `Cache-Status`: the cache's part in an answer, and the reasons for not caching
//! what was fetched, which `fetch/insert.rs` decides for a chunk and `fetch/run.rs` for a failed fetch.

/// The cache's part in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of the window was cached.
    Hit,
    /// None of the window was cached.
    Miss,
    /// A part of the window was cached.
    Partial,
    /// A part of the window was cached, but too old to be served.
    Stale,
    /// The missing part was being fetched for another request already.
    Collapsed,
    /// The window was fetched as a whole and not cut into chunks, because the account's `window.field` is wrong.
    Bypass,
}

impl Outcome {
    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Partial => "partial",
            Self::Stale => "stale",
            Self::Collapsed => "collapsed",
            Self::Bypass => "bypass",
        }
    }
}

/// The reason why fetched items were not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NotStored {
    /// The items are open, and the freshness policy never serves entries of that age.
    AlwaysAskedAfresh,
    /// The upstream could not be reached, or did not answer with a page.
    UpstreamFailed,
    /// The quota could not serve the run.
    QuotaSpent,
    /// The caller's own limit of upstream calls was spent.
    CallerLimit,
    /// An operator has stopped the calls.
    Cordoned,
    /// No request waited for the run any more before it had begun.
    Unwanted,
    /// Rows moved during the scan.
    RowsMoved,
    /// The account's `window.field` is wrong.
    WrongWindowField,
    /// The clock of this machine is wrong, so settled items cannot be told from open ones.
    WrongClock,
    /// An item lies outside of the requested interval.
    OutsideInterval,
    /// An item has no timestamp, so the run cannot be divided into chunks.
    NoTimestamp,
    /// The run exceeds the maximum size.
    TooLarge,
    /// The interval was purged during the fetch.
    Purged,
    /// The items are older than `accounts.retention` allows.
    TooOld,
    /// Newer entries cover all of the interval.
    Outdated,
    /// A defect of the gateway.
    Lost,
}

impl NotStored {
    /// Each reason once.
    pub(super) const ALL: [Self; 16] = [
        Self::AlwaysAskedAfresh,
        Self::UpstreamFailed,
        Self::QuotaSpent,
        Self::CallerLimit,
        Self::Cordoned,
        Self::Unwanted,
        Self::RowsMoved,
        Self::WrongWindowField,
        Self::WrongClock,
        Self::OutsideInterval,
        Self::NoTimestamp,
        Self::TooLarge,
        Self::Purged,
        Self::TooOld,
        Self::Outdated,
        Self::Lost,
    ];

    /// The label in logs and metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::AlwaysAskedAfresh => "always_asked_afresh",
            Self::UpstreamFailed => "upstream_failed",
            Self::QuotaSpent => "quota_spent",
            Self::CallerLimit => "caller_limit",
            Self::Cordoned => "cordoned",
            Self::Unwanted => "unwanted",
            Self::RowsMoved => "rows_moved",
            Self::WrongWindowField => "wrong_window_field",
            Self::WrongClock => "wrong_clock",
            Self::OutsideInterval => "misplaced",
            Self::NoTimestamp => "no_timestamp",
            Self::TooLarge => "too_large",
            Self::Purged => "purged",
            Self::TooOld => "too_old",
            Self::Outdated => "outdated",
            Self::Lost => "lost",
        }
    }
}
