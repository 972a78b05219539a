//! Errors of a call to the upstream, and whether a failed call is made again ([`RetryHint`]). `retry/mod.rs` counts the
//! attempts and pauses between them.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::error_response::known_message;
use super::page::BadPage;
use super::rate_limit_headers::RateLimitHeader;

/// Reason why a call brought no page.
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
    /// The arguments of the request are refused: 412, or 400 with Kore's `errors`.
    // The words may name ids, which are not logged.
    #[error("the upstream refused the arguments with {status}{}", quoted(.words.as_deref().and_then(known_message)))]
    InvalidArguments {
        /// The status.
        status: StatusCode,
        /// Kore's message without anything that could be a credential, for the caller only.
        words: Option<Arc<str>>,
    },
    /// Another status than 200.
    #[error("the upstream answered {status}{}", quoted(*.message))]
    Status {
        /// The status.
        status: StatusCode,
        /// Kore's message, if it is a known one.
        message: Option<&'static str>,
    },
    /// 401: the token is refused.
    #[error("the upstream refused the credential{}", quoted(*.message))]
    Unauthorized {
        /// Kore's message, if it is a known one.
        message: Option<&'static str>,
    },
    /// The quota is spent, by status or by message.
    #[error("the upstream says that the quota is spent")]
    RateLimited {
        /// The status.
        status: StatusCode,
        /// The limit that is spent.
        limit: SpentLimit,
        /// The `Retry-After` of the answer.
        retry_after: Option<Duration>,
        /// The rate-limit headers of the answer.
        allowance: Option<RateLimitHeader>,
    },
    /// Status 200 with a body that is not a page.
    #[error("the upstream answered 200 with {0}")]
    BadPage(#[from] BadPage),
    /// More bytes than a page can have.
    #[error("the upstream's answer is too large")]
    TooLarge,
}

/// The rolling limit that is spent, as far as the upstream names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpentLimit {
    /// The limit per minute.
    Minute,
    /// The limit per hour: every call is refused until it clears.
    Hour,
    /// Not named.
    Unnamed,
}

/// How a failed call may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryHint {
    /// Not at all: it would fail again.
    Never,
    /// Once, with a fresh token.
    Once,
    /// After a pause: the upstream may have recovered.
    AfterPause,
    /// As soon as the quota stage grants a call: the account is closed until then.
    WhenQuotaAllows,
}

impl UpstreamError {
    /// The kind of retry that may help.
    pub fn again(&self) -> RetryHint {
        match self {
            Self::Connect | Self::BrokenOff | Self::BadPage(_) => RetryHint::AfterPause,
            Self::Timeout | Self::Unauthorized { .. } => RetryHint::Once,
            Self::Status { status, .. } if status.is_server_error() => RetryHint::AfterPause,
            Self::Status { .. } | Self::InvalidArguments { .. } | Self::TooLarge => RetryHint::Never,
            Self::RateLimited { .. } => RetryHint::WhenQuotaAllows,
        }
    }

    /// The status that the upstream answered with; `None` if it did not answer, or not with an end.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Connect | Self::BrokenOff | Self::Timeout | Self::TooLarge => None,
            Self::InvalidArguments { status, .. } | Self::Status { status, .. } | Self::RateLimited { status, .. } => {
                Some(*status)
            }
            Self::Unauthorized { .. } => Some(StatusCode::UNAUTHORIZED),
            Self::BadPage(_) => Some(StatusCode::OK),
        }
    }

    /// The label of the call in `koregate_upstream_calls_total`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::BrokenOff => "broken_off",
            Self::Timeout => "timeout",
            Self::Status { .. } | Self::InvalidArguments { .. } => "status",
            Self::Unauthorized { .. } => "unauthorized",
            Self::RateLimited { .. } => "rate_limited",
            Self::BadPage(_) => "bad_page",
            Self::TooLarge => "too_large",
        }
    }
}

/// The message in quotes, after a colon; empty without one.
pub(crate) fn quoted(message: Option<&'static str>) -> String {
    message.map(|message| format!(": \"{message}\"")).unwrap_or_default()
}
