//! Responses of the API: errors in Kore's form, and pages in Kore's envelope.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::limits::LimitUsage;
use crate::profile::{EnvelopeOrder, Profile};
use crate::scripted_body::ScriptedBody;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
pub(crate) const HTML: HeaderValue = HeaderValue::from_static("text/html");

/// An error in Kore's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorReply {
    pub(crate) status: StatusCode,
    pub(crate) message: &'static str,
    pub(crate) code: u32,
}

impl ErrorReply {
    pub(crate) const INVALID_CREDENTIALS: Self = Self::new(StatusCode::UNAUTHORIZED, "Invalid SDK credentials", 4002);
    pub(crate) const NOT_A_TOKEN: Self = Self::new(StatusCode::UNAUTHORIZED, "Invalid JWT token", 4002);
    pub(crate) const SCOPE_MISSING: Self =
        Self::new(StatusCode::UNAUTHORIZED, "Permission denied. Scope is incorrect!", 4002);
    pub(crate) const REPLAYED: Self =
        Self::new(StatusCode::UNAUTHORIZED, "error verifying the jwt: possibly a replay", 401);
    pub(crate) const INVALID_ARGUMENTS: Self =
        Self::new(StatusCode::PRECONDITION_FAILED, "Validation errors/ Invalid arguments", 412);
    pub(crate) const WRONG_METHOD: Self = Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", 405);
    pub(crate) const NOT_FOUND: Self = Self::new(StatusCode::NOT_FOUND, "Not Found", 404);
    pub(crate) const SERVER_ERROR: Self = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error", 500);

    pub(crate) const fn new(status: StatusCode, message: &'static str, code: u32) -> Self {
        Self { status, message, code }
    }

    /// The response; `retry_after` is in whole seconds.
    pub(crate) fn to_response(self, profile: &Profile, retry_after: Option<u64>) -> Response<ScriptedBody> {
        let key = if profile.api.error_key_message { "message" } else { "msg" };
        let body = json!({"errors": [{key: self.message, "code": self.code}]}).to_string();
        let mut response = with_body(self.status, JSON, body);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        response
    }
}

/// Adds the `X-RateLimit-*` headers; `X-RateLimit-Reset` is in seconds from now.
pub(crate) fn add_rate_limit_headers(response: &mut Response<ScriptedBody>, usage: LimitUsage) {
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", usage.requests.into());
    headers.insert("x-ratelimit-remaining", usage.remaining.into());
    headers.insert("x-ratelimit-reset", whole_seconds(usage.resets_in).into());
}

/// `wait` rounded up, so that a client that waits that long succeeds.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// A response whose body is sent at once.
pub(crate) fn with_body(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<ScriptedBody> {
    let mut response = Response::new(ScriptedBody::whole(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The envelope around `data`, which is the items joined by commas.
pub(crate) fn envelope(order: EnvelopeOrder, count: usize, has_more: bool, data: &[u8]) -> Bytes {
    let (before, after) = match order {
        EnvelopeOrder::Documented => {
            (format!(r#"{{"numResults":{count},"hasMore":{has_more},"data":["#), "]}".to_owned())
        }
        EnvelopeOrder::HasMoreLast => {
            (format!(r#"{{"numResults":{count},"data":["#), format!(r#"],"hasMore":{has_more}}}"#))
        }
        EnvelopeOrder::DataFirst => {
            (r#"{"data":["#.to_owned(), format!(r#"],"hasMore":{has_more},"numResults":{count}}}"#))
        }
    };
    [before.as_bytes(), data, after.as_bytes()].concat().into()
}
