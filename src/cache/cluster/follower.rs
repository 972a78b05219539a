//! The side of the one who follows: flights that another replica is to bring.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::Cluster;
use super::message::{ClusterMessage, FetchReply, RemoteFetch, RemoteResult};
use crate::cache::chunk::Chunk;
use crate::cache::error::CacheError;
use crate::cache::fetch::{BatchAnnouncement, ExactWindow, FetchTask, Fetcher};
use crate::cache::purge::Tombstones;
use crate::cache::series::{FetchSpec, FetchedInterval, InFlightFetch, SeriesState, SharedSeriesState, Waiter};
use crate::clock::SKEW;
use crate::paging::{PagingError, PlacementCheck};
use crate::quota::{QuotaError, Role};
use crate::request::{QueueTimeout, QueueWait, Series};
use crate::telemetry;
use crate::window::{Interval, IntervalSet, Timestamp};

/// So often what was brought is asked for again because it cannot be found, or was purged before it was asked for.
const ATTEMPTS: u8 = 2;
/// How long it is tried to read what was brought while Redis cannot be asked; by then it is known who calls instead.
const READING: Duration = Duration::from_secs(20);
/// Of a window that misses more than this, one span is asked for after the other.
const LONG: Duration = Duration::from_hours(24);
/// The pause between two such tries.
const PAUSE: Duration = Duration::from_millis(250);

/// An errand that has not landed yet.
#[derive(Debug)]
pub(super) struct PendingRemoteFetch {
    account: Arc<str>,
    errand: RemoteFetch,
    /// Copies fetched since then are good enough.
    fresh_since: Timestamp,
    /// Of the one who waits for it.
    patience: Arc<QueueTimeout>,
    landed: mpsc::UnboundedSender<FetchReply>,
}

impl PendingRemoteFetch {
    pub(super) fn account(&self) -> &str {
        &self.account
    }

    /// As it is sent now.
    pub(super) fn errand(&self, now: Timestamp) -> RemoteFetch {
        let asked_ago = u64::try_from(now.since(self.fresh_since).as_millis()).unwrap_or(u64::MAX);
        let waited = QueueWait { time: self.patience.waited().time, ..self.errand.waited };
        RemoteFetch { asked_ago, waited, ..self.errand.clone() }
    }
}

/// The end of an errand at which it is waited for; dropped, nobody does any more.
struct Awaited {
    relay: Cluster,
    id: u64,
    landed: mpsc::UnboundedReceiver<FetchReply>,
    /// What was known to be purged when it was asked for: nothing of that will do, whatever the one who calls knows.
    purged: Arc<Tombstones>,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.relay.asked().remove(&self.id);
    }
}

/// Why a flight ends with nothing.
enum Left {
    /// This replica makes the calls now.
    CallsHere,
    Failed(CacheError),
}

impl From<CacheError> for Left {
    fn from(error: CacheError) -> Self {
        Self::Failed(error)
    }
}

impl Cluster {
    /// Remembers an errand, which is not sent yet; `purged` is known by now.
    fn remember(&self, work: &FetchTask, fresh_since: Timestamp, seat: &Waiter, purged: Arc<Tombstones>) -> Awaited {
        let (id, interval) = (self.name(), work.fetch.interval());
        let errand = RemoteFetch {
            id,
            attempt: 0,
            series: (&*work.series).into(),
            interval: (interval.start.as_nanos(), interval.end.as_nanos()),
            exactly: work.fetch.spec.placed == PlacementCheck::Unchecked,
            asker: (&seat.requester).into(),
            asked_ago: 0,
            waited: QueueWait::default(),
            epoch: purged.epoch(),
        };
        let (sender, landed) = mpsc::unbounded_channel();
        let (account, patience) = (work.series.account.clone(), seat.queue_timeout.clone());
        let asked = PendingRemoteFetch { account, errand, fresh_since, patience, landed: sender };
        self.asked().insert(id, asked);
        Awaited { relay: self.clone(), id, landed, purged }
    }

    /// Sends errands for the first time; those that there is nobody for yet are sent when there is.
    fn ask(&self, account: &str, ids: &[u64], announced: Option<Box<dyn BatchAnnouncement>>) {
        let Some(to) = self.caller_of(account) else { return };
        let now = self.0.clock.now();
        let errands: Vec<RemoteFetch> = {
            let asked = self.asked();
            ids.iter().filter_map(|id| asked.get(id)).map(|asked| asked.errand(now)).collect()
        };
        // Of a gathering that brings no errands, that is said when what announced it is dropped.
        let closes = announced.filter(|_| !errands.is_empty()).and_then(|mut announced| announced.close(&to));
        self.send_errands(&to, errands, closes);
    }

    /// The one who calls says how long errands of this replica have been waiting for the quota.
    pub(super) fn waited(&self, errands: &[(u64, QueueWait)]) {
        let mut all = self.asked();
        for (id, waited) in errands {
            if let Some(asked) = all.get_mut(id) {
                // Whoever calls next begins from the beginning: what has come by now must not count once more.
                asked.errand.waited.pages = asked.errand.waited.pages.max(waited.pages);
                asked.patience.at_most(waited.time);
            }
        }
    }

