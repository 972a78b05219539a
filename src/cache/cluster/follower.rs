//! Remote fetches of this replica: fetches in flight whose data the leader brings.
//! How soon a dead leader is replaced is in `quota/lease/timing.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::exchange::Cluster;
use super::pending::PendingRemoteFetch;
use crate::cache::chunk::Chunk;
use crate::cache::error::CacheError;
use crate::cache::fetch::{BatchAnnouncement, ExactWindow, FetchTask, Fetcher};
use crate::cache::purge::Tombstones;
use crate::cache::redis::keys;
use crate::cache::series::{FetchSpec, FetchedInterval, InFlightFetch, SeriesState, SharedSeriesState, Waiter};
use crate::clock::SKEW;
use crate::paging::{PagingError, PlacementCheck};
use crate::quota::{QuotaError, Role};
use crate::replicas::{FetchMessage, FetchReply, FetchTerms, RemoteFetch, RemoteResult};
use crate::request::{QueueWait, Series};
use crate::telemetry;
use crate::traces::TraceContext;
use crate::window::{FreshnessDemand, Interval, IntervalSet, Timestamp};

/// How often a result is requested again because its chunks are not found, or were purged before the request.
const MAX_ATTEMPTS: u8 = 2;
/// How long chunks are tried to be read while Redis does not answer; by then another replica is the leader.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two attempts to read chunks.
const READ_RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Missing time beyond which only the first missing interval of a window is requested, since the reply covers one run.
const LONG_WINDOW: Duration = Duration::from_hours(24);

/// The receiving end of a remote fetch. Dropping it ends the fetch.
struct ReplyReceiver {
    cluster: Cluster,
    id: u64,
    replies: mpsc::UnboundedReceiver<FetchReply>,
    /// The purges that were known when the fetch was requested: data of theirs is never used, whatever the leader
    /// knows.
    purged: Arc<Tombstones>,
}

impl Drop for ReplyReceiver {
    fn drop(&mut self) {
        self.cluster.pending().remove(&self.id);
    }
}

/// Why a remote fetch ends without data.
enum NoData {
    /// The calls are made by this replica now.
    LocalCalls,
    Failed(CacheError),
}

impl From<CacheError> for NoData {
    fn from(error: CacheError) -> Self {
        Self::Failed(error)
    }
}

/// The time that a remote fetch is to bring.
struct RemoteWindow {
    interval: Interval,
    agentic: bool,
    placement: PlacementCheck,
    fresh_since: Timestamp,
    freshness: FreshnessDemand,
}

impl Cluster {
    /// Registers a remote fetch, which is not sent yet. `purged` is known by now.
    fn register(
        &self,
        task: &FetchTask,
        (fresh_since, terms): (Timestamp, FetchTerms),
        waiter: &Waiter,
        purged: Arc<Tombstones>,
    ) -> ReplyReceiver {
        let (id, interval) = (self.next_number(), task.fetch.interval());
        let request = RemoteFetch {
            id,
            attempt: 0,
            series: (&*task.series).into(),
            interval: (interval.start.as_nanos(), interval.end.as_nanos()),
            is_exact: task.fetch.spec.placement == PlacementCheck::Unchecked,
            requester: (&waiter.requester).into(),
            age_ms: 0,
            queue_wait: QueueWait::default(),
            epoch: purged.epoch(),
            terms,
            trace: task.fetch.waiters.span().context().map(TraceContext::to_text),
        };
        let (sender, replies) = mpsc::unbounded_channel();
        let (account, queue_timeout) = (task.series.account.clone(), waiter.queue_timeout.clone());
        let pending = PendingRemoteFetch { account, request, fresh_since, queue_timeout, replies: sender };
        self.pending().insert(id, pending);
        ReplyReceiver { cluster: self.clone(), id, replies, purged }
    }

    /// Sends registered remote fetches for the first time. While there is no leader they stay registered, and are sent
    /// to the next one.
    fn request(&self, account: &str, ids: &[u64], announcement: Option<Box<dyn BatchAnnouncement>>) {
        let Some(leader) = self.leader_of(account) else { return };
        let now = self.0.clock.now();
        let requests: Vec<RemoteFetch> = {
            let pending = self.pending();
            ids.iter().filter_map(|id| pending.get(id)).map(|pending| pending.request(now)).collect()
        };
        // An announcement that is dropped unclosed tells the leader that there are no requests.
        let announcement = announcement.filter(|_| !requests.is_empty());
        let closes = announcement.and_then(|mut announcement| announcement.close(&leader));
        self.send_requests(&leader, requests, closes);
    }

