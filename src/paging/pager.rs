//! Fetches one run by scans. Where rows move during a scan (a torn scan), its pages are fetched again, and then the
//! interval is halved.

use std::sync::Arc;

use tower::Service;

use super::concurrency::RunPermit;
use super::error::PagingError;
use super::layer::PagingLayer;
use super::packing::Packing;
use super::proven_duplicates::ProvenDuplicates;
use super::run::{FetchedRun, ItemPacker, Run, RunPart};
use super::scan::{Inconsistency, OffsetScan, PlacementCheck, RowOrder, TearDetection};
use super::sizing;
use super::sizing::{Overrun, Size};
use crate::config::WindowSettings;
use crate::quota::QuotaError;
use crate::telemetry;
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{Density, Grid, Interval, QueryBounds, Timestamp};

/// Attempts at a divisible interval before it is halved.
const SCANS_BEFORE_HALVING: u32 = 2;
/// Attempts at an indivisible interval (one second, or a window that must stay whole).
const SCANS_OF_THE_INDIVISIBLE: u32 = 5;

/// Result of a scan.
enum Scanned {
    Whole(OffsetScan),
    /// Complete on one side of a line, which is this interval; the run ends there.
    Part(OffsetScan, Interval),
    /// The last page promised more rows, and the next was empty: rows were deleted, or `hasMore` is not exact.
    Ended(OffsetScan),
    Inconsistency(Inconsistency),
}

/// Fetches one run.
pub(super) struct Pager<'a, S, P: ItemPacker> {
    pub(super) settings: &'a PagingLayer,
    /// The settings of the run's series.
    pub(super) window: Arc<WindowSettings>,
    pub(super) below: &'a S,
    pub(super) run: &'a Run<P>,
    pub(super) permit: Option<RunPermit>,
    packing: Packing<P>,
    order: RowOrder,
    halved: bool,
    pub(super) duplicates: ProvenDuplicates,
}

