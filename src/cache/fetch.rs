//! Brings what is missing: runs are begun here, and flown to their end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::CacheError;
use super::chunk::Chunk;
use super::fields::WindowFields;
use super::flight::{Flight, Progress};
use super::memory::Memory;
use super::outcome::NotStored;
use super::purge::Purges;
use super::relay::Relay;
use super::runs::{Cause, gathered};
use super::seat::Seat;
use super::shelf::{Gathering, SharedShelf, Shelf, Shelves, Want};
use super::sight::Verdict;
use super::tier::Tier;
use super::unproven::Unproven;
use super::work::Work;
use crate::clock::Clock;
use crate::quota::{QuotaError, Quotas};
use crate::repage::{Delivery, Placed, RepageError, Run};
use crate::telemetry;
use crate::upstream::{Asker, Demand, Series};
use crate::window::{Grid, Ladder, Moment, Span, SpanSet};

/// The stages below.
pub(super) type Below = BoxCloneSyncService<Run, (), RepageError>;

/// Begins flights and stores what they bring.
pub(super) struct Fetcher {
    pub(super) below: Below,
    pub(super) memory: Memory,
    /// What replicas share; `None` if there is no Redis.
    pub(super) tier: Option<Tier>,
    /// The way to the other replicas; `None` if there is no Redis.
    pub(super) relay: Option<Relay>,
    pub(super) shelves: Shelves,
    pub(super) ladder: Ladder,
    pub(super) grid: Grid,
    pub(super) clock: Clock,
    /// To look whether callers compete.
    pub(super) quotas: Quotas,
    /// How long a request waits for the quota.
    pub(super) queue_timeout: Duration,
    pub(super) fields: WindowFields,
    pub(super) purges: Purges,
    pub(super) stored: AtomicU64,
}

impl Fetcher {
    /// Adds what is wanted to what is being gathered for a series. What is returned closes when their flights have begun.
    ///
    /// The caller holds the shelf's lock since it found that missing, and no flight is on its way to it.
    pub(super) fn gather(
        self: &Arc<Self>,
        series: &Arc<Series>,
        of: &SharedShelf,
        shelf: &mut Shelf,
        want: Want,
    ) -> watch::Receiver<()> {
        let gathering = shelf.gathering.get_or_insert_with(|| {
            let (begin, begun) = watch::channel(());
            let (fetcher, series, shelf) = (self.clone(), series.clone(), of.clone());
            tokio::spawn(async move {
                let announced = fetcher.announce(&series.account);
                fetcher.let_gather(&series.account).await;
                if let Some(tier) = &fetcher.tier {
                    fetcher.look_in(tier, &series, &shelf).await;
                }
                match fetcher.elsewhere(&series.account) {
                    None => fetcher.begin_gathered(&series, &shelf),
                    Some(relay) => fetcher.ask_gathered(relay, &series, &shelf, announced),
                }
                drop(begin);
            });
            Gathering { wants: Vec::new(), begun }
        });
        gathering.wants.push(want);
        gathering.begun.clone()
    }

    /// Begins a flight for each run of what was gathered.
    fn begin_gathered(self: &Arc<Self>, series: &Arc<Series>, of: &SharedShelf) {
        let by_caller = self.quotas.of(&series.account).is_some_and(|turns| turns.is_contended());
        let mut shelf = of.lock();
        let Some(Gathering { wants, .. }) = shelf.gathering.take() else { return };
        let epoch = self.purges.epoch(&series.account);
        let mut parties: Vec<(Asker, VecDeque<_>)> = Vec::new();
        for (span, rich, Cause { asker, seats }) in gathered(&wants, by_caller) {
            let demand = Demand::new(asker.clone());
            let (flight, tell) = Flight::begin(span, rich, Placed::Checked, self.clock.now(), epoch, demand);
            let work = (Work::new(series, of, &mut shelf, flight, &seats), tell);
            match parties.iter_mut().find(|(party, _)| *party == asker) {
                Some((_, flights)) => flights.push_back(work),
                None => parties.push((asker, VecDeque::from([work]))),
            }
        }
        drop(shelf);
        for (_, mut flights) in parties {
            flights.make_contiguous().sort_by_key(|(work, _)| work.flight.span().length());
            tokio::spawn(self.clone().fly_together(flights));
        }
    }