    /// The leader says how long remote fetches have waited for the quota.
    pub(super) fn on_queue_waits(&self, waits: &[(u64, QueueWait)]) {
        let mut all = self.pending();
        for (id, wait) in waits {
            if let Some(pending) = all.get_mut(id) {
                // The next leader starts over, and pages that were fetched before must not count again.
                pending.request.queue_wait.pages = pending.request.queue_wait.pages.max(wait.pages);
                pending.queue_timeout.at_most(wait.time);
            }
        }
    }

    pub(super) fn on_reply(&self, reply: FetchReply) {
        let pending = self.pending();
        if let Some(pending) = pending.get(&reply.id).filter(|pending| pending.request.attempt == reply.attempt) {
            let _ = pending.replies.send(reply);
        }
    }
}

impl Fetcher {
    /// Starts a remote fetch for each interval of a pending batch. Intervals are not coalesced here: the leader does it
    /// over all replicas, and needs to know which waiter needs what.
    pub(super) fn start_remote_batch(
        self: &Arc<Self>,
        cluster: &Cluster,
        series: &Arc<Series>,
        shared: &SharedSeriesState,
        announcement: Option<Box<dyn BatchAnnouncement>>,
    ) {
        let mut ids = Vec::new();
        let mut state = shared.lock();
        let Some(batch) = state.pending.take() else { return };
        for request in &batch.requests {
            let Some(waiter) = request.waiter.upgrade() else { continue };
            let intervals = request.intervals.intervals();
            let missing: Duration = intervals.iter().map(|interval| interval.length()).sum();
            let intervals = if missing > LONG_WINDOW { &intervals[..1] } else { intervals };
            for interval in intervals.iter().copied() {
                let (agentic, placement, fresh_since) = (request.agentic, PlacementCheck::Checked, request.fresh_since);
                let freshness = request.freshness;
                let window = RemoteWindow { interval, agentic, placement, fresh_since, freshness };
                ids.extend(self.start_remote_fetch(cluster, series, shared, &mut state, &window, &waiter).0);
            }
        }
        drop(state);
        cluster.request(&series.account, &ids, announcement);
    }

    /// Starts a remote fetch of exactly one window. The caller holds the lock of the series.
    pub(super) fn start_remote_exact(
        self: &Arc<Self>,
        cluster: &Cluster,
        window: ExactWindow<'_>,
    ) -> Arc<InFlightFetch> {
        let ExactWindow { series, shared, state, interval, fresh_since, freshness, waiter } = window;
        let (agentic, placement) = (series.agentic, PlacementCheck::Unchecked);
        let window = RemoteWindow { interval, agentic, placement, fresh_since, freshness };
        let (id, fetch) = self.start_remote_fetch(cluster, series, shared, state, &window, waiter);
        cluster.request(&series.account, id.as_slice(), None);
        fetch
    }

    /// Adds a remote fetch to the fetches in flight and registers it. Returns its number; `None` if it is not to be sent,
    /// because the series is cordoned.
    fn start_remote_fetch(
        self: &Arc<Self>,
        cluster: &Cluster,
        series: &Arc<Series>,
        shared: &SharedSeriesState,
        state: &mut SeriesState,
        window: &RemoteWindow,
        waiter: &Arc<Waiter>,
    ) -> (Option<u64>, Arc<InFlightFetch>) {
        let RemoteWindow { interval, agentic, placement, fresh_since, freshness } = *window;
        // Under the lock of the series, as the epoch of any fetch.
        let purged = self.purges.snapshot(&series.account);
        let spec = FetchSpec { interval, agentic, placement, began_at: self.clock.now(), epoch: purged.epoch() };
        let density = self.density(state);
        let expected = (!density.is_unknown()).then(|| density.items(interval));
        let scheduler = self.quotas.scheduler(&series.account);
        let fetch = InFlightFetch::new_remote(spec, expected, waiter, scheduler.as_ref());
        let task = FetchTask::new(series, shared, state, fetch.clone(), [waiter]);
        if let Err(cordoned) = self.quotas.cordons().check(series) {
            // Not sent: an operator has stopped the calls of this replica's requests.
            let fetcher = self.clone();
            tokio::spawn(
                async move { fetcher.finish_fetch(&task, Err(CacheError::Paging(PagingError::Quota(cordoned)))) },
            );
            return (None, fetch);
        }
        let queue_timeout = waiter.queue_timeout.limit();
        let is_own = queue_timeout != self.settings.queue_timeout;
        let terms = FetchTerms::new(freshness, is_own.then_some(queue_timeout));
        let receiver = cluster.register(&task, (fresh_since, terms), waiter, purged);
        let id = receiver.id;
        let span = fetch.waiters.span();
        span.set_interval(interval);
        tokio::spawn(span.scope(self.clone().run_remote_fetch(task, receiver)));
        (Some(id), fetch)
    }

