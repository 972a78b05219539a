//! Where a walk is cut: what of it is proven though it has not ended, and what it leaves to other runs.

use std::time::Duration;

use tower::Service;

use super::Pager;
use crate::quota::QuotaError;
use crate::repage::parting::{Need, Parting, Position};
use crate::repage::walk::{Order, Walk, Watch};
use crate::repage::{Delivery, RepageError};
use crate::upstream::{Class, PAGE_LIMIT, Page, PageRequest};
use crate::window::{Bound, Moment, Span, UpperBound};

impl<S> Pager<'_, S>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
{
    /// What to do about those who need only a part of this walk.
    pub(super) fn parting(&self, walk: &Walk, span: Span, watch: Watch, may_hand_over: bool) -> Option<Parting> {
        let last = walk.last().filter(|_| watch == Watch::Order)?;
        let demand = &self.run.demand;
        let (last_wait, last_page, class) = (demand.last_wait(), self.last_page, demand.cause().class);
        let need = |(span, of): (Span, Class)| Need { span, urgent: of < class };
        let needs: Vec<Need> = demand.needs().into_iter().map(need).collect();
        let position = Position { span, order: walk.order(), at: last, seen: walk.len(), last_wait, last_page };
        match position.part(&needs, may_hand_over) {
            // Too little has been seen to prove it: behind the next page, perhaps. Until then somebody else is served.
            Some(Parting::HandOver) if self.provable(walk, span).is_none() => position.part(&needs, false),
            parting => parting,
        }
    }

    pub(super) fn leave_to_others(&self, span: Span, kept: Span, wanted: Span) {
        let (before, after) = (span.split_at(kept.start).0, span.split_at(kept.end).1);
        let rest = if before.is_empty() { after } else { before };
        let _ = self.run.deliver.send(Delivery::Parted { rest, wanted });
    }

    /// Looks for a line on one side of which a walk has seen everything, and proves it with one call: a query for just
    /// that side must have no row beyond those that were seen. Gives the whole side and the rest.
    pub(super) async fn cut(&mut self, walk: &Walk, span: Span) -> Result<Option<(Span, Span)>, RepageError> {
        let Some((whole, rest, seen)) = self.provable(walk, span) else { return Ok(None) };
        let beyond = self.page(self.query_for(whole), seen, 1).await?;
        Ok((beyond.items.is_empty() && !beyond.has_more).then_some((whole, rest)))
    }

    /// The side of a walk on which it should have seen everything, the rest, and how many rows were seen on that side.
    fn provable(&self, walk: &Walk, span: Span) -> Option<(Span, Span, u64)> {
        let (whole, _, rest) = self.line(walk, span)?;
        let bounds = self.query_for(whole);
        // Without what lies exactly at `to`: should the upstream count that, the proof fails, which is the safe side.
        let asked = UpperBound::Exclusive.enclosed(Bound::Second(bounds.from), bounds.to);
        let seen = walk.count_within(asked);
        // What a single call could fetch anyway is not worth a call to prove.
        (!whole.is_empty() && seen >= u64::from(PAGE_LIMIT)).then_some((whole, rest, seen))
    }

    /// The line nearest to where a walk has come, with the side on which it has seen everything, if its order holds, and
    /// the other side.
    pub(super) fn line(&self, walk: &Walk, span: Span) -> Option<(Span, Moment, Span)> {
        let second = walk.last()?.floor_second();
        match walk.order() {
            Order::Ascending => {
                let line = match self.stage.settings.window.upper_bound {
                    UpperBound::Inclusive => walk.line_before(second),
                    UpperBound::Exclusive => second,
                };
                let (whole, rest) = span.split_at(line);
                Some((whole, line, rest))
            }
            Order::Descending => {
                let line = second + Duration::from_secs(1);
                let (rest, whole) = span.split_at(line);
                Some((whole, line, rest))
            }
            Order::Unknown | Order::Other => None,
        }
    }
}
