//! Overwrites what was purged, what has grown too old, and what cannot be told apart from it.

use std::io;
use std::sync::Arc;

use super::record::RecordMeta;
use super::state::DiskState;
use super::tier::{DiskTier, Inner};
use crate::blocking::spawn_work;
use crate::cache::redis::PurgeCheck;
use crate::cache::store::ChunkFacts;
use crate::request::Series;

impl DiskTier {
    /// Overwrites the chunks that are purged. Returns how many there were, superseded ones included.
    ///
    /// # Errors
    /// If the disk fails. Then the chunks are still not served.
    pub(in crate::cache) async fn erase_purged(&self, purges: Arc<dyn PurgeCheck>) -> io::Result<u64> {
        // Until it is known what is on disk, nothing is served from there. It is erased as soon as it is known.
        self.until_loaded().await;
        match self.state() {
            DiskState::Ready | DiskState::ReadOnly(_) => {}
            state => return Err(io::Error::other(state.problem().unwrap_or("it is not loaded yet".to_owned()))),
        }
        self.erase_if(move |series, facts| {
            purges.is_purged(&series.account, &series.stream, facts.interval, facts.epoch)
        })
        .await
    }

    /// Overwrites the chunks for which `is_erased` is true. Those of a series that is unknown, because its record is
    /// damaged, are overwritten too.
    ///
    /// # Errors
    /// If the disk fails.
    pub(in crate::cache) async fn erase_if(
        &self,
        is_erased: impl Fn(&Series, &ChunkFacts) -> bool + Send + 'static,
    ) -> io::Result<u64> {
        let inner = self.0.clone();
        spawn_work(move || inner.erase(is_erased)).await.unwrap_or_else(|_| Err(io::Error::other("the task was lost")))
    }
}

impl Inner {
    fn erase(&self, is_erased: impl Fn(&Series, &ChunkFacts) -> bool) -> io::Result<u64> {
        let Some(log) = self.log.get() else { return Ok(0) };
        // A record that is being appended was checked before the purge was known. Those after it are checked by it.
        drop(self.active());
        let known = self.known_series().clone();
        log.erase(&mut |meta| match RecordMeta::parse(meta) {
            Some(RecordMeta::Chunk(digest, facts)) => known.get(&digest).is_none_or(|series| is_erased(series, &facts)),
            Some(RecordMeta::Series(_)) => false,
            None => true,
        })
    }
}
