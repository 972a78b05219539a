//! Remote fetches of other replicas that this one answers, by the code that answers its own requests. Who
//! the leader is, and how soon a dead one is replaced, is the business of `quota/lease/`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::exchange::Cluster;
use super::served::{ServeState, ServedRemoteFetch};
use crate::blocking::spawn_work;
use crate::cache::chunk::{Chunk, Damaged, PageRange};
use crate::cache::error::CacheError;
use crate::cache::fetch::{AssembledWindow, AssemblyRequest, Fetcher, Segment};
use crate::cache::outcome::Outcome;
use crate::cache::redis::{HandoverError, keys};
use crate::cache::series::BatchGuard;
use crate::cache::types::{QueryOptions, WindowQuery};
use crate::paging::PlacementCheck;
use crate::quota::{Exhausted, Role};
use crate::replicas::{FetchMessage, FetchReply, FetchSettings, Message, RemoteFetch, RemoteResult, ReplicaId};
use crate::request::{QueueTimeout, QueueWait, Requester, Series, WaitMeter};
use crate::telemetry;
use crate::traces::{Span, TraceContext};

/// How long a remote fetch is answered without being repeated: then its sender is gone.
const SENDER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reply is kept, in case its message is lost.
const REPLY_RETENTION: Duration = Duration::from_mins(1);
/// Replies that are kept, and chunks that they list, of some dozen bytes each.
const MAX_REPLIES: usize = 4096;
const MAX_REPLY_CHUNKS: usize = 500_000;
/// Transit time of messages: a requester's queue wait is only corrected if it differs by more than this.
const MESSAGE_DELAY: Duration = Duration::from_millis(500);
/// Attempts to hand over chunks to a Redis that does not take them, and the pause between two.
const MAX_HANDOVER_ATTEMPTS: usize = 20;
const HANDOVER_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// When a request whose data Redis did not take may be repeated.
const RETRY_AFTER_HANDOVER: Duration = Duration::from_secs(5);

/// A remote fetch with all that its task needs.
struct ServeTask {
    from: ReplicaId,
    series: Arc<Series>,
    request: RemoteFetch,
    queue_timeout: Arc<QueueTimeout>,
    arrival: Option<Arc<BatchGuard>>,
    span: Span,
}

impl Cluster {
    /// Drops the remote fetches whose senders are gone, and replies that need not be kept any more.
    pub(super) fn drop_expired(&self) {
        self.0.announced_batches.drop_expired();
        let mut served = self.served();
        served.retain(|_, fetch| match &fetch.state {
            ServeState::InProgress { .. } => fetch.last_requested.elapsed() < SENDER_TIMEOUT,
            ServeState::Replied { at, .. } => at.elapsed() < REPLY_RETENTION,
        });
        let replied = served.iter().filter_map(|(key, fetch)| match &fetch.state {
            ServeState::InProgress { .. } => None,
            ServeState::Replied { at, reply } => Some((*at, chunk_count(reply), key.clone())),
        });
        let mut replied: Vec<_> = replied.collect();
        replied.sort_unstable_by_key(|(at, ..)| std::cmp::Reverse(*at));
        let mut chunks = 0;
        for (place, (_, count, key)) in replied.into_iter().enumerate() {
            chunks += count;
            if place >= MAX_REPLIES || chunks > MAX_REPLY_CHUNKS {
                served.remove(&key);
            }
        }
    }

    /// Whether a remote fetch is known already: then it is kept alive, and answered again if it was answered. The queue
    /// wait that its sender should know is added to `waits`.
    fn refresh_served(&self, from: &ReplicaId, request: &RemoteFetch, waits: &mut Vec<(u64, QueueWait)>) -> bool {
        let mut served = self.served();
        let Some(known) = served.get_mut(&(from.clone(), request.id)) else { return false };
        if known.attempt < request.attempt {
            return false;
        }
        known.last_requested = Instant::now();
        match &known.state {
            ServeState::InProgress { queue_timeout, .. } => {
                let now = queue_timeout.waited();
                if now.pages > request.queue_wait.pages || now.time + MESSAGE_DELAY < request.queue_wait.time {
                    waits.push((request.id, now));
                }
            }
            ServeState::Replied { reply, .. } if known.attempt == request.attempt => {
                self.send_shared(from, reply.clone());
            }
            ServeState::Replied { .. } => {}
        }
        true
    }

