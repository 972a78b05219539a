//! Header fields of answers: content, caching, `ETag`, and the comparison of `If-None-Match` with it.
//! `head/cache_status.rs` has `Cache-Status`, `head/next_link.rs` has `Link`.

mod cache_status;
mod next_link;

use http::{HeaderMap, HeaderValue, Response, header};

pub(super) use self::cache_status::{cache_status, expected_status, streamed_cache_status};
pub(super) use self::next_link::{link, next_link};

use super::answer::ApiBody;
use super::negotiation::{Coding, Format, Negotiated};
use crate::cache::ItemSlice;
use crate::window::Timestamp;

/// Request fields that select between answers to the same target: form and content coding, the account, the key (by
/// which callers may see different things), and the preferences. A cache that ignores `Cache-Control: private` still
/// keeps the answers of callers apart.
pub(super) const VARY: &str = "accept, accept-encoding, accountid, authorization, prefer, x-api-key";

/// `Age` (RFC 9111, 5.1).
pub(super) fn set_age(headers: &mut HeaderMap, fetched_at: Timestamp, now: Timestamp) {
    headers.insert(header::AGE, age(fetched_at, now));
}

/// The value of `Age` for what was fetched at `fetched_at`, in seconds.
pub(super) fn age(fetched_at: Timestamp, now: Timestamp) -> HeaderValue {
    now.since(fetched_at).as_secs().into()
}

/// Sets the content fields. Ranges of bytes are not served: pages are what `offset` and `limit` select.
pub(super) fn describe(response: &mut Response<ApiBody>, representation: Negotiated) {
    let content_type = match representation.format {
        Format::Json => "application/json",
        Format::Ndjson => "application/x-ndjson",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
    if representation.coding == Coding::Gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    guard(headers);
}

/// Conversations are personal data: shared caches must not store them, and the client's own cache must revalidate.
pub(super) fn guard(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static(VARY));
}

/// A validator that is equal for equal items, on every replica and however chunks are cut. `item_order` is a hash of the
/// member by which items are ordered, so that it is equal for no other order of them. Strong without a content coding;
/// weak with one, because compressed bytes may differ.
pub(super) fn etag(items: &ItemSlice, item_order: u64, representation: Negotiated) -> String {
    let form = match representation.format {
        Format::Json => "j",
        Format::Ndjson => "n",
    };
    let weak = if representation.coding == Coding::Gzip { "W/" } else { "" };
    let (sum, more) = (items.sum().wrapping_add(item_order), if items.has_more { "+" } else { "" });
    format!("{weak}\"{sum:016x}-{:x}{more}-{form}\"", items.count)
}

/// Whether `If-None-Match` (RFC 9110, 13.1.2), of one line or several, lists a tag.
pub(super) fn is_listed(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|line| matches(line, etag))
}

/// Whether a line of `If-None-Match` matches, by weak comparison.
pub(super) fn matches(if_none_match: &HeaderValue, etag: &str) -> bool {
    let Ok(known) = if_none_match.to_str() else { return false };
    let etag = opaque_tag(etag);
    // A tag of another server's may contain commas, and between them anything but quotes: its parts are no tag of ours.
    known.trim() == "*" || known.split(',').any(|known| opaque_tag(known.trim()) == etag)
}

/// An entity tag without the mark of a weak one.
fn opaque_tag(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_if_none_match_counts() {
        let mut headers = HeaderMap::new();
        for line in ["\"a\"", "\"b\", W/\"c\""] {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(line));
        }
        for (etag, expected) in [("\"a\"", true), ("\"c\"", true), ("\"d\"", false)] {
            assert_eq!(is_listed(&headers, etag), expected, "{etag}");
        }
    }

    #[test]
    fn if_none_match_list_is_compared_weakly() {
        let matches = |known: &'static str| matches(&HeaderValue::from_static(known), "\"a-1-j\"");
        assert!(matches("\"a-1-j\""));
        assert!(matches("\"x\", W/\"a-1-j\""));
        assert!(matches("*"));
        assert!(matches(" * "));
        assert!(!matches("\"a-2-j\""));
        assert!(!matches("\"a,*,b\""), "a tag with commas");
    }
}
