//! An error as one replica tells another of it: all that the answer's problem is made of comes back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::{CacheError, Damaged};
use crate::quota::{Exhausted, QuotaError};
use crate::repage::RepageError;
use crate::token::TokenError;
use crate::upstream::{BadPage, SpentLimit, UpstreamError, known_message};
use crate::window::Span;

/// A [`CacheError`] in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Told {
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

impl From<&CacheError> for Told {
    fn from(error: &CacheError) -> Self {
        match error {
            CacheError::Held(Exhausted { retry_after }) => Self::Held(*retry_after),
            CacheError::Busy { retry_after } => Self::Busy(*retry_after),
            // Of a fetch for another replica there is no answer that could be too much.
            CacheError::Lost | CacheError::AnswersHoldTooMuch => Self::Lost,
            CacheError::Restless => Self::Restless,
            CacheError::Damaged(Damaged) => Self::Damaged,
            CacheError::Foreign => Self::Foreign,
            CacheError::TooLargeToHold { limit } => Self::TooLargeToHold(*limit),
            CacheError::Repage(error) => error.into(),
        }
    }
}

impl From<&RepageError> for Told {
    fn from(error: &RepageError) -> Self {
        match error {
            RepageError::WindowField => Self::WindowField,
            // What is to be done about it is for the replica that makes the calls; the other one asks for all of it.
            RepageError::Misplaced(_) | RepageError::Unplaced | RepageError::NoneIsPlaced => Self::Unplaced,
            // The replica that makes the calls remembers where.
            RepageError::Torn(_) => Self::Torn,
            RepageError::Oversized => Self::Oversized,
            RepageError::TooLarge { limit } => Self::RunTooLarge(*limit),
            RepageError::Quota(error) => error.into(),
        }
    }
}

impl From<&QuotaError> for Told {
    fn from(error: &QuotaError) -> Self {
        match error {
            QuotaError::Exhausted(Exhausted { retry_after }) => Self::Exhausted(*retry_after),
            QuotaError::Refused(Exhausted { retry_after }) => Self::Refused(*retry_after),
            QuotaError::Unwanted => Self::Unwanted,
            QuotaError::Elsewhere => Self::Elsewhere,
            QuotaError::Token(TokenError::UnknownAccount) => Self::UnknownAccount,
            QuotaError::Token(TokenError::Mint(why)) => Self::Mint(why.clone()),
            QuotaError::Token(TokenError::Upstream(error)) => error.into(),
        }
    }
}

impl From<&UpstreamError> for Told {
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

impl From<Told> for CacheError {
    fn from(told: Told) -> Self {
        let spent = |retry_after| Exhausted { retry_after };
        let words = |message: Option<String>| message.as_deref().and_then(known_message);
        let quota = |error| Self::Repage(RepageError::Quota(error));
        let upstream = |error| quota(QuotaError::Token(TokenError::Upstream(error)));
        match told {
            Told::Held(retry_after) => Self::Held(spent(retry_after)),
            Told::Busy(retry_after) => Self::Busy { retry_after },
            Told::Lost => Self::Lost,
            Told::Restless => Self::Restless,
            Told::Damaged => Self::Damaged(Damaged),
            Told::Foreign => Self::Foreign,
            Told::WindowField => Self::Repage(RepageError::WindowField),
            Told::Unplaced => Self::Repage(RepageError::Unplaced),
            Told::Torn => Self::Repage(RepageError::Torn(Span::default())),
            Told::Oversized => Self::Repage(RepageError::Oversized),
            Told::RunTooLarge(limit) => Self::Repage(RepageError::TooLarge { limit }),
            Told::Exhausted(retry_after) => quota(QuotaError::Exhausted(spent(retry_after))),
            Told::Refused(retry_after) => quota(QuotaError::Refused(spent(retry_after))),
            Told::Unwanted => quota(QuotaError::Unwanted),
            Told::Elsewhere => quota(QuotaError::Elsewhere),
            Told::UnknownAccount => quota(QuotaError::Token(TokenError::UnknownAccount)),
            Told::Mint(why) => quota(QuotaError::Token(TokenError::Mint(why))),
            Told::Connect => upstream(UpstreamError::Connect),
            Told::BrokenOff => upstream(UpstreamError::BrokenOff),
            Told::Timeout => upstream(UpstreamError::Timeout),
            Told::Status(status, message) => {
                // No replica of this version tells of a status that is none.
                let status = status.try_into().unwrap_or_default();
                upstream(UpstreamError::Status { status, message: words(message) })
            }
            Told::Unauthorized(message) => upstream(UpstreamError::Unauthorized { message: words(message) }),
            Told::RateLimited => {
                let (limit, retry_after, allowance) = (SpentLimit::Unnamed, None, None);
                upstream(UpstreamError::RateLimited { limit, retry_after, allowance })
            }
            Told::BadPage(why) => upstream(UpstreamError::BadPage(why)),
            Told::TooLarge => upstream(UpstreamError::TooLarge),
            Told::TooLargeToHold(limit) => Self::TooLargeToHold { limit },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each error that there is, but for what stands in it.
    fn errors() -> Vec<CacheError> {
        let spent = Exhausted { retry_after: Duration::from_millis(61_234) };
        let quota = |error| CacheError::Repage(RepageError::Quota(error));
        let upstream = |error| quota(QuotaError::Token(TokenError::Upstream(error)));
        let message = known_message("Invalid JWT token");
        assert!(message.is_some());
        vec![
            CacheError::Held(spent),
            CacheError::Busy { retry_after: Duration::from_secs(5) },
            CacheError::Lost,
            CacheError::Restless,
            CacheError::Damaged(Damaged),
            CacheError::Foreign,
            CacheError::TooLargeToHold { limit: 256 << 20 },
            CacheError::Repage(RepageError::WindowField),
            CacheError::Repage(RepageError::Unplaced),
            CacheError::Repage(RepageError::Torn(Span::default())),
            CacheError::Repage(RepageError::Oversized),
            CacheError::Repage(RepageError::TooLarge { limit: 7 }),
            quota(QuotaError::Exhausted(spent)),
            quota(QuotaError::Refused(spent)),
            quota(QuotaError::Unwanted),
            quota(QuotaError::Elsewhere),
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
            let words = serde_json::to_vec(&Told::from(&error)).unwrap();
            let told = CacheError::from(serde_json::from_slice::<Told>(&words).unwrap());
            // Nothing else goes into a problem.
            assert_eq!((format!("{told:?}"), told.to_string()), (format!("{error:?}"), error.to_string()));
        }
    }
}
