//! One run, walked page by page: what is tried again and halved. How a page is got, and where a walk is cut, stand in
//! files of their own.

mod cutting;
mod paging;

use std::time::Duration;

use tower::Service;

use super::handing::{Handing, may_hand_on};
use super::parting::Parting;
use super::places::Place;
use super::read_ahead::ReadAhead;
use super::walk::{Broken, Order, Walk, Watch};
use super::{Delivery, Placed, RepageError, RepageStage, Run, Stretch};
use crate::quota::QuotaError;
use crate::telemetry;
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Moment, QueryBounds, Span};

/// A walk that broke is tried again once; then the span is halved.
const WALKS_BEFORE_HALVING: u32 = 2;
/// What cannot be halved (a second, or a window that must stay exact) is walked this often.
const WALKS_OF_THE_INDIVISIBLE: u32 = 5;
/// How a walk ended.
enum Walked {
    Whole(Walk),
    /// It is whole on one side of a line; the rest is still to be walked.
    Part {
        walk: Walk,
        whole: Span,
        rest: Span,
    },
    /// More was promised, but nothing came: either rows have gone, or the promise is kept loosely.
    Ended(Walk),
    Broken(Broken),
    /// Too many bytes, in no order that could be cut.
    TooLarge,
}

/// Fetches one run.
pub(super) struct Pager<'a, S> {
    stage: &'a RepageStage<S>,
    run: &'a Run,
    place: Option<&'a Place>,
    /// Whether a page has come: from then on, giving up would waste what was spent.
    begun: bool,
    /// How long the last page took, with its wait for the quota; only its part of that, if others came meanwhile.
    last_page: Duration,
    handing: Handing,
    may_hand_on: bool,
}

impl<'a, S> Pager<'a, S> {
    pub(super) fn new(stage: &'a RepageStage<S>, run: &'a Run, place: Option<&'a Place>) -> Self {
        Self {
            stage,
            run,
            place,
            begun: run.demand.has_begun(),
            last_page: Duration::ZERO,
            may_hand_on: true,
            handing: Handing::new(stage.settings.window.chunk),
        }
    }
}

impl<S> Pager<'_, S>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
{
    fn query_for(&self, span: Span) -> QueryBounds {
        self.stage.settings.window.upper_bound.query_for(span)
    }

    fn new_walk(&self, span: Span, watch: Watch) -> Walk {
        Walk::new(self.query_for(span), self.stage.settings.window.field.clone(), self.run.placed, watch)
    }

    fn now(&self) -> Moment {
        self.stage.settings.clock.now()
    }

    /// Fetches `span`, halving it where its rows do not hold still.
    pub(super) async fn fetch(&mut self, span: Span) -> Result<(), RepageError> {
        let mut todo = vec![(span, false)];
        while let Some((mut span, halved)) = todo.pop() {
            if halve(span).is_none() {
                self.fetch_indivisible(span).await?;
                continue;
            }
            let whole = if halved {
                // One page cannot tear, and two might again: so a half is fetched only if it fits a page.
                self.fetch_as_one_page(span).await?
            } else {
                match self.walk_again_and_again(&mut span, WALKS_BEFORE_HALVING, Watch::Order).await? {
                    Ok(rest) => {
                        todo.extend(rest.map(|rest| (rest, false)));
                        true
                    }
                    Err(broken) => {
                        telemetry::torn(&self.run.series.account, &broken);
                        false
                    }
                }
            };
            if !whole && let Some((left, right)) = halve(span) {
                todo.extend([(right, true), (left, true)]);
            }
        }
        Ok(())
    }

    /// Fetches what cannot be halved: a second, or a window that must stay as it is.
    pub(super) async fn fetch_indivisible(&mut self, mut span: Span) -> Result<(), RepageError> {
        match self.walk_again_and_again(&mut span, WALKS_OF_THE_INDIVISIBLE, Watch::Names).await? {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => Err(RepageError::Torn),
        }
    }

