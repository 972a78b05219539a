//! A request as it has arrived: what is read of each one's head, and what is kept of it for the access log.

use std::net::SocketAddr;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, Request};

use super::request_id::X_REQUEST_ID;
use crate::api::ACCOUNT_ID;
use crate::telemetry::RequestFacts;
use crate::traces::TRACEPARENT;

/// The fields that are read of each request. One pass over all costs less than a lookup of each.
#[derive(Debug, Default)]
pub(super) struct CommonFields<'a> {
    pub(super) request_id: Option<&'a HeaderValue>,
    pub(super) account: Option<&'a HeaderValue>,
    /// Whether the request names a trace, however often.
    pub(super) has_trace: bool,
}

impl<'a> CommonFields<'a> {
    /// The first of each.
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            if *name == X_REQUEST_ID {
                found.request_id.get_or_insert(value);
            } else if *name == ACCOUNT_ID {
                found.account.get_or_insert(value);
            } else if *name == TRACEPARENT {
                found.has_trace = true;
            }
        }
        found
    }
}

/// When a request arrived, from where, and the parts of its head that are logged. Copies, because the buffer of the
/// connection is free for the next request only when nothing refers to the head.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) at: Instant,
    method: Method,
    target: Box<str>,
    account: Option<Box<str>>,
    peer: Option<SocketAddr>,
}

impl Arrival {
    pub(super) fn new<B>(
        at: Instant,
        request: &Request<B>,
        fields: &CommonFields<'_>,
        peer: Option<SocketAddr>,
    ) -> Self {
        Self {
            at,
            method: request.method().clone(),
            target: request.uri().path_and_query().map_or("", |target| target.as_str()).into(),
            account: fields.account.and_then(|account| account.to_str().ok()).map(Into::into),
            peer,
        }
    }

    /// The facts for the log.
    pub(super) fn facts(&self) -> RequestFacts<'_> {
        let Self { at: _, method, target, account, peer } = self;
        RequestFacts { method: method.as_str(), target, account: account.as_deref(), peer: *peer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_of_each_field_is_found() {
        let request = Request::builder()
            .method("POST")
            .uri("http://host/a%20b?c=d")
            .header("host", "localhost")
            .header("accountId", "acc-1")
            .header("x-request-id", "1")
            .header("x-request-id", "2")
            .header("accountId", "acc-2")
            .header("traceparent", "00");
        let request = request.body(()).unwrap();
        let fields = CommonFields::of(request.headers());
        assert!(fields.request_id.unwrap() == "1" && fields.account.unwrap() == "acc-1" && fields.has_trace);
        let peer = "192.0.2.7:4711".parse().ok();
        let arrival = Arrival::new(Instant::now(), &request, &fields, peer);
        let facts = arrival.facts();
        assert_eq!(
            (facts.method, facts.target, facts.account, facts.peer),
            ("POST", "/a%20b?c=d", Some("acc-1"), peer)
        );
        let none = CommonFields::default();
        let facts = Arrival::new(Instant::now(), &Request::new(()), &none, None);
        assert_eq!((facts.facts().target, facts.facts().account), ("/", None));
    }
}
