//! Windows, and pages of them held against the truth.

use koregate::window::{Timestamp, UpperBound};

use super::{Answer, Page, Rig, spelled};

/// A window: how it is asked for, and the moments that this encloses.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// `from` and `to`, escaped.
    pub(crate) query: String,
    pub(crate) from: Timestamp,
    /// Exclusive; may lie in the future.
    pub(crate) end: Timestamp,
}

impl Window {
    /// From one whole second to another, in the spelling of Kore's own template.
    pub(crate) fn seconds(from: Timestamp, to: Timestamp, bound: UpperBound) -> Self {
        Self::spelled(from, to, bound, "%Y-%m-%d-%H:%M:%S")
    }

    /// The same in another spelling, given in jiff's format.
    pub(crate) fn spelled(from: Timestamp, to: Timestamp, bound: UpperBound, format: &str) -> Self {
        let end = if bound == UpperBound::Inclusive { to.next_tick() } else { to };
        Self { query: format!("from={}&to={}", spelled(from, format), spelled(to, format)), from, end }
    }

    /// Whole days, the last one included.
    pub(crate) fn days(first: &str, last: &str) -> Self {
        let (from, last_day) = (super::at(first), super::at(last));
        Self { query: format!("from={first}&to={last}"), from, end: last_day + super::DAY }
    }
}

/// Fails unless the page holds exactly these items, byte for byte, in this order.
#[track_caller]
pub(crate) fn assert_items(page: &Page, truth: &[Vec<u8>], what: &str) {
    let differs = page.items().zip(truth).position(|(item, truth)| item != truth.as_slice());
    let (found, wanted) = (page.items().len(), truth.len());
    assert!(
        differs.is_none() && found == wanted,
        "{what}: {found} items where there should be {wanted}; the first that differs is {differs:?}"
    );
}

/// Asks for a whole window in pages of `size`, and holds each page against the simulator's truth; the last answer.
pub(crate) async fn check_pages(rig: &Rig, window: &Window, size: usize) -> Answer {
    let truth = rig.truth(window.from, window.end.min(rig.clock.now()));
    check_pages_against(rig, window, size, &truth).await
}

/// The same against a truth that is known already.
pub(crate) async fn check_pages_against(rig: &Rig, window: &Window, size: usize, truth: &[Vec<u8>]) -> Answer {
    let mut offset = 0;
    loop {
        let answer = rig.get(format!("{}&offset={offset}&limit={size}", window.query)).await;
        let page = answer.page();
        let what = format!("{} from {offset}, {size} a page", window.query);
        let end = truth.len().min(offset + size);
        assert_items(&page, &truth[offset..end], &what);
        assert_eq!(page.has_more, end < truth.len(), "{what}: hasMore");
        if !page.has_more {
            return answer;
        }
        offset = end;
    }
}
