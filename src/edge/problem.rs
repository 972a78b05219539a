//! The type of an error response, its text and `Retry-After`: the only place where an error becomes a response. The type
//! implies the status (`problem/types.rs`).
//!
//! The body is a problem document with Kore's `errors` as a member, so that clients written for Kore understand it.
//!
//! What the caller can correct is a 4xx: arguments that Kore refuses (`invalid-arguments`, with Kore's words), and a
//! stream that Kore refuses to a credential which it accepts for others (`stream-refused`). The latter is a 403 and not a
//! 404, because Kore does not say whether the stream exists. A credential that Kore refuses altogether is the operator's
//! fault, and a 502.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;

use super::cache_status;
use super::hosts::HeadError;
use super::rate_limit_headers::{CALLER_POLICY, upstream_policy};
use crate::api::{ApiError, FailedWindow};
use crate::cache::CacheError;
use crate::jobs::JobError;
use crate::paging::PagingError;
use crate::problem::{Problem, ProblemType};
use crate::quota::{Exhausted, QuotaError};
use crate::token::TokenError;
use crate::units::ceil_seconds;
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
    /// The key or the certificate is that of a caller whose `not_after` has passed.
    #[error("the key has ended; the operator of koregate gives out a new one")]
    ExpiredCaller,
    /// The client certificate of the connection has ended since its handshake.
    #[error("the client certificate has expired; connect with a renewed one")]
    ExpiredCertificate,
    /// The caller's own limit of requests at the same time is exceeded.
    #[error("your own limit of requests at the same time is hit")]
    TooManyConcurrentRequests,
    /// The caller's own rate limit is exceeded.
    #[error("your own limit of requests is hit")]
    TooManyRequests {
        /// Time until the next request is admitted.
        retry_after: Duration,
    },
    /// More concurrent requests than `server.max_requests`, and the cache has no answer to this one.
    #[error("too many requests are under way, and this one is not cached")]
    Overloaded,
    /// A defect of the gateway.
    #[error("an internal error")]
    Internal,
    /// The API stage or a stage below it failed.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl EdgeError {
    /// The error of an answer. A request that `has_slot` may wait for a fetch; another one was looked up in the cache only.
    pub(super) fn of_answer(error: ApiError, has_slot: bool) -> Self {
        let is_not_cached = matches!(&error, ApiError::Window(failed) if matches!(failed.error, CacheError::NotCached));
        if is_not_cached && !has_slot { Self::Overloaded } else { Self::Api(error) }
    }
}

/// The `Retry-After` of what an operator has stopped: when that ends is not known.
const CORDON_RETRY_AFTER: Duration = Duration::from_mins(1);

/// The type of the problem, and the time after which a retry may succeed.
pub(super) fn classify(error: &EdgeError) -> (ProblemType, Option<Duration>) {
    match error {
        EdgeError::Head(HeadError::Malformed(_)) => (ProblemType::BadRequest, None),
        EdgeError::Head(HeadError::Misdirected) => (ProblemType::Misdirected, None),
        EdgeError::Head(HeadError::CrossSite(_)) => (ProblemType::Forbidden, None),
        EdgeError::UnknownCaller | EdgeError::ExpiredCaller | EdgeError::ExpiredCertificate => {
            (ProblemType::Unauthorized, None)
        }
        EdgeError::TooManyConcurrentRequests => (ProblemType::TooManyConcurrentRequests, Some(Duration::from_secs(1))),
        EdgeError::TooManyRequests { retry_after } => (ProblemType::TooManyRequests, Some(*retry_after)),
        EdgeError::Overloaded => (ProblemType::Overloaded, Some(Duration::from_secs(1))),
        EdgeError::Internal => (ProblemType::Internal, None),
        EdgeError::Api(error) => classify_api(error),
    }
}

