//! One run, scanned page by page: what is scanned again, and halved, where its rows move.

use std::sync::Arc;

use tower::Service;

use super::concurrency::RunPermit;
use super::packing::Packing;
use super::proven_duplicates::ProvenDuplicates;
use super::scan::{Inconsistency, OffsetScan, RowOrder, TearDetection};
use super::sizing;
use super::sizing::{Overrun, Size};
use super::{FetchedRun, ItemPacker, PagingError, PagingStage, PlacementCheck, Run, RunPart};
use crate::quota::QuotaError;
use crate::telemetry;
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Density, Grid, Interval, QueryBounds, Timestamp};

/// A scan that broke is tried again once; then the span is halved.
const SCANS_BEFORE_HALVING: u32 = 2;
/// What cannot be halved (a second, or a window that must stay exact) is scanned this often.
const SCANS_OF_THE_INDIVISIBLE: u32 = 5;

/// How a scan ended.
enum Scanned {
    Whole(OffsetScan),
    /// It is whole on one side of a line, which is this; the run ends there.
    Part(OffsetScan, Interval),
    /// More was promised, but nothing came: either rows have gone, or the promise is kept loosely.
    Ended(OffsetScan),
    Inconsistency(Inconsistency),
}

/// Fetches one run.
pub(super) struct Pager<'a, S, P: ItemPacker> {
    pub(super) stage: &'a PagingStage<S>,
    pub(super) run: &'a Run<P>,
    pub(super) permit: Option<RunPermit>,
    packing: Packing<P>,
    order: RowOrder,
    halved: bool,
    pub(super) multiples: ProvenDuplicates,
}

impl<'a, S, P: ItemPacker> Pager<'a, S, P> {
    pub(super) fn new(stage: &'a PagingStage<S>, run: &'a Run<P>, permit: Option<RunPermit>) -> Self {
        let packing = Packing::new(run.packer.clone(), stage.settings.window.chunk);
        Self {
            stage,
            run,
            permit,
            packing,
            order: RowOrder::Unknown,
            halved: false,
            multiples: ProvenDuplicates::default(),
        }
    }
}

