//! Fuzz targets of what the upstream sends.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::UpstreamError;
use super::page::{BadPage, Page};
use super::rate_limit_headers::RateLimitHeader;
use super::{error_response, known_message};
use crate::fuzz_targets::{header_fields_of, lines_and_body, members, timestamp_of};
use crate::paging::Item;
use crate::window::Timestamp;

/// The configured timestamp of items.
const FIELD: &str = "segmentStartTime";
/// The limits of a page that the gateway states.
const MOST_ITEMS: usize = 1000;

/// The body of a page, cut into items, each with its timestamp and its `segmentID`.
///
/// # Panics
/// If a property does not hold.
pub fn page(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let page = Page::parse(&body);
    let text = std::str::from_utf8(data);
    match (&page, &text) {
        (Err(BadPage::Empty), _) => assert!(data.is_empty()),
        (Err(BadPage::NotText), _) => assert!(text.is_err()),
        (_, Ok(text)) => assert_eq!(page.is_ok(), naive_page(text).is_some(), "accepted otherwise: {page:?}"),
        (_, Err(_)) => panic!("bytes that are not UTF-8 are accepted"),
    }
    let (Ok(page), Some((has_more, items))) = (page, text.ok().and_then(naive_page)) else { return };
    assert_eq!(page.has_more, has_more);
    assert_eq!(page.items.len(), items.len());
    for (item, naive) in page.items.iter().zip(items) {
        assert_eq!(item, naive.get().as_bytes());
        check_item(item, naive.get());
    }
}

/// `hasMore` and the items of a page as the documentation describes it.
fn naive_page(text: &str) -> Option<(bool, Vec<&RawValue>)> {
    let members = members(text)?;
    let once = |name: &str| {
        let mut named = members.iter().filter(|member| member.0 == name);
        let value = named.next().map(|member| member.1.get());
        if named.next().is_none() { Ok(value) } else { Err(()) }
    };
    let has_more: bool = serde_json::from_str(once("hasMore").ok()??).ok()?;
    let items: Vec<&RawValue> = serde_json::from_str(once("data").ok()??).ok()?;
    let count: Option<u64> = match once("numResults").ok()? {
        Some(count) => serde_json::from_str(count).ok()?,
        None => None,
    };
    let is_counted = count.is_none_or(|count| count == items.len() as u64) && items.len() <= MOST_ITEMS;
    let are_objects = items.iter().all(|item| item.get().starts_with('{'));
    (is_counted && are_objects && !(items.is_empty() && has_more)).then_some((has_more, items))
}

fn check_item(item: &Bytes, json: &str) {
    let (at, id) = Item::read(item, FIELD);
    let Some((text, naive_id)) = naive_item(json) else {
        return assert_eq!((at, &id), (None, item), "an item that cannot be parsed");
    };
    assert_eq!(id, naive_id.unwrap_or_else(|| json.to_owned()));
    match text.as_deref().map(timestamp_of) {
        Some(Some(naive)) => assert_eq!(at, Some(naive), "{text:?}"),
        // Another spelling.
        Some(None) => {}
        None => assert_eq!(at, None),
    }
}

/// The last timestamp and the last `segmentID` of an item, if they are strings. `None` if the item cannot be parsed.
fn naive_item(json: &str) -> Option<(Option<String>, Option<String>)> {
    let members = members(json)?;
    let last = |name: &str| {
        let mut text = None;
        for (_, value) in members.iter().filter(|member| member.0 == name) {
            // In an array, so that it is nested as deeply as in the item.
            let [value] = serde_json::from_str::<[Value; 1]>(&format!("[{value}]")).ok()?;
            text = value.as_str().map(str::to_owned);
        }
        Some(text)
    };
    Some((last(FIELD)?, last("segmentID")?))
}

