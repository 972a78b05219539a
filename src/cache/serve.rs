//! Puts an answer together: copies that may be served, and flights for what is missing.

mod exact;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::Instant;

use super::chunk::Chunk;
use super::copies::Copy;
use super::fetch::Fetcher;
use super::flight::Flight;
use super::look::{Change, Held, Look};
use super::parts::{Part, parts, twice};
use super::promised::{AT_A_TIME, Promised};
use super::relay::Arrival;
use super::runs::need;
use super::seat::{Found, Seat};
use super::shelf::{SharedShelf, Want};
use super::stretches::Stretches;
use super::{CacheError, Excerpt, Excerpted, Outcome, Rest, WindowAnswer, WindowQuery, stream};
use crate::quota::Exhausted;
use crate::repage::RepageError;
use crate::upstream::{Filter, KnownFilter, Patience, Series};
use crate::window::{Copied, Coverage, Moment, Plan, Span, SpanSet};

/// A window is looked at so often without anything having landed for it before it is given up. Each round waits for a
/// flight to begin, to land or to part.
const ROUNDS: usize = 1000;
/// What is kept of so much time in the second tier is taken all at once.
const DAY: Duration = Duration::from_hours(24);
/// So often copies are fetched again because an item has moved out of them; each time costs calls.
const MOVES: usize = 2;
/// Another replica says each second how far it is, and gives up by itself. One that says nothing for so much longer than
/// the patience lasts is not waited for.
const SILENCE: Duration = Duration::from_secs(2);
/// Then whoever asks may come again after this: it is known who makes the calls instead.
const COME_AGAIN: Duration = Duration::from_secs(5);

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
pub(super) struct Request {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) series: Arc<Series>,
    pub(super) span: Span,
    excerpt: Excerpt,
    pub(super) asked_at: Moment,
    /// Copies fetched since then are good enough.
    pub(super) fresh_since: Moment,
    shelf: SharedShelf,
    /// It waits here, as long as somebody waits for it.
    pub(super) seat: Arc<Seat>,
    /// For another replica: dropped when it has been seen what there is to ask for.
    arrival: Option<Arc<Arrival>>,
    /// Those that have brought something for it.
    pub(super) flights: Vec<Arc<Flight>>,
    pub(super) brought: Coverage<Brought>,
    /// Whether it may be answered piece by piece, if it takes long.
    streams: bool,
    /// What is there at its beginning, for one that is.
    pub(super) ready: Vec<(Span, Held)>,
    /// What the second tier has of it, if that is not taken all at once.
    pub(super) promised: Option<Promised>,
    /// What of that is wanted, as it looked last.
    pub(super) lacking: SpanSet,
    /// Bytes of chunks that were taken from there.
    pub(super) taken: usize,
    /// How far another replica was asked for the rest, if that is not done at once.
    stretches: Option<Stretches>,
    /// When the oldest of what was there already had been fetched, and whether anything had to be: what can be told of an
    /// answer before it has come to its end.
    oldest: Option<Moment>,
    fetches: bool,
    /// How many of them have brought anything. One that brought nothing was left when another replica came to make the
    /// calls, or when the one that made them was gone.
    news: usize,
    stale: bool,
}

/// What there is to do next.
pub(super) enum Next {
    Serve(Vec<(Span, Held)>),
    AwaitBeginning(watch::Receiver<()>),
    /// Flights, each with the span that it had when it was found.
    AwaitFlights(Vec<(Arc<Flight>, Span)>),
    /// Nobody knows yet whether the second tier has this.
    LookFor(SpanSet),
    /// The second tier has all that is missing.
    Take,
}

/// Answers `query`.
pub(super) async fn answer(fetcher: Arc<Fetcher>, query: WindowQuery) -> Result<WindowAnswer, CacheError> {
    let patience = Arc::new(Patience::new(fetcher.queue_timeout));
    let may_stream = query.may_stream;
    let mut request = Request::new(fetcher, query, patience, None);
    if request.span.is_empty() {
        return Ok(request.answer(Vec::new(), Outcome::Hit));
    }
    if !request.fetcher.fields.is_wrong(&request.series.account) {
        let settled = request.span.end <= request.fetcher.ladder.settled_before(request.asked_at);
        request.streams = may_stream && settled && request.excerpt == Excerpt::ALL;
        if request.streams && request.fetcher.tier.is_some() && request.span.length() > DAY {
            request.promised = Some(Promised::new());
            request.stretches = Stretches::of(request.span);
        }
        match request.gather_chunks().await {
            Ok(None) => return Ok(stream::begin(request)),

            // The field has just been found wrong, and from now on nothing is cut; or this one window cannot be.
            Err(CacheError::Repage(RepageError::WindowField | RepageError::Unplaced)) => {}
            Ok(Some((parts, outcome))) => return Ok(request.answer(parts, outcome)),
            Err(error) => return Err(error),
        }
    }
    let (parts, outcome) = request.gather_exactly().await?;
    Ok(request.answer(parts, outcome))
}

