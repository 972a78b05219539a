//! Brings what is missing: runs are begun here, cut into chunks as they come, and put on their shelf.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::CacheError;
use super::chunk::{Chunk, Settled};
use super::fields::WindowFields;
use super::flight::{Flight, Progress};
use super::memory::Memory;
use super::outcome::NotStored;
use super::shelf::{ByRichness, Copy, Gathering, SharedShelf, Shelf, Shelves};
use crate::clock::Clock;
use crate::repage::{Delivery, Item, Placed, RepageError, Run, Stretch};
use crate::telemetry;
use crate::upstream::Series;
use crate::window::{Grid, Ladder, Span, SpanSet};

/// How long missing spans are gathered before they are fetched. Short against any upstream call, long against the time
/// in which callers who were woken by the same clock arrive.
const GATHER: Duration = Duration::from_millis(10);
/// The bytes of items that one chunk holds at most, unless they all lie in one second.
const CHUNK_TEXT: usize = 1 << 20;
/// So many chunks are stored between two looks at what has gone from memory.
const STORED_BETWEEN_SWEEPS: u64 = 4096;

/// The stages below.
pub(super) type Below = BoxCloneSyncService<Run, (), RepageError>;

/// Begins flights and stores what they bring.
pub(super) struct Fetcher {
    pub(super) below: Below,
    pub(super) memory: Memory,
    pub(super) shelves: Shelves,
    pub(super) ladder: Ladder,
    pub(super) grid: Grid,
    pub(super) clock: Clock,
    pub(super) fields: WindowFields,
    pub(super) stored: AtomicU64,
}

/// What one flight needs to know of its series.
#[derive(Clone)]
struct Errand {
    series: Arc<Series>,
    shelf: SharedShelf,
    flight: Arc<Flight>,
}

impl Fetcher {
    /// Adds spans to what is being gathered for a series. What is returned closes when their flights have begun.
    ///
    /// The caller holds the shelf's lock since it found the spans missing, and no flight is on its way to them.
    pub(super) fn gather(
        self: &Arc<Self>,
        series: &Arc<Series>,
        of: &SharedShelf,
        shelf: &mut Shelf,
        missing: &SpanSet,
    ) -> watch::Receiver<()> {
        let gathering = shelf.gathering.get_or_insert_with(|| {
            let (begin, begun) = watch::channel(());
            let (fetcher, series, shelf) = (self.clone(), series.clone(), of.clone());
            tokio::spawn(async move {
                tokio::time::sleep(GATHER).await;
                fetcher.begin_gathered(&series, &shelf);
                drop(begin);
            });
            Gathering { wanted: ByRichness::default(), begun }
        });
        let wanted = gathering.wanted.of(series.rich);
        missing.spans().iter().for_each(|span| wanted.insert(*span));
        gathering.begun.clone()
    }

    /// Begins a flight for each run of what was gathered.
    fn begin_gathered(self: &Arc<Self>, series: &Arc<Series>, of: &SharedShelf) {
        let now = self.clock.now();
        let mut shelf = of.lock();
        let Some(Gathering { mut wanted, .. }) = shelf.gathering.take() else { return };
        // What is fetched with richness serves those who want none as well.
        wanted.rich.spans().iter().for_each(|span| wanted.plain.remove(*span));
        let rich = wanted.rich.spans().iter().map(|span| (*span, true));
        let runs = rich.chain(wanted.plain.spans().iter().map(|span| (*span, false)));
        let mut flights: Vec<_> = runs
            .map(|(span, rich)| {
                let (flight, tell) = Flight::begin(span, rich, Placed::Checked, now);
                shelf.flights.push(flight.clone());
                let series = Arc::new(Series { rich, ..Series::clone(series) });
                (Errand { series, shelf: of.clone(), flight }, tell)
            })
            .collect();
        drop(shelf);
        flights.sort_by_key(|(errand, _)| errand.flight.span.length());
        tokio::spawn(self.clone().fly_together(flights));
    }

