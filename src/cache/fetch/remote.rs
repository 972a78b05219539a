//! Interface to the leader replica, for accounts whose calls another replica makes.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::fetcher::Fetcher;
use crate::cache::series::{InFlightFetch, SeriesState, SharedSeriesState, Waiter};
use crate::replicas::ReplicaId;
use crate::request::Series;
use crate::window::{FreshnessDemand, Interval, Timestamp};

/// Fetches that the leader makes for this replica.
pub(in crate::cache) trait RemoteFetcher: fmt::Debug + Send + Sync {
    /// Whether another replica makes the calls of the account, or it is not known yet which one does.
    fn is_remote(&self, account: &str) -> bool;

    /// Announces to the leader that a batch is being collected here; `None` if this replica is the leader.
    fn announce_batch(&self, account: &str) -> Option<Box<dyn BatchAnnouncement>>;

    /// Waits for the batch window, for batches that other replicas have announced, and until the leader is known.
    fn batch_window<'a>(&'a self, account: &'a str) -> BoxFuture<'a, ()>;

    /// Sends the pending batch of a series to the leader.
    fn fetch_batch(
        &self,
        fetcher: &Arc<Fetcher>,
        series: &Arc<Series>,
        shared: &SharedSeriesState,
        announcement: Option<Box<dyn BatchAnnouncement>>,
    );

    /// Starts a fetch of exactly one window by the leader. The caller holds the lock of the series.
    fn fetch_exactly(&self, fetcher: &Arc<Fetcher>, window: ExactWindow<'_>) -> Arc<InFlightFetch>;
}

/// A window to be fetched as a whole, with the locked state of its series.
pub(in crate::cache) struct ExactWindow<'a> {
    pub(in crate::cache) series: &'a Arc<Series>,
    pub(in crate::cache) shared: &'a SharedSeriesState,
    pub(in crate::cache) state: &'a mut SeriesState,
    pub(in crate::cache) interval: Interval,
    /// Entries fetched since then are fresh enough.
    pub(in crate::cache) fresh_since: Timestamp,
    /// The demand of the request on the age of earlier entries.
    pub(in crate::cache) freshness: FreshnessDemand,
    pub(in crate::cache) waiter: &'a Arc<Waiter>,
}

/// Announcement of a batch to the leader. Dropping it withdraws it.
pub(in crate::cache) trait BatchAnnouncement: fmt::Debug + Send {
    /// The number of the batch, to be sent with the requests to `leader`, which end the announcement. `None` if it was
    /// announced to another replica.
    fn close(&mut self, leader: &ReplicaId) -> Option<u64>;
}
