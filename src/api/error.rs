//! Errors of the API stage. `edge::problem` chooses their status.

use crate::cache::{CacheError, Damaged};
use crate::jobs::JobError;
use crate::request::{FilterError, UpstreamLimits};

/// Reason why a request is refused or fails.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A parameter is missing, malformed or out of bounds.
    #[error("{parameter}: {reason}")]
    BadParameter {
        /// Name of the query parameter.
        parameter: &'static str,
        /// Explanation, with the correct form.
        reason: String,
    },
    /// The `accountId` header is missing or not text.
    #[error("the header accountId is required, since more than one account is configured")]
    NoAccount,
    /// The body is not JSON, or not an object.
    #[error("the body is not a JSON object")]
    BadBody,
    /// A filter in the body is not a list of strings.
    #[error("{name}: it is not a list of strings")]
    BadFilter {
        /// The name of the filter.
        name: &'static str,
    },
    /// The body could not be read completely.
    #[error("the body broke off")]
    BodyBrokeOff,
    /// The body is larger than filters can be.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// Limit in bytes.
        limit: usize,
    },
    /// Other requests' bodies use up the memory for bodies.
    #[error("the bodies of other requests leave no room for this one")]
    NoRoomForBody,
    /// The path does not exist.
    #[error("no such path")]
    NotFound,
    /// The path exists, but not with this method.
    #[error("nothing but {} is served here", .allowed.join(", "))]
    MethodNotAllowed {
        /// The allowed methods.
        allowed: &'static [&'static str],
    },
    /// A QUERY without the type of its content.
    #[error("a QUERY must say the type of its content: Content-Type is missing; application/json is understood")]
    NoContentType,
    /// A QUERY whose content is of another type than filters are.
    #[error("the content of a QUERY is a filter: application/json, and no other Content-Type")]
    UnsupportedMediaType,
    /// The account or the stream is not configured, or not allowed for this caller. One error for all these cases, so
    /// that it does not reveal what exists.
    #[error("this account or stream is not allowed")]
    Forbidden,
    /// The job cannot be created or shown.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The window cannot be answered.
    #[error("{}", .0.error)]
    Window(Box<FailedWindow>),
}

/// A window that cannot be answered.
#[derive(Debug)]
pub struct FailedWindow {
    /// The reason.
    pub error: CacheError,
    /// The limits of the account at the upstream.
    pub limits: UpstreamLimits,
}

impl From<CacheError> for ApiError {
    fn from(error: CacheError) -> Self {
        Self::Window(Box::new(FailedWindow { error, limits: UpstreamLimits::default() }))
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::NotAnObject => Self::BadBody,
            FilterError::NotStrings(name) => Self::BadFilter { name },
        }
    }
}

/// Reason why an answer is aborted after its head was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamAborted {
    /// A cached chunk does not decode.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The rest of the window could not be fetched.
    #[error(transparent)]
    Failed(#[from] CacheError),
}
