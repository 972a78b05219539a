//! Why a run failed.

use super::scan::OutsideItem;
use crate::quota::QuotaError;
use crate::window::Interval;

/// Why a run failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PagingError {
    /// A page could not be fetched.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The account's `window.field` was found to be wrong: none of its runs can be divided into chunks.
    #[error("the upstream does not select on the timestamp that window.field names")]
    WindowField,
    /// An item lies outside of the interval that was asked for, so the run cannot be divided into chunks, only served
    /// whole.
    /// The cause may be the item, the request, or a wrong `window.field`.
    #[error("an item does not lie where it was asked for")]
    OutsideInterval(OutsideItem),
    /// An item has no timestamp, so the run cannot be divided into chunks, only served whole.
    #[error("an item has no timestamp to place it by")]
    WithoutTimestamp,
    /// No item has a timestamp, so the run cannot be divided into chunks, only served whole.
    #[error("no item has a timestamp to place it by")]
    AllWithoutTimestamp,
    /// The rows of this part of the run, which cannot be divided further, moved during every scan. Empty if the part is
    /// unknown.
    #[error("the upstream's rows moved while they were paged")]
    Torn(Interval),
    /// The run turned out much larger than planned, and its rows come in no order that lets it end early: a shorter
    /// run is needed.
    #[error("the run is larger than planned, and cannot be cut")]
    Oversized,
    /// A task of the run ended without a result: a defect of the gateway.
    #[error("a task of the run was lost")]
    Lost,
    /// A window that must be fetched as a whole is larger than this many bytes.
    #[error("what must be fetched as a whole is larger than {limit} bytes")]
    TooLarge {
        /// Limit, in bytes.
        limit: u64,
    },
}

impl PagingError {
    /// Whether the run must be fetched exactly: it may be served as a whole, but not divided into chunks.
    pub fn must_fetch_exactly(&self) -> bool {
        matches!(
            self,
            Self::WindowField | Self::OutsideInterval(_) | Self::WithoutTimestamp | Self::AllWithoutTimestamp
        )
    }
}