fn classify_api(error: &ApiError) -> (ProblemType, Option<Duration>) {
    match error {
        ApiError::BadParameter { .. }
        | ApiError::NoAccount
        | ApiError::NoContentType
        | ApiError::BadBody
        | ApiError::BadFilter { .. }
        | ApiError::BodyBrokeOff => (ProblemType::BadRequest, None),
        ApiError::BodyTooLarge { .. } => (ProblemType::BodyTooLarge, None),
        ApiError::NoRoomForBody => (ProblemType::Overloaded, Some(Duration::from_secs(1))),
        ApiError::NotFound => (ProblemType::NotFound, None),
        ApiError::MethodNotAllowed { .. } => (ProblemType::MethodNotAllowed, None),
        ApiError::UnsupportedMediaType => (ProblemType::UnsupportedMediaType, None),
        ApiError::Forbidden => (ProblemType::Forbidden, None),
        ApiError::Job(error) => classify_job(error),
        ApiError::Window(failed) => classify_cache(&failed.error),
    }
}

fn classify_job(error: &JobError) -> (ProblemType, Option<Duration>) {
    match error {
        JobError::NotFound => (ProblemType::NotFound, None),
        JobError::TooMany { .. } => (ProblemType::TooManyRequests, Some(Duration::from_secs(10))),
        JobError::Unreachable | JobError::Draining => (ProblemType::Overloaded, Some(Duration::from_secs(5))),
    }
}

/// The problem document of a window that could not be fetched, without the id of a request.
pub fn problem_document(error: &CacheError) -> serde_json::Value {
    let document = Problem::new(classify_cache(error).0, &error.to_string()).to_json();
    serde_json::from_slice(&document).unwrap_or_default()
}

fn classify_cache(error: &CacheError) -> (ProblemType, Option<Duration>) {
    let spent = |exhausted: &Exhausted| (ProblemType::QuotaSpent, Some(exhausted.retry_after));
    match error {
        CacheError::QuotaExhausted(exhausted) => spent(exhausted),
        CacheError::TooManyFetches { retry_after } => (ProblemType::Overloaded, Some(*retry_after)),
        CacheError::FetchLost | CacheError::Damaged(_) => (ProblemType::Internal, None),
        CacheError::PinnedMemoryFull => (ProblemType::Overloaded, Some(Duration::from_secs(10))),
        CacheError::NotCached => (ProblemType::NotCached, None),
        CacheError::ItemsMoving => (ProblemType::UpstreamFailed, None),
        CacheError::TooLargeToBuffer { .. } => (ProblemType::WindowTooLarge, None),
        CacheError::FractionOfSecond => (ProblemType::BadRequest, None),
        // Most likely a new configuration is being rolled out.
        CacheError::ConfigMismatch => (ProblemType::ReplicasDiffer, Some(Duration::from_secs(10))),
        CacheError::Paging(error) => match error {
            PagingError::Quota(QuotaError::Exhausted(exhausted) | QuotaError::Refused { exhausted, .. }) => {
                spent(exhausted)
            }
            // The requester of the first two has left.
            PagingError::Quota(QuotaError::Abandoned | QuotaError::NotLeader) | PagingError::Lost => {
                (ProblemType::Internal, None)
            }
            PagingError::WindowField
            | PagingError::OutsideInterval(_)
            | PagingError::WithoutTimestamp
            | PagingError::AllWithoutTimestamp
            | PagingError::Torn(_)
            | PagingError::Oversized
            | PagingError::TooLarge { .. } => (ProblemType::UpstreamFailed, None),
            PagingError::Quota(QuotaError::CallerLimit(exceeded)) => {
                (ProblemType::UpstreamCallsSpent, Some(exceeded.retry_after))
            }
            PagingError::Quota(QuotaError::Cordoned) => (ProblemType::Cordoned, Some(CORDON_RETRY_AFTER)),
            PagingError::Quota(QuotaError::Token(error)) => match error {
                TokenError::UnknownAccount | TokenError::Mint(_) => (ProblemType::Internal, None),
                TokenError::StreamRefused { .. } => (ProblemType::StreamRefused, None),
                TokenError::Upstream(UpstreamError::InvalidArguments { .. }) => (ProblemType::InvalidArguments, None),
                TokenError::Upstream(UpstreamError::Timeout) => (ProblemType::UpstreamTimeout, None),
                TokenError::Upstream(_) => (ProblemType::UpstreamFailed, None),
            },
        },
    }
}