    /// Flies one run ahead of the others until the upstream has answered it with a page: if it refuses that one, the
    /// others need not ask. One for which somebody more urgent comes to wait meanwhile does not stay behind.
    async fn fly_together(self: Arc<Self>, mut flights: VecDeque<(Work, watch::Sender<Progress>)>) {
        let mut refused = None;
        while let Some((first, tell)) = flights.pop_front() {
            let demand = first.flight.demand.clone();
            // While it calls, those behind it wait for the upstream and not for the quota.
            let behind = flights.iter().flat_map(|(work, _)| work.flight.seats());
            let _looking_on: Vec<_> = behind.map(|(seat, _)| demand.look_on(&seat.patience)).collect();
            let (begin, mut begun) = oneshot::channel();
            let first = tokio::spawn(self.clone().fly(first, tell, Some(begin)));
            let begun = loop {
                tokio::select! {
                    begun = &mut begun => break begun.is_ok(),
                    place = more_urgent(&flights, &demand) => {
                        if let Some((work, tell)) = flights.remove(place) {
                            tokio::spawn(self.clone().fly(work, tell, None));
                        }
                    }
                }
            };
            refused = if begun { None } else { first.await.unwrap_or(Err(CacheError::Lost)).err() };
            // One that nobody wanted any more has learnt nothing: the next one flies ahead.
            if !matches!(refused, Some(CacheError::Repage(RepageError::Quota(QuotaError::Unwanted)))) {
                break;
            }
        }
        for (work, tell) in flights {
            match &refused {
                Some(error @ CacheError::Repage(RepageError::Quota(_) | RepageError::NoPlace(_))) => {
                    self.land(&work, &tell, Err(error.clone()));
                }
                _ => drop(tokio::spawn(self.clone().fly(work, tell, None))),
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
        fresh_since: Moment,
        seat: &Arc<Seat>,
    ) -> Arc<Flight> {
        if let Some(relay) = self.elsewhere(&series.account) {
            return self.ask_exactly(relay, series, of, shelf, span, fresh_since, seat);
        }
        let demand = Demand::new(seat.asker.clone());
        let (now, epoch) = (self.clock.now(), self.purges.epoch(&series.account));
        let (flight, tell) = Flight::begin(span, series.rich, Placed::Unchecked, now, epoch, demand);
        let work = Work::new(series, of, shelf, flight.clone(), &[(seat.clone(), span)]);
        tokio::spawn(self.clone().fly(work, tell, None));
        flight
    }

    /// Flies one run to its end. `begin` is told when the upstream has answered with a first page.
    async fn fly(
        self: Arc<Self>,
        mut work: Work,
        mut tell: watch::Sender<Progress>,
        mut begin: Option<oneshot::Sender<()>>,
    ) -> Result<(), CacheError> {
        let (deliver, mut deliveries) = mpsc::unbounded_channel();
        let Flight { placed, demand, .. } = &*work.flight;
        let span = work.flight.span();
        let run = Run { series: work.series.clone(), span, placed: *placed, demand: demand.clone(), deliver };
        let run = tokio::spawn(self.below.clone().oneshot(run));
        let mut to_come = SpanSet::from(span);
        let mut chunks = Ok(Vec::new());
        let mut seen: Vec<Unproven> = Vec::new();
        while let Some(delivery) = deliveries.recv().await {
            match delivery {
                Delivery::Begun => drop(begin.take().map(|begin| begin.send(()))),
                Delivery::Long => {
                    work.flight.sight.set_long();
                    tell.send_modify(|_| {});
                }
                Delivery::Seen(stretch, room) => match self.clone().keep_seen(&work, stretch).await {
                    Ok(more) => {
                        seen.extend(more);
                        tell.send_modify(|_| {});
                        work.flight.sight.make_room(&work.flight).await;
                        drop(room);
                    }
                    Err(error) => chunks = Err(error),
                },
                Delivery::Refuted => {
                    self.forget_seen(&work, &mut seen);
                    tell.send_modify(|_| {});
                }
                Delivery::Proven => {
                    for seen in &seen {
                        to_come.remove(seen.span());
                    }
                    let proven = self.shelve_seen(&work, &mut seen);
                    let untaken = work.flight.sight.conclude(Verdict::Proven);
                    if let Ok(chunks) = &mut chunks {
                        chunks.extend(proven.into_iter().chain(untaken));
                    }
                }
                Delivery::Stretch(stretch) => {
                    to_come.remove(stretch.span);
                    match (self.clone().store(work.clone(), stretch).await, &mut chunks) {
                        (Ok(stored), Ok(chunks)) => chunks.extend(stored),
                        (Err(error), _) => chunks = Err(error),
                        (Ok(_), Err(_)) => {}
                    }
                    // Whoever needs no more than what is there need not wait for the rest.
                    if let (Ok(brought), [rest]) = (&mut chunks, to_come.spans()) {
                        (work, tell) = work.hand_over(&tell, std::mem::take(brought), *rest);
                    }
                }
                Delivery::Parted { rest, wanted } => {
                    to_come.remove(rest);
                    self.part(&work, &tell, rest, wanted);
                }
                Delivery::Held(held, class) => {
                    drop(tell.send(Progress::Held(Instant::now() + held.retry_after, class)));
                }
                Delivery::Resumed => drop(tell.send(Progress::Flying)),
            }
        }
        self.forget_seen(&work, &mut seen);
        let ended = run.await.map_or(Err(CacheError::Lost), |result| result.map_err(CacheError::Repage));
        let told = ended.clone().and(chunks.as_ref().map(drop).map_err(Clone::clone));
        self.land(&work, &tell, if is_elsewhere(&ended) { chunks } else { ended.and(chunks) });
        told
    }

    /// Begins flights for the end of a run that it leaves to others: what somebody waits for, and what is left then,
    /// which goes on in the name of the one who wanted all of it.
    fn part(self: &Arc<Self>, work: &Work, tell: &watch::Sender<Progress>, rest: Span, wanted: Span) {
        let Work { series, shelf: of, flight } = work;
        let mut shelf = of.lock();
        let span = flight.span();
        let kept = if rest.start <= span.start { span.split_at(rest.end).1 } else { span.split_at(rest.start).0 };
        flight.shorten(kept);
        let mut left = SpanSet::from(rest);
        left.remove(wanted);
        let pieces = std::iter::once((wanted, true)).chain(left.spans().iter().map(|span| (*span, false)));
        for (piece, is_wanted) in pieces.filter(|(piece, _)| !piece.is_empty()) {
            let needs = flight.seats().into_iter().map(|(seat, need)| (seat, need.intersection(piece)));
            let seats: Vec<_> = needs.filter(|(_, need)| !need.is_empty()).collect();
            let most_urgent = seats.iter().map(|(seat, _)| &seat.asker).min_by_key(|asker| asker.class);
            let demand = match most_urgent {
                Some(asker) if is_wanted => Demand::new(asker.clone()),
                _ => Demand::going_on(flight.demand.cause().clone()),
            };
            // A run of its own, which asks for each page anew: what was purged before now is not in it.
            let (now, epoch) = (self.clock.now(), self.purges.epoch(&series.account));
            let (next, tell) = Flight::begin(piece, flight.rich, flight.placed, now, epoch, demand);
            let work = Work::new(series, of, &mut shelf, next, &seats);
            tokio::spawn(self.clone().fly(work, tell, None));
        }
        // Those who wait look again.
        tell.send_modify(|_| {});
    }

    /// Takes a flight off the shelf and tells those who wait.
    pub(super) fn land(
        &self,
        work: &Work,
        tell: &watch::Sender<Progress>,
        result: Result<Vec<Arc<Chunk>>, CacheError>,
    ) {
        // Another replica makes the calls now: those who wait look again, and ask that one.
        let result = if is_elsewhere(&result) { Ok(Vec::new()) } else { result };
        if let Err(error) = &result
            && !work.flight.demand.is_abandoned()
        {
            let account = &work.series.account;
            // What failed on another replica is told of there.
            if !work.flight.is_elsewhere() {
                telemetry::run_failed(account, error);
                telemetry::not_stored(not_stored(error).label());
            }
            let wrong_field = matches!(error, CacheError::Repage(RepageError::WindowField));
            if wrong_field && self.fields.found_wrong(account) {
                // What was cut by a wrong timestamp is worth nothing.
                self.shelves.clear(account, &self.memory);
                if let Some(tier) = &self.tier {
                    tier.give_up(account);
                }
            }
        }
        work.flight.sight.conclude(if result.is_ok() { Verdict::Proven } else { Verdict::Refuted });
        let mut shelf = work.shelf.lock();
        shelf.flights.retain(|flight| !Arc::ptr_eq(flight, &work.flight));
        // Under the lock: whoever does not find it on the shelf any more finds that it has landed.
        let _ = tell.send(Progress::Landed(result.map(Arc::from)));
        drop(shelf);
        self.shelves.tidy(&work.series, &work.shelf);
    }
}

/// Ends when one of `flights`, which have not left yet, is more urgent than `ahead`: gives its place among them.
async fn more_urgent(flights: &VecDeque<(Work, watch::Sender<Progress>)>, ahead: &Demand) -> usize {
    loop {
        let is_more_urgent = |(work, _): &(Work, _)| work.flight.demand.class() < ahead.class();
        if let Some(place) = flights.iter().position(is_more_urgent) {
            return place;
        }
        let changed = flights.iter().map(|(work, _)| Box::pin(work.flight.demand.changed()));
        if flights.is_empty() { std::future::pending().await } else { drop(select_all(changed).await) }
    }
}

/// Whether the calls were not made because another replica makes them now.
fn is_elsewhere<T>(result: &Result<T, CacheError>) -> bool {
    matches!(result, Err(CacheError::Repage(RepageError::Quota(QuotaError::Elsewhere))))
}

fn not_stored(error: &CacheError) -> NotStored {
    match error {
        CacheError::Held(_)
        | CacheError::Repage(
            RepageError::Quota(QuotaError::Exhausted(_) | QuotaError::Refused(_)) | RepageError::NoPlace(_),
        ) => NotStored::QuotaSpent,
        CacheError::Repage(RepageError::Quota(QuotaError::Token(_))) => NotStored::UpstreamFailed,
        CacheError::Repage(RepageError::Quota(QuotaError::Unwanted | QuotaError::Elsewhere)) => NotStored::Unwanted,
        CacheError::Repage(RepageError::Torn) | CacheError::Restless => NotStored::RowsMoved,
        CacheError::Repage(RepageError::WindowField) => NotStored::WrongWindowField,
        CacheError::Repage(RepageError::Unplaced) => NotStored::NoTimestamp,
        CacheError::Lost | CacheError::Damaged(_) | CacheError::Foreign | CacheError::TooLargeToHold { .. } => {
            NotStored::Lost
        }
    }
}
