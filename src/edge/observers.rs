//! Observation of each request beside its log line and its metrics: the span of the request, and its line of the audit
//! log.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, Request};

use super::auth::AuthenticatedCaller;
use super::recent_problems::RecentProblems;
use super::request_id::RequestId;
use crate::api::Report;
use crate::audit::{AuditCaller, AuditLog, AuditRecord};
use crate::clock::Clock;
use crate::telemetry::RequestRecord;
use crate::traces::{Span, TraceParent, Tracer};

/// The path of windows, as `http.route`.
const ROUTE: &str = "/agentassist/api/v1/public/{streamId}/v2/agentassistinteractions";
/// The beginning of that path.
const BEFORE_STREAM: &str = "/agentassist/api/v1/public/";
/// Names of spans of requests for windows, by their method; and of all others.
const WINDOW_SPANS: [(&str, &str); 3] = [
    ("GET", "GET /agentassist/api/v1/public/{streamId}/v2/agentassistinteractions"),
    ("POST", "POST /agentassist/api/v1/public/{streamId}/v2/agentassistinteractions"),
    ("HEAD", "HEAD /agentassist/api/v1/public/{streamId}/v2/agentassistinteractions"),
];
const OTHER_SPAN: &str = "request";
/// The methods that a span names.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];

/// Flag for the end of `server.drain_timeout`: answers dropped after it were cut off by the gateway and not by their
/// clients. Cheap to clone; all clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct DrainTimeout(Arc<AtomicBool>);

impl DrainTimeout {
    /// Sets the flag.
    pub fn expire(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_expired(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shared state that the end of an answer depends on, or changes. Cheap to clone; clones share their state.
#[derive(Clone, Debug, Default)]
pub struct AnswerEnds {
    /// Whether a drain has timed out.
    pub drain_timeout: DrainTimeout,
    /// The last problems.
    pub problems: RecentProblems,
    /// The clock of the problems.
    pub clock: Clock,
}

/// The receivers of observations, for all requests.
#[derive(Debug, Default)]
pub(super) struct Observers {
    pub(super) tracer: Tracer,
    pub(super) audit: AuditLog,
    pub(super) ends: AnswerEnds,
}

/// Identifiers of a request for its line of the audit log.
#[derive(Debug)]
pub(super) struct AuditedIds {
    request: String,
    trace: Option<String>,
}

impl Observers {
    /// The span of a request that is admitted.
    pub(super) fn begin<B>(&self, request: &Request<B>) -> Span {
        if !self.tracer.is_on() {
            return Span::NONE;
        }
        let is_window = request.uri().path().starts_with(BEFORE_STREAM);
        let of_method = WINDOW_SPANS.iter().find(|(method, _)| is_window && request.method() == *method);
        self.tracer.begin_request(request.headers(), of_method.map_or(OTHER_SPAN, |(_, name)| name))
    }

    /// The identifiers of a request, if they will be needed.
    pub(super) fn audited(&self, id: &RequestId, trace_id: Option<&str>) -> Option<Box<AuditedIds>> {
        let ids = || AuditedIds { request: id.as_str().to_owned(), trace: trace_id.map(ToOwned::to_owned) };
        self.audit.is_open().then(|| Box::new(ids()))
    }

    /// Writes the line of the audit log of an answer, if it has delivered items.
    pub(super) fn write_audit(
        &self,
        request: &RequestRecord<'_>,
        report: Option<&Report>,
        caller: Option<&AuthenticatedCaller>,
        ids: &AuditedIds,
    ) {
        let Some((interval, filters)) = report.and_then(Report::read) else { return };
        if request.items == 0 || request.bytes == 0 {
            return;
        }
        let credential = caller.map(|caller| caller.credential.to_string()).unwrap_or_default();
        let filters: Vec<_> = filters.iter().collect();
        self.audit.write(&AuditRecord {
            time: self.ends.clock.now(),
            caller: caller.map(|caller| AuditCaller { name: &caller.caller.name, credential: &credential }),
            account: request.account,
            stream: request.stream,
            interval,
            filters: &filters,
            items: request.items,
            outcome: request.outcome,
            request_id: &ids.request,
            trace_id: ids.trace.as_deref(),
            peer: request.asked.peer,
        });
    }
}

/// The trace id for the log: that of the request, or of the trace that has begun with it.
pub(super) fn trace_id<'a>(parent: Option<TraceParent<'a>>, span: &Span) -> Option<Cow<'a, str>> {
    let own = || span.context().map(|context| context.trace_id().into());
    parent.map(|parent| parent.trace.into()).or_else(own)
}

/// Ends the span of a request. Texts of the client are no attributes, except the method if it is known.
pub(super) fn end_span(span: &Span, request: &RequestRecord<'_>, report: Option<&Report>) {
    if !span.is_some() {
        return;
    }
    let method = METHODS.iter().find(|method| method.as_str() == request.asked.method());
    span.set("http.request.method", method.map_or("_OTHER", Method::as_str));
    if let Some(status) = request.status {
        span.set("http.response.status_code", u64::from(status));
    }
    span.set("koregate.outcome", request.outcome);
    for (name, value) in [
        ("koregate.caller", request.caller),
        ("koregate.account", request.account),
        ("koregate.stream", request.stream),
    ] {
        if value != "-" {
            span.set(name, value);
        }
    }
    span.set("http.response.body.size", request.bytes);
    if let Some((interval, filters)) = report.and_then(Report::read) {
        span.set("http.route", ROUTE);
        span.set_interval(interval);
        span.set("koregate.items", request.items);
        span.set("koregate.calls", request.calls.made);
        let filters = filters.iter().collect::<Vec<_>>().join(",");
        if !filters.is_empty() {
            span.set("koregate.filters", filters.as_str());
        }
    }
    let is_server_error = request.status.is_none_or(|status| status >= 500);
    if is_server_error || ["aborted", "drained"].contains(&request.outcome) {
        span.fail(request.outcome);
    }
    span.end();
}