    fn reply(&self, from: &ReplicaId, request: &RemoteFetch, result: Result<RemoteResult, CacheError>) {
        let (id, attempt) = (request.id, request.attempt);
        telemetry::remote_fetch("carried", if result.is_ok() { "landed" } else { "failed" });
        let result = result.map_err(|error| (&error).into());
        let reply = Arc::new(Message::Fetch(FetchMessage::Reply(FetchReply { id, attempt, result })));
        let mut served = self.served();
        // A fetch that was cancelled or requested again does not wait for this reply.
        if let Some(known) = served.get_mut(&(from.clone(), id)).filter(|known| known.attempt == attempt) {
            known.state = ServeState::Replied { at: Instant::now(), reply: reply.clone() };
            self.send_shared(from, reply);
        }
    }
}

/// How many chunks a message lists.
fn chunk_count(message: &Message) -> usize {
    if let Message::Fetch(message) = message { message.chunk_count() } else { 0 }
}

impl Fetcher {
    /// Starts to answer remote fetches, if this replica is the leader; else their sender will learn which one is.
    pub(super) fn serve_requests(
        self: &Arc<Self>,
        cluster: &Cluster,
        from: &ReplicaId,
        (settings, requests, closes): (&FetchSettings, Vec<RemoteFetch>, Option<u64>),
    ) {
        let arrival = closes.map(|batch| cluster.arrival_guard(from, batch));
        let mut waits = Vec::new();
        for request in requests {
            let series = Arc::new(Series::from(&request.series));
            if cluster.role(&series.account) != Role::Leader || cluster.refresh_served(from, &request, &mut waits) {
                continue;
            }
            let key = (from.clone(), request.id);
            let has_same_settings = *settings == cluster.0.redis.settings(&series.account, &series.stream);
            let is_answerable = has_same_settings && self.quotas.scheduler(&series.account).is_some();
            let (attempt, last_requested) = (request.attempt, Instant::now());
            // Locked until the fetch is in the map, because its task may end at once.
            let mut served = cluster.served();
            let arrival = arrival.clone().filter(|_| is_answerable);
            // The wait continues that of earlier leaders.
            let queue_timeout =
                Arc::new(QueueTimeout::of(request.queue_timeout(self.settings.queue_timeout), request.queue_wait));
            let span = cluster.0.tracer.begin_for_replica(request.trace.as_deref(), "serve remote fetch");
            let queue_timeout_of_task = queue_timeout.clone();
            let task =
                ServeTask { from: from.clone(), series, request, queue_timeout: queue_timeout_of_task, arrival, span };
            let trace_id = task.span.context().map(TraceContext::trace_id);
            let fields =
                trace_id.map_or_else(tracing::Span::none, |id| tracing::info_span!("remote fetch", trace_id = id));
            let serving = task.span.clone().scope(self.clone().serve(cluster.clone(), task, is_answerable));
            let serving = serving.instrument(fields);
            let state = ServeState::InProgress { queue_timeout, _task: AbortOnDropHandle::new(tokio::spawn(serving)) };
            served.insert(key, ServedRemoteFetch { attempt, last_requested, state });
        }
        if !waits.is_empty() {
            cluster.send(from, FetchMessage::QueueWaits(waits));
        }
    }

    async fn serve(self: Arc<Self>, cluster: Cluster, task: ServeTask, is_answerable: bool) {
        let (from, request) = (task.from.clone(), task.request.clone());
        let scheduler = self.quotas.scheduler(&task.series.account).filter(|_| is_answerable);
        let Some(scheduler) = scheduler else {
            return cluster.reply(&from, &request, Err(CacheError::ConfigMismatch));
        };
        let mut role = scheduler.role();
        tokio::select! {
            biased;
            result = self.fetch_and_hand_over(&cluster, task) => cluster.reply(&from, &request, result),
            // The follower requests it from the next leader.
            _ = role.wait_for(|role| *role != Role::Leader) => {
                telemetry::remote_fetch("carried", "left");
                cluster.served().remove(&(from, request.id));
            }
        }
    }

