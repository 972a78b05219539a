//! What the upstream says when it does not answer with a page.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::error::{SpentLimit, UpstreamError};
use crate::window::Moment;

#[derive(Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<KoreError>,
}

#[derive(Deserialize)]
struct KoreError {
    /// One of Kore's pages writes `message` for `msg`.
    #[serde(alias = "message", default)]
    msg: String,
}

/// The longest part of a message that is passed on, in characters: enough for each message that is documented.
const MESSAGE_LIMIT: usize = 160;

/// What an answer means that is not a page, from its status, its headers and Kore's `errors`.
///
/// `None` if it is no refusal: a status of 200 without `errors`. `token` is cut out of the message, should the upstream
/// repeat it.
pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    token: &str,
    now: Moment,
) -> Option<UpstreamError> {
    let errors = serde_json::from_slice::<Errors>(body).unwrap_or_default().errors;
    if status == StatusCode::OK && errors.is_empty() {
        return None;
    }
    let message = errors.into_iter().next().map(|error| error.msg).filter(|message| !message.is_empty());
    let limit = message.as_deref().and_then(spent_limit);
    if limit.is_some() || status == StatusCode::TOO_MANY_REQUESTS {
        let limit = limit.unwrap_or(SpentLimit::Unnamed);
        return Some(UpstreamError::RateLimited { limit, retry_after: retry_after(headers, now) });
    }
    let message = message.map(|message| {
        let message = if token.is_empty() { message } else { message.replace(token, "[token]") };
        message.chars().filter(|c| !c.is_control()).take(MESSAGE_LIMIT).collect::<String>()
    });
    Some(match status {
        StatusCode::UNAUTHORIZED => UpstreamError::Unauthorized { message },
        status => UpstreamError::Status { status, message },
    })
}

fn spent_limit(message: &str) -> Option<SpentLimit> {
    let message = message.to_ascii_lowercase();
    if !message.contains("rate limit") {
        None
    } else if message.contains("hour") {
        Some(SpentLimit::Hour)
    } else if message.contains("minute") {
        Some(SpentLimit::Minute)
    } else {
        Some(SpentLimit::Unnamed)
    }
}

/// `Retry-After` in either of its forms (RFC 9110, 10.2.3), at most a day.
fn retry_after(headers: &HeaderMap, now: Moment) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Moment::from(jiff::fmt::rfc2822::parse(value).ok()?.timestamp()).since(now),
    };
    Some(wait.min(Duration::from_hours(24)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: u16, retry_after: Option<&str>, body: &str) -> Option<UpstreamError> {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        }
        let now = "2026-11-22T10:00:00Z".parse::<jiff::Timestamp>().unwrap().into();
        classify(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), "t0ken", now)
    }

    #[test]
    fn a_page_is_no_refusal() {
        assert!(classified(200, None, r#"{"numResults":0,"hasMore":false,"data":[]}"#).is_none());
    }

    #[test]
    fn a_spent_quota_is_known_by_status_or_by_message() {
        for (status, after, body, limit, wait) in [
            (429, None, "", SpentLimit::Unnamed, None),
            (429, Some("7"), "<html>", SpentLimit::Unnamed, Some(7)),
            (429, Some("Sun, 22 Nov 2026 10:00:09 GMT"), "", SpentLimit::Unnamed, Some(9)),
            (
                403,
                None,
                r#"{"errors":[{"msg":"You've exceeded the per-minute rate limit. Please wait"}]}"#,
                SpentLimit::Minute,
                None,
            ),
            (
                200,
                None,
                r#"{"errors":[{"message":"You've exceeded the hourly rate limit.","code":429}]}"#,
                SpentLimit::Hour,
                None,
            ),
            (
                400,
                None,
                r#"{"errors":[{"msg":"Rate limit for this API has been reached."}]}"#,
                SpentLimit::Unnamed,
                None,
            ),
        ] {
            match classified(status, after, body) {
                Some(UpstreamError::RateLimited { limit: found, retry_after }) => {
                    assert_eq!((found, retry_after), (limit, wait.map(Duration::from_secs)), "{body}");
                }
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_message_never_repeats_the_token() {
        let refused = classified(401, None, r#"{"errors":[{"msg":"bad t0ken t0ken","code":4002}]}"#).unwrap();
        assert!(matches!(&refused, UpstreamError::Unauthorized { message: Some(m) } if m == "bad [token] [token]"));
        let long = format!(r#"{{"errors":[{{"msg":"{}"}}]}}"#, "x".repeat(1000));
        assert!(classified(500, None, &long).unwrap().to_string().len() < 300);
    }
}
