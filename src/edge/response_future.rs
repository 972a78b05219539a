//! The future of a response: from the arrival of a request to the head of its answer.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body_util::Either;
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;

use super::access::{AccessRecord, Content};
use super::body::EdgeBody;
use super::problem::EdgeError;
use super::{problem, rate_limit_headers};
use crate::api::{Answer, ApiError};

/// The response, reported when its body has ended.
fn respond(mut record: Box<AccessRecord>, head_only: bool, result: Result<Answer, EdgeError>) -> Response<EdgeBody> {
    let (mut response, content) = match result {
        Ok(Answer { response, report }) => (response.map(Either::Left), Content::Answer(report)),
        Err(error) => {
            let (response, kind) = problem::respond(&error, record.id.as_str());
            (response.map(Either::Right), Content::Problem(kind, error.to_string()))
        }
    };
    record.id.set_header(response.headers_mut());
    if let Some(authenticated) = &record.authenticated {
        rate_limit_headers::add_rate_limit_fields(response.headers_mut(), authenticated.limit_status);
    }
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
        // Released when the head of the answer is ready.
        slot: Option<OwnedSemaphorePermit>,
    }
}

pin_project! {
    #[project = Current]
    pub(super) enum Fate<F> {
        Refused { error: Option<EdgeError> },
        Pending { #[pin] answer: F },
    }
}

impl<F> ResponseFuture<F> {
    /// A refused request. `head_only` is true for HEAD, here and below.
    pub(super) fn refused(record: Box<AccessRecord>, head_only: bool, error: EdgeError) -> Self {
        Self { record: Some(record), head_only, fate: Fate::Refused { error: Some(error) }, slot: None }
    }

    /// A request that was passed to the API stage.
    pub(super) fn pending(record: Box<AccessRecord>, head_only: bool, answer: F, slot: OwnedSemaphorePermit) -> Self {
        Self { record: Some(record), head_only, fate: Fate::Pending { answer }, slot: Some(slot) }
    }
}

impl<F: Future<Output = Result<Answer, ApiError>>> Future for ResponseFuture<F> {
    type Output = Result<Response<EdgeBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = {
            let _in_span = this.record.as_ref().map(|record| record.span.enter());
            match this.fate.project() {
                Current::Refused { error } => Err(error.take().unwrap_or(EdgeError::Internal)),
                // A panic costs one answer, not the connection: the state of the panicked future is dropped.
                Current::Pending { answer } => match catch_unwind(AssertUnwindSafe(|| answer.poll(context))) {
                    Ok(answer) => ready!(answer).map_err(EdgeError::Api),
                    Err(_) => Err(EdgeError::Internal),
                },
            }
        };
        // A future is not polled after it was ready.
        let Some(record) = this.record.take() else { return Poll::Pending };
        Poll::Ready(Ok(respond(record, *this.head_only, result)))
    }
}