    /// Fetches `span` if it fits a page; says whether it did.
    async fn fetch_as_one_page(&mut self, span: Span) -> Result<bool, RepageError> {
        let begun_at = self.now();
        let mut walk = self.new_walk(span, Watch::Names);
        let page = self.page(self.query_for(span), 0, PAGE_LIMIT).await?;
        match walk.take(page) {
            Ok(()) if walk.next_offset().is_none() => {
                self.run.demand.came(span);
                self.deliver(span, walk, begun_at);
            }
            // Halving goes on until an indivisible piece shows whether that was a freak.
            Ok(()) | Err(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Walks `span` until it is whole, at most `times`. `Some` is the rest of a walk that was cut. `span` gets shorter if
    /// an end of it is left to other runs.
    async fn walk_again_and_again(
        &mut self,
        span: &mut Span,
        times: u32,
        watch: Watch,
    ) -> Result<Result<Option<Span>, Broken>, RepageError> {
        let mut last = Broken::NothingCame;
        let mut ended_with = None;
        for time in 0..times {
            let begun_at = self.now();
            // Where rows have moved, pages that were asked for ahead would likely be of no use.
            let reads_ahead = time == 0 && watch == Watch::Order && self.run.placed == Placed::Checked;
            match self.walk(span, watch, reads_ahead, begun_at).await? {
                Walked::Whole(walk) => {
                    self.deliver(*span, walk, begun_at);
                    return Ok(Ok(None));
                }
                Walked::Part { walk, whole, rest } => {
                    self.deliver(whole, walk, begun_at);
                    // What moved lies behind.
                    self.may_hand_on = true;
                    return Ok(Ok(Some(rest)));
                }
                // The same rows once more, and again nothing behind them: so this upstream promises too much.
                Walked::Ended(walk) if ended_with == Some(walk.len()) => {
                    self.deliver(*span, walk, begun_at);
                    return Ok(Ok(None));
                }
                Walked::Ended(walk) => {
                    last = Broken::NothingCame;
                    ended_with = Some(walk.len());
                }
                Walked::Broken(broken) => last = broken,
                Walked::TooLarge => {
                    self.refute();
                    break;
                }
            }
            self.refute();
        }
        match last {
            // Out of place once may be a freak; again and again, it is how this upstream selects.
            Broken::OutOfPlace => Err(RepageError::WindowField),
            Broken::Unplaced => Err(RepageError::Unplaced),
            last => Ok(Err(last)),
        }
    }

    async fn walk(
        &mut self,
        span: &mut Span,
        watch: Watch,
        reads_ahead: bool,
        begun_at: Moment,
    ) -> Result<Walked, RepageError> {
        let mut walk = self.new_walk(*span, watch);
        let place = self.place.filter(|_| reads_ahead);
        let mut ahead = ReadAhead::new(&self.stage.below, self.run, place, &self.stage.settings.window.field, *span);
        let walk_bytes = self.stage.settings.walk_bytes;
        let mut cut_beyond = walk_bytes;
        let mut prove_at = self.stage.settings.proven_each;
        let mut may_hand_over = true;
        while let Some(offset) = walk.next_offset() {
            // What cannot be halved cannot be cut either; it is walked to its end, however large.
            let is_large = walk.bytes() > cut_beyond && watch == Watch::Order;
            let is_due = walk.len() >= prove_at && self.is_settled(*span, watch, begun_at);
            let mut parting = self.parting(&walk, *span, watch, may_hand_over);
            // What was asked for ahead is paid for: it is used before the walk is cut or leaves something to others.
            let is_put_off = (is_large || is_due || parting.is_some()) && ahead.is_reading();
            ahead.hold_back(is_put_off);
            if (is_large || is_due) && !is_put_off {
                if is_large {
                    cut_beyond += walk_bytes;
                }
                // A proof that fails once is not paid for again: most likely the next page tells why.
                prove_at = usize::MAX;
                match self.cut(&walk, *span).await? {
                    Some((whole, rest)) => return Ok(Walked::Part { walk, whole, rest }),
                    None if is_large && walk.order() == Order::Other => return Ok(Walked::TooLarge),
                    // Meanwhile others may have come to wait.
                    None => parting = self.parting(&walk, *span, watch, may_hand_over),
                }
            }
            match parting.filter(|_| !is_put_off) {
                Some(Parting::HandOver) => {
                    // A proof that fails once is not paid for again.
                    may_hand_over = false;
                    if let Some((whole, rest)) = self.cut(&walk, *span).await? {
                        return Ok(Walked::Part { walk, whole, rest });
                    }
                }
                Some(Parting::GiveUp { kept, wanted }) => {
                    self.leave_to_others(*span, kept, wanted);
                    *span = kept;
                    walk.narrow(self.query_for(kept));
                    ahead.narrow(kept);
                }
                None => {}
            }
            let page = self.next_page(&mut ahead, self.query_for(*span), offset).await?;
            let before = walk.len();
            let Err(broken) = walk.take(page) else {
                let told = walk.told_by_last(before);
                // What cannot be cut is wanted as a whole by whoever wants it.
                self.run.demand.came(if self.run.placed == Placed::Checked { told } else { Span::EVER });
                self.hand_on(&mut walk, *span, watch, begun_at).await;
                continue;
            };
            if broken == Broken::NothingCame {
                return Ok(Walked::Ended(walk));
            }
            let divisible = watch == Watch::Order && !matches!(broken, Broken::OutOfPlace | Broken::Unplaced);
            return Ok(match if divisible { self.cut(&walk, *span).await? } else { None } {
                Some((whole, rest)) => Walked::Part { walk, whole, rest },
                None => Walked::Broken(broken),
            });
        }
        Ok(Walked::Whole(walk))
    }

    /// Whether what the walks of `span` pass may be handed on, and is proven now and then.
    fn is_settled(&self, span: Span, watch: Watch, begun_at: Moment) -> bool {
        may_hand_on(span, self.run.placed, watch, begun_at - self.stage.settings.window.settle_after)
    }

    /// Hands on what has been passed, if nothing of it can change any more.
    async fn hand_on(&mut self, walk: &mut Walk, span: Span, watch: Watch, begun_at: Moment) {
        if !self.may_hand_on || !self.is_settled(span, watch, begun_at) {
            return;
        }
        let Some((_, line, _)) = self.line(walk, span) else { return };
        self.handing.hand_on(self.run, walk, span, line, begun_at).await;
    }

    /// What was handed on of the last walk is void. The next one hands nothing on until something of it is proven: what did
    /// not hold once may not again.
    fn refute(&mut self) {
        self.may_hand_on = false;
        let _ = self.run.deliver.send(Delivery::Refuted);
    }

    fn deliver(&self, span: Span, walk: Walk, fetched_at: Moment) {
        let before = walk.handed_on();
        let span = if before.is_empty() {
            span
        } else {
            let _ = self.run.deliver.send(Delivery::Proven);
            // It was handed on from one end on.
            if before.start == span.start { span.split_at(before.end).1 } else { span.split_at(before.start).0 }
        };
        let stretch = Stretch { span, items: walk.into_items(span), fetched_at };
        // The receiver outlives the run; were it gone, nobody would want the stretch.
        let _ = self.run.deliver.send(Delivery::Stretch(stretch));
    }
}

/// The two halves of a span, cut at a whole second; `None` if it is too short for that.
fn halve(span: Span) -> Option<(Span, Span)> {
    let middle = (span.start + span.length() / 2).floor_second();
    let (left, right) = span.split_at(middle);
    (!left.is_empty() && !right.is_empty()).then_some((left, right))
}
