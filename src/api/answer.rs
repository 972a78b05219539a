//! An answer of the API stage.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::{Either, Full};

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