    /// Flies one run ahead of the others until the upstream has answered it with a page: if it refuses that one, the
    /// others need not ask.
    async fn fly_together(self: Arc<Self>, flights: Vec<(Errand, watch::Sender<Progress>)>) {
        let mut flights = flights.into_iter();
        let Some((first, tell)) = flights.next() else { return };
        let (begin, begun) = oneshot::channel();
        let first = tokio::spawn(self.clone().fly(first, tell, Some(begin)));
        let refused = match begun.await {
            Ok(()) => None,
            Err(_) => first.await.unwrap_or(Err(CacheError::Lost)).err(),
        };
        for (errand, tell) in flights {
            match &refused {
                Some(error @ CacheError::Repage(RepageError::Quota(_) | RepageError::NoPlace(_))) => {
                    self.land(&errand, &tell, Err(error.clone()));
                }
                _ => drop(tokio::spawn(self.clone().fly(errand, tell, None))),
            }
        }
    }

    /// Begins a flight for exactly one window. The caller holds the shelf's lock.
    pub(super) fn begin_exactly(
        self: &Arc<Self>,
        series: &Arc<Series>,
        of: &SharedShelf,
        shelf: &mut Shelf,
        span: Span,
    ) -> Arc<Flight> {
        let (flight, tell) = Flight::begin(span, series.rich, Placed::Unchecked, self.clock.now());
        shelf.flights.push(flight.clone());
        let errand = Errand { series: series.clone(), shelf: of.clone(), flight: flight.clone() };
        tokio::spawn(self.clone().fly(errand, tell, None));
        flight
    }

    /// Flies one run to its end. `begin` is told when the upstream has answered with a first page.
    async fn fly(
        self: Arc<Self>,
        errand: Errand,
        tell: watch::Sender<Progress>,
        mut begin: Option<oneshot::Sender<()>>,
    ) -> Result<(), CacheError> {
        let (deliver, mut deliveries) = mpsc::unbounded_channel();
        let (series, flight) = (errand.series.clone(), &errand.flight);
        let run = Run { series, span: flight.span, placed: flight.placed, spent: flight.spent.clone(), deliver };
        let run = tokio::spawn(self.below.clone().oneshot(run));
        let mut chunks = Ok(Vec::new());
        while let Some(delivery) = deliveries.recv().await {
            match delivery {
                Delivery::Begun => drop(begin.take().map(|begin| begin.send(()))),
                Delivery::Stretch(stretch) => match (self.clone().store(errand.clone(), stretch).await, &mut chunks) {
                    (Ok(stored), Ok(chunks)) => chunks.extend(stored),
                    (Err(error), _) => chunks = Err(error),
                    (Ok(_), Err(_)) => {}
                },
                Delivery::Held(held) => drop(tell.send(Progress::Held(Instant::now() + held.retry_after))),
                Delivery::Resumed => drop(tell.send(Progress::Flying)),
            }
        }
        let ended = run.await.map_or(Err(CacheError::Lost), |result| result.map_err(CacheError::Repage));
        let result = ended.and(chunks);
        let told = result.as_ref().map(drop).map_err(Clone::clone);
        self.land(&errand, &tell, result);
        told
    }

    /// Takes a flight off the shelf and tells those who wait.
    fn land(&self, errand: &Errand, tell: &watch::Sender<Progress>, result: Result<Vec<Arc<Chunk>>, CacheError>) {
        if let Err(error) = &result {
            let account = &errand.series.account;
            telemetry::run_failed(account, error);
            telemetry::not_stored(not_stored(error).label());
            let wrong_field = matches!(error, CacheError::Repage(RepageError::WindowField));
            if wrong_field && self.fields.found_wrong(account) {
                // What was cut by a wrong timestamp is worth nothing.
                self.shelves.clear(account, &self.memory);
            }
        }
        errand.shelf.lock().flights.retain(|flight| !Arc::ptr_eq(flight, &errand.flight));
        self.shelves.tidy(&errand.series, &errand.shelf);
        let _ = tell.send(Progress::Landed(result.map(Arc::from)));
    }

