//! Checkpoints: ends a scan early, with one verifying call, if it has become too large or its rows have moved.

use std::time::Duration;

use tower::Service;

use super::error::PagingError;
use super::pager::Pager;
use super::run::ItemPacker;
use super::scan::{OffsetScan, RowOrder};
use crate::quota::QuotaError;
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Bound, Interval, Timestamp, UpperBound};

impl<S, P> Pager<'_, S, P>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
    P: ItemPacker,
{
    /// Finds a line on one side of which the scan has seen every row, and verifies it with one call: a query for that
    /// side alone must return no row beyond those that were seen. Returns the verified side, or `None`.
    pub(super) async fn end_early(
        &mut self,
        scan: &OffsetScan,
        interval: Interval,
    ) -> Result<Option<Interval>, PagingError> {
        let Some((whole, seen)) = self.provable(scan, interval) else { return Ok(None) };
        let beyond = self.page(self.query_for(whole), seen, 1).await?;
        Ok((beyond.items.is_empty() && !beyond.has_more).then_some(whole))
    }

    /// The side of a scan that should be complete, and the number of rows seen on it.
    fn provable(&self, scan: &OffsetScan, interval: Interval) -> Option<(Interval, u64)> {
        let (whole, _) = self.line(scan, interval)?;
        let bounds = self.query_for(whole);
        // Excludes rows exactly at `to`. If the upstream does count them, the verification fails, which is safe.
        let asked = UpperBound::Exclusive.enclosed(Bound::Second(bounds.from), bounds.to);
        let seen = scan.count_within(asked);
        // A side that a single call could fetch is not worth a verifying call.
        (!whole.is_empty() && seen >= u64::from(PAGE_LIMIT)).then_some((whole, seen))
    }

    /// The line nearest to the scan's position, and the side of it that is complete if the rows are in order.
    pub(super) fn line(&self, scan: &OffsetScan, interval: Interval) -> Option<(Interval, Timestamp)> {
        let second = scan.last()?.floor_second();
        match scan.order() {
            RowOrder::Ascending => {
                let line = match self.window.upper_bound {
                    UpperBound::Inclusive => scan.line_before(second),
                    UpperBound::Exclusive => second,
                };
                Some((interval.split_at(line).0, line))
            }
            RowOrder::Descending => {
                let line = second + Duration::from_secs(1);
                Some((interval.split_at(line).1, line))
            }
            RowOrder::Unknown | RowOrder::Other => None,
        }
    }
}
