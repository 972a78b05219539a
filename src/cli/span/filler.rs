//! Has the gateway fetch the parts of a span, block by block, and asks it from time to time how much is left.

use std::time::{Duration, Instant};

use super::blocks::{MAX_BLOCK_PARTS, next_block, window_of};
use super::cost::Cost;
use super::failure::Failure;
use super::gateway::{Gateway, ItemSink, RequestError};
use super::parts::{Part, Span};
use super::progress::Progress;

/// The interval at which the cost of what is left is asked for.
const FORECAST_INTERVAL: Duration = Duration::from_secs(30);

/// Fetches parts ahead of their reader.
pub(in crate::cli) struct Filler<'a> {
    gateway: &'a Gateway,
    progress: &'a Progress,
    /// The number of parts whose cost is asked for at once; fewer if the gateway refuses windows of that length.
    look_ahead: usize,
    /// The time of the last forecast.
    asked_at: Option<Instant>,
}

impl<'a> Filler<'a> {
    pub(in crate::cli) fn new(gateway: &'a Gateway, progress: &'a Progress) -> Self {
        Self { gateway, progress, look_ahead: MAX_BLOCK_PARTS, asked_at: None }
    }

    /// Has the gateway cache the first of `parts`, which are what is left of the span. Returns the number of parts that
    /// are cached now; at least one.
    ///
    /// # Errors
    /// [`Failure`] if the gateway refuses the parts, or the stall timeout ends.
    pub(in crate::cli) async fn fill(&mut self, parts: &[Part]) -> Result<usize, Failure> {
        self.forecast(parts).await?;
        let (looked_at, cost) = self.look_ahead(parts).await?;
        if cost.is_cached {
            return Ok(looked_at);
        }
        let Some(block) = next_block(parts, looked_at, cost.expected) else { return Ok(parts.len()) };
        for window in block.windows {
            let begun = Instant::now();
            let calls = self.gateway.fetch(window, self.progress).await?;
            self.progress.add_calls(calls, begun.elapsed());
        }
        Ok(block.parts)
    }

    /// Reads the items of a window into `sink`.
    ///
    /// # Errors
    /// [`Failure`] if the gateway refuses the window, the stall timeout ends, or the sink fails.
    pub(in crate::cli) async fn read(&self, window: Span, sink: &mut impl ItemSink) -> Result<(), Failure> {
        let begun = Instant::now();
        let calls = self.gateway.read(window, sink, self.progress).await?;
        self.progress.add_reading(calls, begun.elapsed());
        Ok(())
    }

    /// The cost of the next parts, and their number.
    async fn look_ahead(&mut self, parts: &[Part]) -> Result<(usize, Cost), Failure> {
        loop {
            let count = self.look_ahead.min(parts.len());
            let Some(window) = window_of(parts, count) else {
                return Err(Failure::failed("no part is left"));
            };
            match self.gateway.cost(window, self.progress).await {
                Ok(cost) => return Ok((count, cost)),
                // The window may be longer than `window.max_span`.
                Err(RequestError::Refused(400, _)) if count > 1 => self.look_ahead = count / 2,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells the progress what is left to fetch.
    async fn forecast(&mut self, parts: &[Part]) -> Result<(), Failure> {
        let is_due = self.asked_at.is_none_or(|asked_at| asked_at.elapsed() >= FORECAST_INTERVAL);
        let Some(window) = window_of(parts, parts.len()).filter(|_| is_due) else { return Ok(()) };
        match self.gateway.cost(window, self.progress).await {
            Ok(cost) => {
                self.progress.set_forecast(&cost);
                // Asked for again as soon as the density is known.
                self.asked_at = cost.expected.is_some().then(Instant::now);
            }
            // Too long for one window: there is no forecast until less is left.
            Err(RequestError::Refused(400, _)) if parts.len() > 1 => self.asked_at = Some(Instant::now()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Gateway {
    /// The cost of `span` as a whole. A span that the gateway refuses as too long is asked for in halves: then the time is
    /// the least that it takes.
    ///
    /// # Errors
    /// [`Failure`] if the gateway refuses a single day, or the stall timeout ends.
    pub(in crate::cli) async fn cost_of(&self, parts: &[Part], progress: &Progress) -> Result<Cost, Failure> {
        let Some(window) = window_of(parts, parts.len()) else { return Err(Failure::failed("no part is left")) };
        match self.cost(window, progress).await {
            Err(RequestError::Refused(400, _)) if parts.len() > 1 => {
                let (first, second) = parts.split_at(parts.len() / 2);
                let first = Box::pin(self.cost_of(first, progress)).await?;
                Ok(first.and(Box::pin(self.cost_of(second, progress)).await?))
            }
            cost => Ok(cost?),
        }
    }
}
