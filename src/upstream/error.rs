//! What can go wrong on the way to the upstream and back.

use std::time::Duration;

use http::StatusCode;

use super::page::BadPage;
use super::rate_limit_headers::RateLimitHeader;

/// Why a call brought no page.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection was opened, so the upstream counted nothing.
    #[error("the upstream cannot be reached")]
    Connect,
    /// The connection broke off.
    #[error("the connection to the upstream broke off")]
    BrokenOff,
    /// No whole answer within `upstream.timeout`.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// A status other than 200.
    #[error("the upstream answered {status}{}", quoted(*.message))]
    Status {
        /// What it answered.
        status: StatusCode,
        /// Kore's message, if it is one that is known.
        message: Option<&'static str>,
    },
    /// 401: the token is refused.
    #[error("the upstream refused the credential{}", quoted(*.message))]
    Unauthorized {
        /// Kore's message, if it is one that is known.
        message: Option<&'static str>,
    },
    /// The quota is spent, by status or by message.
    #[error("the upstream says that the quota is spent")]
    RateLimited {
        /// Which limit.
        limit: SpentLimit,
        /// What the upstream asked for.
        retry_after: Option<Duration>,
        /// What it said of the quota beside it.
        allowance: Option<RateLimitHeader>,
    },
    /// 200, but not with a page.
    #[error("the upstream answered 200 with {0}")]
    BadPage(#[from] BadPage),
    /// More bytes than a page can have.
    #[error("the upstream's answer is too large")]
    TooLarge,
}

/// Which of the upstream's rolling limits is spent, as far as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpentLimit {
    /// The one for a minute.
    Minute,
    /// The one for an hour: every call is refused until it clears.
    Hour,
    /// It does not say.
    Unnamed,
}

/// How a failed call may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryHint {
    /// It would fail again.
    Never,
    /// Once, with a fresh token.
    Once,
    /// After a pause: the upstream may have recovered.
    AfterPause,
    /// When the quota stage lets it: the account is closed until then.
    WhenQuotaAllows,
}

impl UpstreamError {
    /// Whether trying again can help.
    pub fn again(&self) -> RetryHint {
        match self {
            Self::Connect | Self::BrokenOff | Self::BadPage(_) => RetryHint::AfterPause,
            Self::Timeout | Self::Unauthorized { .. } => RetryHint::Once,
            Self::Status { status, .. } if status.is_server_error() => RetryHint::AfterPause,
            Self::Status { .. } | Self::TooLarge => RetryHint::Never,
            Self::RateLimited { .. } => RetryHint::WhenQuotaAllows,
        }
    }

    /// The label of the call in `koregate_upstream_calls_total`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::BrokenOff => "broken_off",
            Self::Timeout => "timeout",
            Self::Status { .. } => "status",
            Self::Unauthorized { .. } => "unauthorized",
            Self::RateLimited { .. } => "rate_limited",
            Self::BadPage(_) => "bad_page",
            Self::TooLarge => "too_large",
        }
    }
}

fn quoted(message: Option<&'static str>) -> String {
    message.map(|message| format!(": \"{message}\"")).unwrap_or_default()
}