    /// An errand of this replica has landed.
    pub(super) fn landed(&self, landed: FetchReply) {
        if let Some(asked) = self.asked().get(&landed.id).filter(|asked| asked.errand.attempt == landed.attempt) {
            let _ = asked.landed.send(landed);
        }
    }
}

impl Fetcher {
    /// Begins a flight for each span that somebody wants of what was gathered, to be brought by the one who calls. It
    /// gathers by itself, over all replicas: so here nothing is put together that it would have to take apart.
    pub(super) fn ask_gathered(
        self: &Arc<Self>,
        relay: &Cluster,
        series: &Arc<Series>,
        of: &SharedSeriesState,
        announced: Option<Box<dyn BatchAnnouncement>>,
    ) {
        let mut ids = Vec::new();
        let mut shelf = of.lock();
        let Some(gathering) = shelf.pending.take() else { return };
        for want in &gathering.requests {
            let Some(seat) = want.waiter.upgrade() else { continue };
            // Of a long window, what comes first is asked for first: the answer says how far it reaches.
            let length: Duration = want.intervals.intervals().iter().map(|interval| interval.length()).sum();
            let intervals = if length > LONG { &want.intervals.intervals()[..1] } else { want.intervals.intervals() };
            for interval in intervals {
                let what = (*interval, want.agentic, PlacementCheck::Checked);
                ids.push(self.wait_for(relay, series, of, &mut shelf, what, want.fresh_since, &seat).0);
            }
        }
        drop(shelf);
        relay.ask(&series.account, &ids, announced);
    }

    /// Begins a flight for exactly one window, to be brought by the one who calls. The caller holds the shelf's lock.
    #[expect(clippy::too_many_arguments, reason = "as many as a flight has")]
    pub(super) fn ask_exactly(self: &Arc<Self>, relay: &Cluster, window: ExactWindow<'_>) -> Arc<InFlightFetch> {
        let ExactWindow { series, shared, state, interval, fresh_since, waiter } = window;
        let what = (interval, series.agentic, PlacementCheck::Unchecked);
        let (id, flight) = self.wait_for(relay, series, shared, state, what, fresh_since, waiter);
        relay.ask(&series.account, &[id], None);
        flight
    }

    #[expect(clippy::too_many_arguments, reason = "as many as a flight has")]
    fn wait_for(
        self: &Arc<Self>,
        relay: &Cluster,
        series: &Arc<Series>,
        of: &SharedSeriesState,
        shelf: &mut SeriesState,
        (interval, agentic, placed): (Interval, bool, PlacementCheck),
        fresh_since: Timestamp,
        seat: &Arc<Waiter>,
    ) -> (u64, Arc<InFlightFetch>) {
        // Under the shelf's lock, as the epoch of any flight.
        let purged = self.purges.known(&series.account);
        let spec = FetchSpec { interval, agentic, placed, began_at: self.clock.now(), epoch: purged.epoch() };
        let density = self.density(shelf);
        let expected = (!density.is_unknown()).then(|| density.items(interval));
        let flight = InFlightFetch::new_remote(spec, expected, seat, self.quotas.scheduler(&series.account));
        let work = FetchTask::new(series, of, shelf, flight.clone(), [seat]);
        let awaited = relay.remember(&work, fresh_since, seat, purged);
        let id = awaited.id;
        tokio::spawn(self.clone().fly_elsewhere(work, awaited));
        (id, flight)
    }

    /// Waits until another replica has brought a flight, and lands it.
    async fn fly_elsewhere(self: Arc<Self>, work: FetchTask, mut awaited: Awaited) {
        let result = match self.brought(&work, &mut awaited).await {
            Ok(delivered) => {
                telemetry::remote_fetch("asked", "landed");
                self.store_chunks(&work, delivered.interval, &delivered.chunks);
                Ok(delivered)
            }
            // Those who wait look again: then what they want is gathered, and fetched from here.
            Err(Left::CallsHere) => {
                telemetry::remote_fetch("asked", "left");
                Ok(FetchedInterval::nothing())
            }
            Err(Left::Failed(error)) => {
                telemetry::remote_fetch("asked", if work.fetch.waiters.is_abandoned() { "unwanted" } else { "failed" });
                Err(error)
            }
        };
        self.finish_fetch(&work, result);
    }

