//! Where a scan is cut and proven before its end, if it has become too large or its rows have moved.

use std::time::Duration;

use tower::Service;

use super::pager::Pager;
use super::walk::{Order, Walk};
use super::{ItemPacker, RepageError};
use crate::quota::QuotaError;
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Bound, Moment, Span, UpperBound};

impl<S, P> Pager<'_, S, P>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
    P: ItemPacker,
{
    /// Looks for a line on one side of which a scan has seen everything, and proves it with one call: a query for just
    /// that side must have no row beyond those that were seen. Gives that side.
    pub(super) async fn cut(&mut self, walk: &Walk, span: Span) -> Result<Option<Span>, RepageError> {
        let Some((whole, seen)) = self.provable(walk, span) else { return Ok(None) };
        let beyond = self.page(self.query_for(whole), seen, 1).await?;
        Ok((beyond.items.is_empty() && !beyond.has_more).then_some(whole))
    }

    /// The side of a scan on which it should have seen everything, and how many rows were seen on that side.
    fn provable(&self, walk: &Walk, span: Span) -> Option<(Span, u64)> {
        let (whole, _) = self.line(walk, span)?;
        let bounds = self.query_for(whole);
        // Without what lies exactly at `to`: should the upstream count that, the proof fails, which is the safe side.
        let asked = UpperBound::Exclusive.enclosed(Bound::Second(bounds.from), bounds.to);
        let seen = walk.count_within(asked);
        // What a single call could fetch anyway is not worth a call to prove.
        (!whole.is_empty() && seen >= u64::from(PAGE_LIMIT)).then_some((whole, seen))
    }

    /// The line nearest to where a scan has come, and the side of it on which it has seen everything, if its order holds.
    pub(super) fn line(&self, walk: &Walk, span: Span) -> Option<(Span, Moment)> {
        let second = walk.last()?.floor_second();
        match walk.order() {
            Order::Ascending => {
                let line = match self.stage.settings.window.upper_bound {
                    UpperBound::Inclusive => walk.line_before(second),
                    UpperBound::Exclusive => second,
                };
                Some((span.split_at(line).0, line))
            }
            Order::Descending => {
                let line = second + Duration::from_secs(1);
                Some((span.split_at(line).1, line))
            }
            Order::Unknown | Order::Other => None,
        }
    }
}
