//! A call to the upstream and its answer as they are, below the interpretation as a page.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::error::UpstreamError;
use super::error_response;
use super::page::Page;
use super::rate_limit_headers::RateLimitHeader;
use crate::request::Series;
use crate::traces::Span;
use crate::window::{QueryBounds, Timestamp};

/// A call to make.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// The rows to fetch.
    pub series: Arc<Series>,
    /// Their time, in whole seconds.
    pub bounds: QueryBounds,
    /// Number of items to skip.
    pub offset: u64,
    /// Most items to return; `None` leaves the choice to the upstream.
    pub limit: Option<u32>,
    /// The `auth` header; marked sensitive.
    pub auth: HeaderValue,
    /// The span whose context the call carries; none if it carries none.
    pub span: Span,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The time at which the request was sent.
    pub asked_at: Timestamp,
}

impl RawAnswer {
    /// The page that the answer holds, with its rate-limit headers. `now` is the time of its arrival.
    ///
    /// # Errors
    /// The error that the answer states, or [`UpstreamError::BadPage`].
    pub fn page(&self, now: Timestamp) -> Result<Page, UpstreamError> {
        match (self.status, Page::parse(&self.body)) {
            (StatusCode::OK, Ok(page)) => Ok(Page { allowance: self.rate_limit(now), ..page }),
            // Not a page: possibly a refusal, whatever its status.
            (status, page) => match error_response::classify(status, &self.headers, &self.body, now) {
                Some(refused) => Err(refused),
                None => Ok(page?),
            },
        }
    }

    /// The rate-limit headers.
    pub fn rate_limit(&self, now: Timestamp) -> Option<RateLimitHeader> {
        RateLimitHeader::read(&self.headers, now)
    }

    /// The `Date`, unless the answer comes from a cache on the way, which has an `Age`.
    pub fn date(&self) -> Option<Timestamp> {
        let date = self.headers.get(header::DATE).filter(|_| !self.headers.contains_key(header::AGE))?.to_str().ok()?;
        Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp().into())
    }

    /// The `retryAfterMs` in the body, which Kore's newer platform sends with a 429.
    pub fn retry_after_in_body(&self) -> Option<Duration> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Refusal {
            retry_after_ms: u64,
        }
        let refusal = serde_json::from_slice::<Refusal>(&self.body).ok()?;
        Some(Duration::from_millis(refusal.retry_after_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&'static str, &'static str)], body: &'static str) -> RawAnswer {
        let headers =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        RawAnswer {
            status: StatusCode::TOO_MANY_REQUESTS,
            headers: headers.collect(),
            body: Bytes::from_static(body.as_bytes()),
            asked_at: Timestamp::from_seconds(0),
        }
    }

    #[test]
    fn retry_after_is_read_from_the_body() {
        for (body, millis) in
            [(r#"{"retryAfterMs":1500,"x":1}"#, Some(1500)), (r#"{"retryAfterMs":"1"}"#, None), ("<html>", None)]
        {
            assert_eq!(answer(&[], body).retry_after_in_body(), millis.map(Duration::from_millis), "{body}");
        }
    }

    #[test]
    fn date_of_an_answer_from_a_cache_is_ignored() {
        let date = ("date", "Sun, 22 Nov 2026 10:00:09 GMT");
        let expected = "2026-11-22T10:00:09Z".parse::<jiff::Timestamp>().unwrap();
        assert_eq!(answer(&[date], "").date(), Some(expected.into()));
        assert_eq!(answer(&[date, ("age", "7")], "").date(), None);
        assert_eq!(answer(&[("date", "today")], "").date(), None);
    }
}
