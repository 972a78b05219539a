//! An answer of the API stage.

mod job;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{Either, Full};

pub(super) use self::job::{JobBody, accept, set_job_fields};
use super::body::WindowBody;
use super::report::Report;

/// A window's body, or a short text: empty for a 304, or usage and cost.
pub type ApiBody = Either<WindowBody, Full<Bytes>>;

/// An answer and its report.
pub struct Answer {
    /// Head and body; the body may still be streamed.
    pub response: Response<ApiBody>,
    /// Reported when the body has ended.
    pub report: Arc<Report>,
}

impl Answer {
    /// An answer whose body is handed out in these pieces.
    #[cfg(test)]
    pub(crate) fn of_pieces(pieces: &'static [&str]) -> Self {
        let body = Either::Left(WindowBody::of_pieces(pieces));
        Self { response: Response::new(body), report: Report::without_account("hit").into() }
    }

    /// The answer to HEAD: the same head, with the length of the body if it is known. Nothing counts as delivered.
    pub(super) fn without_body(self) -> Self {
        let (mut head, body) = self.response.into_parts();
        let length = body.size_hint().exact().filter(|_| head.status != StatusCode::NOT_MODIFIED);
        if let Some(length) = length {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let report = Arc::new(self.report.without_items());
        Self { response: Response::from_parts(head, Either::Right(Full::default())), report }
    }
}
