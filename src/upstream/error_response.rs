//! Interprets upstream answers that are not a page.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Deserializer};

use super::error::{SpentLimit, UpstreamError};
use super::rate_limit_headers::RateLimitHeader;
use crate::window::Timestamp;

#[derive(Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<KoreError>,
    /// Milliseconds until a refused call may be made again, as Kore's newer platform writes it.
    #[serde(rename = "retryAfterMs", default, deserialize_with = "milliseconds")]
    retry_after: Option<Duration>,
}

#[derive(Deserialize)]
struct KoreError {
    /// One of Kore's pages writes `message` for `msg`.
    #[serde(alias = "message", default)]
    msg: String,
    #[serde(rename = "retryAfterMs", default, deserialize_with = "milliseconds")]
    retry_after: Option<Duration>,
}

/// A number of milliseconds, also as text. Anything else is no time, and not an error: the rest of the body counts.
fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    let number = number.filter(|number: &f64| number.is_finite() && *number >= 0.0);
    // An `as` saturates. Rounded up: a call at the very millisecond must not be early.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and bounded by the maximum")]
    Ok(number.map(|number| Duration::from_millis(number.ceil() as u64).min(MAX_RETRY_AFTER)))
}

/// Kore's documented messages, and those that its public APIs were observed to send. Other messages are not passed on,
/// because they may contain a credential or a customer's text.
const KNOWN_MESSAGES: [&str; 6] = [
    "Invalid SDK credentials",
    "Invalid JWT token",
    "Permission denied. Scope is incorrect!",
    "error verifying the jwt: possibly a replay",
    "Validation errors/ Invalid arguments",
    "Method Not Allowed",
];

