//! Sends a long window as it comes: its beginning is on its way to the caller while its end is still being fetched.
//!
//! What a walk has seen is proven when it has ended, and now and then before. So what is streamed may turn out not to have
//! been all there was; then the answer is broken off, and nobody can take it for whole. Only what is settled is streamed,
//! whose rows hold still; and only whole windows, for whose end nothing at their beginning has to be known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::chunk::Slice;
use super::flight::Flight;
use super::look::Held;
use super::parts::parts;
use super::seat::{Cursor, Seat};
use super::serve::{Next, Request};
use super::sight::Verdict;
use super::{CacheError, WindowAnswer};
use crate::quota::Exhausted;
use crate::repage::RepageError;
use crate::window::{Moment, Span};

/// So many slices wait for the caller; the rest stays where it lies.
const AHEAD: usize = 2;

/// What is still to come of an answer. If it ends without an end, it is not whole.
#[derive(Debug)]
pub struct Rest {
    items: mpsc::Receiver<Result<Streamed, CacheError>>,
    calls: StreamedCalls,
}

/// What comes of it.
#[derive(Debug)]
pub enum Streamed {
    /// The next items.
    Slice(Slice),
    /// That was all of it.
    End {
        /// The upstream calls that were made for it, and are told of in no other answer.
        calls: u32,
    },
}

impl Rest {
    /// What comes next.
    pub fn poll_next(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Streamed, CacheError>>> {
        self.items.poll_recv(context)
    }

    /// The upstream calls that were told of so far, in whatever way the answer has ended. Calls that are told of later are
    /// not this answer's.
    pub fn settle_calls(&self) -> u32 {
        self.calls.settle()
    }
}

/// Counts the calls that a streamed answer tells of, for the task that streams it and the body that reports it.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamedCalls(Arc<AtomicU32>);

impl StreamedCalls {
    /// Set when the answer has been reported.
    const SETTLED: u32 = 1 << 31;

    /// Adds calls; `false` if the answer was reported before, without them.
    pub(super) fn add(&self, calls: u32) -> bool {
        self.0.fetch_add(calls, Ordering::Relaxed) & Self::SETTLED == 0
    }

    fn settle(&self) -> u32 {
        self.0.fetch_or(Self::SETTLED, Ordering::Relaxed) & !Self::SETTLED
    }
}

/// Answers with what is there, and with what comes then.
pub(super) fn begin(request: Request) -> WindowAnswer {
    let (to, from) = mpsc::channel(AHEAD);
    let calls = StreamedCalls::default();
    let answer = request.answer_to_come(Rest { items: from, calls: calls.clone() });
    tokio::spawn(async move {
        let mut stream = Stream { request, to: to.clone(), unproven: Vec::new(), calls: 0, told: calls };
        // A caller that has hung up wants nothing any more.
        let end = tokio::select! {
            end = stream.run() => end,
            () = to.closed() => return,
        };
        let _ = to.send(end.map(|()| Streamed::End { calls: stream.calls })).await;
    });
    answer
}

impl Request {
    fn stream_from(&self, at: Moment) {
        self.seat.stream_from(Cursor { at, rich: self.series.rich });
    }
}

struct Stream {
    /// For what has not been sent yet.
    request: Request,
    to: mpsc::Sender<Result<Streamed, CacheError>>,
    /// Flights of which something was sent before it was proven.
    unproven: Vec<Arc<Flight>>,
    calls: u32,
    /// The same calls, as the answer's body reports them.
    told: StreamedCalls,
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Nothing is kept for it any more, and nobody waits until it has taken it.
        self.request.stream_from(Moment::MAX);
    }
}

impl Stream {
    /// Tells of calls in this answer; or sets them against later savings, if it has been reported before.
    fn tell_calls(&mut self, calls: u32) {
        self.calls += calls;
        if !self.told.add(calls)
            && let Some(turns) = self.request.fetcher.quotas.of(&self.request.series.account)
        {
            turns.add_unsettled(calls);
        }
    }

    async fn run(&mut self) -> Result<(), CacheError> {
        self.request.stream_from(self.request.span.start);
        while !self.request.span.is_empty() {
            let next = self.request.survey()?;
            let calls = self.request.flights.drain(..).filter_map(|flight| flight.charge()).sum();
            self.tell_calls(calls);
            self.check()?;
            match next {
                Next::Serve(held) => self.send_all(held).await?,
                Next::AwaitBeginning(mut begun) => drop(begun.changed().await),
                Next::LookFor(spans) => self.request.look_for(&spans).await,
                Next::Take => self.send_ready_or_wait(Vec::new()).await?,
                Next::AwaitFlights(flights) => self.send_ready_or_wait(flights).await?,
            }
        }
        self.prove().await
    }

