//! Between the errors of the stages and those that replicas send each other: a problem document comes out the same.

use crate::cache::chunk::Damaged;
use crate::cache::error::CacheError;
use crate::paging::PagingError;
use crate::quota::{CallerLimitExceeded, Exhausted, QuotaError};
use crate::replicas::WireError;
use crate::token::TokenError;
use crate::upstream::{BadPage, SpentLimit, UpstreamError, known_message};
use crate::window::Interval;

/// The status of a refused call whose own is not known.
const RATE_LIMITED: u16 = 429;

// Each match names each variant, so that a new one is a compile error here.

impl From<&CacheError> for WireError {
    fn from(error: &CacheError) -> Self {
        match error {
            CacheError::QuotaExhausted(Exhausted { retry_after }) => Self::QuotaExhausted(*retry_after),
            CacheError::TooManyFetches { retry_after } => Self::TooManyFetches(*retry_after),
            // A fetch for another replica pins no memory for an answer, is for whole seconds, and is a fetch.
            CacheError::FetchLost
            | CacheError::PinnedMemoryFull
            | CacheError::FractionOfSecond
            | CacheError::NotCached => Self::FetchLost,
            CacheError::ItemsMoving => Self::ItemsMoving,
            CacheError::Damaged(Damaged) => Self::Damaged,
            CacheError::ConfigMismatch => Self::ConfigMismatch,
            CacheError::TooLargeToBuffer { limit } => Self::TooLargeToBuffer(*limit),
            CacheError::Paging(error) => error.into(),
        }
    }
}

impl From<&PagingError> for WireError {
    fn from(error: &PagingError) -> Self {
        match error {
            PagingError::WindowField => Self::WindowField,
            // The leader deals with the cause; the follower requests the whole window instead.
            PagingError::OutsideInterval(_) | PagingError::WithoutTimestamp | PagingError::AllWithoutTimestamp => {
                Self::Unplaced
            }
            // Only the leader uses the position.
            PagingError::Torn(_) => Self::Torn,
            PagingError::Lost => Self::FetchLost,
            PagingError::Oversized => Self::Oversized,
            PagingError::TooLarge { limit } => Self::RunTooLarge(*limit),
            PagingError::Quota(error) => error.into(),
        }
    }
}

impl From<&QuotaError> for WireError {
    fn from(error: &QuotaError) -> Self {
        match error {
            QuotaError::Exhausted(Exhausted { retry_after }) => Self::CallExhausted(*retry_after),
            // The status is for `Cache-Status` only.
            QuotaError::Refused { exhausted: Exhausted { retry_after }, status: _ } => Self::CallRefused(*retry_after),
            QuotaError::CallerLimit(CallerLimitExceeded { per, retry_after }) => Self::CallerLimit(*per, *retry_after),
            QuotaError::Cordoned => Self::Cordoned,
            QuotaError::Abandoned => Self::Abandoned,
            QuotaError::NotLeader => Self::NotLeader,
            QuotaError::Token(TokenError::UnknownAccount) => Self::UnknownAccount,
            QuotaError::Token(TokenError::Mint(why)) => Self::Mint(why.clone()),
            QuotaError::Token(TokenError::StreamRefused { status, message }) => {
                Self::StreamRefused(status.as_u16(), message.map(str::to_owned))
            }
            QuotaError::Token(TokenError::Upstream(error)) => error.into(),
        }
    }
}

impl From<&UpstreamError> for WireError {
    fn from(error: &UpstreamError) -> Self {
        let text = |message: Option<&str>| message.map(str::to_owned);
        match error {
            UpstreamError::Connect => Self::Connect,
            UpstreamError::BrokenOff => Self::BrokenOff,
            UpstreamError::Timeout => Self::Timeout,
            UpstreamError::Status { status, message } => Self::Status(status.as_u16(), text(*message)),
            UpstreamError::InvalidArguments { status, words } => Self::Status(status.as_u16(), text(words.as_deref())),
            UpstreamError::Unauthorized { message } => Self::Unauthorized(text(*message)),
            // Only the leader uses which limit it was, and what the upstream said about it.
            UpstreamError::RateLimited { status: _, limit: _, retry_after: _, allowance: _ } => Self::RateLimited,
            UpstreamError::BadPage(why) => Self::BadPage(bad_page_name(*why)),
            UpstreamError::TooLarge => Self::TooLarge,
        }
    }
}