/// The failed window that an error is about, if it is about one.
pub(super) fn failed_window(error: &EdgeError) -> Option<&FailedWindow> {
    match error {
        EdgeError::Api(ApiError::Window(failed)) => Some(failed),
        _ => None,
    }
}

/// Kore's own words about the arguments of a request, which are for the caller only.
fn words(error: &EdgeError) -> Option<&str> {
    match &failed_window(error)?.error {
        CacheError::Paging(PagingError::Quota(QuotaError::Token(TokenError::Upstream(
            UpstreamError::InvalidArguments { words, .. },
        )))) => words.as_deref(),
        _ => None,
    }
}

/// The names of the policies in `RateLimit-Policy` whose quota is used up.
fn violated_policies(error: &EdgeError, kind: ProblemType) -> Vec<String> {
    match (error, kind, failed_window(error)) {
        (EdgeError::TooManyRequests { .. }, ..) => vec![CALLER_POLICY.to_owned()],
        (_, ProblemType::QuotaSpent, Some(failed)) => {
            let spent = failed.limits.0.iter().filter(|limit| limit.remaining == 0);
            spent.map(|limit| upstream_policy(limit.per)).collect()
        }
        _ => Vec::new(),
    }
}

/// The body of the response.
fn document(error: &EdgeError, kind: ProblemType, request_id: &str) -> Response<Full<Bytes>> {
    let mut detail = error.to_string();
    let words = words(error);
    if let Some(words) = words.filter(|words| !detail.contains(words)) {
        detail = format!("{detail}: \"{words}\"");
    }
    let policies = violated_policies(error, kind);
    let policies: Vec<&str> = policies.iter().map(String::as_str).collect();
    let problem = Problem::new(kind, &detail).with_request_id(request_id).with_violated_policies(&policies);
    match words {
        Some(words) => problem.with_kore_message(words).response(),
        None => problem.with_kore_code().response(),
    }
}

