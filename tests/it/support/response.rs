//! One complete response, and the assertions that most tests make about it.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::assert_items;

/// Status, headers and body of a response that ended in order.
#[derive(Clone, Debug)]
pub(crate) struct TestResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Kore's envelope with each item as its bytes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResponsePage {
    pub(crate) num_results: usize,
    pub(crate) has_more: bool,
    data: Vec<Box<RawValue>>,
}

impl ResponsePage {
    /// The items, in their order.
    pub(crate) fn items(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.data.iter().map(|item| item.get().as_bytes())
    }

    /// The items, sorted by their bytes: for windows whose order is not defined.
    pub(crate) fn sorted_items(&self) -> Vec<Vec<u8>> {
        let mut items: Vec<Vec<u8>> = self.items().map(<[u8]>::to_vec).collect();
        items.sort_unstable();
        items
    }
}

impl TestResponse {
    /// Joins a head with a body that was read separately.
    pub(crate) fn new(head: Parts, body: impl Into<Bytes>) -> Self {
        Self { status: head.status, headers: head.headers, body: body.into() }
    }

    /// The text of a header; `None` if it is absent.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The value of `Cache-Status`; empty if it is absent.
    pub(crate) fn cache_status(&self) -> &str {
        self.header("cache-status").unwrap_or_default()
    }

    /// The second part of `Cache-Status`, such as `hit` or `fwd=miss`.
    pub(crate) fn cache_outcome(&self) -> &str {
        self.cache_status().split(';').nth(1).unwrap_or_default().trim()
    }

    /// Asserts that no upstream call was needed.
    #[track_caller]
    pub(crate) fn assert_hit(&self) {
        assert_eq!(self.cache_outcome(), "hit", "{}", self.cache_status());
    }

    /// The upstream calls that `Cache-Status` reports.
    #[track_caller]
    pub(crate) fn reported_calls(&self) -> u64 {
        let status = self.cache_status();
        let (_, calls) = status.rsplit_once("calls=").unwrap_or_else(|| panic!("no calls in {status}"));
        calls.trim_end_matches('"').parse().unwrap()
    }

    /// The seconds of `Retry-After`.
    #[track_caller]
    pub(crate) fn retry_after(&self) -> u64 {
        self.header("retry-after").expect("Retry-After").parse().unwrap()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body without its gzip coding.
    #[track_caller]
    pub(crate) fn gunzip(&self) -> Vec<u8> {
        assert_eq!(self.header("content-encoding"), Some("gzip"));
        let mut plain = Vec::new();
        MultiGzDecoder::new(&self.body[..]).read_to_end(&mut plain).unwrap();
        plain
    }

    /// The envelope of a 200, whose `numResults` is the number of its items.
    #[track_caller]
    pub(crate) fn page(&self) -> ResponsePage {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        let page: ResponsePage = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(page.num_results, page.data.len());
        page
    }

    /// Whether a 200 has exactly these items, byte for byte, in this order.
    #[track_caller]
    pub(crate) fn has_items(&self, expected: &[Vec<u8>]) -> bool {
        self.page().items().eq(expected.iter().map(Vec::as_slice))
    }

    /// Asserts that a 200 has exactly these items, byte for byte, in this order, and none behind them.
    #[track_caller]
    pub(crate) fn assert_complete(&self, expected: &[Vec<u8>], context: &str) {
        let page = self.page();
        assert_items(&page, expected, context);
        assert!(!page.has_more, "{context}: hasMore");
    }

    /// Asserts a problem document (RFC 9457) with Kore's `errors`, no items and no permission to cache; returns it.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, context: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{context}: {}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{context}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{context}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{context}");
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{context}");
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{context}: {member} of {problem}");
        }
        let errors = problem["errors"].as_array().expect("errors");
        assert_eq!(errors.len(), 1, "{context}: {problem}");
        assert!(errors[0]["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{context}: {problem}");
        assert!(errors[0]["code"].is_u64() && problem["data"].is_null(), "{context}: {problem}");
        if status == 503 {
            assert!((1..=60).contains(&self.retry_after()), "{context}: {:?}", self.headers);
        }
        problem
    }

    /// The same, with `word` in the detail and in Kore's message.
    #[track_caller]
    pub(crate) fn assert_problem_names(&self, status: u16, word: &str) {
        let problem = self.assert_problem(status, word);
        for message in [&problem["detail"], &problem["errors"][0]["msg"]] {
            assert!(message.as_str().unwrap().contains(word), "no {word}: {problem}");
        }
    }
}

/// One item a line; a line break between two tokens of an item becomes a blank.
pub(crate) fn to_ndjson(items: &[Vec<u8>]) -> Vec<u8> {
    let line = |item: &Vec<u8>| {
        let mut line: Vec<u8> = item.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect();
        line.push(b'\n');
        line
    };
    items.iter().flat_map(line).collect()
}
