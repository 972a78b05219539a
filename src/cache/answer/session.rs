//! One request's session: what it has in hand of its window, and where the rest comes from.
//!
//! [`Session::survey`] is the one look at all sources: memory, flights, Redis by name. Under the lock under which it finds
//! something missing, it asks for it. [`Session::advance`] (`wait`) waits for what the survey found to be the next. An
//! answer that is put together whole (`serve`), one that is streamed (`stream`) and one for another replica (`relay`) are
//! loops over these two.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::lookup::{Hit, ItemConversion, Lookup};
use crate::cache::chunk::Chunk;
use crate::cache::cluster::BatchArrival;
use crate::cache::fetch::Fetcher;
use crate::cache::fetch::needed_part;
use crate::cache::fetch::{FetchedInterval, InFlightFetch};
use crate::cache::fetch::{RedisHit, Waiter};
use crate::cache::redis::RedisListing;
use crate::cache::series::{NextNeed, PendingRequest, SeriesState, SharedSeriesState};
use crate::cache::store::CacheEntry;
use crate::cache::store::ReadAheadPermit;
use crate::cache::{CacheError, PageRange, WindowQuery};
use crate::paging::PagingError;
use crate::request::{Filter, KnownFilter, QueueTimeout, Series};
use crate::upstream::PAGE_LIMIT;
use crate::window::{Interval, IntervalMap, IntervalSet, Plan, PlanEntry, Timestamp};

/// The most surveys in a row without progress. Each waits for runs to be planned, or for a flight to land or to become
/// shorter; or for the second tier.
pub(in crate::cache) const MAX_SURVEYS_WITHOUT_PROGRESS: usize = 1000;
/// The most flights in a row that bring nothing, because another replica came to make the calls, or because they were too
/// large.
const MAX_FRUITLESS_FLIGHTS: usize = 64;
/// What is kept of so much time in the second tier is read all at once.
const DAY: Duration = Duration::from_hours(24);
/// A window of so many pages that are still to come is long,
const LONG_PAGES: f64 = 60.0;
/// and one of so many if it is of more than a day: a usual day is soon there, and is answered with a status and a length.
const LONG_PAGES_FOR_DAYS: f64 = 12.0;

/// A chunk that a flight has brought for this answer, or that was found for it.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Fetched {
    pub(in crate::cache) chunk: Arc<Chunk>,
    pub(in crate::cache) agentic: bool,
    /// Whether the filter is still to be applied to it.
    pub(in crate::cache) is_unfiltered: bool,
    /// Whether it was there before.
    pub(in crate::cache) copy: bool,
}

impl PlanEntry for Fetched {
    fn fetched_at(&self) -> Timestamp {
        self.chunk.fetched_at()
    }
}

/// What one request has gathered so far.
pub(in crate::cache) struct Session {
    pub(in crate::cache) fetcher: Arc<Fetcher>,
    pub(in crate::cache) series: Arc<Series>,
    /// What is still to be answered.
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) page_range: PageRange,
    pub(in crate::cache) asked_at: Timestamp,
    /// Copies fetched since then are good enough.
    pub(in crate::cache) fresh_since: Timestamp,
    pub(in crate::cache) shelf: SharedSeriesState,
    /// It waits here, as long as somebody waits for it.
    pub(in crate::cache) seat: Arc<Waiter>,
    /// For another replica: dropped when it has been seen what there is to ask for.
    pub(in crate::cache) arrival: Option<Arc<BatchArrival>>,
    /// Flights that have brought something, whose calls were not told of yet.
    pub(in crate::cache) flights: Vec<Arc<InFlightFetch>>,
    pub(in crate::cache) in_hand: IntervalMap<Fetched>,
    /// Room that was set aside for what is in hand ahead of the answer.
    ahead: Vec<(Interval, ReadAheadPermit)>,
    pub(in crate::cache) mode: Mode,
    /// What the second tier has of a long window.
    pub(in crate::cache) listing: Option<RedisListing>,
    pub(in crate::cache) history: History,
}

/// How a window is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Mode {
    /// As a whole.
    Whole,
    /// As a whole, whose length must be known before any of it is sent: so all of it must fit into memory.
    WholeInMemory,
    /// As a whole, unless it turns out to take long: then it is streamed.
    MayStream,
    /// Piece by piece, in the order of time. What was purged is not served any more.
    StreamEvent,
}