    /// Sends what is there; only when all of it has been taken, sees to what comes behind it. So one who reads slowly
    /// has little in memory.
    async fn send_ready_or_wait(&mut self, flights: Vec<(Arc<Flight>, Span)>) -> Result<(), CacheError> {
        let ready = std::mem::take(&mut self.request.ready);
        let (promised, at) = (&self.request.promised, self.request.span.start);
        if !ready.is_empty() {
            self.send_all(ready).await
        } else if promised.as_ref().is_some_and(|promised| promised.is_there(at)) {
            self.request.take().await
        } else {
            self.take_or_wait(flights).await
        }
    }

    /// Sends what lies one behind the other, and goes on behind it.
    async fn send_all(&mut self, mut held: Vec<(Span, Held)>) -> Result<(), CacheError> {
        held.sort_by_key(|(span, _)| span.start);
        for (span, held) in held {
            for part in parts(vec![(span, held)]).await? {
                self.send(part.slice, span).await;
            }
        }
        Ok(())
    }

    async fn send(&mut self, slice: Slice, span: Span) {
        if !slice.rows.is_empty() {
            // If nobody takes it, this task is about to end.
            let _ = self.to.send(Ok(Streamed::Slice(slice))).await;
        }
        let request = &mut self.request;
        request.brought.remove(span);
        request.span = request.span.split_at(span.end).1;
        request.stream_from(span.end);
        // Until the caller had taken it, it was not the quota that was waited for.
        request.seat.patience.at_most(Duration::ZERO);
    }

    /// Takes what a flight has seen, or waits until there is something.
    async fn take_or_wait(&mut self, flights: Vec<(Arc<Flight>, Span)>) -> Result<(), CacheError> {
        let mut changed: Vec<_> = flights.iter().map(|(flight, _)| flight.changed()).collect();
        let begun = self.request.span.start;
        for (flight, _) in &flights {
            let as_it_is = flight.rich == self.request.series.rich;
            while let Some(chunk) = as_it_is.then(|| flight.sight.at(self.request.span.start)).flatten() {
                if !self.unproven.iter().any(|known| Arc::ptr_eq(known, flight)) {
                    self.unproven.push(flight.clone());
                }
                let span = chunk.span().intersection(self.request.span);
                self.send(Slice { rows: chunk.rows_within(span), chunk }, span).await;
                if self.request.span.is_empty() {
                    return Ok(());
                }
            }
        }
        // What has happened since they were looked at is not waited for.
        if self.request.span.start > begun
            || flights.iter().any(|(flight, known)| flight.brought().is_some() || flight.span() != *known)
        {
            return Ok(());
        }
        let Seat { asker, patience, .. } = &*self.request.seat;
        let held = flights.iter().filter_map(|(flight, _)| flight.held_until(asker.class)).max();
        if let Some(until) = held.filter(|until| *until > patience.end()) {
            return Err(CacheError::Held(Exhausted { retry_after: until.saturating_duration_since(Instant::now()) }));
        }
        tokio::select! {
            biased;
            // One that is gone without a word is found out by the next look.
            _ = select_all(changed.iter_mut().map(|changed| Box::pin(changed.changed()))) => Ok(()),
            error = self.request.impatience(&flights) => Err(error),
        }
    }

    /// Whether nothing is known against what was sent. What is proven is let go of, with all that it has brought.
    fn check(&mut self) -> Result<(), CacheError> {
        if self.unproven.iter().any(|flight| flight.sight.verdict() == Verdict::Refuted) {
            return Err(CacheError::Repage(RepageError::Torn));
        }
        let is_proven =
            |flight: &mut Arc<Flight>| flight.sight.verdict() == Verdict::Proven && flight.brought().is_some();
        let proven = self.unproven.extract_if(.., is_proven);
        let calls = proven.filter_map(|flight| flight.charge()).sum();
        self.tell_calls(calls);
        Ok(())
    }

    /// Waits until all that was sent is proven.
    async fn prove(&mut self) -> Result<(), CacheError> {
        for flight in std::mem::take(&mut self.unproven) {
            loop {
                let mut changed = flight.changed();
                match flight.sight.verdict() {
                    Verdict::Proven => break,
                    Verdict::Refuted => return Err(CacheError::Repage(RepageError::Torn)),
                    Verdict::Open => changed.changed().await.map_err(|_| CacheError::Lost)?,
                }
            }
            self.tell_calls(flight.charge().unwrap_or_default());
        }
        Ok(())
    }
}