    async fn brought(&self, work: &FetchTask, awaited: &mut Awaited) -> Result<FetchedInterval, Left> {
        let InFlightFetch { waiters, .. } = &*work.fetch;
        let account = &work.series.account;
        let turns = self.quotas.scheduler(account).ok_or(CacheError::FetchLost)?;
        let mut role = turns.role();
        role.mark_changed();
        let mut asked_of = awaited.relay.caller_of(account);
        // Until it was brought at somebody's cost.
        let mut told = true;
        loop {
            tokio::select! {
                landed = awaited.landed.recv() => {
                    let brought = match landed.ok_or(CacheError::FetchLost)?.result.map_err(CacheError::from) {
                        Err(CacheError::ConfigMismatch) => return Err(awaited.stand_apart(account)),
                        brought => brought?,
                    };
                    told &= brought.collapsed;
                    work.fetch.add_remote_calls(brought.calls, told);
                    if let Some(chunks) = self.read(work, awaited, &brought, &mut role).await? {
                        let (start, end) = brought.interval;
                        let interval = Interval::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end));
                        return Ok(FetchedInterval { interval, chunks: chunks.into() });
                    }
                    awaited.ask_again(self.purges.known(account))?;
                }
                changed = role.changed() => {
                    changed.map_err(|_| CacheError::FetchLost)?;
                    let role = role.borrow_and_update().clone();
                    match role {
                        Role::Leader => return Err(Left::CallsHere),
                        Role::Follower(caller) if asked_of.as_ref() != Some(&caller) => {
                            asked_of = Some(caller);
                            awaited.relay.0.say_again.notify_one();
                        }
                        Role::Follower(_) | Role::Unknown => {}
                    }
                }
                () = waiters.changed() => {
                    if waiters.is_abandoned() {
                        if let Some(to) = awaited.relay.caller_of(account) {
                            awaited.relay.send(&to, ClusterMessage::Gone { id: awaited.id });
                        }
                        return Err(CacheError::Paging(PagingError::Quota(QuotaError::Abandoned)).into());
                    }
                }
            }
        }
    }

    /// Reads from Redis what was brought; `None` if some of it is not there, or was purged before it was asked for.
    async fn read(
        &self,
        work: &FetchTask,
        awaited: &Awaited,
        brought: &RemoteResult,
        role: &mut watch::Receiver<Role>,
    ) -> Result<Option<Vec<Arc<Chunk>>>, Left> {
        let RemoteResult { pieces, interval: (start, end), .. } = brought;
        let asked = work.fetch.interval();
        let interval = Interval::new(Timestamp::from_nanos(*start), Timestamp::from_nanos(*end));
        // At least something from the beginning on, and no more than was asked for.
        if interval.start != asked.start || interval.end > asked.end || (interval.is_empty() && !asked.is_empty()) {
            return Err(CacheError::FetchLost.into());
        }
        let mut uncovered = IntervalSet::from(interval);
        for piece in pieces {
            uncovered.remove(piece.interval);
        }
        if !uncovered.is_empty() {
            return Err(CacheError::FetchLost.into());
        }
        // What was fetched in the future was fetched by a replica whose clock is wrong, and that may have taken for settled
        // what was not.
        let now = self.clock.now();
        if pieces.iter().any(|piece| piece.fetched_at > now + SKEW) {
            return Err(awaited.stand_apart(&work.series.account));
        }
        let Some(passing) = awaited.passing() else { return Err(CacheError::FetchLost.into()) };
        let begun = Instant::now();
        let heard_of = self.purges.known(&work.series.account);
        let will_do = |chunk: &Chunk| {
            let buried_by = |tombs: &Tombstones| tombs.buries(&work.series.stream, chunk.interval(), chunk.epoch());
            // Of a purge that was heard of while this was waited for, who waits has asked before. Of one that is learnt
            // only by reading it cannot be told: the letter was missed.
            !buried_by(&awaited.purged) && (buried_by(&heard_of) || !self.purges.buries(&work.series, chunk))
        };
        loop {
            let (tier, placed) = (&awaited.relay.0.tier, work.fetch.spec.placed);
            if let Ok(chunks) = tier.take_over(&work.series, &passing, pieces, placed).await {
                let chunks = chunks.filter(|chunks| chunks.iter().all(will_do));
                return Ok(chunks.map(|chunks| chunks.into_iter().map(Arc::new).collect()));
            }
            if begun.elapsed() > READING {
                return Err(CacheError::FetchLost.into());
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = role.wait_for(|role| *role == Role::Leader) => return Err(Left::CallsHere),
            }
        }
    }
}

impl Awaited {
    /// Where what the tier does not keep of it is handed over.
    fn passing(&self) -> Option<String> {
        let post = &self.relay.0.post;
        self.relay.asked().get(&self.id).map(|asked| asked.errand.passing(post.prefix(), post.me()))
    }

    /// What the one who calls brings is of no use here: from now on this replica fetches for itself.
    fn stand_apart(&self, account: &str) -> Left {
        match self.relay.caller_of(account) {
            Some(caller) => {
                self.relay.stand_apart(&caller);
                Left::CallsHere
            }
            // It is another one by now.
            None => Left::Failed(CacheError::ConfigMismatch),
        }
    }

    /// Asks for it again, though it was brought; `purged` is known by now.
    fn ask_again(&mut self, purged: Arc<Tombstones>) -> Result<(), CacheError> {
        let mut all = self.relay.asked();
        let asked =
            all.get_mut(&self.id).filter(|asked| asked.errand.attempt < ATTEMPTS).ok_or(CacheError::FetchLost)?;
        asked.errand.attempt += 1;
        asked.errand.epoch = purged.epoch();
        self.purged = purged;
        self.relay.0.say_again.notify_one();
        Ok(())
    }
}