/// The response that reports an error.
pub(super) fn respond(error: &EdgeError, request_id: &str) -> (Response<Full<Bytes>>, ProblemType) {
    let (kind, retry_after) = classify(error);
    let mut response = document(error, kind, request_id);
    let headers = response.headers_mut();
    if let Some(wait) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(ceil_seconds(wait)));
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
    if let Some(failed) = failed_window(error) {
        headers.insert(header::CACHE_STATUS, cache_status::of_error(&failed.error, kind.label()));
    }
    if kind == ProblemType::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"koregate\""));
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
    use http::StatusCode;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::quota::CallerLimitExceeded;
    use crate::request::{UpstreamLimit, UpstreamLimits};

    fn response_of(error: &EdgeError) -> (u16, Option<String>) {
        let (response, _) = respond(error, "r-1");
        let retry_after = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), retry_after)
    }

    fn quota(error: QuotaError) -> EdgeError {
        EdgeError::Api(CacheError::Paging(PagingError::Quota(error)).into())
    }

    fn token(error: TokenError) -> EdgeError {
        quota(QuotaError::Token(error))
    }

    fn upstream(error: UpstreamError) -> EdgeError {
        token(TokenError::Upstream(error))
    }

    fn status(status: u16) -> StatusCode {
        StatusCode::from_u16(status).unwrap()
    }

    async fn json_of(error: &EdgeError) -> serde_json::Value {
        let (response, _) = respond(error, "r-1");
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn refused_arguments_are_reported_in_the_words_of_the_upstream() {
        let refused = upstream(UpstreamError::of_status(status(412), Some("no session \"s-1\"")));
        let problem = json_of(&refused).await;
        let detail = "the upstream refused the arguments with 412 Precondition Failed: \"no session \"s-1\"\"";
        assert_eq!((problem["detail"].as_str(), problem["status"].as_u64()), (Some(detail), Some(400)));
        assert_eq!(problem["errors"], serde_json::json!([{"msg": "no session \"s-1\"", "code": 412}]));
        assert!(!refused.to_string().contains("s-1"), "what is logged names no id");
    }

    #[tokio::test]
    async fn violated_policies_are_those_that_have_nothing_left() {
        let limit = |seconds, remaining| UpstreamLimit {
            requests: 9,
            per: Duration::from_secs(seconds),
            remaining,
            more_in: Some(Duration::from_secs(1)),
        };
        let limits = UpstreamLimits(vec![limit(60, 0), limit(3600, 1), limit(90, 0)]);
        let error = CacheError::QuotaExhausted(Exhausted { retry_after: Duration::from_secs(1) });
        let spent = |limits| EdgeError::Api(ApiError::Window(Box::new(FailedWindow { error: error.clone(), limits })));
        let policies = async |error| json_of(&error).await["violated-policies"].clone();
        assert_eq!(policies(spent(limits)).await, serde_json::json!(["kore-minute", "kore-90s"]));
        assert_eq!(policies(spent(UpstreamLimits::default())).await, serde_json::Value::Null);
        let own = EdgeError::TooManyRequests { retry_after: Duration::from_secs(1) };
        assert_eq!(policies(own).await, serde_json::json!(["caller"]));
    }

    #[test]
    fn each_failure_has_its_status() {
        let exhausted = Exhausted { retry_after: Duration::from_millis(7001) };
        for (error, expected) in [
            (EdgeError::Head(HeadError::Malformed("Host stands twice")), (400, None)),
            (EdgeError::Head(HeadError::Misdirected), (421, None)),
            (EdgeError::Head(HeadError::CrossSite("an Origin")), (403, None)),
            (EdgeError::UnknownCaller, (401, None)),
            (EdgeError::ExpiredCaller, (401, None)),
            (EdgeError::ExpiredCertificate, (401, None)),
            (EdgeError::TooManyConcurrentRequests, (429, Some("1".to_owned()))),
            (EdgeError::TooManyRequests { retry_after: Duration::from_millis(10) }, (429, Some("1".to_owned()))),
            (EdgeError::Api(ApiError::BadBody), (400, None)),
            (EdgeError::Api(ApiError::BodyTooLarge { limit: 1 }), (413, None)),
            (EdgeError::Api(ApiError::NoContentType), (400, None)),
            (EdgeError::Api(ApiError::UnsupportedMediaType), (415, None)),
            (EdgeError::Api(CacheError::FractionOfSecond.into()), (400, None)),
            (EdgeError::Api(CacheError::QuotaExhausted(exhausted).into()), (503, Some("8".to_owned()))),
            (
                quota(QuotaError::CallerLimit(CallerLimitExceeded::an_hour(Duration::from_secs(9)))),
                (429, Some("9".to_owned())),
            ),
            (quota(QuotaError::Cordoned), (503, Some("60".to_owned()))),
            (EdgeError::Api(CacheError::TooLargeToBuffer { limit: 1 }.into()), (400, None)),
            (EdgeError::Api(CacheError::NotCached.into()), (504, None)),
            (EdgeError::Api(ApiError::BadFilter { name: "channels" }), (400, None)),
            (EdgeError::Api(ApiError::Job(JobError::NotFound)), (404, None)),
            (EdgeError::Api(ApiError::Job(JobError::TooMany { limit: 1 })), (429, Some("10".to_owned()))),
            (EdgeError::Api(ApiError::Job(JobError::Draining)), (503, Some("5".to_owned()))),
            (upstream(UpstreamError::Timeout), (504, None)),
            (upstream(UpstreamError::Connect), (502, None)),
            (upstream(UpstreamError::Unauthorized { message: None }), (502, None)),
            (upstream(UpstreamError::of_status(status(412), None)), (400, None)),
            (upstream(UpstreamError::of_status(status(400), Some("no"))), (400, None)),
            (upstream(UpstreamError::of_status(status(400), None)), (502, None)),
            (upstream(UpstreamError::of_status(status(403), None)), (502, None)),
            (token(TokenError::StreamRefused { status: status(401), message: None }), (403, None)),
        ] {
            assert_eq!(response_of(&error), expected, "{error}");
        }
    }
}
