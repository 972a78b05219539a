//! Windows, and the comparison of their items with the simulator's.

use super::{DAY, ResponsePage, TestHarness, TestResponse, Timestamp, UpperBound, at, format_query_time};

/// The query of a whole settled day of most tests; its items are [`TestHarness::settled_day`].
pub(crate) const SETTLED_DAY: &str = "from=2026-02-23&to=2026-02-23";

/// A window: its query, and the half-open interval that it covers.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// `from` and `to`, percent-encoded.
    pub(crate) query: String,
    pub(crate) from: Timestamp,
    /// Exclusive; may lie in the future.
    pub(crate) end: Timestamp,
}

impl Window {
    /// From one whole second to another, in the format of Kore's own template.
    pub(crate) fn seconds(from: Timestamp, to: Timestamp, bound: UpperBound) -> Self {
        Self::formatted(from, to, bound, "%Y-%m-%d-%H:%M:%S")
    }

    /// The same in another format, given in jiff's notation.
    pub(crate) fn formatted(from: Timestamp, to: Timestamp, bound: UpperBound, format: &str) -> Self {
        let end = if bound == UpperBound::Inclusive { to.next_tick() } else { to };
        let (from_text, to_text) = (format_query_time(from, format), format_query_time(to, format));
        Self { query: format!("from={from_text}&to={to_text}"), from, end }
    }

    /// Whole days, the last one included.
    pub(crate) fn days(first: &str, last: &str) -> Self {
        Self { query: format!("from={first}&to={last}"), from: at(first), end: at(last) + DAY }
    }

    /// One whole day.
    pub(crate) fn day(date: &str) -> Self {
        Self::days(date, date)
    }
}

/// The fewest upstream pages that hold so many items.
pub(crate) fn pages_of(items: usize) -> u64 {
    items.div_ceil(100).max(1) as u64
}

/// Asserts that the page has exactly these items, byte for byte, in this order.
#[track_caller]
pub(crate) fn assert_items(page: &ResponsePage, expected: &[Vec<u8>], context: &str) {
    let difference = page.items().zip(expected).position(|(item, expected)| item != expected.as_slice());
    let (actual, wanted) = (page.items().len(), expected.len());
    assert!(
        difference.is_none() && actual == wanted,
        "{context}: {actual} items instead of {wanted}; the first difference is at {difference:?}"
    );
}

/// Requests a whole window in pages of `size` and compares each with the simulator's items; returns the last response.
pub(crate) async fn assert_pages(harness: &TestHarness, window: &Window, size: usize) -> TestResponse {
    let expected = harness.window_items(window);
    assert_pages_of(harness, window, size, &expected).await
}

/// The same with items that are known already.
pub(crate) async fn assert_pages_of(
    harness: &TestHarness,
    window: &Window,
    size: usize,
    expected: &[Vec<u8>],
) -> TestResponse {
    let mut offset = 0;
    loop {
        let response = harness.get(format!("{}&offset={offset}&limit={size}", window.query)).await;
        let page = response.page();
        let context = format!("{} from {offset}, {size} a page", window.query);
        let end = expected.len().min(offset + size);
        assert_items(&page, &expected[offset..end], &context);
        assert_eq!(page.has_more, end < expected.len(), "{context}: hasMore");
        if !page.has_more {
            return response;
        }
        offset = end;
    }
}
