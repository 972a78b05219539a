//! One run, scanned page by page: what is scanned again, and halved, where its rows move.

use std::sync::Arc;

use tower::Service;

use super::limiter::RunPermit;
use super::multiples::Multiples;
use super::packing::Packing;
use super::sizing::{self, Overrun, Size};
use super::walk::{Broken, Order, Walk, Watch};
use super::{Fetched, ItemPacker, Placed, RepageError, RepageStage, Run, RunPart};
use crate::quota::QuotaError;
use crate::telemetry;
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Density, Grid, Moment, QueryBounds, Span};

/// A scan that broke is tried again once; then the span is halved.
const SCANS_BEFORE_HALVING: u32 = 2;
/// What cannot be halved (a second, or a window that must stay exact) is scanned this often.
const SCANS_OF_THE_INDIVISIBLE: u32 = 5;

/// How a scan ended.
enum Scanned {
    Whole(Walk),
    /// It is whole on one side of a line, which is this; the run ends there.
    Part(Walk, Span),
    /// More was promised, but nothing came: either rows have gone, or the promise is kept loosely.
    Ended(Walk),
    Broken(Broken),
}

/// Fetches one run.
pub(super) struct Pager<'a, S, P: ItemPacker> {
    pub(super) stage: &'a RepageStage<S>,
    pub(super) run: &'a Run<P>,
    pub(super) permit: Option<RunPermit>,
    packing: Packing<P>,
    order: Order,
    halved: bool,
    pub(super) multiples: Multiples,
}

impl<'a, S, P: ItemPacker> Pager<'a, S, P> {
    pub(super) fn new(stage: &'a RepageStage<S>, run: &'a Run<P>, permit: Option<RunPermit>) -> Self {
        let packing = Packing::new(run.packer.clone(), stage.settings.window.chunk);
        Self { stage, run, permit, packing, order: Order::Unknown, halved: false, multiples: Multiples::default() }
    }
}