    /// Waits for the data of a remote fetch, stores it, and ends the fetch.
    async fn run_remote_fetch(self: Arc<Self>, task: FetchTask, mut receiver: ReplyReceiver) {
        let result = match self.receive(&task, &mut receiver).await {
            Ok(fetched) => {
                telemetry::remote_fetch("asked", "landed");
                let FetchedInterval { interval, chunks } = fetched;
                Ok(FetchedInterval { interval, chunks: self.store_chunks(&task, interval, &chunks).into() })
            }
            // The waiters plan again, and what they miss is fetched by this replica.
            Err(NoData::LocalCalls) => {
                telemetry::remote_fetch("asked", "left");
                Ok(FetchedInterval::nothing())
            }
            Err(NoData::Failed(error)) => {
                telemetry::remote_fetch("asked", if task.fetch.waiters.is_abandoned() { "unwanted" } else { "failed" });
                Err(error)
            }
        };
        self.finish_fetch(&task, result);
    }

    async fn receive(&self, task: &FetchTask, receiver: &mut ReplyReceiver) -> Result<FetchedInterval, NoData> {
        let InFlightFetch { waiters, .. } = &*task.fetch;
        let account = &task.series.account;
        let scheduler = self.quotas.scheduler(account).ok_or(CacheError::FetchLost)?;
        let mut role = scheduler.role();
        role.mark_changed();
        let mut leader = receiver.cluster.leader_of(account);
        // Whether other answers report all calls of the results so far.
        let mut is_reported = true;
        loop {
            tokio::select! {
                biased;
                reply = receiver.replies.recv() => {
                    let reply = reply.ok_or(CacheError::FetchLost)?;
                    // The leader answers each repetition of a request, and this is the answer to an earlier attempt.
                    if receiver.attempt() != Some(reply.attempt) {
                        continue;
                    }
                    let result = match reply.result.map_err(CacheError::from) {
                        Err(CacheError::ConfigMismatch) => return Err(receiver.detach(account)),
                        result => result?,
                    };
                    is_reported &= result.is_coalesced;
                    task.fetch.add_remote_calls(result.calls, is_reported);
                    if let Some(chunks) = self.read_result(task, receiver, &result, &mut role).await? {
                        return Ok(FetchedInterval { interval: result.interval(), chunks: chunks.into() });
                    }
                    // The leader brings data that is purged here as long as Redis does not know of the purge.
                    self.purges.write_unwritten(account).await;
                    receiver.request_again(self.purges.snapshot(account))?;
                }
                changed = role.changed() => {
                    changed.map_err(|_| CacheError::FetchLost)?;
                    let role = role.borrow_and_update().clone();
                    match role {
                        Role::Leader => return Err(NoData::LocalCalls),
                        Role::Follower(next) if leader.as_ref() != Some(&next) => {
                            leader = Some(next);
                            receiver.cluster.0.resend_now.notify_one();
                        }
                        Role::Follower(_) | Role::Unknown => {}
                    }
                }
                () = waiters.changed() => {
                    if waiters.is_abandoned() {
                        if let Some(leader) = receiver.cluster.leader_of(account) {
                            receiver.cluster.send(&leader, FetchMessage::Cancelled { id: receiver.id });
                        }
                        return Err(CacheError::Paging(PagingError::Quota(QuotaError::Abandoned)).into());
                    }
                }
            }
        }
    }

