//! Kore's side: what is asked of it, one call at a time, and what it answers.

mod allowance;
mod body;
mod client;
mod demand;
mod error;
mod page;
mod patience;
mod refusal;
mod series;
mod tls;

use std::sync::Arc;

pub use allowance::Allowance;
pub use client::{AuthorizedRequest, Client};
pub use demand::{Asker, Calling, Class, Demand, Waiting};
pub use error::{Again, SpentLimit, UpstreamError};
pub use page::{BadPage, Page};
pub use patience::{Patience, Waited};
pub use refusal::known_message;
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
    /// Who wants it, and where its calls are counted.
    pub demand: Arc<Demand>,
}
