//! One request's session: what it has in hand of its window, and where the rest comes from.
//!
//! [`Session::survey`] is the one look at all sources: memory, flights, Redis by name. Under the lock under which it finds
//! something missing, it asks for it. [`Session::advance`] (`wait`) waits for what the survey found to be the next. An
//! answer that is put together whole (`serve`), one that is streamed (`stream`) and one for another replica (`relay`) are
//! loops over these two.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::chunk::Chunk;
use super::copies::Copy;
use super::fetch::Fetcher;
use super::flight::{Delivered, Flight};
use super::listing::Listing;
use super::look::{Change, Held, Look};
use super::memory::AheadPermit;
use super::relay::Arrival;
use super::runs::need;
use super::seat::{Found, Seat};
use super::shelf::{Lead, SharedShelf, Shelf, Want};
use super::{CacheError, Excerpt, WindowQuery};
use crate::repage::RepageError;
use crate::upstream::{Filter, KnownFilter, PAGE_LIMIT, Patience, Series};
use crate::window::{Copied, Coverage, Moment, Plan, Span, SpanSet};

/// The most surveys in a row without progress. Each waits for runs to be planned, or for a flight to land or to become
/// shorter; or for the second tier.
pub(super) const MAX_SURVEYS_WITHOUT_PROGRESS: usize = 1000;
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
pub(super) struct Brought {
    pub(super) chunk: Arc<Chunk>,
    pub(super) rich: bool,
    /// Whether the filter is still to be applied to it.
    pub(super) is_unfiltered: bool,
    /// Whether it was there before.
    pub(super) copy: bool,
}

impl Copied for Brought {
    fn fetched_at(&self) -> Moment {
        self.chunk.fetched_at()
    }
}

/// What one request has gathered so far.
pub(super) struct Session {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) series: Arc<Series>,
    /// What is still to be answered.
    pub(super) span: Span,
    pub(super) excerpt: Excerpt,
    pub(super) asked_at: Moment,
    /// Copies fetched since then are good enough.
    pub(super) fresh_since: Moment,
    pub(super) shelf: SharedShelf,
    /// It waits here, as long as somebody waits for it.
    pub(super) seat: Arc<Seat>,
    /// For another replica: dropped when it has been seen what there is to ask for.
    pub(super) arrival: Option<Arc<Arrival>>,
    /// Flights that have brought something, whose calls were not told of yet.
    pub(super) flights: Vec<Arc<Flight>>,
    pub(super) in_hand: Coverage<Brought>,
    /// Room that was set aside for what is in hand ahead of the answer.
    ahead: Vec<(Span, AheadPermit)>,
    pub(super) mode: Mode,
    /// What the second tier has of a long window.
    pub(super) listing: Option<Listing>,
    pub(super) history: History,
}

/// How a window is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// As a whole.
    Whole,
    /// As a whole, whose length must be known before any of it is sent: so all of it must fit into memory.
    WholeInMemory,
    /// As a whole, unless it turns out to take long: then it is streamed.
    MayStream,
    /// Piece by piece, in the order of time. What was purged is not served any more.
    Streamed,
}

/// What there is to tell of an answer before it has come to its end.
#[derive(Debug, Default)]
pub(super) struct History {
    /// When the oldest of what was there already had been fetched.
    pub(super) oldest: Option<Moment>,
    /// Whether anything had to be fetched.
    pub(super) fetches: bool,
    /// Whether anything was there, but too old.
    pub(super) stale: bool,
    /// How many times something has landed or was read, or a page has come.
    pub(super) progress: usize,
    /// How many flights in a row have brought nothing.
    fruitless: usize,
    /// Whether a run beside the others was asked for since something was last heard of a flight: if none could begin, it
    /// is not asked for again before that.
    pub(super) asked_further: bool,
}

