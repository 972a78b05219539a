//! Why a purge request is refused, with the type of the problem.

use std::time::Duration;

use crate::problem::ProblemType;

/// Largest body, in bytes.
pub(super) const BODY_LIMIT: usize = 128 << 10;
/// Time limit for reading the body.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reason why nothing was purged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::admin) enum Refused {
    #[error("{parameter}: {reason}")]
    BadParameter { parameter: String, reason: &'static str },
    #[error("the body is no JSON object: {0}")]
    BadBody(String),
    #[error("the body broke off, or did not come within {} s", BODY_TIMEOUT.as_secs())]
    BodyBrokeOff,
    #[error("the body is larger than {BODY_LIMIT} bytes")]
    BodyTooLarge,
    #[error("this account is not configured")]
    UnknownAccount,
    #[error("a change that a browser asks for needs the origin and the token of the status page; load the page again")]
    Forged,
    #[error("too many purges wait to be repeated; nothing was purged. Leave repeat_after out, and repeat it yourself")]
    TooManyRepeats,
    #[error("an internal error; it may have been purged in part")]
    Internal,
}

impl Refused {
    /// The type of the problem.
    pub(in crate::admin) const fn kind(&self) -> ProblemType {
        match self {
            Self::BadParameter { .. } | Self::BadBody(_) | Self::BodyBrokeOff => ProblemType::BadRequest,
            Self::BodyTooLarge => ProblemType::BodyTooLarge,
            Self::UnknownAccount => ProblemType::NotFound,
            Self::Forged => ProblemType::Forbidden,
            Self::TooManyRepeats => ProblemType::TooManyRepeats,
            Self::Internal => ProblemType::Internal,
        }
    }
}

/// The refusal of a parameter.
pub(super) fn bad(parameter: &str, reason: &'static str) -> Refused {
    Refused::BadParameter { parameter: parameter.chars().take(64).collect(), reason }
}
