//! What is reported of an answer when its body has ended.

use std::sync::Arc;

use super::request::NOBODY;
use super::usage::Usage;
use crate::upstream::PAGE_LIMIT;

/// What is known of an answer when its head is ready.
#[derive(Clone, Debug)]
pub struct Report {
    /// Kore's account; `-` if it is about none.
    pub account: Arc<str>,
    /// Kore's stream; as above.
    pub stream: Arc<str>,
    /// The word for how it was answered.
    pub outcome: &'static str,
    /// Items in the answer; of a streamed one, its body knows them.
    pub(super) items: u64,
    /// Upstream calls that are told of in this answer; as above.
    pub(super) calls: u32,
    /// Whose usage it counts towards; `None` if it is no window.
    pub(super) window: Option<WindowReport>,
}

/// What is known of the answer to a request for a window.
#[derive(Clone, Debug)]
pub(super) struct WindowReport {
    pub(super) usage: Usage,
    pub(super) caller: Arc<str>,
    /// Items that the answer delivers or, if it is a 304, confirms.
    pub(super) confirmed_items: u64,
}

/// Items and calls of a streamed answer so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Items that were handed over to the connection.
    pub items: u64,
    /// Upstream calls that are told of in this answer.
    pub calls: u32,
}

/// What an answer came to, now that its body has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FinalCounts {
    /// Items in the answer; of a streamed one that broke off, those that were handed over.
    pub items: u64,
    /// Upstream calls that are told of in this answer.
    pub calls: u32,
    /// Upstream calls that the caller would have made by itself, beyond those, after what others have overspent.
    pub saved: u64,
}

impl Report {
    /// A report of an answer that is no window.
    pub(super) fn without_window(account: Arc<str>, stream: Arc<str>, outcome: &'static str) -> Self {
        Self { account, stream, outcome, items: 0, calls: 0, window: None }
    }

    /// A report of an answer that is about no account.
    pub(super) fn without_account(outcome: &'static str) -> Self {
        Self::without_window(Arc::from(NOBODY), Arc::from(NOBODY), outcome)
    }

    /// Whether a window was answered.
    pub fn is_window(&self) -> bool {
        self.window.is_some()
    }

    /// Counts an answer whose body has ended, `whole` or not; `streamed` is the progress of a streamed one. Must be called
    /// once for each answer.
    pub fn settle(&self, whole: bool, streamed: Option<Progress>) -> FinalCounts {
        let Progress { items, calls } = streamed.unwrap_or(Progress { items: self.items, calls: self.calls });
        let saved = self.window.as_ref().map_or(0, |WindowReport { usage, caller, confirmed_items }| {
            if whole {
                let confirmed = if streamed.is_some() { items } else { *confirmed_items };
                usage.count(caller, &self.account, items, calls_alone(confirmed), calls)
            } else {
                usage.add_unsettled(&self.account, calls);
                0
            }
        });
        FinalCounts { items, calls, saved }
    }
}

/// The calls that a caller would make itself for so many items.
fn calls_alone(items: u64) -> u64 {
    items.div_ceil(u64::from(PAGE_LIMIT)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_alone_of_any_items_is_pages_and_at_least_one() {
        assert_eq!([0, 1, 100, 101, 10_394].map(calls_alone), [1, 1, 1, 2, 104]);
    }
}