impl<'a, S, P: ItemPacker> Pager<'a, S, P> {
    pub(super) fn new(settings: &'a PagingLayer, below: &'a S, run: &'a Run<P>, permit: Option<RunPermit>) -> Self {
        let packing = Packing::new(run.packer.clone(), settings.series_settings.chunk());
        Self {
            settings,
            window: settings.series_settings.for_series(&run.series.account, &run.series.stream),
            below,
            run,
            permit,
            packing,
            order: RowOrder::Unknown,
            halved: false,
            duplicates: ProvenDuplicates::default(),
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
        self.window.upper_bound.query_for(interval)
    }

    fn new_scan(&self, interval: Interval, watch: TearDetection) -> OffsetScan {
        let field = self.window.field.clone();
        let mut scan = OffsetScan::new(self.query_for(interval), field, self.run.placement, watch);
        self.duplicates.allow_in(&mut scan);
        scan
    }

    fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    /// When the items of a scan were fetched, if the clock read `begun_at` at its beginning. A clock that was wrong, or
    /// that the upstream's `Date` contradicts, must not make open data settled.
    fn fetched_at(&self, begun_at: Timestamp) -> Timestamp {
        begun_at.min(self.now()) - self.settings.clock.ahead()
    }

    /// Fetches the run, or one end of it if it turns out too large.
    pub(super) async fn fetch(mut self) -> Result<FetchedRun<P::Packed>, PagingError> {
        let interval = match self.run.placement {
            PlacementCheck::Checked => self.fetch_divisible(self.run.interval).await?,
            // Exact windows are fetched as a whole.
            PlacementCheck::Unchecked => self.fetch_indivisible(self.run.interval).await?,
        };
        let (order, halved) = (self.order, self.halved);
        Ok(FetchedRun { interval, packed: self.packing.finish().await?, order, halved })
    }

    /// Fetches `interval`, halving it where its rows move. Returns the interval that was fetched.
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
            // Halving would cost at least as many calls as the interval has pages, and their number is unknown.
            return Err(PagingError::Oversized);
        }
        self.halved = true;
        self.fetch_in_halves(interval).await
    }

    /// Fetches `interval` in pieces of one page each, or only its beginning if there are many.
    async fn fetch_in_halves(&mut self, interval: Interval) -> Result<Interval, PagingError> {
        let most = self.run.status.borrow().pages + self.settings.bounds.overrun_pages;
        let mut todo: Vec<Interval> = halve(interval).into_iter().flat_map(|(left, right)| [right, left]).collect();
        while let Some(piece) = todo.pop() {
            if piece.start > interval.start && self.run.status.borrow().pages >= most {
                return Ok(interval.split_at(piece.start).0);
            }
            // A single page cannot tear, and two pages might again: a half is fetched only if it fits one page.
            match halve(piece) {
                None => drop(self.fetch_indivisible(piece).await?),
                Some((left, right)) if !self.fetch_as_one_page(piece).await? => todo.extend([right, left]),
                Some(_) => {}
            }
        }
        Ok(interval)
    }

    /// Fetches an interval that cannot be halved: a second, or a window that must stay whole.
    async fn fetch_indivisible(&mut self, mut interval: Interval) -> Result<Interval, PagingError> {
        let scanned =
            self.scan_repeatedly(&mut interval, SCANS_OF_THE_INDIVISIBLE, TearDetection::DuplicateIds).await?;
        scanned.map_err(|_| PagingError::Torn(interval))
    }

    /// Fetches `interval` if it fits one page; returns whether it did.
    async fn fetch_as_one_page(&mut self, interval: Interval) -> Result<bool, PagingError> {
        let begun_at = self.now();
        let mut scan = self.new_scan(interval, TearDetection::DuplicateIds);
        let page = self.page(self.query_for(interval), 0, PAGE_LIMIT).await?;
        match self.take(&mut scan, &page).await? {
            Ok(()) if scan.next_offset().is_none() => self.pack_rest(interval, scan, begun_at).await?,
            // Halving continues until an indivisible piece shows whether that was an exception.
            Ok(()) | Err(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Scans `interval` until a scan is complete, at most `times`. Returns the complete interval. `interval` becomes
    /// shorter as in [`Self::scan`].
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
                Scanned::Whole(scan) => {
                    self.pack_rest(*interval, scan, begun_at).await?;
                    return Ok(Ok(*interval));
                }
                Scanned::Part(scan, whole) => {
                    self.pack_rest(whole, scan, begun_at).await?;
                    return Ok(Ok(whole));
                }
                // The same rows again, with nothing after them: this upstream's `hasMore` is not exact.
                Scanned::Ended(scan) if ended_with == Some(scan.len()) => {
                    self.pack_rest(*interval, scan, begun_at).await?;
                    return Ok(Ok(*interval));
                }
                Scanned::Ended(scan) => {
                    last = Inconsistency::NothingCame;
                    ended_with = Some(scan.len());
                }
                Scanned::Inconsistency(broken) => last = broken,
            }
            // Discards what was packed from the failed scan.
            self.packing.truncate(packed).await?;
        }
        match last {
            // A single failure may be an exception.
            Inconsistency::OutsideInterval(item) => Err(PagingError::OutsideInterval(item)),
            Inconsistency::WithoutTimestamp => Err(PagingError::WithoutTimestamp),
            Inconsistency::AllWithoutTimestamp => Err(PagingError::AllWithoutTimestamp),
            last => Ok(Err(last)),
        }
    }

    /// Scans `interval` once. Shortens it if its density is unknown and it turns out too dense for one run.
    async fn scan(
        &mut self,
        interval: &mut Interval,
        watch: TearDetection,
        begun_at: Timestamp,
    ) -> Result<Scanned, PagingError> {
        let mut scan = self.new_scan(*interval, watch);
        let (mut pages, mut failed_proofs) = (0, 0);
        while let Some(offset) = scan.next_offset() {
            match self.overrun(&scan, *interval, watch, begun_at, (pages, failed_proofs)) {
                Overrun::Fits => {}
                Overrun::EndEarly => match self.end_early(&scan, *interval).await? {
                    Some(whole) => return Ok(Scanned::Part(scan, whole)),
                    None => failed_proofs += 1,
                },
                Overrun::Drop => return Err(PagingError::Oversized),
                Overrun::TooLarge => {
                    let limit = self.settings.bounds.indivisible_bytes as u64;
                    return Err(PagingError::TooLarge { limit });
                }
            }
            let page = self.page(self.query_for(*interval), offset, PAGE_LIMIT).await?;
            pages += 1;
            let Err(broken) = self.take(&mut scan, &page).await? else {
                self.on_page(&mut scan, interval, watch, begun_at).await?;
                continue;
            };
            if broken == Inconsistency::NothingCame {
                return Ok(Scanned::Ended(scan));
            }
            let is_order = watch == TearDetection::RowOrder
                && !matches!(
                    broken,
                    Inconsistency::OutsideInterval(_)
                        | Inconsistency::WithoutTimestamp
                        | Inconsistency::AllWithoutTimestamp
                );
            let divisible = is_order && sizing::may_end_early(*interval, &scan, self.settled_before(begun_at));
            return Ok(match if divisible { self.end_early(&scan, *interval).await? } else { None } {
                Some(whole) => Scanned::Part(scan, whole),
                None => Scanned::Inconsistency(broken),
            });
        }
        Ok(Scanned::Whole(scan))
    }

    fn settled_before(&self, begun_at: Timestamp) -> Timestamp {
        self.fetched_at(begun_at) - self.window.settle_after
    }

    fn overrun(
        &self,
        scan: &OffsetScan,
        interval: Interval,
        watch: TearDetection,
        begun_at: Timestamp,
        (pages, failed_proofs): (u32, u32),
    ) -> Overrun {
        let planned_pages = self.run.planned.map(|items| items / f64::from(PAGE_LIMIT));
        let size = Size { pages, bytes: scan.unpacked_bytes() + self.packing.bytes(), planned_pages, failed_proofs };
        sizing::overrun(size, interval, watch, scan, self.settled_before(begun_at), &self.settings.bounds)
    }

    /// Processes a page: sets the end of the run, publishes the expected size, and packs what is complete.
    async fn on_page(
        &mut self,
        scan: &mut OffsetScan,
        interval: &mut Interval,
        watch: TearDetection,
        begun_at: Timestamp,
    ) -> Result<(), PagingError> {
        if watch != TearDetection::RowOrder || self.run.placement == PlacementCheck::Unchecked {
            return Ok(());
        }
        self.order = scan.order();
        if let Some(density) = sizing::density(scan, *interval).filter(|_| scan.next_offset().is_some()) {
            if let Some(kept) = self.narrowed(scan, *interval, &density, begun_at) {
                *interval = kept;
                scan.narrow(self.query_for(kept));
            }
            let (expected, interval) = (density.items(*interval), *interval);
            self.run.status.send_modify(|status| {
                (status.interval, status.expected, status.density) =
                    (interval, Some(expected), Some(Arc::new(density)));
            });
        }
        let Some((_, line)) = self.line(scan, *interval) else { return Ok(()) };
        self.packing.pack_passed(scan, *interval, line, self.fetched_at(begun_at)).await
    }

    fn narrowed(
        &self,
        scan: &OffsetScan,
        interval: Interval,
        density: &Density,
        begun_at: Timestamp,
    ) -> Option<Interval> {
        let was_planned =
            self.run.planned.is_some_and(|planned| density.items(interval) <= sizing::WRONG_PLAN * planned);
        // A run is shortened once: the estimate of a shortened run may be wrong too.
        if was_planned || interval != self.run.interval {
            return None;
        }
        let settings = self.settings;
        let limiter = settings.limiters.of(&self.run.series.account);
        let parallel_runs = limiter.as_ref().map_or(1, |limiter| limiter.max_parallel_runs());
        let slow = limiter.is_some_and(|limiter| limiter.pages_are_slow());
        let (settled, grid) = (self.settled_before(begun_at), Grid::new(settings.series_settings.chunk()));
        sizing::narrowed(scan, interval, density, settled, &grid, (slow, parallel_runs), &settings.bounds)
    }

    /// Packs the rest of a scan that has verified `interval`.
    async fn pack_rest(
        &mut self,
        interval: Interval,
        scan: OffsetScan,
        begun_at: Timestamp,
    ) -> Result<(), PagingError> {
        let fetched_at = self.fetched_at(begun_at);
        let before = scan.handed_over();
        let rest = match before {
            before if before.is_empty() => interval,
            // The packed part lies at one end.
            before if before.start <= interval.start => interval.split_at(before.end).1,
            before => interval.split_at(before.start).0,
        };
        if before.is_empty() || !rest.is_empty() {
            self.packing.pack(RunPart { interval: rest, items: scan.into_items(rest), fetched_at }).await?;
        }
        Ok(())
    }
}

/// The two halves of an interval, divided at a whole second; `None` if it is too short.
fn halve(interval: Interval) -> Option<(Interval, Interval)> {
    let middle = (interval.start + interval.length() / 2).floor_second();
    let (left, right) = interval.split_at(middle);
    (!left.is_empty() && !right.is_empty()).then_some((left, right))
}