/// What there is to tell of an answer before it has come to its end.
#[derive(Debug, Default)]
pub(in crate::cache) struct History {
    /// When the oldest of what was there already had been fetched.
    pub(in crate::cache) oldest: Option<Timestamp>,
    /// Whether anything had to be fetched.
    pub(in crate::cache) fetches: bool,
    /// Whether anything was there, but too old.
    pub(in crate::cache) stale: bool,
    /// How many times something has landed or was read, or a page has come.
    pub(in crate::cache) progress: usize,
    /// How many flights in a row have brought nothing.
    fruitless: usize,
    /// Whether a run beside the others was asked for since something was last heard of a flight: if none could begin, it
    /// is not asked for again before that.
    pub(in crate::cache) asked_further: bool,
}

/// What a survey has found.
pub(in crate::cache) enum NextStep {
    /// All of the window.
    Complete(Vec<(Interval, Hit)>),
    /// Some of it.
    Partial {
        /// What lies at its beginning, one behind the other.
        ready: Vec<(Interval, Hit)>,
        /// How many pages are still to come, if that is known.
        pages_to_come: Option<f64>,
        next: Next,
    },
}

/// What is to be waited for.
pub(in crate::cache) enum Next {
    /// Runs are being planned.
    Begin(watch::Receiver<()>),
    /// Flights that bring something of the window.
    Flights(Vec<Joined>),
    /// Nobody knows yet whether the second tier has this.
    List(IntervalSet),
    /// The second tier has this, which comes next.
    Read(IntervalSet),
}

/// A flight that is waited for.
pub(in crate::cache) struct Joined {
    pub(in crate::cache) flight: Arc<InFlightFetch>,
    /// The span that it had when it was found.
    pub(in crate::cache) known: Interval,
    /// From the first to the last moment that is needed of it.
    pub(in crate::cache) need: Interval,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.fetcher.series_map.remove_if_idle(&self.series, &self.shelf);
    }
}

impl Session {
    /// One that has so much patience with the quota.
    pub(in crate::cache) fn new(
        fetcher: Arc<Fetcher>,
        query: WindowQuery,
        patience: Arc<QueueTimeout>,
        arrival: Option<Arc<BatchArrival>>,
    ) -> Self {
        let WindowQuery { series, interval, page_range, asked_at, asker, may_stream: _ } = query;
        let is_long = fetcher.redis.is_some() && interval.length() > DAY;
        let settled = interval.end <= fetcher.settled_before(asked_at);
        Self {
            shelf: fetcher.series_map.of(&series),
            fetcher,
            series,
            interval,
            page_range,
            asked_at,
            fresh_since: asked_at,
            seat: Waiter::new(asker, patience),
            arrival,
            flights: Vec::new(),
            in_hand: IntervalMap::default(),
            ahead: Vec::new(),
            mode: Mode::Whole,
            listing: (is_long && settled).then(RedisListing::new),
            history: History::default(),
        }
    }

