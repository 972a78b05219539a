//! Why a request is not answered with a window. What status each one gets is chosen in `edge::problem`.

use crate::cache::CacheError;

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A parameter is missing, malformed or out of bounds.
    #[error("{parameter}: {reason}")]
    BadParameter {
        /// Its name in the query.
        parameter: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The `accountId` header is missing or not text.
    #[error("the header accountId is required, since more than one account is configured")]
    NoAccount,
    /// The body is not JSON, or not an object.
    #[error("the body is not a JSON object")]
    BadBody,
    /// The body could not be read to its end.
    #[error("the body broke off")]
    BodyBrokeOff,
    /// The body is larger than a filter can be.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// Bytes.
        limit: usize,
    },
    /// The bodies of other requests take all the memory that there is for them.
    #[error("the bodies of other requests leave no room for this one")]
    NoRoomForBody,
    /// Nothing of this path is served.
    #[error("no such path")]
    NotFound,
    /// The path is served, but not with this method.
    #[error("nothing but {} is served here", .allowed.join(" and "))]
    MethodNotAllowed {
        /// The methods that are.
        allowed: &'static [&'static str],
    },
    /// The account or the stream is not configured, or not for this caller. One answer for all of these, so that it
    /// tells nothing of what exists.
    #[error("this account or stream is not allowed")]
    Forbidden,
    /// The window cannot be answered.
    #[error(transparent)]
    Cache(#[from] CacheError),
}
