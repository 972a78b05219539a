//! How a window was answered, and why something was not kept. One word for the log, the metrics and `Cache-Status`.

/// How a window was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From memory, without a call.
    Hit,
    /// No moment of the window was there.
    Miss,
    /// Some of it was there.
    Partial,
    /// Some of it was there, but too old to be served.
    Stale,
    /// What was missing was already being fetched for somebody else.
    Collapsed,
    /// The account's `window.field` is wrong: the window was fetched as a whole, and cut by nobody.
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

/// Why fetched items were not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// They are not settled, and the ladder always asks for them afresh.
    AlwaysAskedAfresh,
    /// The upstream could not be asked, or did not answer with a page.
    UpstreamFailed,
    /// The quota could not serve the run.
    QuotaSpent,
    /// Nobody wanted it any more before it had begun.
    Unwanted,
    /// The rows moved while they were paged.
    RowsMoved,
    /// The items do not lie where they were asked for.
    WrongWindowField,
    /// The clock of this machine is wrong, so what is settled is not to be told.
    WrongClock,
    /// An item does not lie where it was asked for.
    MisplacedItem,
    /// An item has no timestamp, so the run could not be cut.
    NoTimestamp,
    /// The run was larger than it may be.
    TooLarge,
    /// It was purged while it was fetched.
    Purged,
    /// Something newer came first.
    Outdated,
    /// A defect of the gateway.
    Lost,
}

impl NotStored {
    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::AlwaysAskedAfresh => "always_asked_afresh",
            Self::UpstreamFailed => "upstream_failed",
            Self::QuotaSpent => "quota_spent",
            Self::Unwanted => "unwanted",
            Self::RowsMoved => "rows_moved",
            Self::WrongWindowField => "wrong_window_field",
            Self::WrongClock => "wrong_clock",
            Self::MisplacedItem => "misplaced",
            Self::NoTimestamp => "no_timestamp",
            Self::TooLarge => "too_large",
            Self::Purged => "purged",
            Self::Outdated => "outdated",
            Self::Lost => "lost",
        }
    }
}