/// What a survey has found.
pub(super) enum Survey {
    /// All of the window.
    Complete(Vec<(Span, Held)>),
    /// Some of it.
    Partial {
        /// What lies at its beginning, one behind the other.
        ready: Vec<(Span, Held)>,
        /// How many pages are still to come, if that is known.
        pages_to_come: Option<f64>,
        next: Next,
    },
}

/// What is to be waited for.
pub(super) enum Next {
    /// Runs are being planned.
    Begin(watch::Receiver<()>),
    /// Flights that bring something of the window.
    Flights(Vec<Joined>),
    /// Nobody knows yet whether the second tier has this.
    List(SpanSet),
    /// The second tier has this, which comes next.
    Read(SpanSet),
}

/// A flight that is waited for.
pub(super) struct Joined {
    pub(super) flight: Arc<Flight>,
    /// The span that it had when it was found.
    pub(super) known: Span,
    /// From the first to the last moment that is needed of it.
    pub(super) need: Span,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.fetcher.shelves.tidy(&self.series, &self.shelf);
    }
}

impl Session {
    /// One that has so much patience with the quota.
    pub(super) fn new(
        fetcher: Arc<Fetcher>,
        query: WindowQuery,
        patience: Arc<Patience>,
        arrival: Option<Arc<Arrival>>,
    ) -> Self {
        let WindowQuery { series, span, excerpt, asked_at, asker, may_stream: _ } = query;
        let is_long = fetcher.tier.is_some() && span.length() > DAY;
        let settled = span.end <= fetcher.settled_before(asked_at);
        Self {
            shelf: fetcher.shelves.of(&series),
            fetcher,
            series,
            span,
            excerpt,
            asked_at,
            fresh_since: asked_at,
            seat: Seat::new(asker, patience),
            arrival,
            flights: Vec::new(),
            in_hand: Coverage::default(),
            ahead: Vec::new(),
            mode: Mode::Whole,
            listing: (is_long && settled).then(Listing::new),
            history: History::default(),
        }
    }