impl Drop for Request {
    fn drop(&mut self) {
        self.fetcher.shelves.tidy(&self.series, &self.shelf);
    }
}

impl Request {
    /// One that has so much patience with the quota.
    pub(super) fn new(
        fetcher: Arc<Fetcher>,
        query: WindowQuery,
        patience: Arc<Patience>,
        arrival: Option<Arc<Arrival>>,
    ) -> Self {
        let WindowQuery { series, span, excerpt, asked_at, asker, may_stream: _ } = query;
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
            brought: Coverage::default(),
            streams: false,
            ready: Vec::new(),
            promised: None,
            lacking: SpanSet::default(),
            taken: 0,
            stretches: None,
            oldest: None,
            fetches: false,
            news: 0,
            stale: false,
        }
    }

    /// The whole window, cut from chunks; `None` if it takes long, and may be streamed.
    pub(super) async fn gather_chunks(&mut self) -> Result<Option<(Vec<Part>, Outcome)>, CacheError> {
        let (mut moves, mut rounds) = (0, 0);
        while rounds < ROUNDS {
            let news = self.news;
            let next = self.survey();
            self.arrival = None;
            let next = next?;
            rounds = if self.news > news { 0 } else { rounds + 1 };
            match next {
                Next::Serve(held) => {
                    let parts = parts(held).await?;
                    let moved = twice(&parts);
                    if moved.is_empty() {
                        let outcome = self.outcome(&parts);
                        return Ok(Some((parts, outcome)));
                    }
                    moves += 1;
                    if moves > MOVES {
                        break;
                    }
                    self.forget(&moved);
                }
                Next::AwaitBeginning(mut begun) => drop(begun.changed().await),
                Next::LookFor(spans) => self.look_for(&spans).await,
                Next::Take => {
                    self.take().await?;
                    // Each time something is taken or given up, so it ends.
                    rounds = 0;
                    if self.taken >= AT_A_TIME && !self.lacking.is_empty() {
                        return Ok(None);
                    }
                }
                Next::AwaitFlights(_) if self.stretches.as_ref().is_some_and(Stretches::is_long) => return Ok(None),
                Next::AwaitFlights(flights) => {
                    self.await_flights(&flights).await?;
                    if self.streams && flights.iter().any(|(flight, _)| flight.sight.is_long()) {
                        return Ok(None);
                    }
                }
            }
        }
        Err(CacheError::Restless)
    }

    fn look(&self) -> Look<'_> {
        let (fetcher, series) = (&*self.fetcher, &*self.series);
        Look { fetcher, series, asked_at: self.asked_at, fresh_since: self.fresh_since, open: Copy::use_chunk }
    }

    /// Looks what serves the window now, and sees to it that what does not is on its way.
    pub(super) fn survey(&mut self) -> Result<Next, CacheError> {
        let mut plan = Plan::new(self.span);
        self.take_brought(&mut plan);
        self.look().take_filterable(&mut plan, &self.shelf);
        // From here on the lock is kept: what is missing now is asked for before anybody else can find it missing.
        let shelf = self.shelf.clone();
        let mut shelf = shelf.lock();
        // And what has landed now is not on its way any more.
        self.take_landed(&self.to_be_fetched(&plan.missing))?;
        self.take_brought(&mut plan);
        self.look().take_copies(&mut plan, &shelf, None);
        self.stale |= plan.stale;
        if plan.missing.is_empty() {
            return Ok(Next::Serve(plan.hits));
        }
        if let Some(promised) = &self.promised {
            let unknown = promised.unknown(&plan.missing);
            if !unknown.is_empty() {
                return Ok(Next::LookFor(unknown));
            }
            self.lacking = promised.kept(&plan.missing);
        }
        if self.seat.cursor().is_some() {
            self.ready = beginning(self.span, plan.hits.clone());
        }
        let copies = plan.hits.iter().filter(|(_, held)| held.copy).map(|(_, held)| held.chunk.fetched_at());
        let promised = self.promised.as_ref().and_then(Promised::oldest);
        self.oldest = copies.chain(promised).chain(self.oldest).min();
        let to_be_fetched = self.to_be_fetched(&plan.missing);
        self.fetches |= !to_be_fetched.is_empty();
        if to_be_fetched.is_empty() {
            return Ok(Next::Take);
        }
        let to_be_fetched = self.next_stretch(to_be_fetched);
        let mut unasked = to_be_fetched.clone();
        let mut flights = Vec::new();
        for flight in &shelf.flights {
            let span = flight.span();
            let Some(need) = need(&to_be_fetched, span).filter(|_| flight.serves(span, self.series.rich)) else {
                continue;
            };
            // One that everybody has just left is not going to bring anything.
            if self.seat.may_wait_for(flight) && self.seat.wait_for(flight, need) {
                unasked.remove(span);
                flights.push((flight.clone(), span));
            }
        }
        self.seat.wait_only_for(&flights);
        if unasked.is_empty() {
            return Ok(Next::AwaitFlights(flights));
        }
        let want = Want {
            spans: self.look().runs(&plan, &unasked),
            rich: self.series.rich,
            seat: Arc::downgrade(&self.seat),
            fresh_since: self.fresh_since,
            looked_up: self.promised.is_some(),
        };
        Ok(Next::AwaitBeginning(self.fetcher.gather(&self.series, &self.shelf, &mut shelf, want)))
    }

    /// What of `missing` is not to be taken from the second tier.
    fn to_be_fetched(&self, missing: &SpanSet) -> SpanSet {
        self.promised.as_ref().map_or_else(|| missing.clone(), |promised| promised.broken(missing))
    }

    /// What of `spans` is asked for now.
    fn next_stretch(&mut self, spans: SpanSet) -> SpanSet {
        match &mut self.stretches {
            Some(stretches) if self.fetcher.elsewhere(&self.series.account).is_some() => {
                stretches.within(&spans, &self.fetcher.grid)
            }
            _ => spans,
        }
    }

    /// Takes what the flights that it waits for have brought. An error if one has failed that was to bring what is missing.
    fn take_landed(&mut self, missing: &SpanSet) -> Result<(), CacheError> {
        for Found { span, chunk, rich, is_unfiltered } in self.seat.found() {
            self.brought.insert(span, Brought { chunk, rich, is_unfiltered, copy: true });
        }
        for (flight, brought) in self.seat.landed() {
            let chunks = match brought {
                Ok(chunks) => chunks,
                Err(error) if need(missing, flight.span()).is_some() => return Err(error),
                Err(_) => continue,
            };
            if let Some(stretches) = self.stretches.as_mut().filter(|_| !chunks.is_empty()) {
                let items = chunks.iter().map(|chunk| chunk.rows_within(flight.span()).len()).sum();
                stretches.saw(items, flight.span().length());
            }
            // Of one who streams, what it has sent is not kept.
            for chunk in chunks.iter().filter(|chunk| chunk.span().overlaps(self.span)) {
                // What another replica cut its answer from may reach beyond it, where it was too old to be served.
                let span = if flight.is_elsewhere() { chunk.span().intersection(flight.span()) } else { chunk.span() };
                let (chunk, rich) = (chunk.clone(), flight.rich);
                self.brought.insert(span, Brought { chunk, rich, is_unfiltered: false, copy: false });
            }
            self.news += usize::from(!chunks.is_empty());
            if chunks.is_empty() {
                self.seat.patience.attempt_again();
            }
            // Whoever waits for a flight is content with what it saw, though it began a moment earlier.
            self.fresh_since = self.fresh_since.min(flight.began_at);
            self.flights.push(flight);
        }
        Ok(())
    }

    fn take_brought(&self, plan: &mut Plan<Held>) {
        plan.take(&self.brought, &self.fetcher.ladder, self.asked_at, Moment::MIN, |brought| {
            let filter = match &self.series.filter {
                Filter::Known(filter) if brought.is_unfiltered => Some(KnownFilter::clone(filter)),
                _ => None,
            };
            let change = Change { strip: brought.rich && !self.series.rich, filter };
            Some(Held { chunk: brought.chunk.clone(), change, copy: brought.copy })
        });
    }

    /// Waits until there is news of one of these flights. An error if the quota grants none of them a call for too long.
    async fn await_flights(&self, flights: &[(Arc<Flight>, Span)]) -> Result<(), CacheError> {
        let Seat { asker, patience, .. } = &*self.seat;
        let news =
            flights.iter().map(|(flight, span)| Box::pin(flight.news(*span, asker.class, patience, self.streams)));
        tokio::select! {
            biased;
            // All at once: one that the quota holds is not found out only when a longer one has landed.
            (news, ..) = select_all(news) => news,
            error = self.impatience(flights) => Err(error),
        }
    }

    /// Ends when the quota has granted none of these flights a call for too long.
    pub(super) async fn impatience(&self, flights: &[(Arc<Flight>, Span)]) -> CacheError {
        let Seat { asker, patience, .. } = &*self.seat;
        let is_elsewhere = flights.iter().any(|(flight, _)| flight.is_elsewhere());
        patience.over(if is_elsewhere { SILENCE } else { Duration::ZERO }).await;
        let turns = self.fetcher.quotas.of(&self.series.account);
        let retry_after = match flights.iter().filter_map(|(flight, _)| flight.held_until(asker.class)).max() {
            Some(until) => until.saturating_duration_since(Instant::now()),
            None if is_elsewhere => COME_AGAIN,
            None => turns.map_or(COME_AGAIN, |turns| turns.forecast(1, asker.class)),
        };
        CacheError::Held(Exhausted { retry_after })
    }

    /// Forgets spans whose copies are older than what an item has done since.
    fn forget(&mut self, moved: &[Span]) {
        let mut shelf = self.shelf.lock();
        for span in moved {
            self.brought.remove(*span);
            shelf.copies.remove(*span);
        }
    }

    fn outcome(&self, parts: &[Part]) -> Outcome {
        if self.flights.is_empty() {
            Outcome::Hit
        } else if self.flights.iter().all(|flight| flight.is_charged()) {
            Outcome::Collapsed
        } else if self.stale {
            Outcome::Stale
        } else if parts.iter().any(|part| part.copy) {
            Outcome::Partial
        } else {
            Outcome::Miss
        }
    }

    /// The answer whose items are still to come, with what is known of it by now.
    pub(super) fn answer_to_come(&self, rest: Rest) -> WindowAnswer {
        let outcome = match (self.fetches, self.oldest) {
            (false, _) => Outcome::Hit,
            (true, Some(_)) => Outcome::Partial,
            (true, None) => Outcome::Miss,
        };
        WindowAnswer {
            items: Excerpted { slices: Vec::new(), count: 0, has_more: false },
            rest: Some(rest),
            settled: true,
            lasting: None,
            oldest_copy: self.oldest,
            outcome,
            chunks: 0,
            hits: 0,
            calls: 0,
        }
    }

    /// The answer that is made of these parts; tells of the calls that were made for it.
    pub(super) fn answer(&self, parts: Vec<Part>, outcome: Outcome) -> WindowAnswer {
        // A flight that was on its way already has seen what was there when it began.
        let aged = parts.iter().filter(|part| part.copy || part.fetched_at < self.asked_at);
        WindowAnswer {
            settled: !parts.is_empty() && self.span.end <= self.fetcher.ladder.settled_before(self.asked_at),
            lasting: None,
            oldest_copy: aged.map(|part| part.fetched_at).min(),
            outcome,
            chunks: parts.len(),
            hits: parts.iter().filter(|part| part.copy).count(),
            calls: self.flights.iter().filter_map(|flight| flight.charge()).sum(),
            rest: None,
            items: self.excerpt.of(parts.into_iter().map(|part| part.slice).collect()),
        }
    }
}

/// What lies at the beginning of `span`, one behind the other.
fn beginning(span: Span, mut hits: Vec<(Span, Held)>) -> Vec<(Span, Held)> {
    hits.sort_by_key(|(span, _)| span.start);
    let mut end = span.start;
    let follows = |(span, _): &(Span, Held)| std::mem::replace(&mut end, span.end) == span.start;
    hits.into_iter().take_while(follows).collect()
}