    /// Fetches what a remote fetch requests, and hands it over through Redis.
    async fn fetch_and_hand_over(
        self: &Arc<Self>,
        cluster: &Cluster,
        ServeTask { from, series, request, queue_timeout, arrival, span }: ServeTask,
    ) -> Result<RemoteResult, CacheError> {
        // The follower uses nothing that was purged before its request. If this replica has missed the purge, or its
        // last result was not usable, it looks into Redis; if that fails, the follower will find out.
        if request.attempt > 0 || request.epoch > self.purges.epoch(&series.account) {
            self.purges.refresh(&series.account).await;
        }
        let interval = request.interval();
        let query = WindowQuery {
            series: series.clone(),
            interval,
            page_range: PageRange::ALL,
            asked_at: self.clock.now() - Duration::from_millis(request.age_ms),
            requester: Requester::from(&request.requester),
            may_stream: false,
            options: QueryOptions { freshness: request.terms.freshness(), ..QueryOptions::default() },
            waited: WaitMeter::default(),
            span,
        };
        let placement = if request.is_exact { PlacementCheck::Unchecked } else { PlacementCheck::Checked };
        let assembly = AssemblyRequest { query, queue_timeout, placement, batch_guard: arrival };
        let AssembledWindow { segments, outcome, calls } = (self.assemble_window)(self.clone(), assembly).await?;
        let chunks = self.chunks_of(&series, &segments, placement).await?;
        let handover = keys::handover(cluster.0.mailbox.prefix(), &from, request.id, request.attempt);
        let mut attempts = 0;
        let chunks = loop {
            attempts += 1;
            match cluster.0.redis.hand_over(&series, &handover, &chunks, request.attempt > 0).await {
                Ok(chunks) => break chunks,
                Err(HandoverError::Refused) if attempts < MAX_HANDOVER_ATTEMPTS => {
                    sleep(HANDOVER_RETRY_INTERVAL).await;
                }
                Err(HandoverError::Refused) => {
                    return Err(CacheError::QuotaExhausted(Exhausted { retry_after: RETRY_AFTER_HANDOVER }));
                }
                // The follower fetches for itself.
                Err(HandoverError::TooLarge) => return Err(CacheError::ConfigMismatch),
            }
        };
        let end = match placement {
            PlacementCheck::Checked => segments.last().map_or(interval.end, |segment| segment.interval.end),
            PlacementCheck::Unchecked => interval.end,
        };
        Ok(RemoteResult {
            interval: (interval.start.as_nanos(), end.as_nanos()),
            chunks,
            calls: calls.charge(),
            is_coalesced: matches!(outcome, Outcome::Hit | Outcome::Collapsed),
        })
    }

    /// The chunks of an assembled window, each once, and whether the second tier stores it in its cell.
    async fn chunks_of(
        &self,
        series: &Series,
        segments: &[Segment],
        placement: PlacementCheck,
    ) -> Result<Vec<(Arc<Chunk>, bool)>, CacheError> {
        let mut chunks: Vec<(Arc<Chunk>, bool)> = Vec::with_capacity(segments.len());
        for segment in segments {
            let chunk = &segment.slice.chunk;
            // Segments of one chunk are almost always close to each other.
            if chunks.iter().rev().take(8).any(|(known, _)| Arc::ptr_eq(known, chunk)) {
                continue;
            }
            if segment.is_derived {
                let chunk = chunk.clone();
                let deflated = spawn_work(move || chunk.deflated()).await.unwrap_or(Err(Damaged))?;
                chunks.push((Arc::new(deflated), false));
            } else {
                let is_stored = placement == PlacementCheck::Checked && self.is_storable(series, chunk, placement);
                // Of a joined chunk, cells have the parts.
                let is_in_cell = chunk.interval().end <= self.settings.grid.cell(chunk.interval().start).end;
                chunks.push((chunk.clone(), is_stored && is_in_cell));
            }
        }
        Ok(chunks)
    }
}
