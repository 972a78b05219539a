//! A request from its arrival to the head of its answer.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::Response;
use http_body_util::Either;
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Span;

use super::caller::Visit;
use super::problem::EdgeError;
use super::request_id::RequestId;
use super::{EdgeBody, fields, problem};
use crate::api::{Answer, ApiError};
use crate::telemetry::{self, Request as Told};

/// What is known of a request as soon as it has come.
pub(super) struct Arrival {
    pub(super) begun: Instant,
    pub(super) id: RequestId,
    /// What is logged of it stands in there.
    pub(super) span: Span,
    /// Who asks; `None` if nobody knows.
    pub(super) visit: Option<Visit>,
}

impl Arrival {
    /// The response, which is told of.
    fn respond(&mut self, result: Result<Answer, EdgeError>) -> Response<EdgeBody> {
        let (mut response, report, problem) = match result {
            Ok(Answer { response, report }) => (response.map(Either::Left), Some(report), None),
            Err(error) => {
                let (response, kind) = problem::respond(&error, self.id.as_str());
                (response.map(Either::Right), None, Some((kind, error.to_string())))
            }
        };
        self.id.tell(response.headers_mut());
        if let Some(visit) = &self.visit {
            fields::tell(response.headers_mut(), visit.standing);
        }
        let (report, of_problem) = (report.as_ref(), problem.as_ref().map(|(kind, _)| kind.label()));
        telemetry::request(&Told {
            caller: self.visit.as_ref().map_or("-", |visit| &visit.caller.name),
            account: report.map_or("-", |report| &report.account),
            stream: report.map_or("-", |report| &report.stream),
            outcome: of_problem.or(report.map(|report| report.outcome)).unwrap_or("-"),
            status: response.status().as_u16(),
            problem: problem.as_ref().map(|(_, words)| words.as_str()),
            items: report.map_or(0, |report| report.items),
            calls: report.map_or(0, |report| report.calls),
            avoided: report.map_or(0, |report| report.avoided),
            took: self.begun.elapsed(),
        });
        response
    }
}

pin_project! {
    /// An answer that is being made. It is no boxed future, for most answers are ready at once.
    pub struct Answering<F> {
        arrival: Arrival,
        #[pin]
        fate: Fate<F>,
        // Held as long as it is made.
        room: Option<OwnedSemaphorePermit>,
    }
}

pin_project! {
    #[project = Current]
    pub(super) enum Fate<F> {
        Refused { error: Option<EdgeError> },
        Asked { #[pin] answer: F },
    }
}

impl<F> Answering<F> {
    /// What arrived is refused.
    pub(super) fn refused(arrival: Arrival, error: EdgeError) -> Self {
        Self { arrival, fate: Fate::Refused { error: Some(error) }, room: None }
    }

    /// What arrived has been asked for below.
    pub(super) fn asked(arrival: Arrival, answer: F, room: OwnedSemaphorePermit) -> Self {
        Self { arrival, fate: Fate::Asked { answer }, room: Some(room) }
    }
}

impl<F: Future<Output = Result<Answer, ApiError>>> Future for Answering<F> {
    type Output = Result<Response<EdgeBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let span = this.arrival.span.clone();
        let _in_span = span.enter();
        let result = match this.fate.project() {
            Current::Refused { error } => Err(error.take().unwrap_or(EdgeError::Internal)),
            // A defect must cost one answer, not the connection: what was under way in it is dropped whole.
            Current::Asked { answer } => match catch_unwind(AssertUnwindSafe(|| answer.poll(context))) {
                Ok(answer) => ready!(answer).map_err(EdgeError::Api),
                Err(_) => Err(EdgeError::Internal),
            },
        };
        Poll::Ready(Ok(this.arrival.respond(result)))
    }
}
