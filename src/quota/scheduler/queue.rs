//! The order in which waiting calls are granted a permit: by priority, then by fair share, then by arrival.

mod fair_share;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use self::fair_share::{FairShare, VirtualTime};
use super::gate::{Closed, Gate};
use crate::request::{Priority, Requester, RunWaiters};

/// Waiting calls of one account.
#[derive(Debug, Default)]
pub(super) struct CallQueue {
    /// By ticket, which is the order of arrival.
    calls: BTreeMap<u64, QueuedCall>,
    next_ticket: u64,
    fair_share: FairShare,
}

#[derive(Debug)]
struct QueuedCall {
    /// Makes the call ask the gates again.
    woken: Arc<Notify>,
    waiters: Arc<RunWaiters>,
}

/// Order of the queue: the lowest rank is the first.
///
/// Computed anew each time, because priority and requester of a call change with the requests that wait for its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) priority: Priority,
    virtual_time: VirtualTime,
    ticket: u64,
}

impl CallQueue {
    /// Adds a call. Returns its ticket, and the notification that wakes it.
    pub(super) fn push(&mut self, waiters: &Arc<RunWaiters>) -> (u64, Arc<Notify>) {
        let woken = Arc::new(Notify::new());
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.calls.insert(ticket, QueuedCall { woken: woken.clone(), waiters: waiters.clone() });
        (ticket, woken)
    }

    /// Removes a call, if it is still queued, and wakes the first of the others.
    pub(super) fn remove(&mut self, ticket: u64) {
        if self.calls.remove(&ticket).is_some() {
            self.wake_first();
        }
    }

    /// Gate of the queue: open for the first call only, whose rank is returned.
    ///
    /// Wakes the first call if that is another one: it may have become the first by the very change that woke `ticket`.
    pub(super) fn admit(&self, ticket: u64) -> Gate<Rank> {
        let first = self.ranks().min().ok_or(Closed::UntilWoken)?;
        if first.ticket != ticket {
            self.calls[&first.ticket].woken.notify_one();
            return Err(Closed::UntilWoken);
        }
        Ok(first)
    }

    /// Rank of a call; `None` if it is not queued.
    pub(super) fn rank(&self, ticket: u64) -> Option<Rank> {
        self.calls.get(&ticket).map(|call| self.rank_of(ticket, call))
    }

    fn rank_of(&self, ticket: u64, call: &QueuedCall) -> Rank {
        let (virtual_time, requester) = call.waiters.first(|requester| self.fair_share.virtual_time(requester));
        Rank { priority: requester.priority, virtual_time, ticket }
    }

    fn ranks(&self) -> impl Iterator<Item = Rank> {
        self.calls.iter().map(|(ticket, call)| self.rank_of(*ticket, call))
    }

    /// Number of calls of which the rank fulfils `condition`.
    pub(super) fn count(&self, condition: impl Fn(&Rank) -> bool) -> u32 {
        u32::try_from(self.ranks().filter(condition).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Makes the first call ask the gates again.
    pub(super) fn wake_first(&self) {
        if let Some(first) = self.ranks().min() {
            self.calls[&first.ticket].woken.notify_one();
        }
    }

    /// Makes all calls ask the gates again.
    pub(super) fn wake_all(&self) {
        self.calls.values().for_each(|call| call.woken.notify_one());
    }

    /// Moves the virtual time of the requester whose rank a call had, and returns that requester.
    ///
    /// The virtual time moves even where another requester is charged for the call: otherwise a caller that only joins
    /// runs of others would always be the first.
    pub(super) fn charge(&mut self, waiters: &RunWaiters) -> Requester {
        let (_, requester) = waiters.first(|requester| self.fair_share.virtual_time(requester));
        self.fair_share.charge(&requester);
        requester
    }

    /// Reverts [`CallQueue::charge`] for a call that was not made.
    pub(super) fn refund(&mut self, requester: &Requester) {
        self.fair_share.refund(requester);
    }
}
