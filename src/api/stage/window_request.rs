//! A valid request for a window, and what answers to it are made of.

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{Either, Full};

use super::preferred;
use crate::api::answer::{Answer, ApiBody};
use crate::api::body::WindowBody;
use crate::api::head::{cache_status, describe, etag, expected_status, guard, is_listed};
use crate::api::negotiation::{Coding, Negotiated};
use crate::api::report::Report;
use crate::api::request::ParsedRequest;
use crate::cache::{Cost, WindowAnswer};
use crate::jobs::JobRequest;
use crate::request::Series;
use crate::window::Timestamp;

/// Body size below which a content coding gains nothing, in bytes.
const MIN_CODED_BYTES: u64 = 512;

/// A valid request for a window.
pub(super) struct WindowRequest<'a> {
    pub(super) head: &'a Parts,
    pub(super) parsed: &'a ParsedRequest,
    pub(super) now: Timestamp,
}

impl WindowRequest<'_> {
    /// The job that fetches the window.
    pub(super) fn job_request(&self) -> JobRequest {
        let query = self.parsed.query.clone();
        let wait = query.options.queue_timeout.unwrap_or_default();
        let result = self.head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        JobRequest { query, result, wait }
    }

    /// The answer, with what `Cache-Control` of the request has to do with it.
    pub(super) fn completed(&self, mut answer: Answer) -> Answer {
        self.parsed.cache_control.complete_status(answer.response.headers_mut());
        answer
    }

    /// The answer to HEAD for a window of which not all is cached. What depends on its items is left out.
    pub(super) fn without_items(&self, cost: &Cost) -> Answer {
        let ParsedRequest { query, representation, preferences, .. } = self.parsed;
        let Series { account, stream, .. } = &*query.series;
        let mut response = Response::new(Either::Left(WindowBody::unknown()));
        describe(&mut response, Negotiated { coding: Coding::Identity, ..*representation });
        response.headers_mut().insert(header::CACHE_STATUS, expected_status(cost));
        let report = Report::without_window(account.clone(), stream.clone(), cost.outcome.label());
        preferred(Answer { response, report: report.into() }, *preferences)
    }

    /// The answer with the items of `window`, whose body has `bytes` without a content coding; 304 if the client has it.
    pub(super) fn render(&self, window: WindowAnswer, bytes: u64) -> Response<ApiBody> {
        let ParsedRequest { representation: negotiated, item_order, .. } = *self.parsed;
        let coding = if bytes >= MIN_CODED_BYTES { negotiated.coding } else { Coding::Identity };
        let representation = Negotiated { coding, ..negotiated };
        let (etag, cache_status) = (etag(&window.items, item_order, representation), cache_status(&window, self.now));
        // The condition is about what GET, HEAD or QUERY would return (RFC 9110, 13.1.2), not about what POST answers.
        let is_conditional = self.head.method != Method::POST;
        let is_known = is_conditional && is_listed(&self.head.headers, &etag);
        let mut response = if is_known {
            let mut response = Response::new(Either::Right(Full::default()));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            guard(response.headers_mut());
            response
        } else {
            let mut response = Response::new(Either::Left(WindowBody::new(window.items, representation)));
            describe(&mut response, representation);
            response
        };
        let headers = response.headers_mut();
        if let Ok(etag) = HeaderValue::try_from(etag) {
            headers.insert(header::ETAG, etag);
        }
        headers.insert(header::CACHE_STATUS, cache_status);
        response
    }
}