    /// Reads the chunks of a result from Redis. `None` if a chunk is not there, or was purged before the request.
    async fn read_result(
        &self,
        task: &FetchTask,
        receiver: &ReplyReceiver,
        result: &RemoteResult,
        role: &mut watch::Receiver<Role>,
    ) -> Result<Option<Vec<Arc<Chunk>>>, NoData> {
        check_coverage(result, task.fetch.interval())?;
        // A chunk from the future was fetched by a replica whose clock is wrong, and which may have taken open data for
        // settled.
        let now = self.clock.now();
        if result.chunks.iter().any(|chunk| chunk.fetched_at > now + SKEW) {
            return Err(receiver.detach(&task.series.account));
        }
        let Some(handover) = receiver.handover_key() else { return Err(CacheError::FetchLost.into()) };
        let started = Instant::now();
        let purged_by_now = self.purges.snapshot(&task.series.account);
        let is_usable = |chunk: &Chunk| {
            let is_purged_by = |tombstones: &Tombstones| {
                tombstones.is_purged(&task.series.stream, chunk.interval(), chunk.epoch(), chunk.ids())
            };
            // A purge that was heard of while the fetch was pending came after its request, which may still have the
            // data. Of one that is learned only when the chunks are read, that is not known, because its message was
            // lost.
            !is_purged_by(&receiver.purged)
                && (is_purged_by(&purged_by_now) || !self.purges.is_purged(&task.series, chunk))
        };
        loop {
            let (redis, placement) = (&receiver.cluster.0.redis, task.fetch.spec.placement);
            if let Ok(chunks) = redis.take_over(&task.series, &handover, &result.chunks, placement).await {
                let chunks = chunks.filter(|chunks| chunks.iter().all(is_usable));
                return Ok(chunks.map(|chunks| chunks.into_iter().map(Arc::new).collect()));
            }
            if started.elapsed() > READ_TIMEOUT {
                return Err(CacheError::FetchLost.into());
            }
            tokio::select! {
                biased;
                () = sleep(READ_RETRY_INTERVAL) => {}
                _ = role.wait_for(|role| *role == Role::Leader) => return Err(NoData::LocalCalls),
            }
        }
    }
}

/// Checks that a result covers the beginning of the requested interval, without a gap.
fn check_coverage(result: &RemoteResult, requested: Interval) -> Result<(), CacheError> {
    let interval = result.interval();
    let is_beginning = interval.start == requested.start && interval.end <= requested.end;
    let mut uncovered = IntervalSet::from(interval);
    for chunk in &result.chunks {
        uncovered.remove(chunk.interval);
    }
    let is_covered = is_beginning && (!interval.is_empty() || requested.is_empty()) && uncovered.is_empty();
    if is_covered { Ok(()) } else { Err(CacheError::FetchLost) }
}

impl ReplyReceiver {
    /// See [`RemoteFetch::attempt`].
    fn attempt(&self) -> Option<u8> {
        Some(self.cluster.pending().get(&self.id)?.request.attempt)
    }

    /// The key of the handover's hash.
    fn handover_key(&self) -> Option<String> {
        let (mailbox, attempt) = (&self.cluster.0.mailbox, self.attempt()?);
        Some(keys::handover(mailbox.prefix(), mailbox.me(), self.id, attempt))
    }

    /// Detaches from the leader, whose data cannot be used here.
    fn detach(&self, account: &str) -> NoData {
        match self.cluster.leader_of(account) {
            Some(leader) => {
                self.cluster.detach(&leader);
                NoData::LocalCalls
            }
            // The leader has changed.
            None => NoData::Failed(CacheError::ConfigMismatch),
        }
    }

    /// Requests the data again, because it could not be used. `purged` is known by now.
    fn request_again(&mut self, purged: Arc<Tombstones>) -> Result<(), CacheError> {
        let mut all = self.cluster.pending();
        let pending = all.get_mut(&self.id).filter(|pending| pending.request.attempt < MAX_ATTEMPTS);
        let pending = pending.ok_or(CacheError::FetchLost)?;
        pending.request.attempt += 1;
        pending.request.epoch = purged.epoch();
        self.purged = purged;
        self.cluster.0.resend_now.notify_one();
        Ok(())
    }
}
