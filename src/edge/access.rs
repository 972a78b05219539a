//! When a line of the access log is made, and what is in it: one line for each request, together with its metrics and
//! its caller's usage; `telemetry/metrics/request.rs` writes it. A request is reported when the body of its answer has
//! ended, or when it is dropped without an answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::arrival::Arrival;
use super::auth::AuthenticatedCaller;
use super::observers;
use super::observers::{AnswerEnds, AuditedIds, Observers};
use super::recent_problems::ProblemSource;
use super::request_id::RequestId;
use super::revocation::REVOKED;
use crate::api::{FinalCounts, Progress, Report};
use crate::problem::ProblemType;
use crate::request::WaitMeter;
use crate::telemetry;
use crate::telemetry::{RequestCalls, RequestRecord, RequestTimes};
use crate::traces::Span;

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending<'a> {
    /// The whole body was handed to the connection.
    Whole,
    /// The gateway or the upstream failed during the body.
    Aborted(&'a str),
    /// The answer was dropped before its end: the client disconnected, or a drain timed out.
    Dropped,
}

/// The record of a request until it is reported. If dropped earlier, the request is reported as unanswered.
#[derive(Debug)]
pub(super) struct AccessRecord {
    arrival: Arrival,
    pub(super) id: RequestId,
    /// The fields of the log line.
    pub(super) span: tracing::Span,
    /// The authenticated caller, if any.
    pub(super) authenticated: Option<AuthenticatedCaller>,
    /// Counts how long the request waits for the quota.
    pub(super) waited: WaitMeter,
    /// The span of the request.
    pub(super) trace: Span,
    /// The identifiers for the audit log; `None` if there is none.
    pub(super) audited: Option<Box<AuditedIds>>,
    observers: Arc<Observers>,
    answer: Option<AnswerHead>,
    is_reported: bool,
}

/// Facts known when the head of the answer is ready.
#[derive(Debug)]
struct AnswerHead {
    status: u16,
    content: Content,
    ready_after: Duration,
}

/// Kind of an answer.
#[derive(Debug)]
pub(super) enum Content {
    /// The requested answer.
    Answer(Arc<Report>),
    /// A problem document.
    Problem(ProblemType, String),
    /// The page of a problem type.
    ProblemPage,
}

impl AccessRecord {
    /// The record of a request. Boxed, because it moves through several futures and bodies.
    pub(super) fn new(arrival: Arrival, id: RequestId, span: tracing::Span, observers: Arc<Observers>) -> Box<Self> {
        telemetry::request_begun();
        Box::new(Self {
            arrival,
            id,
            span,
            authenticated: None,
            waited: WaitMeter::default(),
            trace: Span::NONE,
            audited: None,
            observers,
            answer: None,
            is_reported: false,
        })
    }

    /// Records the head of the answer.
    pub(super) fn set_head(&mut self, status: u16, content: Content) {
        self.answer = Some(AnswerHead { status, content, ready_after: self.arrival.at.elapsed() });
    }

    /// Whether the request was reported.
    pub(super) fn is_reported(&self) -> bool {
        self.is_reported
    }

    /// Reports the end of the answer after `bytes` of its body; further calls have no effect. `progress` is that of
    /// a body with several pieces.
    pub(super) fn report(&mut self, ending: Ending<'_>, bytes: u64, progress: Option<Progress>) {
        if std::mem::replace(&mut self.is_reported, true) {
            return;
        }
        let (report, problem, label) = match self.answer.as_ref().map(|answer| &answer.content) {
            Some(Content::Answer(report)) => (Some(&**report), None, report.outcome),
            Some(Content::Problem(kind, detail)) => (None, Some(detail.as_str()), kind.label()),
            Some(Content::ProblemPage) => (None, None, telemetry::PROBLEM_PAGE),
            None => (None, None, "-"),
        };
        let settled = report.map(|report| report.settle(ending == Ending::Whole, progress));
        let FinalCounts { items, calls, saved } = settled.unwrap_or_default();
        let (outcome, abort_reason) = match ending {
            Ending::Whole => (label, None),
            Ending::Aborted(REVOKED) => ("revoked", Some(REVOKED)),
            Ending::Aborted(why) => ("aborted", Some(why)),
            // A panic in a connection's task drops the body.
            Ending::Dropped if std::thread::panicking() => ("aborted", Some("an internal error")),
            Ending::Dropped if self.observers.ends.drain_timeout.has_expired() => ("drained", None),
            Ending::Dropped => ("client_closed", None),
        };
        let caller = self.authenticated.as_ref().map_or("-", |authenticated| &*authenticated.caller.name);
        let _in_span = self.span.enter();
        let text = abort_reason.or(problem);
        let asked = self.arrival.facts();
        if let Some(text) = text {
            let stream = asked.stream().map(Cow::into_owned);
            let source = ProblemSource::Request { caller: caller.to_owned(), stream };
            let AnswerEnds { problems, clock, .. } = &self.observers.ends;
            problems.record(clock.now(), source, outcome, text);
        }
        let record = RequestRecord {
            caller,
            account: report.map_or("-", |report| &report.account),
            stream: report.map_or("-", |report| &report.stream),
            is_window: report.is_some_and(Report::is_window),
            outcome,
            status: self.answer.as_ref().map(|answer| answer.status),
            problem: text,
            items,
            bytes,
            calls: RequestCalls { made: calls, saved },
            asked,
            times: RequestTimes {
                waited: self.waited.total(),
                first_byte: self.answer.as_ref().map(|answer| answer.ready_after),
                last_byte: self.arrival.at.elapsed(),
            },
        };
        telemetry::request(&record);
        observers::end_span(&self.trace, &record, report);
        if let Some(ids) = &self.audited {
            self.observers.write_audit(&record, report, self.authenticated.as_ref(), ids);
        }
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        self.report(Ending::Dropped, 0, None);
    }
}
