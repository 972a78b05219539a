//! Kore's side: what is asked of it, one call at a time, and what it answers.

mod allowance;
mod client;
mod error;
mod page;
mod refusal;
mod series;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use allowance::Allowance;
pub use client::{AuthorizedRequest, Client};
pub use error::{Again, SpentLimit, UpstreamError};
pub use page::{BadPage, Page};
pub use series::{Filter, KnownFilter, Series};

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
    /// Where its calls are counted.
    pub spent: Spent,
}

/// Counts the upstream calls that a run spends, retries included.
#[derive(Clone, Debug, Default)]
pub struct Spent(Arc<AtomicU32>);

impl Spent {
    /// One more call is made.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One call never left: take it back.
    pub fn take_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many calls were made.
    pub fn calls(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}
