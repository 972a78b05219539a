//! A request that the edge has admitted, with what it knows of it.

use std::sync::Arc;

use http::Request;

use crate::config::{CacheControlGrants, NamePatterns};
use crate::request::{Priority, RateLimitStatus, WaitMeter};
use crate::traces::Span;

/// A request and its context. A type of its own, because extensions of a request would be a map for each hit.
#[derive(Debug)]
pub struct AdmittedRequest<B> {
    /// The request of the client.
    pub request: Request<B>,
    /// What the edge knows of it.
    pub context: RequestContext,
}

/// What the edge knows of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestContext {
    /// Who sent it; `None` where no callers are configured.
    pub caller: Option<Arc<Caller>>,
    /// How the caller's rate limit stands.
    pub limit_status: Option<RateLimitStatus>,
    /// Whether so many requests are under way that only the cache may answer this one.
    pub is_overloaded: bool,
    /// Counts how long it waits for the quota.
    pub waited: WaitMeter,
    /// Its span.
    pub span: Span,
}

/// A caller's permissions.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Label in logs and metrics.
    pub name: Arc<str>,
    /// Accounts that the caller may read.
    pub accounts: NamePatterns,
    /// Streams that the caller may read.
    pub streams: NamePatterns,
    /// Share of the quota under contention; at least 1.
    pub weight: u32,
    /// The most urgent class that its requests may claim.
    pub max_priority: Priority,
    /// The directives of `Cache-Control` that are followed.
    pub cache_control: CacheControlGrants,
    /// The reload that it is known from.
    pub generation: u64,
}