impl From<WireError> for CacheError {
    fn from(error: WireError) -> Self {
        let spent = |retry_after| Exhausted { retry_after };
        let message = |message: Option<String>| message.as_deref().and_then(known_message);
        let quota = |error| Self::Paging(PagingError::Quota(error));
        let upstream = |error| quota(QuotaError::Token(TokenError::Upstream(error)));
        match error {
            WireError::QuotaExhausted(retry_after) => Self::QuotaExhausted(spent(retry_after)),
            WireError::TooManyFetches(retry_after) => Self::TooManyFetches { retry_after },
            WireError::FetchLost => Self::FetchLost,
            WireError::ItemsMoving => Self::ItemsMoving,
            WireError::Damaged => Self::Damaged(Damaged),
            WireError::ConfigMismatch => Self::ConfigMismatch,
            WireError::WindowField => Self::Paging(PagingError::WindowField),
            WireError::Unplaced => Self::Paging(PagingError::WithoutTimestamp),
            WireError::Torn => Self::Paging(PagingError::Torn(Interval::default())),
            WireError::Oversized => Self::Paging(PagingError::Oversized),
            WireError::RunTooLarge(limit) => Self::Paging(PagingError::TooLarge { limit }),
            WireError::CallExhausted(retry_after) => quota(QuotaError::Exhausted(spent(retry_after))),
            WireError::CallRefused(retry_after) => {
                quota(QuotaError::Refused { exhausted: spent(retry_after), status: None })
            }
            WireError::CallerLimit(per, retry_after) => {
                quota(QuotaError::CallerLimit(CallerLimitExceeded { per, retry_after }))
            }
            WireError::Cordoned => quota(QuotaError::Cordoned),
            WireError::Abandoned => quota(QuotaError::Abandoned),
            WireError::NotLeader => quota(QuotaError::NotLeader),
            WireError::UnknownAccount => quota(QuotaError::Token(TokenError::UnknownAccount)),
            WireError::Mint(why) => quota(QuotaError::Token(TokenError::Mint(why))),
            WireError::StreamRefused(status, text) => {
                let (status, message) = (status.try_into().unwrap_or_default(), message(text));
                quota(QuotaError::Token(TokenError::StreamRefused { status, message }))
            }
            WireError::Connect => upstream(UpstreamError::Connect),
            WireError::BrokenOff => upstream(UpstreamError::BrokenOff),
            WireError::Timeout => upstream(UpstreamError::Timeout),
            WireError::Status(status, text) => {
                // A status outside of HTTP's range is not sent by a replica.
                let status = status.try_into().unwrap_or_default();
                upstream(UpstreamError::of_status(status, text.as_deref()))
            }
            WireError::Unauthorized(text) => upstream(UpstreamError::Unauthorized { message: message(text) }),
            WireError::RateLimited => {
                let (limit, retry_after, allowance) = (SpentLimit::Unnamed, None, None);
                let status = RATE_LIMITED.try_into().unwrap_or_default();
                upstream(UpstreamError::RateLimited { status, limit, retry_after, allowance })
            }
            WireError::BadPage(name) => upstream(UpstreamError::BadPage(bad_page(&name))),
            WireError::TooLarge => upstream(UpstreamError::TooLarge),
            WireError::TooLargeToBuffer(limit) => Self::TooLargeToBuffer { limit },
        }
    }
}

/// The name of a fault in a page, as it is serialized.
fn bad_page_name(why: BadPage) -> String {
    serde_json::to_value(why).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The fault of this name; one that only later versions know is a body of another shape.
fn bad_page(name: &str) -> BadPage {
    serde_json::from_value(name.into()).unwrap_or(BadPage::NotAPage)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Each variant of the error.
    fn errors() -> Vec<CacheError> {
        let spent = Exhausted { retry_after: Duration::from_millis(61_234) };
        let quota = |error| CacheError::Paging(PagingError::Quota(error));
        let upstream = |error| quota(QuotaError::Token(TokenError::Upstream(error)));
        let message = known_message("Invalid JWT token");
        assert!(message.is_some());
        let (limit, retry_after, allowance) = (SpentLimit::Unnamed, None, None);
        let status = RATE_LIMITED.try_into().unwrap();
        let rate_limited = upstream(UpstreamError::RateLimited { status, limit, retry_after, allowance });
        vec![
            CacheError::QuotaExhausted(spent),
            CacheError::TooManyFetches { retry_after: Duration::from_secs(5) },
            CacheError::FetchLost,
            CacheError::ItemsMoving,
            CacheError::Damaged(Damaged),
            CacheError::ConfigMismatch,
            CacheError::TooLargeToBuffer { limit: 256 << 20 },
            CacheError::Paging(PagingError::WindowField),
            CacheError::Paging(PagingError::WithoutTimestamp),
            CacheError::Paging(PagingError::Torn(Interval::default())),
            CacheError::Paging(PagingError::Oversized),
            CacheError::Paging(PagingError::TooLarge { limit: 7 }),
            quota(QuotaError::Exhausted(spent)),
            quota(QuotaError::Refused { exhausted: spent, status: None }),
            quota(QuotaError::CallerLimit(CallerLimitExceeded::an_hour(Duration::from_millis(61_234)))),
            quota(QuotaError::Cordoned),
            quota(QuotaError::Abandoned),
            quota(QuotaError::NotLeader),
            quota(QuotaError::Token(TokenError::UnknownAccount)),
            quota(QuotaError::Token(TokenError::Mint("why".to_owned()))),
            upstream(UpstreamError::Connect),
            upstream(UpstreamError::BrokenOff),
            upstream(UpstreamError::Timeout),
            upstream(UpstreamError::Status { status: 503.try_into().unwrap(), message: None }),
            upstream(UpstreamError::Status { status: 405.try_into().unwrap(), message }),
            upstream(UpstreamError::Unauthorized { message }),
            rate_limited,
            upstream(UpstreamError::InvalidArguments { status: 412.try_into().unwrap(), words: None }),
            upstream(UpstreamError::InvalidArguments { status: 400.try_into().unwrap(), words: Some("why".into()) }),
            quota(QuotaError::Token(TokenError::StreamRefused { status: 401.try_into().unwrap(), message })),
            upstream(UpstreamError::BadPage(BadPage::WrongCount)),
            upstream(UpstreamError::TooLarge),
        ]
    }

    #[test]
    fn each_error_survives_the_wire() {
        for error in errors() {
            let received = CacheError::from(WireError::from(&error));
            // A problem document is made of nothing else.
            assert_eq!((format!("{received:?}"), received.to_string()), (format!("{error:?}"), error.to_string()));
        }
    }

    #[test]
    fn unknown_fault_of_a_page_is_another_shape() {
        assert_eq!(bad_page("WrongCount"), BadPage::WrongCount);
        assert_eq!(bad_page("Later"), BadPage::NotAPage);
    }
}
