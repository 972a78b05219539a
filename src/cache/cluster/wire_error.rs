//! An error as one replica tells another of it: all that the answer's problem is made of comes back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::chunk::Damaged;
use crate::cache::error::CacheError;
use crate::paging::PagingError;
use crate::quota::{Exhausted, QuotaError};
use crate::token::TokenError;
use crate::upstream::{BadPage, SpentLimit, UpstreamError, known_message};
use crate::window::Interval;

/// A [`CacheError`] in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum WireError {
    Held(Duration),
    Busy(Duration),
    Lost,
    Restless,
    Damaged,
    Foreign,
    WindowField,
    Unplaced,
    Torn,
    Oversized,
    RunTooLarge(u64),
    Exhausted(Duration),
    Refused(Duration),
    Unwanted,
    Elsewhere,
    UnknownAccount,
    Mint(String),
    Connect,
    BrokenOff,
    Timeout,
    Status(u16, Option<String>),
    Unauthorized(Option<String>),
    /// Which limit it was, and what was said of the quota beside it, are for the one who calls.
    RateLimited,
    BadPage(BadPage),
    TooLarge,
    TooLargeToHold(u64),
}

// Each match names each variant: a new one must be told of too.

impl From<&CacheError> for WireError {
    fn from(error: &CacheError) -> Self {
        match error {
            CacheError::QuotaExhausted(Exhausted { retry_after }) => Self::Held(*retry_after),
            CacheError::TooManyFetches { retry_after } => Self::Busy(*retry_after),
            // Of a fetch for another replica there is no answer that could be too much.
            CacheError::FetchLost | CacheError::PinnedMemoryFull => Self::Lost,
            CacheError::ItemsMoving => Self::Restless,
            CacheError::Damaged(Damaged) => Self::Damaged,
            CacheError::ConfigMismatch => Self::Foreign,
            CacheError::TooLargeToBuffer { limit } => Self::TooLargeToHold(*limit),
            CacheError::Paging(error) => error.into(),
        }
    }
}

impl From<&PagingError> for WireError {
    fn from(error: &PagingError) -> Self {
        match error {
            PagingError::WindowField => Self::WindowField,
            // What is to be done about it is for the replica that makes the calls; the other one asks for all of it.
            PagingError::MisplacedItem(_) | PagingError::Unplaced | PagingError::NoneIsPlaced => Self::Unplaced,
            // The replica that makes the calls remembers where.
            PagingError::Torn(_) => Self::Torn,
            PagingError::Oversized => Self::Oversized,
            PagingError::TooLarge { limit } => Self::RunTooLarge(*limit),
            PagingError::Quota(error) => error.into(),
        }
    }
}

impl From<&QuotaError> for WireError {
    fn from(error: &QuotaError) -> Self {
        match error {
            QuotaError::Exhausted(Exhausted { retry_after }) => Self::Exhausted(*retry_after),
            QuotaError::Refused(Exhausted { retry_after }) => Self::Refused(*retry_after),
            QuotaError::Abandoned => Self::Unwanted,
            QuotaError::NotLeader => Self::Elsewhere,
            QuotaError::Token(TokenError::UnknownAccount) => Self::UnknownAccount,
            QuotaError::Token(TokenError::Mint(why)) => Self::Mint(why.clone()),
            QuotaError::Token(TokenError::Upstream(error)) => error.into(),
        }
    }
}

impl From<&UpstreamError> for WireError {
    fn from(error: &UpstreamError) -> Self {
        let words = |message: Option<&str>| message.map(str::to_owned);
        match error {
            UpstreamError::Connect => Self::Connect,
            UpstreamError::BrokenOff => Self::BrokenOff,
            UpstreamError::Timeout => Self::Timeout,
            UpstreamError::Status { status, message } => Self::Status(status.as_u16(), words(*message)),
            UpstreamError::Unauthorized { message } => Self::Unauthorized(words(*message)),
            UpstreamError::RateLimited { limit: _, retry_after: _, allowance: _ } => Self::RateLimited,
            UpstreamError::BadPage(why) => Self::BadPage(*why),
            UpstreamError::TooLarge => Self::TooLarge,
        }
    }
}

