//! Kore's side: what is asked of it, one call at a time, and what it answers.

mod body;
mod client;
mod error;
mod error_response;
mod page;
mod rate_limit_headers;
mod tls;

use std::sync::Arc;

pub use self::client::{AuthorizedRequest, Client};
pub use self::error::{RetryHint, SpentLimit, UpstreamError};
pub use self::error_response::known_message;
pub use self::page::{BadPage, Page};
pub use self::rate_limit_headers::RateLimitHeader;

use crate::request::{RunWaiters, Series};
use crate::window::{Bound, QueryBounds};

/// The most items that the upstream puts on a page.
pub const PAGE_LIMIT: u32 = 100;

/// One page to fetch.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// Which rows.
    pub series: Arc<Series>,
    /// Of which time.
    pub bounds: QueryBounds,
    /// How many items to skip.
    pub offset: u64,
    /// How many to bring, at most [`PAGE_LIMIT`].
    pub limit: u32,
    /// Who wants it, and where its calls are counted.
    pub demand: Arc<RunWaiters>,
}