    fn look(&self) -> Look<'_> {
        let (fetcher, series) = (&*self.fetcher, &*self.series);
        Look { fetcher, series, asked_at: self.asked_at, fresh_since: self.fresh_since, open: Copy::use_chunk }
    }

    /// Looks what serves the window now, and sees to it that what comes next is on its way.
    pub(super) fn survey(&mut self) -> Result<Survey, CacheError> {
        let mut plan = Plan::new(self.span);
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
            return Ok(Survey::Complete(plan.hits));
        }
        let unknown = self.listing.as_ref().map(|listing| listing.unknown(&plan.missing)).unwrap_or_default();
        if !unknown.is_empty() {
            return Ok(Survey::Partial { ready: Vec::new(), pages_to_come: None, next: Next::List(unknown) });
        }
        let absent = self.absent(&plan.missing);
        self.remember(&plan, &absent);
        let ready = beginning(self.span, &plan.hits);
        if self.mode == Mode::Streamed && !ready.is_empty() {
            // What comes behind it is asked for when it has been taken.
            return Ok(Survey::Partial { ready, pages_to_come: None, next: Next::Flights(Vec::new()) });
        }
        let (flights, unasked) = self.join_flights(&shelf.flights, &absent);
        let pages_to_come = self.pages_to_come(&shelf, &flights, &unasked);
        let reads = self.listing.as_ref().and_then(|listing| listing.next(&self.fetcher.grid, &plan.missing));
        if let Some(piece) = reads {
            return Ok(Survey::Partial { ready, pages_to_come, next: Next::Read(piece) });
        }
        if let Some(torn) = unasked.spans().iter().find(|span| shelf.has_torn(**span)) {
            return Err(CacheError::Repage(RepageError::Torn(*torn)));
        }
        let lead = unasked.spans().first().map(|span| span.start);
        let lead = lead.filter(|lead| absent.spans().first().is_some_and(|first| first.start == *lead));
        // Without a listing, each look into the second tier would be one at all that is missing.
        let further = !self.history.asked_further
            && !unasked.is_empty()
            && (self.listing.is_some() || self.fetcher.tier.is_none())
            && self.fetcher.spare_runs(&self.series, &self.seat.asker) > usize::from(lead.is_some());
        let next = if lead.is_some() || further {
            self.history.asked_further = further;
            let want = Want {
                spans: self.look().runs(&plan, &unasked),
                rich: self.series.rich,
                seat: Arc::downgrade(&self.seat),
                fresh_since: self.fresh_since,
                looked_up: self.listing.is_some(),
                lead: lead.map(|at| Lead { at, early: self.mode == Mode::MayStream }),
                further,
            };
            Next::Begin(self.fetcher.gather(&self.series, &self.shelf, &mut shelf, want))
        } else {
            Next::Flights(flights)
        };
        Ok(Survey::Partial { ready, pages_to_come, next })
    }

    /// What of `missing` is not to be read from the second tier.
    fn absent(&self, missing: &SpanSet) -> SpanSet {
        self.listing.as_ref().map_or_else(|| missing.clone(), |listing| listing.absent(missing))
    }

    fn remember(&mut self, plan: &Plan<Held>, absent: &SpanSet) {
        let copies = plan.hits.iter().filter(|(_, held)| held.copy).map(|(_, held)| held.chunk.fetched_at());
        let listed = self.listing.as_ref().and_then(Listing::oldest);
        self.history.oldest = copies.chain(listed).chain(self.history.oldest).min();
        self.history.fetches |= !absent.is_empty();
    }

    /// Waits for those flights that bring something of `absent`, and gives them with what none of them brings.
    fn join_flights(&self, flying: &[Arc<Flight>], absent: &SpanSet) -> (Vec<Joined>, SpanSet) {
        let expected_wait = self.fetcher.quotas.of(&self.series.account).map(|turns| turns.expected_wait());
        let expected_wait = expected_wait.unwrap_or_default();
        let mut unasked = absent.clone();
        let mut flights = Vec::new();
        for flight in flying {
            let known = flight.span();
            let Some(need) = need(&unasked, known).filter(|_| flight.serves(known, self.series.rich)) else { continue };
            let is_too_long = flight.is_too_long_for(need, self.seat.asker.class, expected_wait);
            // One that everybody has just left is not going to bring anything.
            if !is_too_long && self.seat.may_wait_for(flight) && self.seat.wait_for(flight) {
                unasked.remove(known);
                flights.push(Joined { flight: flight.clone(), known, need });
            }
        }
        self.seat.wait_only_for(&flights);
        (flights, unasked)
    }

    /// How many pages are still to be fetched, if that is known.
    fn pages_to_come(&self, shelf: &Shelf, flights: &[Joined], unasked: &SpanSet) -> Option<f64> {
        if self.mode != Mode::MayStream {
            return None;
        }
        let in_flight = flights.iter().map(|joined| joined.flight.expected()).sum::<Option<f64>>()?;
        let density = if unasked.is_empty() { None } else { Some(self.fetcher.density(shelf)) };
        let density = density.filter(|density| !density.is_unknown());
        let unasked = match density {
            Some(density) => unasked.spans().iter().map(|span| density.items(*span)).sum(),
            None if unasked.is_empty() => 0.0,
            None => return None,
        };
        Some((in_flight + unasked) / f64::from(PAGE_LIMIT))
    }

    /// Whether so many pages are so many that nobody should wait for the last one before seeing the first.
    pub(super) fn is_long(&self, pages_to_come: Option<f64>) -> bool {
        let long = if self.span.length() > DAY { LONG_PAGES_FOR_DAYS } else { LONG_PAGES };
        self.mode == Mode::MayStream && pages_to_come.is_some_and(|pages| pages >= long)
    }

    /// Takes what the flights that it waits for have brought. An error if one has failed that was to bring what is missing.
    fn take_landed(&mut self, missing: &SpanSet) -> Result<(), CacheError> {
        for Found { span, chunk, rich, is_unfiltered } in self.seat.found() {
            self.in_hand.insert(span, Brought { chunk, rich, is_unfiltered, copy: true });
        }
        for (flight, delivered) in self.seat.landed() {
            self.history.asked_further = false;
            let Delivered { span, chunks } = match delivered {
                Ok(delivered) => delivered,
                // What was begun beside the run that is needed next is asked for again when it is.
                Err(error) if is_needed(&error, flight.span(), missing) => return Err(error),
                Err(_) => continue,
            };
            // Of one who streams, what it has sent is not kept.
            for chunk in chunks.iter().filter(|chunk| chunk.span().overlaps(self.span)) {
                // What another replica cut its answer from may reach beyond it, where it was too old to be served.
                let span = if flight.is_elsewhere() { chunk.span().intersection(span) } else { chunk.span() };
                let (chunk, rich) = (chunk.clone(), flight.route.rich);
                self.in_hand.insert(span, Brought { chunk, rich, is_unfiltered: false, copy: false });
            }
            if chunks.is_empty() {
                self.seat.patience.attempt_again();
                self.history.fruitless += 1;
            } else {
                self.history.progress += 1;
                self.history.fruitless = 0;
            }
            if self.history.fruitless > MAX_FRUITLESS_FLIGHTS {
                return Err(CacheError::Restless);
            }
            self.ahead.extend(flight.take_room().map(|room| (span, room)));
            // Whoever waits for a flight is content with what it saw, though it began a moment earlier.
            self.fresh_since = self.fresh_since.min(flight.route.began_at);
            self.flights.push(flight);
        }
        Ok(())
    }

    fn take_in_hand(&mut self, plan: &mut Plan<Held>) {
        if self.mode == Mode::Streamed {
            // Somebody may have purged it since it came.
            let (purges, series) = (&self.fetcher.purges, &self.series);
            self.in_hand.retain(|_, brought| !purges.buries(series, &brought.chunk));
        }
        plan.take(&self.in_hand, &self.fetcher.ladder, self.asked_at, Moment::MIN, |brought| {
            let filter = match &self.series.filter {
                Filter::Known(filter) if brought.is_unfiltered => Some(KnownFilter::clone(filter)),
                _ => None,
            };
            let change = Change { strip: brought.rich && !self.series.rich, filter };
            Some(Held { chunk: brought.chunk.clone(), change, copy: brought.copy })
        });
    }

    /// What lies before `moment` has been answered.
    pub(super) fn answered_up_to(&mut self, moment: Moment) {
        let (answered, rest) = self.span.split_at(moment);
        self.in_hand.remove(answered);
        self.ahead.retain(|(span, _)| span.end > moment);
        self.span = rest;
        // Until the caller had taken it, it was not the quota that was waited for.
        self.seat.patience.at_most(Duration::ZERO);
    }
}

/// Whether a flight over `span` that has failed leaves nothing to go on with: it was to bring what is missing first, or
/// nothing can be cut any more.
fn is_needed(error: &CacheError, span: Span, missing: &SpanSet) -> bool {
    let is_field = matches!(error, CacheError::Repage(RepageError::WindowField));
    let is_first = missing.spans().first().is_some_and(|first| span.contains(first.start));
    need(missing, span).is_some() && (is_field || is_first)
}

/// What lies at the beginning of `span`, one behind the other.
fn beginning(span: Span, hits: &[(Span, Held)]) -> Vec<(Span, Held)> {
    let mut hits: Vec<_> = hits.to_vec();
    hits.sort_by_key(|(span, _)| span.start);
    let mut end = span.start;
    let follows = |(span, _): &(Span, Held)| std::mem::replace(&mut end, span.end) == span.start;
    hits.into_iter().take_while(follows).collect()
}
