//! What is about to be asked of the upstream is looked for in the second tier first.

use std::sync::Arc;
use std::time::Duration;

use super::chunk::Chunk;
use super::copies::{ByRichness, Copy};
use super::fetch::Fetcher;
use super::seat::Found;
use super::shelf::SharedShelf;
use super::tier::Tier;
use crate::upstream::{Filter, Series};
use crate::window::{Moment, Span, SpanSet};

/// How far the clocks of replicas may differ.
pub(super) const SKEW: Duration = Duration::from_mins(1);

impl Fetcher {
    /// Takes from the second tier what is there of what is being gathered. What comes to be wanted meanwhile is looked for
    /// too, so that nothing is asked of the upstream that has not been looked for.
    pub(super) async fn look_in(&self, tier: &Tier, series: &Arc<Series>, of: &SharedShelf) {
        if !tier.is_good(&series.account).await {
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
        let sane = found.into_iter().filter(|chunk| is_sane(chunk.fetched_at(), now));
        let mut found: Vec<Arc<Chunk>> = sane.map(Arc::new).collect();
        found.retain(|chunk| {
            let mut shelf = shelf.lock();
            // Under the lock: it may have been purged since it was read.
            if self.purges.buries(series, chunk) {
                return false;
            }
            let copy = Copy::keep(chunk, &self.memory);
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

/// What was fetched in the future was fetched by a replica whose clock is wrong, and that may have taken for settled what
/// was not.
pub(super) fn is_sane(fetched_at: Moment, now: Moment) -> bool {
    fetched_at <= now + SKEW
}
