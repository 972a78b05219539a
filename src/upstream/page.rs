//! An upstream page, checked against the documented shape.

use std::fmt;

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::rate_limit_headers::RateLimitHeader;

/// Number of items above which a body is no page: ten times as many as are requested.
const MOST_ITEMS: usize = 1000;
/// Error text of serde for such a body.
const TOO_MANY_ITEMS: &str = "too many items";
/// Bytes that a body may hold besides its items, beyond as many again as the items, before the items are copied out of
/// it.
const PADDING: usize = 64 << 10;

/// A page: items as slices of the body, byte for byte.
#[derive(Clone, Debug)]
pub struct Page {
    /// The items, in the upstream's order.
    pub items: Vec<Bytes>,
    /// The upstream's `hasMore`.
    pub has_more: bool,
    /// The answer's rate-limit headers.
    pub allowance: Option<RateLimitHeader>,
}

/// Reason why a body is not a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BadPage {
    /// The body is empty.
    #[error("an empty body")]
    Empty,
    /// The body is not UTF-8.
    #[error("a body that is not UTF-8")]
    NotText,
    /// The body is truncated, or not of the documented shape.
    #[error("a body that is not a page of items")]
    NotAPage,
    /// `numResults` is not the number of items.
    #[error("a page that does not hold as many items as it says")]
    WrongCount,
    /// No item, although `hasMore` is true.
    #[error("an empty page that promises more")]
    EmptyButMore,
    /// More items than a page holds.
    #[error("a page of more than {MOST_ITEMS} items")]
    TooManyItems,
    /// An item that is not an object.
    #[error("an item that is not an object")]
    NotAnItem,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    num_results: Option<u64>,
    has_more: bool,
    #[serde(borrow, deserialize_with = "items")]
    data: Vec<&'a RawValue>,
}

/// Reads items up to the limit.
fn items<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'de RawValue>, D::Error> {
    struct Items;

    impl<'de> Visitor<'de> for Items {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut read: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = read.next_element()? {
                if items.len() == MOST_ITEMS {
                    return Err(A::Error::custom(TOO_MANY_ITEMS));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Items)
}

impl Page {
    /// Cuts a body into its items, which share the body's memory. Rate-limit headers are added by the client.
    ///
    /// # Errors
    /// [`BadPage`] if the body contradicts the documented shape.
    pub fn parse(body: &Bytes) -> Result<Self, BadPage> {
        if body.is_empty() {
            return Err(BadPage::Empty);
        }
        let text = simdutf8::basic::from_utf8(body).map_err(|_| BadPage::NotText)?;
        // serde would read a list as the members of the envelope in their order.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(BadPage::NotAPage);
        }
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| {
            // serde appends the position.
            if error.to_string().starts_with(TOO_MANY_ITEMS) { BadPage::TooManyItems } else { BadPage::NotAPage }
        })?;
        if envelope.num_results.is_some_and(|count| count != envelope.data.len() as u64) {
            return Err(BadPage::WrongCount);
        }
        if envelope.data.is_empty() && envelope.has_more {
            return Err(BadPage::EmptyButMore);
        }
        if !envelope.data.iter().all(|item| item.get().starts_with('{')) {
            return Err(BadPage::NotAnItem);
        }
        let bytes = envelope.data.iter().map(|item| item.get().len()).sum::<usize>();
        let is_padded = body.len() > 2 * bytes + PADDING;
        let items = envelope.data.iter().map(|item| item.get().as_bytes());
        let items = if is_padded {
            items.map(Bytes::copy_from_slice).collect()
        } else {
            items.map(|item| body.slice_ref(item)).collect()
        };
        Ok(Self { items, has_more: envelope.has_more, allowance: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Page, BadPage> {
        Page::parse(&Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn items_keep_their_bytes() {
        let items = [r#"{"a":1.0, "b" : 1e2}"#, r#"{"c":12345678901234567890,"d":"\u00e9é"}"#, r#"{"a":1,"a":2}"#];
        let page =
            parse(&format!(r#" {{"hasMore":true,"data":[ {} ],"new":null,"numResults":3}} "#, items.join(" ,\n ")));
        let page = page.unwrap();
        assert!(page.has_more);
        assert_eq!(page.items, items.map(|item| Bytes::copy_from_slice(item.as_bytes())));
    }

    #[test]
    fn page_of_too_many_items_is_refused_early() {
        let page = |count| parse(&format!(r#"{{"hasMore":false,"data":[{}]}}"#, vec!["{}"; count].join(",")));
        assert_eq!(page(MOST_ITEMS).unwrap().items.len(), MOST_ITEMS);
        assert_eq!(page(MOST_ITEMS + 1).err(), Some(BadPage::TooManyItems));
        let endless = format!(r#"{{"hasMore":false,"data":[{}"#, "{},".repeat(MOST_ITEMS + 1));
        assert_eq!(parse(&endless).err(), Some(BadPage::TooManyItems), "what follows does not matter");
    }

    #[test]
    fn items_of_padded_body_are_copied() {
        let is_kept = |padding: usize| {
            let body: Bytes = format!(r#"{{"hasMore":false,"data":[{{"a":1}}{}]}}"#, " ".repeat(padding)).into();
            let page = Page::parse(&body).unwrap();
            assert_eq!(page.items, [r#"{"a":1}"#]);
            drop(page.items.clone());
            !body.is_unique()
        };
        assert!(is_kept(100) && !is_kept(PADDING + 100));
    }

    #[test]
    fn contradictory_pages_are_refused() {
        for (body, reason) in [
            ("", BadPage::Empty),
            ("<html>", BadPage::NotAPage),
            (r#"[1,false,[{"a":1}]]"#, BadPage::NotAPage),
            (r#"{"numResults":1,"hasMore":false,"data":[{"a":1}"#, BadPage::NotAPage),
            (r#"{"numResults":1,"hasMore":false,"data":[{"a":1}]}{}"#, BadPage::NotAPage),
            (r#"{"numResults":0,"data":[]}"#, BadPage::NotAPage),
            (r#"{"numResults":0,"hasMore":false}"#, BadPage::NotAPage),
            (r#"{"numResults":2,"hasMore":false,"data":[{"a":1}]}"#, BadPage::WrongCount),
            (r#"{"numResults":0,"hasMore":true,"data":[]}"#, BadPage::EmptyButMore),
            (r#"{"numResults":1,"hasMore":false,"data":[1]}"#, BadPage::NotAnItem),
        ] {
            assert_eq!(parse(body).err(), Some(reason), "{body}");
        }
        assert_eq!(Page::parse(&Bytes::from_static(b"{\"hasMore\":\xff")).err(), Some(BadPage::NotText));
    }
}
