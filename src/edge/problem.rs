//! The status of an error response, its text and `Retry-After`: the only place where an error becomes a response.
//!
//! The body is a problem document with Kore's `errors` as a member, so that clients written for Kore understand it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::hosts::HeadError;
use crate::api::ApiError;
use crate::cache::CacheError;
use crate::jobs::JobError;
use crate::paging::PagingError;
use crate::problem::Problem;
use crate::quota::{Exhausted, QuotaError};
use crate::token::TokenError;
use crate::upstream::UpstreamError;

/// Reason why a request is refused or fails.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The head is refused.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// No API key, or an unknown one.
    #[error("an API key is required, as x-api-key or as authorization: Bearer")]
    UnknownCaller,
    /// The caller's own rate limit is exceeded.
    #[error("your own limit of requests is hit")]
    TooManyRequests {
        /// Time until the next request is admitted.
        retry_after: Duration,
    },
    /// More concurrent requests than `server.max_requests`.
    #[error("too many requests are under way")]
    Overloaded,
    /// A defect of the gateway.
    #[error("an internal error")]
    Internal,
    /// The API stage or a stage below it failed.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// Kind of a failure: the problem's type, the label in logs and metrics, and the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 400, because an answer of unknown length cannot be sent over HTTP/1.0.
    WindowTooLarge,
    /// 413
    BodyTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 421
    Misdirected,
    /// 429
    TooManyRequests,
    /// 500
    Internal,
    /// 502
    UpstreamFailed,
    /// 503, because the quota is spent.
    QuotaSpent,
    /// 503, because of too many requests.
    Overloaded,
    /// 503, because replicas have different configurations.
    ReplicasDiffer,
    /// 504
    UpstreamTimeout,
    /// 504, because the caller wants nothing to be fetched.
    NotCached,
}

impl Kind {
    const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::WindowTooLarge => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
            Self::QuotaSpent | Self::Overloaded | Self::ReplicasDiffer => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout | Self::NotCached => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The label in logs, metrics and the problem's type.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::WindowTooLarge => "window_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Misdirected => "misdirected_request",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal",
            Self::UpstreamFailed => "upstream_failed",
            Self::QuotaSpent => "quota_spent",
            Self::Overloaded => "overloaded",
            Self::ReplicasDiffer => "replicas_differ",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::NotCached => "not_cached",
        }
    }

    /// Kore's `code` for such a case, where Kore has one; otherwise the status.
    const fn kore_code(self) -> u16 {
        match self {
            Self::BadRequest | Self::WindowTooLarge => 412,
            Self::Unauthorized => 4002,
            other => other.status().as_u16(),
        }
    }

    /// The problem document of such a failure.
    pub(crate) fn problem(self, detail: &str) -> Problem<'_> {
        Problem::new(self.status(), &self.label().replace('_', "-"), detail).with_kore_code(self.kore_code())
    }
}

/// The kind of an error, and the time after which a retry may succeed.
pub(super) fn classify(error: &EdgeError) -> (Kind, Option<Duration>) {
    match error {
        EdgeError::Head(HeadError::Malformed(_)) => (Kind::BadRequest, None),
        EdgeError::Head(HeadError::Misdirected) => (Kind::Misdirected, None),
        EdgeError::Head(HeadError::CrossSite(_)) => (Kind::Forbidden, None),
        EdgeError::UnknownCaller => (Kind::Unauthorized, None),
        EdgeError::TooManyRequests { retry_after } => (Kind::TooManyRequests, Some(*retry_after)),
        EdgeError::Overloaded => (Kind::Overloaded, Some(Duration::from_secs(1))),
        EdgeError::Internal => (Kind::Internal, None),
        EdgeError::Api(error) => classify_api(error),
    }
}

fn classify_api(error: &ApiError) -> (Kind, Option<Duration>) {
    match error {
        ApiError::BadParameter { .. }
        | ApiError::NoAccount
        | ApiError::NoContentType
        | ApiError::BadBody
        | ApiError::BodyBrokeOff => (Kind::BadRequest, None),
        ApiError::BodyTooLarge { .. } => (Kind::BodyTooLarge, None),
        ApiError::NoRoomForBody => (Kind::Overloaded, Some(Duration::from_secs(1))),
        ApiError::NotFound => (Kind::NotFound, None),
        ApiError::MethodNotAllowed { .. } => (Kind::MethodNotAllowed, None),
        ApiError::UnsupportedMediaType => (Kind::UnsupportedMediaType, None),
        ApiError::Forbidden => (Kind::Forbidden, None),
        ApiError::Job(error) => classify_job(error),
        ApiError::Cache(error) => classify_cache(error),
    }
}

fn classify_job(error: &JobError) -> (Kind, Option<Duration>) {
    match error {
        JobError::NotFound => (Kind::NotFound, None),
        JobError::TooMany { .. } => (Kind::TooManyRequests, Some(Duration::from_secs(10))),
        JobError::Unreachable | JobError::Draining => (Kind::Overloaded, Some(Duration::from_secs(5))),
    }
}

/// The problem document of a window that could not be fetched, without the id of a request.
pub fn problem_document(error: &CacheError) -> serde_json::Value {
    let document = classify_cache(error).0.problem(&error.to_string()).to_json();
    serde_json::from_slice(&document).unwrap_or_default()
}

