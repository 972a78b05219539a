//! Content of a line of the audit log. Pure.

use std::net::SocketAddr;

use serde::Serialize;

use crate::window::{Interval, Timestamp};

/// An answer that delivered items.
#[derive(Clone, Copy, Debug)]
pub struct AuditRecord<'a> {
    /// The time at which the answer ended.
    pub time: Timestamp,
    /// The caller and how it has proved who it is; `None` where no callers are configured.
    pub caller: Option<AuditCaller<'a>>,
    /// Kore's account.
    pub account: &'a str,
    /// Kore's stream.
    pub stream: &'a str,
    /// The span that was requested, cut at the time of the request.
    pub interval: Interval,
    /// The names of the filters of the request; never their values.
    pub filters: &'a [&'static str],
    /// Items that were delivered.
    pub items: u64,
    /// The outcome in the access log.
    pub outcome: &'static str,
    /// The identifier of the request.
    pub request_id: &'a str,
    /// The trace that the request belongs to.
    pub trace_id: Option<&'a str>,
    /// The address that the connection came from.
    pub peer: Option<SocketAddr>,
}

/// A caller, and how it has proved who it is.
#[derive(Clone, Copy, Debug)]
pub struct AuditCaller<'a> {
    /// The caller's name.
    pub name: &'a str,
    /// The first digits of the SHA-256 of its key, as `koregate check` prints them, or the name in its certificate.
    pub credential: &'a str,
}

impl AuditRecord<'_> {
    /// The line, with its line feed. Members without a value are left out.
    pub(super) fn to_line(self) -> Vec<u8> {
        let Self { time, caller, account, stream, interval, filters, items, outcome, request_id, trace_id, peer } =
            self;
        let line = Line {
            time: time.to_string(),
            caller: caller.map(|caller| caller.name),
            credential: caller.map(|caller| caller.credential),
            account,
            stream,
            from: interval.start.to_string(),
            to: interval.end.to_string(),
            filters,
            items,
            outcome,
            request_id,
            trace_id,
            peer: peer.map(|peer| peer.to_string()),
        };
        // Serializing text and numbers to memory does not fail.
        let mut line = serde_json::to_vec(&line).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// The members of a line.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
    account: &'a str,
    stream: &'a str,
    from: String,
    to: String,
    filters: &'a [&'static str],
    items: u64,
    outcome: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
}