/// An answer that is not a page: a status, header fields, and a body.
///
/// # Panics
/// If a property does not hold.
pub fn upstream_error(data: &[u8]) {
    let (lines, body) = lines_and_body(data);
    let Some((status, fields)) = lines.split_first() else { return };
    let Some(status) = status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok()) else { return };
    let (headers, now) = (header_fields_of(fields), Timestamp::from_seconds(1_795_341_600));
    let allowance = RateLimitHeader::read(&headers, now);
    let most = Duration::from_hours(24);
    if let Some(RateLimitHeader { limit, remaining, reset }) = allowance {
        assert!(limit.is_none_or(|limit| remaining <= limit) && reset.is_none_or(|reset| reset <= most));
    }
    let found = error_response::classify(status, &headers, body, now);
    let text = String::from_utf8_lossy(body);
    if has_lists_for_objects(&text) {
        return;
    }
    let message = naive_message(&text);
    let is_spent = message.as_deref().is_some_and(|message| message.to_ascii_lowercase().contains("rate limit"));
    match found {
        None => assert!(status == StatusCode::OK && message.is_none()),
        Some(UpstreamError::RateLimited { retry_after, allowance: found, .. }) => {
            assert!(is_spent || status == StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(found, allowance);
            assert!(retry_after.is_none_or(|wait| wait <= most));
            if let Some(seconds) = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok()) {
                assert_eq!(retry_after, Some(Duration::from_secs(seconds).min(most)));
            }
        }
        Some(UpstreamError::Unauthorized { message: shown } | UpstreamError::Status { message: shown, .. }) => {
            assert!(!is_spent && status != StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(shown, message.as_deref().and_then(|message| known_message(message.trim())));
        }
        Some(UpstreamError::InvalidArguments { status: shown, words }) => {
            assert!(!is_spent && shown == status);
            assert!(status == StatusCode::PRECONDITION_FAILED || status == StatusCode::BAD_REQUEST && words.is_some());
            let words = words.unwrap_or_default();
            assert!(words.chars().count() <= 300 && !words.contains(char::is_control));
            let runs = words.split(|char: char| !char.is_ascii_alphanumeric());
            assert!(runs.into_iter().all(|run| run.len() < 32), "a word that may be a credential");
            assert_eq!(!words.is_empty(), message.is_some_and(|text| text.trim().chars().take(300).any(is_shown)));
        }
        Some(other) => panic!("{other:?} is no error of an answer"),
    }
}

/// Whether a character of a message is left when blanks are trimmed.
fn is_shown(char: char) -> bool {
    !char.is_control() && !char.is_whitespace()
}

/// Whether a body has a list in place of an object, which serde reads as the object's members in their order. Kore sends
/// none, and no answer that is a page is read so.
fn has_lists_for_objects(body: &str) -> bool {
    let is_list = |value: &RawValue| value.get().starts_with('[');
    let Some(members) = members(body) else { return body.trim_ascii_start().starts_with('[') };
    let errors = members.iter().filter(|member| member.0 == "errors").map(|member| member.1.get());
    let mut errors = errors.filter_map(|list| serde_json::from_str::<Vec<&RawValue>>(list).ok());
    errors.any(|errors| errors.into_iter().any(is_list))
}

/// The first message of an error body that has the documented shape.
fn naive_message(body: &str) -> Option<String> {
    let members = members(body)?;
    let mut lists = members.iter().filter(|member| member.0 == "errors");
    let (list, None) = (lists.next()?.1, lists.next()) else { return None };
    let errors: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    let messages: Option<Vec<String>> = errors.iter().map(|error| naive_error(error.get())).collect();
    messages?.into_iter().next()
}

fn naive_error(json: &str) -> Option<String> {
    let members = self::members(json)?;
    let mut named = members.iter().filter(|member| member.0 == "msg" || member.0 == "message");
    let message = match named.next() {
        Some((_, message)) => serde_json::from_str(message.get()).ok()?,
        None => String::new(),
    };
    named.next().is_none().then_some(message)
}