    /// Cuts a stretch into chunks and keeps those that are worth it.
    async fn store(self: Arc<Self>, errand: Errand, stretch: Stretch) -> Result<Vec<Arc<Chunk>>, CacheError> {
        let fetcher = self.clone();
        let placed = errand.flight.placed;
        // Deflating megabytes would hold up every other request of this thread.
        let cut = tokio::task::spawn_blocking(move || match placed {
            Placed::Checked => fetcher.cut(&stretch),
            Placed::Unchecked => vec![whole(&stretch)],
        });
        let chunks = cut.await.map_err(|_| CacheError::Lost)?;
        let mut shelf = errand.shelf.lock();
        for chunk in chunks.iter().chain(&self.nothing_ahead(&errand)) {
            if self.put(&errand, &mut shelf, chunk).is_err_and(|why| {
                telemetry::not_stored(why.label());
                true
            }) {
                continue;
            }
            if self.stored.fetch_add(1, Ordering::Relaxed) % STORED_BETWEEN_SWEEPS == STORED_BETWEEN_SWEEPS - 1 {
                let fetcher = self.clone();
                drop(tokio::task::spawn_blocking(move || fetcher.shelves.sweep(&fetcher.memory)));
            }
        }
        Ok(chunks)
    }

    /// What a run that reached up to now has learnt besides: that nothing lay ahead. So one who asks a moment later, up
    /// to a now that is a moment later, need not ask for that moment before the ladder says so.
    fn nothing_ahead(&self, errand: &Errand) -> Option<Arc<Chunk>> {
        let flight = &errand.flight;
        let ahead = self.ladder.ahead_of(flight.span.end);
        let is_news = flight.placed == Placed::Checked && ahead.contains(flight.began_at);
        is_news.then(|| Arc::new(Chunk::new(ahead, ahead.start, Settled::No, &[])))
    }

    fn put(&self, errand: &Errand, shelf: &mut Shelf, chunk: &Arc<Chunk>) -> Result<(), NotStored> {
        let (span, fetched_at) = (chunk.span(), chunk.fetched_at());
        let exact = errand.flight.placed == Placed::Unchecked;
        let settled = span.end <= self.ladder.settled_before(fetched_at);
        // An open window that cannot be cut is cut at now, and now never comes again.
        if !settled && (exact || !self.ladder.worth_keeping(span, fetched_at)) {
            return Err(NotStored::AlwaysAskedAfresh);
        }
        let copy = Copy { id: self.memory.keep(chunk.clone()), chunk: span, fetched_at };
        if exact {
            shelf.exact.insert((span, errand.flight.rich), copy);
        } else if !shelf.put(errand.flight.rich, copy, &self.memory) {
            self.memory.drop_chunk(copy.id);
            return Err(NotStored::Outdated);
        }
        Ok(())
    }

    fn cut(&self, stretch: &Stretch) -> Vec<Arc<Chunk>> {
        let (settled, open) = stretch.span.split_at(self.ladder.settled_before(stretch.fetched_at));
        [(settled, Settled::Yes), (open, Settled::No)]
            .into_iter()
            .flat_map(|(span, settled)| {
                let pieces = self.grid.cut(span, |piece| text_len(items_within(&stretch.items, piece)) <= CHUNK_TEXT);
                pieces.into_iter().map(move |piece| (piece, settled))
            })
            .map(|(piece, settled)| {
                Arc::new(Chunk::new(piece, stretch.fetched_at, settled, items_within(&stretch.items, piece)))
            })
            .collect()
    }
}

fn whole(stretch: &Stretch) -> Arc<Chunk> {
    Arc::new(Chunk::new(stretch.span, stretch.fetched_at, Settled::Yes, &stretch.items))
}

fn items_within(items: &[Item], span: Span) -> &[Item] {
    let start = items.partition_point(|item| item.at < span.start);
    let end = items.partition_point(|item| item.at < span.end);
    &items[start..end]
}

fn text_len(items: &[Item]) -> usize {
    items.iter().map(|item| item.json.len()).sum()
}

fn not_stored(error: &CacheError) -> NotStored {
    use crate::quota::QuotaError;
    match error {
        CacheError::Held(_)
        | CacheError::Repage(RepageError::Quota(QuotaError::Exhausted(_)) | RepageError::NoPlace(_)) => {
            NotStored::QuotaSpent
        }
        CacheError::Repage(RepageError::Quota(QuotaError::Token(_))) => NotStored::UpstreamFailed,
        CacheError::Repage(RepageError::Torn) | CacheError::Restless => NotStored::RowsMoved,
        CacheError::Repage(RepageError::WindowField) => NotStored::WrongWindowField,
        CacheError::Repage(RepageError::Unplaced) => NotStored::NoTimestamp,
        CacheError::Lost | CacheError::Damaged(_) => NotStored::Lost,
    }
}
