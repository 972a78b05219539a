//! Fuzz targets of requests and answers.

mod gzip_splice;
mod header_fields;
mod request;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::request::Parts;

pub use self::gzip_splice::gzip_splice;
pub use self::header_fields::header_fields;
pub use self::request::request;
use super::error::ApiError;
use super::request::{AllowedAccount, ParsedRequest, RequestContext, Target, read, target};
use crate::config::{NamePatterns, SeriesSettings, WindowConfig};
use crate::window::{Timestamp, UpperBound};

/// The time at which requests arrive: 2026-11-22T10:00:00Z.
const NOW: Timestamp = Timestamp::from_seconds(1_795_341_600);

/// Parses a request for a window. `Ok(None)` for a request for something else.
fn parse(head: &Parts, body: &Bytes) -> Result<Option<ParsedRequest>, ApiError> {
    let Target::Stream(target) = target(head)? else { return Ok(None) };
    let accounts = [AllowedAccount { id: "a1".into(), streams: NamePatterns::All }];
    let window = WindowConfig {
        field: "segmentStartTime".into(),
        upper_bound: UpperBound::Inclusive,
        settle_after: Duration::from_hours(24),
        freshness: Vec::new(),
        chunk: Duration::from_hours(1),
        max_span: Duration::from_hours(24 * 366),
    };
    read(head, target, body, &RequestContext::default(), &accounts, &SeriesSettings::new(&window, &[]), NOW).map(Some)
}

/// The head of a request; `None` if http does not accept the URI.
fn head(method: &str, uri: &str) -> Option<Parts> {
    Some(Request::builder().method(method).uri(uri).body(()).ok()?.into_parts().0)
}
