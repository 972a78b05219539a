//! The settings of the paging stage.

use super::concurrency::RunLimiters;
use super::sizing::RunBounds;
use crate::clock::Clock;
use crate::config;

/// Fetches runs, with a limit on concurrent runs per account and caller.
#[derive(Clone, Debug)]
pub struct PagingLayer {
    pub(super) series_settings: config::SeriesSettings,
    pub(super) clock: Clock,
    pub(super) bounds: RunBounds,
    pub(super) limiters: RunLimiters,
}

impl PagingLayer {
    /// Each run holds one of the permits of `limiters` from its first call to its last.
    pub fn new(series_settings: &config::SeriesSettings, limiters: &RunLimiters, clock: &Clock) -> Self {
        let (series_settings, clock, limiters) = (series_settings.clone(), clock.clone(), limiters.clone());
        Self { series_settings, clock, bounds: RunBounds::default(), limiters }
    }

    /// Replaces the bounds of runs.
    #[must_use]
    pub fn bounded(self, bounds: RunBounds) -> Self {
        Self { bounds, ..self }
    }
}