/// The error that an answer states by its status, its headers and Kore's `errors`.
///
/// `None` if the answer is no error: a status of 200 without `errors`.
pub(super) fn classify(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<UpstreamError> {
    // A byte in a wrong encoding hides no limit that the rest of the body names.
    let body = String::from_utf8_lossy(body);
    let Errors { errors, retry_after: asked } = serde_json::from_str::<Errors>(&body).unwrap_or_default();
    if status == StatusCode::OK && errors.is_empty() {
        return None;
    }
    let message = errors.first().map(|error| error.msg.trim());
    let limit = message.and_then(spent_limit);
    if limit.is_some() || status == StatusCode::TOO_MANY_REQUESTS {
        let limit = limit.unwrap_or(SpentLimit::Unnamed);
        let allowance = RateLimitHeader::read(headers, now);
        let asked = asked.or_else(|| errors.iter().find_map(|error| error.retry_after));
        let retry_after = retry_after(headers, now).or(asked).or_else(|| allowance?.wait());
        return Some(UpstreamError::RateLimited { status, limit, retry_after, allowance });
    }
    Some(match status {
        StatusCode::UNAUTHORIZED => UpstreamError::Unauthorized { message: message.and_then(known_message) },
        status => UpstreamError::of_status(status, message),
    })
}

impl UpstreamError {
    /// The error that an answer states by a status other than 401 and by Kore's message.
    pub(crate) fn of_status(status: StatusCode, message: Option<&str>) -> Self {
        let words = || message.map(presentable).filter(|words| !words.is_empty());
        match status {
            StatusCode::PRECONDITION_FAILED => Self::InvalidArguments { status, words: words() },
            StatusCode::BAD_REQUEST if let words @ Some(_) = words() => Self::InvalidArguments { status, words },
            status => Self::Status { status, message: message.and_then(known_message) },
        }
    }
}

/// Longest message that is passed on, in characters.
const MAX_MESSAGE_CHARS: usize = 300;
/// Shortest word that may be a credential, in bytes: a token has hundreds, the client's id and secret about forty.
const MIN_CREDENTIAL_BYTES: usize = 32;

/// Kore's message about the arguments of a caller, for that caller: on one line, shortened, and without words that
/// could be a credential. To present it again changes nothing.
fn presentable(message: &str) -> Arc<str> {
    let is_part_of_word = |char: char| char.is_ascii_alphanumeric() || "-_.+/=~".contains(char);
    let chars = message.chars().map(|char| if char.is_control() { ' ' } else { char });
    let line: String = chars.take(MAX_MESSAGE_CHARS).collect();
    let (mut presented, mut word) = (String::with_capacity(line.len()), String::new());
    for char in line.chars().chain(['\n']) {
        if is_part_of_word(char) {
            word.push(char);
            continue;
        }
        presented.push_str(if word.len() < MIN_CREDENTIAL_BYTES { &word } else { "…" });
        presented.push(char);
        word.clear();
    }
    presented.trim().into()
}

/// The known message that `text` is, if any.
pub fn known_message(message: &str) -> Option<&'static str> {
    KNOWN_MESSAGES.into_iter().find(|known| known.eq_ignore_ascii_case(message))
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

/// The longest wait that the upstream can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// `Retry-After` in either of its forms (RFC 9110, 10.2.3), at most a day.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Timestamp::from(jiff::fmt::rfc2822::parse(value).ok()?.timestamp()).since(now),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: u16, retry_after: Option<&str>, body: impl AsRef<[u8]>) -> Option<UpstreamError> {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        }
        let now = "2026-11-22T10:00:00Z".parse::<jiff::Timestamp>().unwrap().into();
        classify(StatusCode::from_u16(status).unwrap(), &headers, body.as_ref(), now)
    }

    #[test]
    fn page_is_no_error_response() {
        assert!(classified(200, None, r#"{"numResults":0,"hasMore":false,"data":[]}"#).is_none());
    }

    #[test]
    fn spent_quota_is_recognised_by_status_or_message() {
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
                Some(UpstreamError::RateLimited { status: told, limit: found, retry_after, allowance: None }) => {
                    let expected = (status, limit, wait.map(Duration::from_secs));
                    assert_eq!((told.as_u16(), found, retry_after), expected, "{body}");
                }
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn retry_after_in_the_body_is_honoured() {
        let wait = |header: Option<&str>, body: &str| match classified(429, header, body) {
            Some(UpstreamError::RateLimited { retry_after, .. }) => retry_after.map(|wait| wait.as_millis()),
            other => panic!("{body}: {other:?}"),
        };
        for (header, body, expected) in [
            (None, r#"{"retryAfterMs":1500}"#, Some(1_500)),
            (None, r#"{"retryAfterMs":1500.2,"errors":[]}"#, Some(1_501)),
            (None, r#"{"retryAfterMs":" 1500 "}"#, Some(1_500)),
            (None, r#"{"errors":[{"msg":"m","code":429,"retryAfterMs":900}]}"#, Some(900)),
            (Some("7"), r#"{"retryAfterMs":1500}"#, Some(7_000)),
            (None, r#"{"retryAfterMs":1e300}"#, Some(86_400_000)),
            (None, r#"{"retryAfterMs":-1}"#, None),
            (None, r#"{"retryAfterMs":null}"#, None),
            (None, r#"{"retryAfterMs":{}}"#, None),
            (None, "{}", None),
        ] {
            assert_eq!(wait(header, body), expected, "{body}");
        }
        // A strange value hides neither the message nor the limit that it names.
        let strange = r#"{"retryAfterMs":[1],"errors":[{"msg":"hourly rate limit","retryAfterMs":true}]}"#;
        let limited = classified(403, None, strange);
        assert!(
            matches!(limited, Some(UpstreamError::RateLimited { limit: SpentLimit::Hour, retry_after: None, .. })),
            "{limited:?}"
        );
    }

    #[test]
    fn limit_is_found_in_a_body_that_is_not_utf8() {
        for body in [
            &b"{\"errors\":[{\"msg\":\"hourly rate limit\",\"more\":\"\xe9\"}]}"[..],
            b"{\"errors\":[{\"msg\":\"hourly rate limit \xe9\"}]}",
        ] {
            let limited = classified(403, None, body);
            assert!(matches!(limited, Some(UpstreamError::RateLimited { limit: SpentLimit::Hour, .. })), "{limited:?}");
        }
    }

    #[test]
    fn refusal_without_retry_after_uses_rate_limit_headers() {
        let waits = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
            match classify(StatusCode::TOO_MANY_REQUESTS, &headers.collect(), b"", Timestamp::default()) {
                Some(UpstreamError::RateLimited { retry_after, allowance: Some(_), .. }) => retry_after,
                other => panic!("{other:?}"),
            }
        };
        let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "9")];
        assert_eq!(waits(&spent), Some(Duration::from_secs(9)));
        assert_eq!(waits(&[spent[0], spent[1], ("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(waits(&[("x-ratelimit-remaining", "3"), spent[1]]), None);
    }

    #[test]
    fn refused_arguments_have_the_words_of_the_answer() {
        let words = |status, body: &str| match classified(status, None, body) {
            Some(UpstreamError::InvalidArguments { words, .. }) => Some(words.map(|words| words.to_string())),
            _ => None,
        };
        let body = |message: &str| serde_json::json!({"errors": [{"msg": message, "code": 412}]}).to_string();
        assert_eq!(words(412, ""), Some(None));
        assert_eq!(
            words(412, &body(" to must not\tbe before from\n")),
            Some(Some("to must not be before from".into()))
        );
        assert_eq!(words(400, &body("limit > 100")), Some(Some("limit > 100".into())));
        for nothing in ["<html>".to_owned(), body("  "), body("\u{1}")] {
            assert_eq!((words(400, &nothing), words(412, &nothing)), (None, Some(None)), "{nothing}");
        }
        let long = words(412, &body(&"no ".repeat(1_000))).unwrap().unwrap();
        assert!(long.chars().count() <= MAX_MESSAGE_CHARS && long.starts_with("no no "));
    }

    #[test]
    fn words_of_an_answer_never_hold_a_credential() {
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJhcHBJZCI6ImNzLTEifQ.c2lnbmF0dXJl";
        for message in [
            format!("bad {token}"),
            format!("auth=\"{token}\""),
            format!("{}{token}", "x ".repeat(130)),
            "id cs-00000000-0000-0000-0000-000000000000 is unknown".to_owned(),
        ] {
            let presented = presentable(&message);
            assert!(!presented.contains("eyJ") && !presented.contains("cs-"), "{presented}");
            assert_eq!(presentable(&presented), presented);
        }
        let error = UpstreamError::of_status(StatusCode::PRECONDITION_FAILED, Some("no conversation of Jane Doe"));
        assert_eq!(
            error.to_string(),
            "the upstream refused the arguments with 412 Precondition Failed",
            "what is logged"
        );
    }

    #[test]
    fn only_known_messages_are_passed_on() {
        let said = |status, message: &str| {
            classified(status, None, format!(r#"{{"errors":[{{"msg":"{message}","code":4002}}]}}"#))
                .unwrap()
                .to_string()
        };
        assert!(said(401, "invalid sdk credentials").ends_with(": \"Invalid SDK credentials\""));
        assert!(said(412, "Validation errors/ Invalid arguments").contains("412"));
        for message in ["bad token ey.ey.ey", "Invalid SDK credentials for Jane Doe", "Jane Doe said"] {
            assert_eq!(said(500, message), "the upstream answered 500 Internal Server Error");
        }
    }
}
