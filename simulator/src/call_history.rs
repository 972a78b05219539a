//! A record of every call, which tests compare with what a gateway promises.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use crate::faults::Fault;
use crate::query::QueryParameters;

/// The oldest records are dropped beyond this number, which bounds the memory of a simulator that runs for weeks.
const MAX_RECORDED_CALLS: usize = 500_000;

/// The number of calls by outcome, since the start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallCounts {
    /// All calls, whatever their outcome. Requests to `/simulator/` are not calls.
    pub total: u64,
    /// Calls answered with 200 and the correct items.
    pub ok: u64,
    /// Calls counted in `ok` that returned at least one item.
    pub pages: u64,
    /// Calls refused with 401 because of the token, the account, the stream or the scope.
    pub unauthorized: u64,
    /// Calls refused with 412 because of their arguments.
    pub invalid: u64,
    /// Calls refused with 405 because of their method.
    pub wrong_method: u64,
    /// Calls refused because of a rolling limit, whatever the status.
    pub limited: u64,
    /// Calls refused with 404 because of their path.
    pub not_found: u64,
    /// Calls answered with a fault, including correct but slow responses.
    pub faulted: u64,
    /// Items in the responses counted in `ok`.
    pub items: u64,
    /// The maximum number of calls in flight at the same time.
    pub max_concurrent: u64,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// Still in flight, or the client disconnected before the response.
    Open,
    /// 200 with this many items.
    Ok {
        /// Items in `data`.
        items: usize,
    },
    /// Refused with 401, 404, 405 or 412.
    Refused,
    /// Refused because of a rolling limit.
    Limited,
    /// Answered with a fault.
    Faulted(Fault),
}

/// A call as the simulator received it.
#[derive(Clone, Debug)]
pub struct RecordedCall {
    /// Arrival on the monotonic clock, which the limits use.
    pub arrived: Instant,
    /// Arrival on the simulator's wall clock.
    pub at: Timestamp,
    /// HTTP method.
    pub method: String,
    /// The `{streamId}` of the path; empty for a path that Kore does not have.
    pub stream: String,
    /// The header `accountId`.
    pub account: Option<String>,
    /// The query parameters.
    pub query: QueryParameters,
    /// Whether the request had a body.
    pub has_body: bool,
    /// The status of the response; `None` while there is no response, and for [`Fault::Reset`].
    pub status: Option<u16>,
    /// The outcome.
    pub outcome: CallOutcome,
}

/// The calls since the start or the last reset.
#[derive(Debug, Default)]
pub(crate) struct CallHistory {
    counts: CallCounts,
    calls: VecDeque<RecordedCall>,
    /// The number of the first call in `calls`.
    first_number: u64,
    in_flight: u64,
}

impl CallHistory {
    pub(crate) const fn counts(&self) -> CallCounts {
        self.counts
    }

    /// Records the arrival of a call. Returns its number, for [`CallHistory::record_outcome`].
    pub(crate) fn record_arrival(&mut self, call: RecordedCall) -> u64 {
        self.counts.total += 1;
        self.in_flight += 1;
        self.counts.max_concurrent = self.counts.max_concurrent.max(self.in_flight);
        if self.calls.len() == MAX_RECORDED_CALLS {
            self.calls.pop_front();
            self.first_number += 1;
        }
        self.calls.push_back(call);
        self.first_number + self.calls.len() as u64 - 1
    }

    /// Records the outcome of a call. Called before the response is sent, so that a client that has the response finds
    /// the outcome recorded.
    pub(crate) fn record_outcome(&mut self, number: u64, status: Option<u16>, outcome: CallOutcome) {
        let counts = &mut self.counts;
        match outcome {
            CallOutcome::Open => {}
            CallOutcome::Ok { items } => {
                counts.ok += 1;
                counts.pages += u64::from(items > 0);
                counts.items += items as u64;
            }
            CallOutcome::Limited => counts.limited += 1,
            CallOutcome::Faulted(_) => counts.faulted += 1,
            CallOutcome::Refused => match status {
                Some(401) => counts.unauthorized += 1,
                Some(404) => counts.not_found += 1,
                Some(405) => counts.wrong_method += 1,
                _ => counts.invalid += 1,
            },
        }
        // There is no record if the history was reset since the arrival.
        let index = number.checked_sub(self.first_number).and_then(|index| usize::try_from(index).ok());
        if let Some(call) = index.and_then(|index| self.calls.get_mut(index)) {
            call.status = status;
            call.outcome = outcome;
        }
    }

    /// Records that the last byte of a response was handed to the connection, or that the client disconnected.
    pub(crate) fn record_departure(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Clears the counts and the records.
    pub(crate) fn reset(&mut self) {
        self.counts = CallCounts { max_concurrent: self.in_flight, ..CallCounts::default() };
        self.first_number += self.calls.len() as u64;
        self.calls.clear();
    }

    /// The calls, oldest first.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &RecordedCall> {
        self.calls.iter()
    }

    /// The maximum number of calls accepted by `select` in any half-open interval of length `per`.
    pub(crate) fn max_in_any_window(&self, per: Duration, select: impl Fn(&RecordedCall) -> bool) -> usize {
        let mut window = VecDeque::new();
        let mut max = 0;
        for call in self.calls.iter().filter(|call| select(call)) {
            window.push_back(call.arrived);
            while window.front().is_some_and(|first| call.arrived.duration_since(*first) >= per) {
                window.pop_front();
            }
            max = max.max(window.len());
        }
        max
    }
}
