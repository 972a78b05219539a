//! What is about to be asked of the upstream is looked for in the second tier first: all at once, or, of a long window, by
//! name, and then piece by piece.

use std::sync::Arc;

use super::CacheError;
use super::chunk::Chunk;
use super::copies::ByRichness;
use super::fetch::Fetcher;
use super::seat::Found;
use super::session::{Brought, Session};
use super::shelf::SharedShelf;
use super::tier::Tier;
use crate::clock::SKEW;
use crate::upstream::{Filter, Series};
use crate::window::{Moment, Span, SpanSet};

impl Fetcher {
    /// Takes from the second tier what is there of what is being gathered. What comes to be wanted meanwhile is looked for
    /// too, so that nothing is asked of the upstream that has not been looked for.
    pub(super) async fn look_in(&self, tier: &Tier, series: &Arc<Series>, of: &SharedShelf) {
        if !tier.is_good(series).await {
            return;
        }
        loop {
            let mut wanted = ByRichness::<SpanSet>::default();
            {
                let mut shelf = of.lock();
                let Some(gathering) = &mut shelf.gathering else { return };
                for want in gathering.wants.iter_mut().filter(|want| !want.looked_up) {
                    want.looked_up = true;
                    want.spans.spans().iter().for_each(|span| wanted.of(want.rich).insert(*span));
                }
            }
            if wanted.plain.is_empty() && wanted.rich.is_empty() {
                return;
            }
            // What is rich serves those who want none as well.
            wanted.plain.spans().to_vec().into_iter().for_each(|span| wanted.rich.insert(span));
            for (rich, spans) in [(true, &wanted.rich), (false, &wanted.plain)] {
                if !spans.is_empty() {
                    self.take_from(tier, &Series { rich, ..Series::clone(series) }, spans, of, of).await;
                    if let Filter::Known(_) = series.filter {
                        let unfiltered = Series { filter: Filter::None, rich, ..Series::clone(series) };
                        let shelf = self.shelves.of(&unfiltered);
                        self.take_from(tier, &unfiltered, spans, &shelf, of).await;
                        self.shelves.tidy(&unfiltered, &shelf);
                    }
                }
            }
        }
    }

    /// Puts what the second tier has of `spans` onto `shelf`, and takes it out of what is wanted of `gathering_of`.
    async fn take_from(
        &self,
        tier: &Tier,
        series: &Series,
        spans: &SpanSet,
        shelf: &SharedShelf,
        gathering_of: &SharedShelf,
    ) {
        let found = tier.look_up(series, spans).await;
        let now = self.clock.now();
        let found = self.keep_found(series, shelf, found, now);
        let is_unfiltered = !shelf.is_same(gathering_of);
        let mut shelf = gathering_of.lock();
        let Some(gathering) = &mut shelf.gathering else { return };
        for want in gathering.wants.iter_mut().filter(|want| want.looked_up && (series.rich || !want.rich)) {
            for chunk in &found {
                let servable = self.servable(chunk.span(), chunk.fetched_at(), want.fresh_since, now);
                let serves = servable.spans().iter().flat_map(|span| want.spans.within(*span)).collect::<Vec<_>>();
                for span in serves {
                    want.spans.remove(span);
                    if let Some(seat) = want.seat.upgrade() {
                        let (chunk, rich) = (chunk.clone(), series.rich);
                        seat.find(Found { span, chunk, rich, is_unfiltered });
                    }
                }
            }
        }
    }
    /// Puts what was found of a series in the second tier onto its shelf, and leaves out what may not be used.
    pub(super) fn keep_found(
        &self,
        series: &Series,
        shelf: &SharedShelf,
        found: Vec<Chunk>,
        now: Moment,
    ) -> Vec<Arc<Chunk>> {
        let (sane, future): (Vec<_>, Vec<_>) = found.into_iter().partition(|chunk| is_sane(chunk.fetched_at(), now));
        if let Some(tier) = self.tier.as_ref().filter(|_| !future.is_empty()) {
            tier.delete(series, &future);
        }
        let mut found: Vec<Arc<Chunk>> = sane.into_iter().map(Arc::new).collect();
        found.retain(|chunk| {
            let mut shelf = shelf.lock();
            // Under the lock: it may have been purged since it was read.
            if self.purges.buries(series, chunk) {
                return false;
            }
            let copy = self.keep_copy(chunk);
            let id = copy.id;
            if !shelf.put(series.rich, copy, &self.memory) {
                self.memory.drop_chunk(id);
            }
            true
        });
        found
    }

    /// What of a chunk serves one for whom copies fetched since `fresh_since` are good enough.
    pub(super) fn servable(&self, span: Span, fetched_at: Moment, fresh_since: Moment, now: Moment) -> SpanSet {
        let mut servable = SpanSet::from(span);
        if fetched_at < fresh_since {
            self.ladder.due(span, fetched_at, now).for_each(|due| servable.remove(due));
        }
        servable
    }
}

impl Session {
    /// Looks by name what the second tier has of `spans`.
    pub(super) async fn list(&mut self, spans: &SpanSet) {
        let Some(tier) = self.fetcher.tier.clone() else { return };
        let (mut there, mut left) = (Vec::new(), spans.clone());
        if tier.is_good(&self.series).await {
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
        if let Some(listing) = &mut self.listing {
            listing.learn(spans, there);
        }
    }

    /// Reads a piece that the second tier has by name.
    pub(super) async fn read_piece(&mut self, piece: &SpanSet) -> Result<(), CacheError> {
        let (fetcher, series) = (self.fetcher.clone(), self.series.clone());
        let (Some(tier), Some(mut listing)) = (&fetcher.tier, self.listing.take()) else { return Ok(()) };
        // That its account's chunks were cut wrongly may be found out at any time.
        let (is_good, bytes) = tokio::join!(tier.is_good(&series), self.read(tier, piece));
        match bytes.filter(|_| is_good) {
            Some(bytes) => listing.read(piece, bytes),
            None => listing.fail(&fetcher.grid),
        }
        self.listing = Some(listing);
        // Each piece is read or given up once.
        self.history.progress += 1;
        self.check_field().await
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
                    self.in_hand.insert(span, Brought { chunk, rich, is_unfiltered, copy: true });
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

/// What was fetched in the future was fetched by a replica whose clock is wrong, and that may have taken for settled what
/// was not.
pub(super) fn is_sane(fetched_at: Moment, now: Moment) -> bool {
    fetched_at <= now + SKEW
}
