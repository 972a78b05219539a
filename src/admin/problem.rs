//! Problem documents of the admin plane (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use super::json;
use super::purge::PurgeReport;

/// A problem, with the partial result of a purge.
#[derive(Serialize)]
struct Problem {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(flatten)]
    done: Option<PurgeReport>,
}

/// The response with a problem document; `word` is the last part of its type.
pub(super) fn problem(
    status: StatusCode,
    word: &str,
    detail: String,
    done: Option<PurgeReport>,
) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or_default();
    let problem =
        Problem { r#type: format!("urn:koregate:problem:{word}"), title, status: status.as_u16(), detail, done };
    let mut response = json(status, &problem);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}