fn classify_cache(error: &CacheError) -> (Kind, Option<Duration>) {
    let spent = |exhausted: &Exhausted| (Kind::QuotaSpent, Some(exhausted.retry_after));
    match error {
        CacheError::QuotaExhausted(exhausted) => spent(exhausted),
        CacheError::TooManyFetches { retry_after } => (Kind::Overloaded, Some(*retry_after)),
        CacheError::FetchLost | CacheError::Damaged(_) => (Kind::Internal, None),
        CacheError::PinnedMemoryFull => (Kind::Overloaded, Some(Duration::from_secs(10))),
        CacheError::NotCached => (Kind::NotCached, None),
        CacheError::ItemsMoving => (Kind::UpstreamFailed, None),
        CacheError::TooLargeToBuffer { .. } => (Kind::WindowTooLarge, None),
        CacheError::FractionOfSecond => (Kind::BadRequest, None),
        // Most likely a new configuration is being rolled out.
        CacheError::ConfigMismatch => (Kind::ReplicasDiffer, Some(Duration::from_secs(10))),
        CacheError::Paging(error) => match error {
            PagingError::Quota(QuotaError::Exhausted(exhausted) | QuotaError::Refused(exhausted)) => spent(exhausted),
            // The requester of the first two has left.
            PagingError::Quota(QuotaError::Abandoned | QuotaError::NotLeader) | PagingError::Lost => {
                (Kind::Internal, None)
            }
            PagingError::WindowField
            | PagingError::OutsideInterval(_)
            | PagingError::WithoutTimestamp
            | PagingError::AllWithoutTimestamp
            | PagingError::Torn(_)
            | PagingError::Oversized
            | PagingError::TooLarge { .. } => (Kind::UpstreamFailed, None),
            PagingError::Quota(QuotaError::Token(error)) => match error {
                TokenError::UnknownAccount | TokenError::Mint(_) => (Kind::Internal, None),
                TokenError::Upstream(UpstreamError::Timeout) => (Kind::UpstreamTimeout, None),
                TokenError::Upstream(_) => (Kind::UpstreamFailed, None),
            },
        },
    }
}

/// The response that reports an error.
pub(super) fn respond(error: &EdgeError, request_id: &str) -> (Response<Full<Bytes>>, Kind) {
    let (kind, retry_after) = classify(error);
    let detail = error.to_string();
    let mut response = kind.problem(&detail).with_request_id(request_id).response();
    let headers = response.headers_mut();
    if let Some(wait) = retry_after {
        // Rounded up: a request at the very second must not be early.
        headers.insert(
            header::RETRY_AFTER,
            wait.as_millis().div_ceil(1000).max(1).to_string().try_into().unwrap_or(HeaderValue::from_static("1")),
        );
    }
    if let EdgeError::Api(ApiError::MethodNotAllowed { allowed }) = error
        && let Ok(allowed) = HeaderValue::try_from(allowed.join(", "))
    {
        headers.insert(header::ALLOW, allowed);
    }
    if serves_query(error) {
        headers.insert("accept-query", HeaderValue::from_static("\"application/json\""));
    }
    if let EdgeError::Head(HeadError::Malformed(_)) = error {
        // Client and gateway may disagree on where the next request begins.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if kind == Kind::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    (response, kind)
}

/// Whether the method QUERY is known to be served at the target of the refused request (RFC 10008, 3).
fn serves_query(error: &EdgeError) -> bool {
    match error {
        EdgeError::Api(ApiError::MethodNotAllowed { allowed }) => allowed.contains(&"QUERY"),
        EdgeError::Api(ApiError::NoContentType | ApiError::UnsupportedMediaType) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response_of(error: &EdgeError) -> (u16, Option<String>) {
        let (response, _) = respond(error, "r-1");
        let retry_after = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), retry_after)
    }

    fn upstream(error: UpstreamError) -> EdgeError {
        let error = PagingError::Quota(QuotaError::Token(TokenError::Upstream(error)));
        EdgeError::Api(ApiError::Cache(CacheError::Paging(error)))
    }

    #[test]
    fn each_failure_has_its_status() {
        let exhausted = Exhausted { retry_after: Duration::from_millis(7001) };
        for (error, expected) in [
            (EdgeError::Head(HeadError::Malformed("Host stands twice")), (400, None)),
            (EdgeError::Head(HeadError::Misdirected), (421, None)),
            (EdgeError::Head(HeadError::CrossSite("an Origin")), (403, None)),
            (EdgeError::UnknownCaller, (401, None)),
            (EdgeError::TooManyRequests { retry_after: Duration::from_millis(10) }, (429, Some("1".to_owned()))),
            (EdgeError::Api(ApiError::BadBody), (400, None)),
            (EdgeError::Api(ApiError::BodyTooLarge { limit: 1 }), (413, None)),
            (EdgeError::Api(ApiError::NoContentType), (400, None)),
            (EdgeError::Api(ApiError::UnsupportedMediaType), (415, None)),
            (EdgeError::Api(ApiError::Cache(CacheError::FractionOfSecond)), (400, None)),
            (EdgeError::Api(ApiError::Cache(CacheError::QuotaExhausted(exhausted))), (503, Some("8".to_owned()))),
            (EdgeError::Api(ApiError::Cache(CacheError::TooLargeToBuffer { limit: 1 })), (400, None)),
            (EdgeError::Api(ApiError::Cache(CacheError::NotCached)), (504, None)),
            (EdgeError::Api(ApiError::Job(JobError::NotFound)), (404, None)),
            (EdgeError::Api(ApiError::Job(JobError::TooMany { limit: 1 })), (429, Some("10".to_owned()))),
            (EdgeError::Api(ApiError::Job(JobError::Draining)), (503, Some("5".to_owned()))),
            (upstream(UpstreamError::Timeout), (504, None)),
            (upstream(UpstreamError::Connect), (502, None)),
            (upstream(UpstreamError::Unauthorized { message: None }), (502, None)),
        ] {
            assert_eq!(response_of(&error), expected, "{error}");
        }
    }
}