impl<S, P> Pager<'_, S, P>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
    P: ItemPacker,
{
    pub(super) fn query_for(&self, span: Span) -> QueryBounds {
        self.stage.settings.window.upper_bound.query_for(span)
    }

    fn new_walk(&self, span: Span, watch: Watch) -> Walk {
        let field = self.stage.settings.window.field.clone();
        let mut walk = Walk::new(self.query_for(span), field, self.run.placed, watch);
        self.multiples.allow_in(&mut walk);
        walk
    }

    fn now(&self) -> Moment {
        self.stage.settings.clock.now()
    }

    /// When what a scan has brought was fetched, if the clock said `begun_at` when the scan began. A clock that has gone
    /// wrong since then, or that the upstream does not agree with, must not let settle what is still open.
    fn fetched_at(&self, begun_at: Moment) -> Moment {
        begun_at.min(self.now()) - self.stage.settings.clock.ahead()
    }

    /// Fetches the run, or one end of it if it turns out too large.
    pub(super) async fn fetch(mut self) -> Result<Fetched<P::Packed>, RepageError> {
        let span = match self.run.placed {
            Placed::Checked => self.fetch_divisible(self.run.span).await?,
            // What is served only as a whole is fetched as a whole.
            Placed::Unchecked => self.fetch_indivisible(self.run.span).await?,
        };
        let (order, halved) = (self.order, self.halved);
        Ok(Fetched { span, packed: self.packing.finish().await?, order, halved })
    }

    /// Fetches `span`, halving it where its rows do not hold still. Gives what of it was fetched.
    async fn fetch_divisible(&mut self, mut span: Span) -> Result<Span, RepageError> {
        if halve(span).is_none() {
            return self.fetch_indivisible(span).await;
        }
        let broken = match self.scan_repeatedly(&mut span, SCANS_BEFORE_HALVING, Watch::Order).await? {
            Ok(fetched) => return Ok(fetched),
            Err(broken) => broken,
        };
        telemetry::torn(&self.run.series.account, &broken);
        let can_be_shorter = span.start < self.settled_before(self.now());
        if self.run.planned.is_none() && span.length() > sizing::DAY && self.order == Order::Other && can_be_shorter {
            // Halved, it would be as many calls as it has pages and more, and nobody knows how many these are.
            return Err(RepageError::Oversized);
        }
        self.halved = true;
        self.fetch_in_halves(span).await
    }

    /// Fetches `span` in pieces that fit a page each, or its beginning, if these are many.
    async fn fetch_in_halves(&mut self, span: Span) -> Result<Span, RepageError> {
        let most = self.run.status.borrow().pages + self.stage.settings.bounds.overrun_pages;
        let mut todo: Vec<Span> = halve(span).into_iter().flat_map(|(left, right)| [right, left]).collect();
        while let Some(piece) = todo.pop() {
            if piece.start > span.start && self.run.status.borrow().pages >= most {
                return Ok(span.split_at(piece.start).0);
            }
            // One page cannot tear, and two might again: so a half is fetched only if it fits a page.
            match halve(piece) {
                None => drop(self.fetch_indivisible(piece).await?),
                Some((left, right)) if !self.fetch_as_one_page(piece).await? => todo.extend([right, left]),
                Some(_) => {}
            }
        }
        Ok(span)
    }

    /// Fetches what cannot be halved: a second, or a window that must stay as it is.
    async fn fetch_indivisible(&mut self, mut span: Span) -> Result<Span, RepageError> {
        let scanned = self.scan_repeatedly(&mut span, SCANS_OF_THE_INDIVISIBLE, Watch::Names).await?;
        scanned.map_err(|_| RepageError::Torn(span))
    }

    /// Fetches `span` if it fits a page; says whether it did.
    async fn fetch_as_one_page(&mut self, span: Span) -> Result<bool, RepageError> {
        let begun_at = self.now();
        let mut walk = self.new_walk(span, Watch::Names);
        let page = self.page(self.query_for(span), 0, PAGE_LIMIT).await?;
        match self.take(&mut walk, &page).await? {
            Ok(()) if walk.next_offset().is_none() => self.pack_rest(span, walk, begun_at).await?,
            // Halving goes on until an indivisible piece shows whether that was a freak.
            Ok(()) | Err(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Scans `span` until it is whole, at most `times`. Gives what of it is. `span` becomes shorter as with [`Self::scan`].
    async fn scan_repeatedly(
        &mut self,
        span: &mut Span,
        times: u32,
        watch: Watch,
    ) -> Result<Result<Span, Broken>, RepageError> {
        let mut last = Broken::NothingCame;
        let mut ended_with = None;
        let packed = self.packing.settled_len().await?;
        for _ in 0..times {
            let begun_at = self.now();
            match self.scan(span, watch, begun_at).await? {
                Scanned::Whole(walk) => {
                    self.pack_rest(*span, walk, begun_at).await?;
                    return Ok(Ok(*span));
                }
                Scanned::Part(walk, whole) => {
                    self.pack_rest(whole, walk, begun_at).await?;
                    return Ok(Ok(whole));
                }
                // The same rows once more, and again nothing behind them: so this upstream promises too much.
                Scanned::Ended(walk) if ended_with == Some(walk.len()) => {
                    self.pack_rest(*span, walk, begun_at).await?;
                    return Ok(Ok(*span));
                }
                Scanned::Ended(walk) => {
                    last = Broken::NothingCame;
                    ended_with = Some(walk.len());
                }
                Scanned::Broken(broken) => last = broken,
            }
            // What did not hold is void.
            self.packing.truncate(packed).await?;
        }
        match last {
            // Once may be a freak.
            Broken::OutOfPlace(item) => Err(RepageError::Misplaced(item)),
            Broken::Unplaced => Err(RepageError::Unplaced),
            Broken::NoneIsPlaced => Err(RepageError::NoneIsPlaced),
            last => Ok(Err(last)),
        }
    }

    /// Scans `span` once. It becomes shorter if nothing is known of its density, and it turns out too dense for one run.
    async fn scan(&mut self, span: &mut Span, watch: Watch, begun_at: Moment) -> Result<Scanned, RepageError> {
        let mut walk = self.new_walk(*span, watch);
        let (mut pages, mut failed_cuts) = (0, 0);
        while let Some(offset) = walk.next_offset() {
            match self.overrun(&walk, *span, watch, begun_at, (pages, failed_cuts)) {
                Overrun::Fits => {}
                Overrun::Cut => match self.cut(&walk, *span).await? {
                    Some(whole) => return Ok(Scanned::Part(walk, whole)),
                    None => failed_cuts += 1,
                },
                Overrun::Drop => return Err(RepageError::Oversized),
                Overrun::TooLarge => {
                    let limit = self.stage.settings.bounds.indivisible_bytes as u64;
                    return Err(RepageError::TooLarge { limit });
                }
            }
            let page = self.page(self.query_for(*span), offset, PAGE_LIMIT).await?;
            pages += 1;
            let Err(broken) = self.take(&mut walk, &page).await? else {
                self.on_page(&mut walk, span, watch, begun_at).await?;
                continue;
            };
            if broken == Broken::NothingCame {
                return Ok(Scanned::Ended(walk));
            }
            let is_order = watch == Watch::Order
                && !matches!(broken, Broken::OutOfPlace(_) | Broken::Unplaced | Broken::NoneIsPlaced);
            let divisible = is_order && sizing::may_cut(*span, &walk, self.settled_before(begun_at));
            return Ok(match if divisible { self.cut(&walk, *span).await? } else { None } {
                Some(whole) => Scanned::Part(walk, whole),
                None => Scanned::Broken(broken),
            });
        }
        Ok(Scanned::Whole(walk))
    }

    fn settled_before(&self, begun_at: Moment) -> Moment {
        self.fetched_at(begun_at) - self.stage.settings.window.settle_after
    }

    fn overrun(
        &self,
        walk: &Walk,
        span: Span,
        watch: Watch,
        begun_at: Moment,
        (pages, failed_cuts): (u32, u32),
    ) -> Overrun {
        let planned_pages = self.run.planned.map(|items| items / f64::from(PAGE_LIMIT));
        let size = Size { pages, bytes: walk.held() + self.packing.bytes(), planned_pages, failed_cuts };
        sizing::overrun(size, span, watch, walk, self.settled_before(begun_at), &self.stage.settings.bounds)
    }

    /// Takes in what a page has shown: where the run ends, how much it is going to bring, and what can be packed.
    async fn on_page(
        &mut self,
        walk: &mut Walk,
        span: &mut Span,
        watch: Watch,
        begun_at: Moment,
    ) -> Result<(), RepageError> {
        if watch != Watch::Order || self.run.placed == Placed::Unchecked {
            return Ok(());
        }
        self.order = walk.order();
        if let Some(density) = sizing::density(walk, *span).filter(|_| walk.next_offset().is_some()) {
            if let Some(kept) = self.narrowed(walk, *span, &density, begun_at) {
                *span = kept;
                walk.narrow(self.query_for(kept));
            }
            let (expected, span) = (density.items(*span), *span);
            self.run.status.send_modify(|status| {
                (status.span, status.expected, status.density) = (span, Some(expected), Some(Arc::new(density)));
            });
        }
        let Some((_, line)) = self.line(walk, *span) else { return Ok(()) };
        self.packing.pack_passed(walk, *span, line, self.fetched_at(begun_at)).await
    }

    fn narrowed(&self, walk: &Walk, span: Span, density: &Density, begun_at: Moment) -> Option<Span> {
        let was_planned = self.run.planned.is_some_and(|planned| density.items(span) <= sizing::WRONG_PLAN * planned);
        // It ends once: what is expected of a run that has been made shorter may be wrong too.
        if was_planned || span != self.run.span {
            return None;
        }
        let settings = &self.stage.settings;
        let limiter = settings.limiters.of(&self.run.series.account);
        let lanes = limiter.map_or(1, |limiter| limiter.lanes());
        let slow = limiter.is_some_and(|limiter| limiter.pages_are_slow());
        let (settled, grid) = (self.settled_before(begun_at), Grid::new(settings.window.chunk));
        sizing::narrowed(walk, span, density, settled, &grid, (slow, lanes), &settings.bounds)
    }

    /// Packs what is left of a scan that has proven `span`.
    async fn pack_rest(&mut self, span: Span, walk: Walk, begun_at: Moment) -> Result<(), RepageError> {
        let fetched_at = self.fetched_at(begun_at);
        let before = walk.handed_on();
        let rest = match before {
            before if before.is_empty() => span,
            // It was packed from one end on.
            before if before.start <= span.start => span.split_at(before.end).1,
            before => span.split_at(before.start).0,
        };
        if before.is_empty() || !rest.is_empty() {
            self.packing.pack(RunPart { span: rest, items: walk.into_items(rest), fetched_at }).await?;
        }
        Ok(())
    }
}

/// The two halves of a span, cut at a whole second; `None` if it is too short for that.
fn halve(span: Span) -> Option<(Span, Span)> {
    let middle = (span.start + span.length() / 2).floor_second();
    let (left, right) = span.split_at(middle);
    (!left.is_empty() && !right.is_empty()).then_some((left, right))
}