impl<S, P> Pager<'_, S, P>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
    P: ItemPacker,
{
    pub(super) fn query_for(&self, interval: Interval) -> QueryBounds {
        self.stage.settings.window.upper_bound.query_for(interval)
    }

    fn new_walk(&self, interval: Interval, watch: TearDetection) -> OffsetScan {
        let field = self.stage.settings.window.field.clone();
        let mut walk = OffsetScan::new(self.query_for(interval), field, self.run.placed, watch);
        self.multiples.allow_in(&mut walk);
        walk
    }

    fn now(&self) -> Timestamp {
        self.stage.settings.clock.now()
    }

    /// When what a scan has brought was fetched, if the clock said `begun_at` when the scan began. A clock that has gone
    /// wrong since then, or that the upstream does not agree with, must not let settle what is still open.
    fn fetched_at(&self, begun_at: Timestamp) -> Timestamp {
        begun_at.min(self.now()) - self.stage.settings.clock.ahead()
    }

    /// Fetches the run, or one end of it if it turns out too large.
    pub(super) async fn fetch(mut self) -> Result<FetchedRun<P::Packed>, PagingError> {
        let interval = match self.run.placed {
            PlacementCheck::Checked => self.fetch_divisible(self.run.interval).await?,
            // What is served only as a whole is fetched as a whole.
            PlacementCheck::Unchecked => self.fetch_indivisible(self.run.interval).await?,
        };
        let (order, halved) = (self.order, self.halved);
        Ok(FetchedRun { interval, packed: self.packing.finish().await?, order, halved })
    }

    /// Fetches `interval`, halving it where its rows do not hold still. Gives what of it was fetched.
    async fn fetch_divisible(&mut self, mut interval: Interval) -> Result<Interval, PagingError> {
        if halve(interval).is_none() {
            return self.fetch_indivisible(interval).await;
        }
        let broken = match self.scan_repeatedly(&mut interval, SCANS_BEFORE_HALVING, TearDetection::RowOrder).await? {
            Ok(fetched) => return Ok(fetched),
            Err(broken) => broken,
        };
        telemetry::run_torn(&self.run.series.account, &broken);
        let can_be_shorter = interval.start < self.settled_before(self.now());
        if self.run.planned.is_none()
            && interval.length() > sizing::DAY
            && self.order == RowOrder::Other
            && can_be_shorter
        {
            // Halved, it would be as many calls as it has pages and more, and nobody knows how many these are.
            return Err(PagingError::Oversized);
        }
        self.halved = true;
        self.fetch_in_halves(interval).await
    }

    /// Fetches `interval` in pieces that fit a page each, or its beginning, if these are many.
    async fn fetch_in_halves(&mut self, interval: Interval) -> Result<Interval, PagingError> {
        let most = self.run.status.borrow().pages + self.stage.settings.bounds.overrun_pages;
        let mut todo: Vec<Interval> = halve(interval).into_iter().flat_map(|(left, right)| [right, left]).collect();
        while let Some(piece) = todo.pop() {
            if piece.start > interval.start && self.run.status.borrow().pages >= most {
                return Ok(interval.split_at(piece.start).0);
            }
            // One page cannot tear, and two might again: so a half is fetched only if it fits a page.
            match halve(piece) {
                None => drop(self.fetch_indivisible(piece).await?),
                Some((left, right)) if !self.fetch_as_one_page(piece).await? => todo.extend([right, left]),
                Some(_) => {}
            }
        }
        Ok(interval)
    }

    /// Fetches what cannot be halved: a second, or a window that must stay as it is.
    async fn fetch_indivisible(&mut self, mut interval: Interval) -> Result<Interval, PagingError> {
        let scanned = self.scan_repeatedly(&mut interval, SCANS_OF_THE_INDIVISIBLE, TearDetection::Names).await?;
        scanned.map_err(|_| PagingError::Torn(interval))
    }

    /// Fetches `interval` if it fits a page; says whether it did.
    async fn fetch_as_one_page(&mut self, interval: Interval) -> Result<bool, PagingError> {
        let begun_at = self.now();
        let mut walk = self.new_walk(interval, TearDetection::Names);
        let page = self.page(self.query_for(interval), 0, PAGE_LIMIT).await?;
        match self.take(&mut walk, &page).await? {
            Ok(()) if walk.next_offset().is_none() => self.pack_rest(interval, walk, begun_at).await?,
            // Halving goes on until an indivisible piece shows whether that was a freak.
            Ok(()) | Err(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Scans `interval` until it is whole, at most `times`. Gives what of it is. `interval` becomes shorter as with [`Self::scan`].
    async fn scan_repeatedly(
        &mut self,
        interval: &mut Interval,
        times: u32,
        watch: TearDetection,
    ) -> Result<Result<Interval, Inconsistency>, PagingError> {
        let mut last = Inconsistency::NothingCame;
        let mut ended_with = None;
        let packed = self.packing.settled_len().await?;
        for _ in 0..times {
            let begun_at = self.now();
            match self.scan(interval, watch, begun_at).await? {
                Scanned::Whole(walk) => {
                    self.pack_rest(*interval, walk, begun_at).await?;
                    return Ok(Ok(*interval));
                }
                Scanned::Part(walk, whole) => {
                    self.pack_rest(whole, walk, begun_at).await?;
                    return Ok(Ok(whole));
                }
                // The same rows once more, and again nothing behind them: so this upstream promises too much.
                Scanned::Ended(walk) if ended_with == Some(walk.len()) => {
                    self.pack_rest(*interval, walk, begun_at).await?;
                    return Ok(Ok(*interval));
                }
                Scanned::Ended(walk) => {
                    last = Inconsistency::NothingCame;
                    ended_with = Some(walk.len());
                }
                Scanned::Inconsistency(broken) => last = broken,
            }
            // What did not hold is void.
            self.packing.truncate(packed).await?;
        }
        match last {
            // Once may be a freak.
            Inconsistency::OutOfPlace(item) => Err(PagingError::MisplacedItem(item)),
            Inconsistency::Unplaced => Err(PagingError::Unplaced),
            Inconsistency::NoneIsPlaced => Err(PagingError::NoneIsPlaced),
            last => Ok(Err(last)),
        }
    }

    /// Scans `interval` once. It becomes shorter if nothing is known of its density, and it turns out too dense for one run.
    async fn scan(
        &mut self,
        interval: &mut Interval,
        watch: TearDetection,
        begun_at: Timestamp,
    ) -> Result<Scanned, PagingError> {
        let mut walk = self.new_walk(*interval, watch);
        let (mut pages, mut failed_cuts) = (0, 0);
        while let Some(offset) = walk.next_offset() {
            match self.overrun(&walk, *interval, watch, begun_at, (pages, failed_cuts)) {
                Overrun::Fits => {}
                Overrun::Cut => match self.cut(&walk, *interval).await? {
                    Some(whole) => return Ok(Scanned::Part(walk, whole)),
                    None => failed_cuts += 1,
                },
                Overrun::Drop => return Err(PagingError::Oversized),
                Overrun::TooLarge => {
                    let limit = self.stage.settings.bounds.indivisible_bytes as u64;
                    return Err(PagingError::TooLarge { limit });
                }
            }
            let page = self.page(self.query_for(*interval), offset, PAGE_LIMIT).await?;
            pages += 1;
            let Err(broken) = self.take(&mut walk, &page).await? else {
                self.on_page(&mut walk, interval, watch, begun_at).await?;
                continue;
            };
            if broken == Inconsistency::NothingCame {
                return Ok(Scanned::Ended(walk));
            }
            let is_order = watch == TearDetection::RowOrder
                && !matches!(
                    broken,
                    Inconsistency::OutOfPlace(_) | Inconsistency::Unplaced | Inconsistency::NoneIsPlaced
                );
            let divisible = is_order && sizing::may_cut(*interval, &walk, self.settled_before(begun_at));
            return Ok(match if divisible { self.cut(&walk, *interval).await? } else { None } {
                Some(whole) => Scanned::Part(walk, whole),
                None => Scanned::Inconsistency(broken),
            });
        }
        Ok(Scanned::Whole(walk))
    }

    fn settled_before(&self, begun_at: Timestamp) -> Timestamp {
        self.fetched_at(begun_at) - self.stage.settings.window.settle_after
    }

    fn overrun(
        &self,
        walk: &OffsetScan,
        interval: Interval,
        watch: TearDetection,
        begun_at: Timestamp,
        (pages, failed_cuts): (u32, u32),
    ) -> Overrun {
        let planned_pages = self.run.planned.map(|items| items / f64::from(PAGE_LIMIT));
        let size = Size { pages, bytes: walk.held() + self.packing.bytes(), planned_pages, failed_cuts };
        sizing::overrun(size, interval, watch, walk, self.settled_before(begun_at), &self.stage.settings.bounds)
    }

    /// Takes in what a page has shown: where the run ends, how much it is going to bring, and what can be packed.
    async fn on_page(
        &mut self,
        walk: &mut OffsetScan,
        interval: &mut Interval,
        watch: TearDetection,
        begun_at: Timestamp,
    ) -> Result<(), PagingError> {
        if watch != TearDetection::RowOrder || self.run.placed == PlacementCheck::Unchecked {
            return Ok(());
        }
        self.order = walk.order();
        if let Some(density) = sizing::density(walk, *interval).filter(|_| walk.next_offset().is_some()) {
            if let Some(kept) = self.narrowed(walk, *interval, &density, begun_at) {
                *interval = kept;
                walk.narrow(self.query_for(kept));
            }
            let (expected, interval) = (density.items(*interval), *interval);
            self.run.status.send_modify(|status| {
                (status.interval, status.expected, status.density) =
                    (interval, Some(expected), Some(Arc::new(density)));
            });
        }
        let Some((_, line)) = self.line(walk, *interval) else { return Ok(()) };
        self.packing.pack_passed(walk, *interval, line, self.fetched_at(begun_at)).await
    }

    fn narrowed(
        &self,
        walk: &OffsetScan,
        interval: Interval,
        density: &Density,
        begun_at: Timestamp,
    ) -> Option<Interval> {
        let was_planned =
            self.run.planned.is_some_and(|planned| density.items(interval) <= sizing::WRONG_PLAN * planned);
        // It ends once: what is expected of a run that has been made shorter may be wrong too.
        if was_planned || interval != self.run.interval {
            return None;
        }
        let settings = &self.stage.settings;
        let limiter = settings.limiters.of(&self.run.series.account);
        let lanes = limiter.map_or(1, |limiter| limiter.lanes());
        let slow = limiter.is_some_and(|limiter| limiter.pages_are_slow());
        let (settled, grid) = (self.settled_before(begun_at), Grid::new(settings.window.chunk));
        sizing::narrowed(walk, interval, density, settled, &grid, (slow, lanes), &settings.bounds)
    }

    /// Packs what is left of a scan that has proven `interval`.
    async fn pack_rest(
        &mut self,
        interval: Interval,
        walk: OffsetScan,
        begun_at: Timestamp,
    ) -> Result<(), PagingError> {
        let fetched_at = self.fetched_at(begun_at);
        let before = walk.handed_on();
        let rest = match before {
            before if before.is_empty() => interval,
            // It was packed from one end on.
            before if before.start <= interval.start => interval.split_at(before.end).1,
            before => interval.split_at(before.start).0,
        };
        if before.is_empty() || !rest.is_empty() {
            self.packing.pack(RunPart { interval: rest, items: walk.into_items(rest), fetched_at }).await?;
        }
        Ok(())
    }
}

/// The two halves of a span, cut at a whole second; `None` if it is too short for that.
fn halve(interval: Interval) -> Option<(Interval, Interval)> {
    let middle = (interval.start + interval.length() / 2).floor_second();
    let (left, right) = interval.split_at(middle);
    (!left.is_empty() && !right.is_empty()).then_some((left, right))
}
