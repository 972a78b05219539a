//! The report of an answer, made when its body has ended.

use std::sync::Arc;

use super::request::ANONYMOUS_CALLER;
use super::usage::Usage;
use crate::request::FilterNames;
use crate::upstream::PAGE_LIMIT;
use crate::window::Interval;

/// Facts about an answer, known when its head is ready.
#[derive(Clone, Debug)]
pub struct Report {
    /// Kore's account; `-` if the answer concerns none.
    pub account: Arc<str>,
    /// Kore's stream; `-` if the answer concerns none.
    pub stream: Arc<str>,
    /// Label of the outcome.
    pub outcome: &'static str,
    /// Items in the answer; for a streamed one, its body counts them.
    pub(super) items: u64,
    /// Upstream calls reported in this answer; for a streamed one, its body counts them.
    pub(super) calls: u32,
    /// The usage that the answer counts towards; `None` if it is no window.
    pub(super) window: Option<WindowReport>,
}

/// Facts about an answer to a request for a window.
#[derive(Clone, Debug)]
pub(super) struct WindowReport {
    pub(super) usage: Usage,
    pub(super) caller: Arc<str>,
    /// Items that the answer delivers or, as a 304, confirms.
    pub(super) confirmed_items: u64,
    /// The requested time.
    pub(super) interval: Interval,
    pub(super) filters: FilterNames,
}

/// Progress of a body with several pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Items handed to the connection: those of the chunks of which a piece was.
    pub items: u64,
    /// Upstream calls reported in a streamed answer; `None` if the answer is not streamed.
    pub streamed_calls: Option<u32>,
}

/// Final counts of an answer whose body has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FinalCounts {
    /// Items in the answer; of one that broke off, those handed to the connection.
    pub items: u64,
    /// Upstream calls reported in this answer.
    pub calls: u32,
    /// Calls saved: those that the caller would have made by itself beyond `calls`, less earlier overspending.
    pub saved: u64,
}

impl Report {
    /// Report of an answer that is no window.
    pub(super) fn without_window(account: Arc<str>, stream: Arc<str>, outcome: &'static str) -> Self {
        Self { account, stream, outcome, items: 0, calls: 0, window: None }
    }

    /// Report of an answer that concerns no account.
    pub(super) fn without_account(outcome: &'static str) -> Self {
        Self::without_window(Arc::from(ANONYMOUS_CALLER), Arc::from(ANONYMOUS_CALLER), outcome)
    }

    /// The report of the same answer to HEAD, which delivers no items.
    pub(super) fn without_items(&self) -> Self {
        Self::without_window(self.account.clone(), self.stream.clone(), "head")
    }

    /// The window that was answered, and the names of its filters; `None` if no window was.
    pub fn read(&self) -> Option<(Interval, FilterNames)> {
        self.window.as_ref().map(|window| (window.interval, window.filters))
    }

    /// Whether a window was answered.
    pub fn is_window(&self) -> bool {
        self.window.is_some()
    }

    /// Counts an answer whose body has ended, completely or not. A body of one piece has no `progress`. Must be called once
    /// for each answer.
    pub fn settle(&self, whole: bool, progress: Option<Progress>) -> FinalCounts {
        let streamed_calls = progress.and_then(|progress| progress.streamed_calls);
        let calls = streamed_calls.unwrap_or(self.calls);
        // A body of one piece breaks off before it.
        let items_sent = progress.map_or(0, |progress| progress.items);
        let items = if whole && streamed_calls.is_none() { self.items } else { items_sent };
        let saved = self.window.as_ref().map_or(0, |WindowReport { usage, caller, confirmed_items, .. }| {
            if whole {
                let confirmed = if streamed_calls.is_some() { items } else { *confirmed_items };
                usage.count(caller, &self.account, items, calls_alone(confirmed), calls)
            } else {
                usage.add_unsettled(&self.account, calls);
                0
            }
        });
        FinalCounts { items, calls, saved }
    }
}

/// Calls that a caller would make by itself for `items` items.
fn calls_alone(items: u64) -> u64 {
    items.div_ceil(u64::from(PAGE_LIMIT)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_that_broke_off_has_the_items_that_were_sent() {
        let report = Report { items: 250, calls: 3, ..Report::without_account("hit") };
        let sent = |items, streamed_calls| Some(Progress { items, streamed_calls });
        for (whole, progress, items, calls) in [
            (true, None, 250, 3),
            (false, None, 0, 3),
            (true, sent(250, None), 250, 3),
            (false, sent(100, None), 100, 3),
            (true, sent(400, Some(5)), 400, 5),
            (false, sent(100, Some(2)), 100, 2),
        ] {
            assert_eq!(report.settle(whole, progress), FinalCounts { items, calls, saved: 0 }, "{whole} {progress:?}");
        }
    }

    #[test]
    fn calls_alone_are_pages_at_least_one() {
        assert_eq!([0, 1, 100, 101, 10_394].map(calls_alone), [1, 1, 1, 2, 104]);
    }
}
