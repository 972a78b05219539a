//! What goes back: refusals in Kore's words, pages in its envelope.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::body::Script;
use super::limits::Standing;
use super::profile::{Envelope, Profile};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
pub(super) const HTML: HeaderValue = HeaderValue::from_static("text/html");

/// A refusal: status, Kore's text, Kore's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
    pub(super) code: u32,
}

impl Refusal {
    pub(super) const INVALID_CREDENTIALS: Self = Self::new(StatusCode::UNAUTHORIZED, "Invalid SDK credentials", 4002);
    pub(super) const NOT_A_TOKEN: Self = Self::new(StatusCode::UNAUTHORIZED, "Invalid JWT token", 4002);
    pub(super) const SCOPE_MISSING: Self =
        Self::new(StatusCode::UNAUTHORIZED, "Permission denied. Scope is incorrect!", 4002);
    pub(super) const REPLAYED: Self =
        Self::new(StatusCode::UNAUTHORIZED, "error verifying the jwt: possibly a replay", 401);
    pub(super) const INVALID_ARGUMENTS: Self =
        Self::new(StatusCode::PRECONDITION_FAILED, "Validation errors/ Invalid arguments", 412);
    pub(super) const WRONG_METHOD: Self = Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", 405);
    pub(super) const NOT_FOUND: Self = Self::new(StatusCode::NOT_FOUND, "Not Found", 404);
    pub(super) const SERVER_ERROR: Self = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error", 500);

    pub(super) const fn new(status: StatusCode, message: &'static str, code: u32) -> Self {
        Self { status, message, code }
    }

    /// The answer; `retry_after` in whole seconds.
    pub(super) fn answer(self, profile: &Profile, retry_after: Option<u64>) -> Response<Script> {
        let key = if profile.error_key_message { "message" } else { "msg" };
        let body = json!({"errors": [{key: self.message, "code": self.code}]}).to_string();
        let mut response = page(self.status, JSON, body);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        response
    }
}

/// Says how the shortest limit stands; when there is more, in seconds from now.
pub(super) fn tell_standing(response: &mut Response<Script>, standing: Standing) {
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", standing.requests.into());
    headers.insert("x-ratelimit-remaining", standing.remaining.into());
    headers.insert("x-ratelimit-reset", whole_seconds(standing.more_in).into());
}

/// Rounded up: whoever waits so long passes.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// An answer of one piece.
pub(super) fn page(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<Script> {
    let mut response = Response::new(Script::whole(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The JSON around `data`, which is the items joined by commas.
pub(super) fn envelope(order: Envelope, count: usize, has_more: bool, data: &[u8]) -> Bytes {
    let (before, after) = match order {
        Envelope::Documented => (format!(r#"{{"numResults":{count},"hasMore":{has_more},"data":["#), "]}".to_owned()),
        Envelope::HasMoreLast => {
            (format!(r#"{{"numResults":{count},"data":["#), format!(r#"],"hasMore":{has_more}}}"#))
        }
        Envelope::DataFirst => (r#"{"data":["#.to_owned(), format!(r#"],"hasMore":{has_more},"numResults":{count}}}"#)),
    };
    [before.as_bytes(), data, after.as_bytes()].concat().into()
}