    fn look(&self) -> Lookup<'_> {
        let (fetcher, series) = (&*self.fetcher, &*self.series);
        Lookup { fetcher, series, asked_at: self.asked_at, fresh_since: self.fresh_since, open: CacheEntry::use_chunk }
    }

    /// Looks what serves the window now, and sees to it that what comes next is on its way.
    pub(in crate::cache) fn survey(&mut self) -> Result<NextStep, CacheError> {
        let mut plan = Plan::new(self.interval);
        self.take_in_hand(&mut plan);
        self.look().take_filterable(&mut plan, &self.shelf);
        // From here on the lock is kept: what is missing now is asked for before anybody else can find it missing.
        let shelf = self.shelf.clone();
        let mut shelf = shelf.lock();
        // And what has landed now is not on its way any more.
        self.take_landed(&self.absent(&plan.missing))?;
        self.take_in_hand(&mut plan);
        self.look().take_copies(&mut plan, &shelf, None);
        self.arrival = None;
        self.history.stale |= plan.stale;
        if plan.missing.is_empty() {
            return Ok(NextStep::Complete(plan.hits));
        }
        let unknown = self.listing.as_ref().map(|listing| listing.unknown(&plan.missing)).unwrap_or_default();
        if !unknown.is_empty() {
            return Ok(NextStep::Partial { ready: Vec::new(), pages_to_come: None, next: Next::List(unknown) });
        }
        let absent = self.absent(&plan.missing);
        self.remember(&plan, &absent);
        let ready = beginning(self.interval, &plan.hits);
        if self.mode == Mode::StreamEvent && !ready.is_empty() {
            // What comes behind it is asked for when it has been taken.
            return Ok(NextStep::Partial { ready, pages_to_come: None, next: Next::Flights(Vec::new()) });
        }
        let (flights, unasked) = self.join_flights(&shelf.in_flight, &absent);
        let pages_to_come = self.pages_to_come(&shelf, &flights, &unasked);
        let reads = self.listing.as_ref().and_then(|listing| listing.next(&self.fetcher.grid, &plan.missing));
        if let Some(piece) = reads {
            return Ok(NextStep::Partial { ready, pages_to_come, next: Next::Read(piece) });
        }
        if let Some(torn) = unasked.intervals().iter().find(|interval| shelf.is_torn(**interval)) {
            return Err(CacheError::Paging(PagingError::Torn(*torn)));
        }
        let lead = unasked.intervals().first().map(|interval| interval.start);
        let lead = lead.filter(|lead| absent.intervals().first().is_some_and(|first| first.start == *lead));
        // Without a listing, each look into the second tier would be one at all that is missing.
        let further = !self.history.asked_further
            && !unasked.is_empty()
            && (self.listing.is_some() || self.fetcher.redis.is_none())
            && self.fetcher.spare_runs(&self.series, &self.seat.asker) > usize::from(lead.is_some());
        let next = if lead.is_some() || further {
            self.history.asked_further = further;
            let want = PendingRequest {
                intervals: self.look().runs(&plan, &unasked),
                agentic: self.series.agentic,
                waiter: Arc::downgrade(&self.seat),
                fresh_since: self.fresh_since,
                redis_checked: self.listing.is_some(),
                next_need: lead.map(|at| NextNeed { at, early: self.mode == Mode::MayStream }),
                further,
            };
            Next::Begin(self.fetcher.add_to_batch(&self.series, &self.shelf, &mut shelf, want))
        } else {
            Next::Flights(flights)
        };
        Ok(NextStep::Partial { ready, pages_to_come, next })
    }

    /// What of `missing` is not to be read from the second tier.
    fn absent(&self, missing: &IntervalSet) -> IntervalSet {
        self.listing.as_ref().map_or_else(|| missing.clone(), |listing| listing.absent(missing))
    }

    fn remember(&mut self, plan: &Plan<Hit>, absent: &IntervalSet) {
        let copies = plan.hits.iter().filter(|(_, held)| held.copy).map(|(_, held)| held.chunk.fetched_at());
        let listed = self.listing.as_ref().and_then(RedisListing::oldest);
        self.history.oldest = copies.chain(listed).chain(self.history.oldest).min();
        self.history.fetches |= !absent.is_empty();
    }

    /// Waits for those flights that bring something of `absent`, and gives them with what none of them brings.
    fn join_flights(&self, flying: &[Arc<InFlightFetch>], absent: &IntervalSet) -> (Vec<Joined>, IntervalSet) {
        let expected_wait = self.fetcher.quotas.scheduler(&self.series.account).map(|turns| turns.expected_wait());
        let expected_wait = expected_wait.unwrap_or_default();
        let mut unasked = absent.clone();
        let mut flights = Vec::new();
        for flight in flying {
            let known = flight.interval();
            let Some(need) = needed_part(&unasked, known).filter(|_| flight.serves(known, self.series.agentic)) else {
                continue;
            };
            let is_too_long = flight.is_too_long_for(need, self.seat.asker.class, expected_wait);
            // One that everybody has just left is not going to bring anything.
            if !is_too_long && self.seat.may_join(flight) && self.seat.join(flight) {
                unasked.remove(known);
                flights.push(Joined { flight: flight.clone(), known, need });
            }
        }
        self.seat.wait_only_for(&flights);
        (flights, unasked)
    }

    /// How many pages are still to be fetched, if that is known.
    fn pages_to_come(&self, shelf: &SeriesState, flights: &[Joined], unasked: &IntervalSet) -> Option<f64> {
        if self.mode != Mode::MayStream {
            return None;
        }
        let in_flight = flights.iter().map(|joined| joined.flight.expected()).sum::<Option<f64>>()?;
        let density = if unasked.is_empty() { None } else { Some(self.fetcher.density(shelf)) };
        let density = density.filter(|density| !density.is_unknown());
        let unasked = match density {
            Some(density) => unasked.intervals().iter().map(|interval| density.items(*interval)).sum(),
            None if unasked.is_empty() => 0.0,
            None => return None,
        };
        Some((in_flight + unasked) / f64::from(PAGE_LIMIT))
    }

    /// Whether so many pages are so many that nobody should wait for the last one before seeing the first.
    pub(in crate::cache) fn is_long(&self, pages_to_come: Option<f64>) -> bool {
        let long = if self.interval.length() > DAY { LONG_PAGES_FOR_DAYS } else { LONG_PAGES };
        self.mode == Mode::MayStream && pages_to_come.is_some_and(|pages| pages >= long)
    }

    /// Takes what the flights that it waits for have brought. An error if one has failed that was to bring what is missing.
    fn take_landed(&mut self, missing: &IntervalSet) -> Result<(), CacheError> {
        for RedisHit { interval, chunk, agentic, is_unfiltered } in self.seat.found() {
            self.in_hand.insert(interval, Fetched { chunk, agentic, is_unfiltered, copy: true });
        }
        for (flight, delivered) in self.seat.landed() {
            self.history.asked_further = false;
            let FetchedInterval { interval, chunks } = match delivered {
                Ok(delivered) => delivered,
                // What was begun beside the run that is needed next is asked for again when it is.
                Err(error) if is_needed(&error, flight.interval(), missing) => return Err(error),
                Err(_) => continue,
            };
            // Of one who streams, what it has sent is not kept.
            for chunk in chunks.iter().filter(|chunk| chunk.interval().overlaps(self.interval)) {
                // What another replica cut its answer from may reach beyond it, where it was too old to be served.
                let interval =
                    if flight.is_remote() { chunk.interval().intersection(interval) } else { chunk.interval() };
                let (chunk, agentic) = (chunk.clone(), flight.spec.agentic);
                self.in_hand.insert(interval, Fetched { chunk, agentic, is_unfiltered: false, copy: false });
            }
            if chunks.is_empty() {
                self.seat.patience.attempt_again();
                self.history.fruitless += 1;
            } else {
                self.history.progress += 1;
                self.history.fruitless = 0;
            }
            if self.history.fruitless > MAX_FRUITLESS_FLIGHTS {
                return Err(CacheError::ItemsMoving);
            }
            self.ahead.extend(flight.take_read_ahead().map(|room| (interval, room)));
            // Whoever waits for a flight is content with what it saw, though it began a moment earlier.
            self.fresh_since = self.fresh_since.min(flight.spec.began_at);
            self.flights.push(flight);
        }
        Ok(())
    }

    fn take_in_hand(&mut self, plan: &mut Plan<Hit>) {
        if self.mode == Mode::StreamEvent {
            // Somebody may have purged it since it came.
            let (purges, series) = (&self.fetcher.purges, &self.series);
            self.in_hand.retain(|_, brought| !purges.is_purged(series, &brought.chunk));
        }
        plan.take(&self.in_hand, &self.fetcher.freshness_policy, self.asked_at, Timestamp::MIN, |brought| {
            let filter = match &self.series.filter {
                Filter::Known(filter) if brought.is_unfiltered => Some(KnownFilter::clone(filter)),
                _ => None,
            };
            let change = ItemConversion { strip: brought.agentic && !self.series.agentic, filter };
            Some(Hit { chunk: brought.chunk.clone(), change, copy: brought.copy })
        });
    }

    /// What lies before `moment` has been answered.
    pub(in crate::cache) fn answered_up_to(&mut self, moment: Timestamp) {
        let (answered, rest) = self.interval.split_at(moment);
        self.in_hand.remove(answered);
        self.ahead.retain(|(interval, _)| interval.end > moment);
        self.interval = rest;
        // Until the caller had taken it, it was not the quota that was waited for.
        self.seat.patience.at_most(Duration::ZERO);
    }
}

/// Whether a flight over `interval` that has failed leaves nothing to go on with: it was to bring what is missing first, or
/// nothing can be cut any more.
fn is_needed(error: &CacheError, interval: Interval, missing: &IntervalSet) -> bool {
    let is_field = matches!(error, CacheError::Paging(PagingError::WindowField));
    let is_first = missing.intervals().first().is_some_and(|first| interval.contains(first.start));
    needed_part(missing, interval).is_some() && (is_field || is_first)
}

/// What lies at the beginning of `interval`, one behind the other.
fn beginning(interval: Interval, hits: &[(Interval, Hit)]) -> Vec<(Interval, Hit)> {
    let mut hits: Vec<_> = hits.to_vec();
    hits.sort_by_key(|(interval, _)| interval.start);
    let mut end = interval.start;
    let follows = |(interval, _): &(Interval, Hit)| std::mem::replace(&mut end, interval.end) == interval.start;
    hits.into_iter().take_while(follows).collect()
}
