//! The count of what came in: what a test holds a gateway's promises against.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::faults::{Fault, FaultPlan};
use super::limits::RollingLog;
use crate::window::Timestamp;

/// Older calls are forgotten, so that a simulator that runs for weeks does not grow.
const CALLS_KEPT: usize = 500_000;

/// How many calls came and what became of them, since the start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All calls, whatever became of them; those to `/simulator/` are none.
    pub total: u64,
    /// Answered with 200 and the truth.
    pub ok: u64,
    /// Those of them that carried at least one item.
    pub pages: u64,
    /// Refused with 401 for the token, the account, the stream or the scope.
    pub unauthorized: u64,
    /// Refused with 412 for the arguments.
    pub invalid: u64,
    /// Refused with 405 for the method.
    pub wrong_method: u64,
    /// Refused for a rolling limit, whatever the status.
    pub limited: u64,
    /// Refused with 404: a path that Kore does not have.
    pub not_found: u64,
    /// Given a fault, the slow but true answers included.
    pub faulted: u64,
    /// Items in the answers counted by `ok`.
    pub items: u64,
    /// The most calls that were under way at once.
    pub max_concurrent: u64,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Still under way, or its caller went away before the answer.
    Open,
    /// 200 with this many items.
    Ok {
        /// Items in `data`.
        items: usize,
    },
    /// Refused with 401, 404, 405 or 412.
    Refused,
    /// Refused for a rolling limit.
    Limited,
    /// Given a fault.
    Faulted(Fault),
}

/// One call, as it came.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it arrived, on the monotonic clock that the limits are counted on.
    pub arrived: Instant,
    /// When it arrived, on the simulator's wall clock.
    pub at: Timestamp,
    /// `GET`, `POST`, or what else was tried.
    pub method: String,
    /// The `{streamId}` of the path; empty for a path that Kore does not have.
    pub stream: String,
    /// The header `accountId`.
    pub account: Option<String>,
    /// `from` as it came, percent-decoded.
    pub from: Option<String>,
    /// `to` as it came, percent-decoded.
    pub to: Option<String>,
    /// `offset` as it came.
    pub offset: Option<String>,
    /// `limit` as it came.
    pub limit: Option<String>,
    /// Whether `includeAgenticData=true` was asked for.
    pub rich: bool,
    /// Query parameters that Kore does not have, in their order.
    pub extra: Vec<(String, String)>,
    /// Whether a body came along.
    pub body: bool,
    /// The status that was answered; `None` while there is none, and for [`Fault::Reset`].
    pub status: Option<u16>,
    /// What became of it.
    pub outcome: Outcome,
}

/// All that changes from call to call, behind one lock so that arrivals have one order.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) counts: Counts,
    calls: VecDeque<Call>,
    /// The number of the first call in `calls`.
    first: u64,
    under_way: u64,
    /// The rolling log of each account.
    pub(super) logs: HashMap<String, RollingLog>,
    /// Each `jti` seen, and the end of its token.
    pub(super) jtis: HashMap<String, Timestamp>,
    pub(super) plan: Option<FaultPlan>,
}

impl Ledger {
    /// Writes down an arrival; the number is the key to [`Ledger::close`].
    pub(super) fn open(&mut self, call: Call) -> u64 {
        self.counts.total += 1;
        self.under_way += 1;
        self.counts.max_concurrent = self.counts.max_concurrent.max(self.under_way);
        if self.calls.len() == CALLS_KEPT {
            self.calls.pop_front();
            self.first += 1;
        }
        self.calls.push_back(call);
        self.first + self.calls.len() as u64 - 1
    }

    /// Writes down what became of a call, before its answer leaves.
    pub(super) fn close(&mut self, number: u64, status: Option<u16>, outcome: Outcome) {
        let counts = &mut self.counts;
        match outcome {
            Outcome::Open => {}
            Outcome::Ok { items } => {
                counts.ok += 1;
                counts.pages += u64::from(items > 0);
                counts.items += items as u64;
            }
            Outcome::Limited => counts.limited += 1,
            Outcome::Faulted(_) => counts.faulted += 1,
            Outcome::Refused => match status {
                Some(401) => counts.unauthorized += 1,
                Some(404) => counts.not_found += 1,
                Some(405) => counts.wrong_method += 1,
                _ => counts.invalid += 1,
            },
        }
        // A reset in the meantime has forgotten the call.
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(call) = index.and_then(|index| self.calls.get_mut(index)) {
            call.status = status;
            call.outcome = outcome;
        }
    }

    /// The last byte of an answer is on its way, or its caller is gone.
    pub(super) fn leave(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Forgets the counts and the calls, but not what the limits have counted.
    pub(super) fn reset(&mut self) {
        self.counts = Counts { max_concurrent: self.under_way, ..Counts::default() };
        self.first += self.calls.len() as u64;
        self.calls.clear();
    }

    /// The calls, oldest first.
    pub(super) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter()
    }

    /// The most calls that `select` picks in any half-open span of length `per`.
    pub(super) fn busiest(&self, per: Duration, select: impl Fn(&Call) -> bool) -> usize {
        let mut span = VecDeque::new();
        let mut most = 0;
        for call in self.calls.iter().filter(|call| select(call)) {
            span.push_back(call.arrived);
            while span.front().is_some_and(|first| call.arrived.duration_since(*first) >= per) {
                span.pop_front();
            }
            most = most.max(span.len());
        }
        most
    }
}