impl From<WireError> for CacheError {
    fn from(told: WireError) -> Self {
        let spent = |retry_after| Exhausted { retry_after };
        let words = |message: Option<String>| message.as_deref().and_then(known_message);
        let quota = |error| Self::Paging(PagingError::Quota(error));
        let upstream = |error| quota(QuotaError::Token(TokenError::Upstream(error)));
        match told {
            WireError::Held(retry_after) => Self::QuotaExhausted(spent(retry_after)),
            WireError::Busy(retry_after) => Self::TooManyFetches { retry_after },
            WireError::Lost => Self::FetchLost,
            WireError::Restless => Self::ItemsMoving,
            WireError::Damaged => Self::Damaged(Damaged),
            WireError::Foreign => Self::ConfigMismatch,
            WireError::WindowField => Self::Paging(PagingError::WindowField),
            WireError::Unplaced => Self::Paging(PagingError::Unplaced),
            WireError::Torn => Self::Paging(PagingError::Torn(Interval::default())),
            WireError::Oversized => Self::Paging(PagingError::Oversized),
            WireError::RunTooLarge(limit) => Self::Paging(PagingError::TooLarge { limit }),
            WireError::Exhausted(retry_after) => quota(QuotaError::Exhausted(spent(retry_after))),
            WireError::Refused(retry_after) => quota(QuotaError::Refused(spent(retry_after))),
            WireError::Unwanted => quota(QuotaError::Abandoned),
            WireError::Elsewhere => quota(QuotaError::NotLeader),
            WireError::UnknownAccount => quota(QuotaError::Token(TokenError::UnknownAccount)),
            WireError::Mint(why) => quota(QuotaError::Token(TokenError::Mint(why))),
            WireError::Connect => upstream(UpstreamError::Connect),
            WireError::BrokenOff => upstream(UpstreamError::BrokenOff),
            WireError::Timeout => upstream(UpstreamError::Timeout),
            WireError::Status(status, message) => {
                // No replica of this version tells of a status that is none.
                let status = status.try_into().unwrap_or_default();
                upstream(UpstreamError::Status { status, message: words(message) })
            }
            WireError::Unauthorized(message) => upstream(UpstreamError::Unauthorized { message: words(message) }),
            WireError::RateLimited => {
                let (limit, retry_after, allowance) = (SpentLimit::Unnamed, None, None);
                upstream(UpstreamError::RateLimited { limit, retry_after, allowance })
            }
            WireError::BadPage(why) => upstream(UpstreamError::BadPage(why)),
            WireError::TooLarge => upstream(UpstreamError::TooLarge),
            WireError::TooLargeToHold(limit) => Self::TooLargeToBuffer { limit },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each error that there is, but for what stands in it.
    fn errors() -> Vec<CacheError> {
        let spent = Exhausted { retry_after: Duration::from_millis(61_234) };
        let quota = |error| CacheError::Paging(PagingError::Quota(error));
        let upstream = |error| quota(QuotaError::Token(TokenError::Upstream(error)));
        let message = known_message("Invalid JWT token");
        assert!(message.is_some());
        vec![
            CacheError::QuotaExhausted(spent),
            CacheError::TooManyFetches { retry_after: Duration::from_secs(5) },
            CacheError::FetchLost,
            CacheError::ItemsMoving,
            CacheError::Damaged(Damaged),
            CacheError::ConfigMismatch,
            CacheError::TooLargeToBuffer { limit: 256 << 20 },
            CacheError::Paging(PagingError::WindowField),
            CacheError::Paging(PagingError::Unplaced),
            CacheError::Paging(PagingError::Torn(Interval::default())),
            CacheError::Paging(PagingError::Oversized),
            CacheError::Paging(PagingError::TooLarge { limit: 7 }),
            quota(QuotaError::Exhausted(spent)),
            quota(QuotaError::Refused(spent)),
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
            upstream(UpstreamError::RateLimited { limit: SpentLimit::Unnamed, retry_after: None, allowance: None }),
            upstream(UpstreamError::BadPage(BadPage::WrongCount)),
            upstream(UpstreamError::TooLarge),
        ]
    }

    #[test]
    fn every_error_comes_back_as_it_was() {
        for error in errors() {
            let words = serde_json::to_vec(&WireError::from(&error)).unwrap();
            let told = CacheError::from(serde_json::from_slice::<WireError>(&words).unwrap());
            // Nothing else goes into a problem.
            assert_eq!((format!("{told:?}"), told.to_string()), (format!("{error:?}"), error.to_string()));
        }
    }
}
