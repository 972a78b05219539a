//! The upstream, Kore: requests for pages, one HTTP call at a time, and the interpretation of the answers.

mod body;
mod client;
mod connector;
mod error;
mod error_response;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod health;
mod page;
mod proxy;
mod rate_limit_headers;
mod raw_call;
pub(crate) mod tls;

use std::sync::Arc;

pub use self::client::{AuthorizedRequest, Client};
pub(crate) use self::error::quoted;
pub use self::error::{RetryHint, SpentLimit, UpstreamError};
pub use self::error_response::known_message;
pub use self::health::{CallFailure, CallResults, HealthLayer, UpstreamHealth};
pub use self::page::{BadPage, Page};
pub use self::rate_limit_headers::RateLimitHeader;
pub use self::raw_call::{RawAnswer, RawRequest};

use crate::request::{RunWaiters, Series};
use crate::window::{Bound, QueryBounds};

/// The most items that the upstream puts on a page.
pub const PAGE_LIMIT: u32 = 100;

/// A page to fetch.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// The rows to fetch.
    pub series: Arc<Series>,
    /// Their time, in whole seconds.
    pub bounds: QueryBounds,
    /// Number of items to skip.
    pub offset: u64,
    /// Most items to return, up to [`PAGE_LIMIT`].
    pub limit: u32,
    /// The requests that wait for the page, and the accounting of its calls.
    pub waiters: Arc<RunWaiters>,
}
