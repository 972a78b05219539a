//! Whether the upstream counts an item exactly at `to`. Pure.
//!
//! Only an item whose timestamp is a whole second can tell, because `to` is written in whole seconds: a window is asked
//! that ends exactly there.

use std::collections::BTreeSet;
use std::time::Duration;

use super::evidence::{Evidence, SECOND, Window};
use crate::window::{Timestamp, UpperBound};

/// Knowledge of the upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BoundFinding {
    /// The bound, and the number of the call that shows it.
    Known { bound: UpperBound, call: usize },
    /// No item could tell, or the answer did not hold the whole window.
    Unknown,
    /// Items later than `to` came, within its second: neither setting describes that.
    WholeSecond { call: usize },
    /// Answers contradict each other.
    Contradiction,
}

/// The conclusion from all answers, if the upstream selects on `field`.
pub(super) fn infer(evidence: &Evidence, field: &str) -> BoundFinding {
    let (mut inclusive, mut exclusive, mut whole_second) = (None, None, None);
    for (call, probe, page) in evidence.pages() {
        let to = probe.window.to;
        for time in page.items.iter().filter_map(|item| item.times.get(field)) {
            if *time == to {
                inclusive = inclusive.or(Some(call));
            } else if *time > to {
                whole_second = whole_second.or(Some(call));
            }
        }
        if probe.offset > 0 || page.has_more {
            continue;
        }
        let came: BTreeSet<u64> = page.items.iter().map(|item| item.id).collect();
        let known = evidence.items_before(call);
        let at_end = known.values().filter(|item| item.times.get(field) == Some(&to));
        if at_end.into_iter().any(|item| !came.contains(&item.id)) {
            exclusive = exclusive.or(Some(call));
        }
    }
    match (inclusive, exclusive, whole_second) {
        (Some(_), Some(_), _) | (_, Some(_), Some(_)) => BoundFinding::Contradiction,
        (_, None, Some(call)) => BoundFinding::WholeSecond { call },
        (Some(call), None, None) => BoundFinding::Known { bound: UpperBound::Inclusive, call },
        (None, Some(call), None) => BoundFinding::Known { bound: UpperBound::Exclusive, call },
        (None, None, None) => BoundFinding::Unknown,
    }
}

/// A window that ends exactly at a known item, and was not asked yet; `None` if there is no such item.
pub(super) fn next_window(evidence: &Evidence, field: &str) -> Option<Window> {
    let items = evidence.items();
    let times: BTreeSet<Timestamp> = items.values().filter_map(|item| item.times.get(field).copied()).collect();
    // The answer must hold the whole window: a window of a second, and if that was too much, one of no length.
    let windows = [SECOND, Duration::ZERO].into_iter().flat_map(|span| {
        let ends = times.iter().filter(|time| time.floor_second() == **time);
        ends.map(move |time| Window::before(*time, span))
    });
    let is_new = |window: &Window| !evidence.exchanges.iter().any(|(probe, _)| probe.window == *window);
    let crowd = |window: Window| times.range(window.from..=window.to).count();
    windows.filter(is_new).min_by_key(|window| (SECOND.saturating_sub(window.span()), crowd(*window)))
}
