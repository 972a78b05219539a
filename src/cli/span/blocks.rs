//! How much of a span is fetched with one request: pure. A block of parts is fetched as a whole before its parts are
//! read, so that sparse days cost one call together, and a dense day shows progress. Blocks decide nothing about what
//! is read.

use std::time::Duration;

use super::parts::{Part, Span};
use crate::window::{Bound, Timestamp};

/// The number of calls that a block may be expected to take: two to three minutes of the usual quota.
const BLOCK_CALLS: u64 = 100;
/// The most parts of a block.
pub(super) const MAX_BLOCK_PARTS: usize = 31;
const HOUR: Duration = Duration::from_hours(1);

/// The next block of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FetchBlock {
    /// The number of parts that are cached afterwards.
    pub(super) parts: usize,
    /// The windows to request, one after another.
    pub(super) windows: Vec<Span>,
}

/// The window of the first `count` parts of `parts`; `None` if there are none.
pub(super) fn window_of(parts: &[Part], count: usize) -> Option<Span> {
    let (first, last) = (parts.first()?, parts.get(..count)?.last()?);
    Some(Span { from: first.window.from, to: last.window.to })
}

/// The block at the start of `parts`, whose first `looked_at` are expected to take `expected` calls; `None` means that
/// the density is not known.
pub(super) fn next_block(parts: &[Part], looked_at: usize, expected: Option<u64>) -> Option<FetchBlock> {
    let days = looked_at.min(parts.len()).max(1) as u64;
    let count = match expected {
        None => 1,
        Some(calls) if calls <= BLOCK_CALLS => days,
        Some(calls) => (BLOCK_CALLS * days / calls).max(1),
    };
    let count = usize::try_from(count).unwrap_or(1);
    let window = window_of(parts, count)?;
    let calls_a_day = expected.unwrap_or_default() / days;
    let windows = if count == 1 && calls_a_day > BLOCK_CALLS {
        let hours = u32::try_from((24 * BLOCK_CALLS / calls_a_day).max(1)).unwrap_or(1);
        divide(window, HOUR * hours)
    } else {
        vec![window]
    };
    Some(FetchBlock { parts: count, windows })
}

/// Windows of the length `step`, of which one ends where the next begins: that they share a second does no harm, because
/// nothing is read from them.
fn divide(window: Span, step: Duration) -> Vec<Span> {
    let starts = std::iter::successors(Some(window.from.start()), |start| Some(*start + step));
    let starts: Vec<Timestamp> = starts.take_while(|start| *start < window.end()).collect();
    let last = starts.len() - 1;
    let windows = starts.iter().enumerate().map(|(index, start)| Span {
        from: if index == 0 { window.from } else { Bound::Second(*start) },
        to: if index == last { window.to } else { Bound::Second(*start + step) },
    });
    windows.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(days: u32) -> Vec<Part> {
        let last = Timestamp::from_seconds(1_767_225_600) + Duration::from_hours(24) * (days - 1);
        Span::parse("2026-01-01", &Bound::Day(last).to_string()).unwrap().parts()
    }

    #[test]
    fn block_is_as_long_as_a_hundred_calls() {
        let parts = parts(40);
        for (expected, days, requests) in
            [(None, 1, 1), (Some(0), 31, 1), (Some(100), 31, 1), (Some(31 * 17), 5, 1), (Some(31 * 100), 1, 1)]
        {
            let block = next_block(&parts, MAX_BLOCK_PARTS, expected).unwrap();
            assert_eq!((block.parts, block.windows.len()), (days, requests), "{expected:?}");
        }
        assert_eq!(next_block(&[], 1, None), None);
    }

    #[test]
    fn dense_day_is_fetched_in_several_requests() {
        let block = next_block(&parts(2), 2, Some(2 * 600)).unwrap();
        let windows: Vec<String> = block.windows.iter().map(Span::to_string).collect();
        assert_eq!(block.parts, 1);
        assert_eq!(windows[0], "from=2026-01-01-00:00:00&to=2026-01-01-04:00:00");
        assert_eq!(windows[5], "from=2026-01-01-20:00:00&to=2026-01-01");
        assert_eq!(windows.len(), 6);
    }

    proptest! {
        #[test]
        fn windows_of_a_block_cover_its_parts(days in 1u32..40, looked_at in 1usize..32, expected: Option<u16>) {
            let parts = parts(days);
            let block = next_block(&parts, looked_at, expected.map(u64::from)).unwrap();
            prop_assert!((1..=parts.len().min(looked_at)).contains(&block.parts));
            let (first, last) = (block.windows[0], block.windows.last().unwrap());
            prop_assert_eq!(first.from, parts[0].window.from);
            prop_assert_eq!(last.to, parts[block.parts - 1].window.to);
            prop_assert!(block.windows.windows(2).all(|pair| pair[0].to.start() == pair[1].from.start()));
        }
    }
}
