//! The future of a response: from the arrival of a request to the head of its answer.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;

use super::access::{AccessRecord, Content};
use super::body::EdgeBody;
use super::problem::EdgeError;
use super::revocation::Revocation;
use super::{problem, rate_limit_headers};
use crate::api::{Answer, ApiError};
use crate::request::UpstreamLimits;

/// The answer.
enum Reply {
    Answer(Answer),
    ProblemPage(Response<Full<Bytes>>),
    Error(EdgeError),
}

/// The response, reported when its body has ended.
fn respond(mut record: Box<AccessRecord>, head_only: bool, reply: Reply) -> Response<EdgeBody> {
    let mut limits = UpstreamLimits::default();
    let (mut response, content) = match reply {
        Reply::Answer(Answer { mut response, report }) => {
            limits = response.extensions_mut().remove().unwrap_or_default();
            (response.map(Either::Left), Content::Answer(report))
        }
        Reply::ProblemPage(page) => (page.map(Either::Right), Content::ProblemPage),
        Reply::Error(error) => {
            let (response, kind) = problem::respond(&error, record.id.as_str());
            let content = Content::Problem(kind, error.to_string());
            if let EdgeError::Api(ApiError::Window(failed)) = error {
                limits = failed.limits;
            }
            (response.map(Either::Right), content)
        }
    };
    record.id.set_header(response.headers_mut());
    let caller = record.authenticated.as_ref().map(|authenticated| authenticated.limit_status);
    rate_limit_headers::add_rate_limit_fields(response.headers_mut(), caller, &limits.0);
    record.set_head(response.status().as_u16(), content);
    response.map(|body| EdgeBody::new(body, record, head_only))
}

pin_project! {
    /// A response that is not ready yet. Not a boxed future, because most answers are ready at once.
    pub struct ResponseFuture<F> {
        // Moved into the body when there is one.
        record: Option<Box<AccessRecord>>,
        head_only: bool,
        #[pin]
        fate: Fate<F>,
        // Released when the head of the answer is ready. Without one, only the cache answers.
        slot: Option<OwnedSemaphorePermit>,
        revocation: Option<Revocation>,
    }
}

pin_project! {
    #[project = Current]
    pub(super) enum Fate<F> {
        Ready { result: Option<Result<Response<Full<Bytes>>, EdgeError>> },
        Pending { #[pin] answer: F },
    }
}

impl<F> ResponseFuture<F> {
    /// A refused request, or one for the page of a problem type. `head_only` is true for HEAD, here and below.
    pub(super) fn ready(
        record: Box<AccessRecord>,
        head_only: bool,
        result: Result<Response<Full<Bytes>>, EdgeError>,
    ) -> Self {
        Self {
            record: Some(record),
            head_only,
            fate: Fate::Ready { result: Some(result) },
            slot: None,
            revocation: None,
        }
    }

    /// A request that was passed to the API stage.
    pub(super) fn pending(
        record: Box<AccessRecord>,
        head_only: bool,
        answer: F,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let revocation = Some(Revocation::of(&record));
        Self { record: Some(record), head_only, fate: Fate::Pending { answer }, slot, revocation }
    }
}

impl<F: Future<Output = Result<Answer, ApiError>>> Future for ResponseFuture<F> {
    type Output = Result<Response<EdgeBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let reply = {
            let _in_span = this.record.as_ref().map(|record| record.span.enter());
            match this.fate.project() {
                Current::Ready { result } => match result.take() {
                    Some(Ok(page)) => Reply::ProblemPage(page),
                    Some(Err(error)) => Reply::Error(error),
                    None => Reply::Error(EdgeError::Internal),
                },
                // A panic costs one answer, not the connection: the state of the panicked future is dropped.
                Current::Pending { answer } => match catch_unwind(AssertUnwindSafe(|| answer.poll(context))) {
                    Ok(Poll::Ready(Ok(answer))) => Reply::Answer(answer),
                    Ok(Poll::Ready(Err(error))) => Reply::Error(EdgeError::of_answer(error, this.slot.is_some())),
                    Ok(Poll::Pending) => {
                        let revoked = this.revocation.as_mut().map_or(Poll::Pending, |key| key.poll(context));
                        ready!(revoked);
                        Reply::Error(EdgeError::UnknownCaller)
                    }
                    Err(_) => Reply::Error(EdgeError::Internal),
                },
            }
        };
        // A future is not polled after it was ready.
        let Some(record) = this.record.take() else { return Poll::Pending };
        Poll::Ready(Ok(respond(record, *this.head_only, reply)))
    }
}
