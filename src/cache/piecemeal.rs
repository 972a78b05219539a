//! Takes a long window from the second tier piece by piece, as far as its answer has come.

use std::sync::Arc;

use super::CacheError;
use super::lookup::is_sane;
use super::serve::{Brought, Request};
use super::tier::Tier;
use crate::repage::RepageError;
use crate::upstream::{Filter, Series};
use crate::window::SpanSet;

impl Request {
    /// Looks by name what the second tier has of `spans`.
    pub(super) async fn look_for(&mut self, spans: &SpanSet) {
        let Some(tier) = self.fetcher.tier.clone() else { return };
        let (mut there, mut left) = (Vec::new(), spans.clone());
        if tier.is_good(&self.series.account).await {
            for (series, _) in self.sources() {
                let now = self.fetcher.clock.now();
                for (span, fetched_at) in tier.names(&series, &left).await {
                    if is_sane(fetched_at, now) {
                        let servable = self.fetcher.servable(span, fetched_at, self.fresh_since, now);
                        there.extend(servable.spans().iter().map(|span| (*span, fetched_at)));
                    }
                }
                for (span, _) in &there {
                    left.remove(*span);
                }
                if left.is_empty() {
                    break;
                }
            }
        }
        if let Some(promised) = &mut self.promised {
            promised.learn(spans, there);
        }
    }

    /// Takes the next piece of what the second tier has, or what comes behind it if nothing of that can be used.
    pub(super) async fn take(&mut self) -> Result<(), CacheError> {
        let (fetcher, account) = (self.fetcher.clone(), self.series.account.clone());
        let Some(tier) = &fetcher.tier else { return Ok(()) };
        let Some(mut promised) = self.promised.take() else { return Ok(()) };
        let mut bytes = 0;
        // What is there by name only is found out before it is asked for: it is one run, and not one a piece.
        while bytes == 0 && !self.lacking.is_empty() {
            let piece = promised.next(&fetcher.grid, &self.lacking);
            // That its account's chunks were cut wrongly may be found out at any time.
            let (is_good, read) = tokio::join!(tier.is_good(&account), self.read(tier, &piece));
            let read = read.filter(|_| is_good);
            match read {
                Some(taken) => promised.took(&piece, taken),
                None => promised.fail(&fetcher.grid, &self.lacking),
            }
            self.lacking = promised.kept(&self.lacking);
            let Some(taken) = read else { break };
            bytes = taken;
        }
        self.promised = Some(promised);
        self.taken += bytes;
        let is_wrong = fetcher.fields.is_wrong(&account);
        if is_wrong { Err(CacheError::Repage(RepageError::WindowField)) } else { Ok(()) }
    }

    /// Reads a piece from the second tier, and keeps it until it is sent: memory may be too small for that. How many bytes
    /// it was; `None` if Redis does not say.
    async fn read(&mut self, tier: &Tier, piece: &SpanSet) -> Option<usize> {
        let (mut left, mut bytes) = (piece.clone(), 0);
        for (series, is_unfiltered) in self.sources() {
            let found = tier.read(&series, &left).await?;
            let (now, shelf) = (self.fetcher.clock.now(), self.fetcher.shelves.of(&series));
            let found = self.fetcher.keep_found(&series, &shelf, found, now);
            self.fetcher.shelves.tidy(&series, &shelf);
            for chunk in found {
                bytes += chunk.weight();
                let servable = self.fetcher.servable(chunk.span(), chunk.fetched_at(), self.fresh_since, now);
                for span in servable.spans().iter().flat_map(|span| piece.within(*span)) {
                    left.remove(span);
                    let (chunk, rich) = (chunk.clone(), series.rich);
                    self.brought.insert(span, Brought { chunk, rich, is_unfiltered, copy: true });
                }
            }
            if left.is_empty() {
                break;
            }
        }
        Some(bytes)
    }

    /// The series whose chunks serve the window, those first that need not be changed for it; and whether its filter is
    /// still to be applied.
    fn sources(&self) -> Vec<(Arc<Series>, bool)> {
        let of =
            |rich, filter: &Filter| Arc::new(Series { rich, filter: filter.clone(), ..Series::clone(&self.series) });
        let filters: &[(Filter, bool)] = match &self.series.filter {
            Filter::Known(_) => &[(self.series.filter.clone(), false), (Filter::None, true)],
            filter => &[(filter.clone(), false)],
        };
        let richness: &[bool] = if self.series.rich { &[true] } else { &[false, true] };
        let sources = filters
            .iter()
            .flat_map(|(filter, is_unfiltered)| richness.iter().map(move |rich| (of(*rich, filter), *is_unfiltered)));
        sources.collect()
    }
}
