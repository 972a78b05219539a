//! One upstream answer, checked before anybody trusts it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::allowance::Allowance;

/// One page as it came: items as slices of the body, byte for byte.
#[derive(Clone, Debug)]
pub struct Page {
    /// The items, in the upstream's order.
    pub items: Vec<Bytes>,
    /// Whether the upstream says that more follow.
    pub has_more: bool,
    /// What the upstream said of the quota beside it.
    pub allowance: Option<Allowance>,
}

/// Why a body is not a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BadPage {
    /// Nothing came.
    #[error("an empty body")]
    Empty,
    /// It is not text.
    #[error("a body that is not UTF-8")]
    NotText,
    /// It is cut off, or not of the documented shape.
    #[error("a body that is not a page of items")]
    NotAPage,
    /// `numResults` is not the number of items.
    #[error("a page that does not hold as many items as it says")]
    WrongCount,
    /// No item, and yet more are promised.
    #[error("an empty page that promises more")]
    EmptyButMore,
    /// An item that is not an object.
    #[error("an item that is not an object")]
    NotAnItem,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    num_results: Option<u64>,
    has_more: bool,
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

impl Page {
    /// Cuts a body into its items, which share the body's memory. The allowance stands in no body.
    ///
    /// # Errors
    /// [`BadPage`] if anything about it contradicts the documented shape.
    pub fn parse(body: &Bytes) -> Result<Self, BadPage> {
        if body.is_empty() {
            return Err(BadPage::Empty);
        }
        let text = simdutf8::basic::from_utf8(body).map_err(|_| BadPage::NotText)?;
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|_| BadPage::NotAPage)?;
        if envelope.num_results.is_some_and(|count| count != envelope.data.len() as u64) {
            return Err(BadPage::WrongCount);
        }
        if envelope.data.is_empty() && envelope.has_more {
            return Err(BadPage::EmptyButMore);
        }
        if !envelope.data.iter().all(|item| item.get().starts_with('{')) {
            return Err(BadPage::NotAnItem);
        }
        let items = envelope.data.iter().map(|item| body.slice_ref(item.get().as_bytes())).collect();
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
    fn items_stay_the_bytes_that_came() {
        let items = [r#"{"a":1.0, "b" : 1e2}"#, r#"{"c":12345678901234567890,"d":"\u00e9é"}"#, r#"{"a":1,"a":2}"#];
        let page =
            parse(&format!(r#" {{"hasMore":true,"data":[ {} ],"new":null,"numResults":3}} "#, items.join(" ,\n ")));
        let page = page.unwrap();
        assert!(page.has_more);
        assert_eq!(page.items, items.map(|item| Bytes::copy_from_slice(item.as_bytes())));
    }

    #[test]
    fn what_contradicts_the_shape_is_refused() {
        for (body, reason) in [
            ("", BadPage::Empty),
            ("<html>", BadPage::NotAPage),
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
