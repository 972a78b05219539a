//! Where a scan is cut and proven before its end, if it has become too large or its rows have moved.

use std::time::Duration;

use tower::Service;

use super::pager::Pager;
use super::scan::{OffsetScan, RowOrder};
use super::{ItemPacker, PagingError};
use crate::quota::QuotaError;
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Bound, Interval, Timestamp, UpperBound};

impl<S, P> Pager<'_, S, P>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
    P: ItemPacker,
{
    /// Looks for a line on one side of which a scan has seen everything, and proves it with one call: a query for just
    /// that side must have no row beyond those that were seen. Gives that side.
    pub(super) async fn cut(&mut self, walk: &OffsetScan, interval: Interval) -> Result<Option<Interval>, PagingError> {
        let Some((whole, seen)) = self.provable(walk, interval) else { return Ok(None) };
        let beyond = self.page(self.query_for(whole), seen, 1).await?;
        Ok((beyond.items.is_empty() && !beyond.has_more).then_some(whole))
    }

    /// The side of a scan on which it should have seen everything, and how many rows were seen on that side.
    fn provable(&self, walk: &OffsetScan, interval: Interval) -> Option<(Interval, u64)> {
        let (whole, _) = self.line(walk, interval)?;
        let bounds = self.query_for(whole);
        // Without what lies exactly at `to`: should the upstream count that, the proof fails, which is the safe side.
        let asked = UpperBound::Exclusive.enclosed(Bound::Second(bounds.from), bounds.to);
        let seen = walk.count_within(asked);
        // What a single call could fetch anyway is not worth a call to prove.
        (!whole.is_empty() && seen >= u64::from(PAGE_LIMIT)).then_some((whole, seen))
    }

    /// The line nearest to where a scan has come, and the side of it on which it has seen everything, if its order holds.
    pub(super) fn line(&self, walk: &OffsetScan, interval: Interval) -> Option<(Interval, Timestamp)> {
        let second = walk.last()?.floor_second();
        match walk.order() {
            RowOrder::Ascending => {
                let line = match self.stage.settings.window.upper_bound {
                    UpperBound::Inclusive => walk.line_before(second),
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
