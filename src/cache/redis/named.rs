//! What the tier has by name, without its values: how much of a long window is there can be known before any of it is
//! read, and what is read then can be little at a time.

use super::{Inner, RedisTier, cell_name, read_field};
use crate::cache::chunk::Chunk;
use crate::redis_client::{Command, Reply};
use crate::request::Series;
use crate::telemetry;
use crate::window::{Interval, IntervalSet, Timestamp};

/// So many cells are asked at once what stands in them; names are short.
const NAMES_AT_ONCE: usize = 256;

impl RedisTier {
    /// The chunks of a series that stand in the cells of `intervals`, each with its span and when it was fetched, but none
    /// that was purged. What cannot be had is left out. A name promises nothing: the value may be damaged or gone.
    pub(in crate::cache) async fn names(&self, series: &Series, intervals: &IntervalSet) -> Vec<(Interval, Timestamp)> {
        let inner = &self.inner;
        let name = inner.series_name(series);
        let cells: Vec<String> = inner.cells(intervals).map(|cell| cell_name(&name, cell)).collect();
        let mut named = Vec::new();
        for cells in cells.chunks(NAMES_AT_ONCE) {
            let ask = cells.iter().map(|cell| Command::new("HKEYS").arg(cell.clone()));
            let Some(replies) = inner.ask(series, ask, cells.len()).await else { break };
            let fields = replies.into_iter().filter_map(|reply| match reply {
                Reply::Array(fields) => Some(fields),
                _ => None,
            });
            let read = fields.flatten().filter_map(|field| match field {
                Reply::Bytes(field) => read_field(&field),
                _ => None,
            });
            let Series { account, stream, .. } = series;
            let unburied =
                read.filter(|(interval, _, epoch)| !inner.purges.buries_of(account, stream, *interval, *epoch));
            named.extend(unburied.map(|(interval, fetched_at, _)| (interval, fetched_at)));
        }
        named
    }

    /// The chunks of a series that are kept for any of `intervals`, which lie in few cells, oldest first. `None` if Redis
    /// does not say.
    pub(in crate::cache) async fn read(&self, series: &Series, intervals: &IntervalSet) -> Option<Vec<Chunk>> {
        let name = self.inner.series_name(series);
        let cells: Vec<String> = self.inner.cells(intervals).map(|cell| cell_name(&name, cell)).collect();
        let mut chunks = self.inner.read_cells(series, &cells, intervals).await?;
        chunks.sort_by_key(Chunk::fetched_at);
        Some(chunks)
    }
}

impl Inner {
    /// Asks for big values, and along with them whether anything of the account was purged, which is known before they
    /// are used: somebody may have come to want them after a purge that this replica has not heard of. `None` if either
    /// cannot be found out.
    pub(super) async fn ask(
        &self,
        series: &Series,
        commands: impl Iterator<Item = Command>,
        count: usize,
    ) -> Option<Vec<Reply>> {
        let replies = self.link.bulk(commands.chain(self.purges.ask(&series.account)).collect()).await;
        let news = replies.as_ref().ok().and_then(|replies| replies.get(count));
        let is_known = self.purges.heard(&series.account, news).await;
        let replies = replies.ok().filter(|_| is_known);
        if replies.is_none() {
            telemetry::redis_read("failed");
        }
        replies.map(|mut replies| {
            replies.truncate(count);
            replies
        })
    }
}
