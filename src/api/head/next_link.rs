//! `Link: <…>; rel="next"` (RFC 8288): the next page of a window.

use http::{HeaderValue, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::cache::{ItemSlice, PageRange};

/// Visible characters that http accepts in a target, but that no URI has (RFC 3986, 2).
const EXCLUDED: &[u8] = b"\"<>\\^`{|}";
/// All characters that are encoded in a link.
const NOT_IN_A_URI: &AsciiSet = &{
    let (mut set, mut next) = (CONTROLS.add(b' '), 0);
    while next < EXCLUDED.len() {
        set = set.add(EXCLUDED[next]);
        next += 1;
    }
    set
};

/// The link to the page after `items`, which `page_range` has selected for a request of `uri`. `None` if nothing follows,
/// or if the page is empty, because then the next one would be the same.
pub(in crate::api) fn next_link(uri: &Uri, page_range: PageRange, items: &ItemSlice) -> Option<HeaderValue> {
    if !items.has_more || items.count == 0 {
        return None;
    }
    let offset = page_range.offset.checked_add(items.count)?;
    link(&with_offset(uri.path(), uri.query().unwrap_or_default(), offset), "next")
}

/// The field of a link to a target, whose characters that no URI has are encoded.
pub(in crate::api) fn link(target: &str, relation: &str) -> Option<HeaderValue> {
    let mut link = String::with_capacity(target.len() + relation.len() + "<>; rel=\"\"".len());
    link.push('<');
    if is_plain(target) {
        link.push_str(target);
    } else {
        link.extend(utf8_percent_encode(target, NOT_IN_A_URI));
    }
    for part in [">; rel=\"", relation, "\""] {
        link.push_str(part);
    }
    HeaderValue::try_from(link).ok()
}

/// Whether a target has none of the characters that are encoded.
#[expect(clippy::needless_bitwise_bool, reason = "a loop without branches costs a quarter of one that stops early")]
fn is_plain(target: &str) -> bool {
    let is_kept =
        |byte: u8| EXCLUDED.iter().fold((byte > b' ') & (byte < 0x7f), |is_kept, other| is_kept & (byte != *other));
    target.bytes().fold(true, |is_plain, byte| is_plain & is_kept(byte))
}

/// The target with another `offset`. All other bytes stay as they are.
fn with_offset(path: &str, query: &str, offset: u64) -> String {
    let mut target = String::with_capacity(path.len() + query.len() + "?&offset=".len() + 20);
    target.push_str(path);
    let mut separator = '?';
    let mut add = |pair: &str| {
        target.push(std::mem::replace(&mut separator, '&'));
        target.push_str(pair);
    };
    let new = format!("offset={offset}");
    let mut is_replaced = false;
    for pair in query.split('&') {
        let replaces = is_offset(pair);
        is_replaced |= replaces;
        add(if replaces { &new } else { pair });
    }
    if !is_replaced {
        add(&new);
    }
    target
}

/// Whether a pair of a query is the `offset`. Only what is encoded is decoded, since each page comes here.
fn is_offset(pair: &str) -> bool {
    if let Some(rest) = pair.strip_prefix("offset") {
        return rest.is_empty() || rest.starts_with('=');
    }
    pair.starts_with(['o', '%']) && form_urlencoded::parse(pair.as_bytes()).any(|(name, _)| name == "offset")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link(uri: &str, offset: u64, count: u64, has_more: bool) -> Option<String> {
        let items = ItemSlice { slices: Vec::new(), count, has_more };
        let link = next_link(&uri.parse().unwrap(), PageRange { offset, limit: Some(count) }, &items);
        link.map(|link| link.to_str().unwrap().to_owned())
    }

    #[test]
    fn link_advances_the_offset_and_keeps_the_rest() {
        for (uri, expected) in [
            (
                "/a/st-1?from=2026-02-23&to=2026-02-23&limit=10",
                "/a/st-1?from=2026-02-23&to=2026-02-23&limit=10&offset=17",
            ),
            ("/a/st-1?offset=7&from=1+2%203&to=%5A&limit=10", "/a/st-1?offset=17&from=1+2%203&to=%5A&limit=10"),
            ("/a?limit=10&%6Fffset=07&x=offset&offsets=7&", "/a?limit=10&offset=17&x=offset&offsets=7&"),
            ("http://host:1/a%20b?offset=7&limit=10&x=a{b}|", "/a%20b?offset=17&limit=10&x=a%7Bb%7D%7C"),
        ] {
            assert_eq!(link(uri, 7, 10, true), Some(format!("<{expected}>; rel=\"next\"")), "{uri}");
        }
    }

    #[test]
    fn last_and_empty_page_have_no_link() {
        let uri = "/a?limit=10&offset=7";
        assert_eq!(link(uri, 7, 10, false), None);
        assert_eq!(link(uri, 7, 0, true), None);
        assert_eq!(link(uri, u64::MAX, 1, true), None);
    }

    #[test]
    fn plain_target_is_one_that_needs_no_encoding() {
        for char in (0..=0x7f).map(char::from).chain(['é', '漢']) {
            let target = format!("/a{char}b");
            let encoded = utf8_percent_encode(&target, NOT_IN_A_URI).to_string();
            assert_eq!(is_plain(&target), encoded == target, "{char:?}");
        }
    }

    proptest! {
        /// The naive model edits the decoded pairs.
        #[test]
        fn only_the_offset_of_a_query_changes(
            pairs in prop::collection::vec(("[a-z&=%+ é]{0,4}", "[a-z&=%+ é]{0,4}"), 0..5), place in 0usize..6, offset: u64
        ) {
            let mut pairs: Vec<(String, String)> = pairs.into_iter().filter(|(name, _)| name != "offset").collect();
            if place < pairs.len() {
                pairs.insert(place, ("offset".to_owned(), "3".to_owned()));
            }
            let print = |pairs: &[(String, String)]| {
                form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
            };
            let changed = with_offset("/a", &print(&pairs), offset);
            let changed = changed.strip_prefix("/a?").unwrap();
            let changed: Vec<(String, String)> = form_urlencoded::parse(changed.as_bytes()).into_owned().collect();
            match pairs.iter_mut().find(|(name, _)| name == "offset") {
                Some((_, value)) => *value = offset.to_string(),
                None => pairs.push(("offset".to_owned(), offset.to_string())),
            }
            prop_assert_eq!(changed, pairs);
        }
    }
}
