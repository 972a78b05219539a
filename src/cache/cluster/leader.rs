//! The side of the one who calls: errands of other replicas are answered by the code that answers requests here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::Cluster;
use super::message::{ClusterMessage, FetchReply, RemoteFetch, RemoteResult};
use crate::cache::chunk::{Chunk, Damaged, PageRange};
use crate::cache::error::CacheError;
use crate::cache::fetch::{AssembledWindow, AssemblyRequest, Fetcher, Segment};
use crate::cache::outcome::Outcome;
use crate::cache::redis::HandoverError;
use crate::cache::series::BatchGuard;
use crate::cache::types::WindowQuery;
use crate::paging::PlacementCheck;
use crate::quota::{Exhausted, Role};
use crate::redis_client::ReplicaId;
use crate::request::{QueueTimeout, QueueWait, Requester, Series};
use crate::telemetry;

/// An errand that was not heard of for so long is dropped: who has sent it is gone.
const SILENCE: Duration = Duration::from_secs(5);
/// For so long it is known what became of an errand, should the letter that told of it be lost.
const REMEMBERED: Duration = Duration::from_mins(1);
/// Of so many errands at the most, and so many pieces, each a few dozen bytes.
const MOST_REMEMBERED: usize = 4096;
const MOST_PIECES: usize = 500_000;
/// What letters take: so much less somebody may have waited than the one who asks thinks before it is worth a word.
const NO_NEWS: Duration = Duration::from_millis(500);
/// So often Redis is asked to take what was brought, with a pause between.
const HAND_OVERS: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// And when it has taken none of it, whoever asks may come again after this.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// An errand of another replica.
#[derive(Debug)]
pub(super) struct ServedRemoteFetch {
    attempt: u8,
    /// When it was last heard of.
    heard: Instant,
    state: State,
}

/// What is carried.
struct Order {
    from: ReplicaId,
    series: Arc<Series>,
    errand: RemoteFetch,
    patience: Arc<QueueTimeout>,
}

#[derive(Debug)]
enum State {
    /// It is being answered; dropped, it is not any more, and what it waits for knows.
    UnderWay { patience: Arc<QueueTimeout>, _task: AbortOnDropHandle<()> },
    /// It was answered with this letter.
    FetchReply { at: Instant, letter: Arc<ClusterMessage> },
}

impl Cluster {
    /// Drops the errands of which nothing was heard for long, and what need not be remembered any more.
    pub(super) fn tidy(&self) {
        self.0.coming.tidy();
        let mut carried = self.carried();
        carried.retain(|_, carried| match &carried.state {
            State::UnderWay { .. } => carried.heard.elapsed() < SILENCE,
            State::FetchReply { at, .. } => at.elapsed() < REMEMBERED,
        });
        let landed = carried.iter().filter_map(|(name, carried)| match &carried.state {
            State::UnderWay { .. } => None,
            State::FetchReply { at, letter } => Some((*at, letter.pieces(), name.clone())),
        });
        let mut landed: Vec<_> = landed.collect();
        landed.sort_unstable_by_key(|(at, ..)| std::cmp::Reverse(*at));
        let mut pieces = 0;
        for (place, (_, more, name)) in landed.into_iter().enumerate() {
            pieces += more;
            if place >= MOST_REMEMBERED || pieces > MOST_PIECES {
                carried.remove(&name);
            }
        }
    }

    /// Whether an errand is known already: then it is kept alive, and told of if it has landed. `waited` is what the one
    /// who asks is to be told of otherwise.
    fn knows(&self, from: &ReplicaId, errand: &RemoteFetch, waited: &mut Vec<(u64, QueueWait)>) -> bool {
        let mut carried = self.carried();
        let Some(known) = carried.get_mut(&(from.clone(), errand.id)) else { return false };
        if known.attempt < errand.attempt {
            return false;
        }
        known.heard = Instant::now();
        match &known.state {
            State::UnderWay { patience, .. } => {
                let now = patience.waited();
                if now.pages > errand.waited.pages || now.time + NO_NEWS < errand.waited.time {
                    waited.push((errand.id, now));
                }
            }
            State::FetchReply { letter, .. } if known.attempt == errand.attempt => self.send(from, letter.clone()),
            State::FetchReply { .. } => {}
        }
        true
    }

    fn lands(&self, from: &ReplicaId, errand: &RemoteFetch, result: Result<RemoteResult, CacheError>) {
        let (id, attempt) = (errand.id, errand.attempt);
        telemetry::remote_fetch("carried", if result.is_ok() { "landed" } else { "failed" });
        let result = result.map_err(|error| (&error).into());
        let letter = Arc::new(ClusterMessage::FetchReply(FetchReply { id, attempt, result }));
        let mut carried = self.carried();
        // Whoever has dropped it, or has asked for it anew, does not wait for this.
        if let Some(known) = carried.get_mut(&(from.clone(), id)).filter(|known| known.attempt == attempt) {
            known.state = State::FetchReply { at: Instant::now(), letter: letter.clone() };
            self.send(from, letter);
        }
    }
}

impl Fetcher {
    /// Takes errands on, if this replica makes the calls; else whoever has sent them is going to hear who does.
    pub(super) fn carry(
        self: &Arc<Self>,
        relay: &Cluster,
        from: &ReplicaId,
        cut: &str,
        errands: Vec<RemoteFetch>,
        closes: Option<u64>,
    ) {
        let arrival = closes.map(|gathering| relay.arrival_guard(from, gathering));
        let is_alike = cut == relay.0.tier.cut();
        let mut waited = Vec::new();
        for errand in errands {
            let series = Arc::new(Series::from(&errand.series));
            if relay.role(&series.account) != Role::Leader || relay.knows(from, &errand, &mut waited) {
                continue;
            }
            let name = (from.clone(), errand.id);
            let is_known = is_alike && self.quotas.scheduler(&series.account).is_some();
            let (attempt, heard) = (errand.attempt, Instant::now());
            // Held until it is in the table: it may end at once.
            let mut carried = relay.carried();
            let arrival = arrival.clone().filter(|_| is_known);
            // It is the same wait, whomever it was asked of before.
            let patience = Arc::new(QueueTimeout::of(self.settings.queue_timeout, errand.waited));
            let order = Order { from: from.clone(), series, errand, patience: patience.clone() };
            let carrying = self.clone().carry_one(relay.clone(), order, is_known, arrival);
            let state = State::UnderWay { patience, _task: AbortOnDropHandle::new(tokio::spawn(carrying)) };
            carried.insert(name, ServedRemoteFetch { attempt, heard, state });
        }
        if !waited.is_empty() {
            relay.send(from, ClusterMessage::QueueWait(waited));
        }
    }

    async fn carry_one(
        self: Arc<Self>,
        relay: Cluster,
        order: Order,
        is_known: bool,
        arrival: Option<Arc<BatchGuard>>,
    ) {
        let Order { from, series, errand, .. } = &order;
        let turns = self.quotas.scheduler(&series.account).filter(|_| is_known);
        let Some(turns) = turns else { return relay.lands(from, errand, Err(CacheError::ConfigMismatch)) };
        let mut role = turns.role();
        tokio::select! {
            result = self.answer(&relay, &order, arrival) => relay.lands(from, errand, result),
            // The other one is asked for it.
            _ = role.wait_for(|role| *role != Role::Leader) => {
                telemetry::remote_fetch("carried", "left");
                relay.carried().remove(&(from.clone(), errand.id));
            }
        }
    }

    /// Brings what an errand asks for, and puts it where the one who asks finds it.
    async fn answer(
        self: &Arc<Self>,
        relay: &Cluster,
        Order { from, series, errand, patience }: &Order,
        arrival: Option<Arc<BatchGuard>>,
    ) -> Result<RemoteResult, CacheError> {
        // The one who asks takes nothing that was purged before it asked. If this replica has missed the letter, or what it
        // brought was refused, it looks; if it cannot, the other one finds out.
        if errand.attempt > 0 || errand.epoch > self.purges.epoch(&series.account) {
            self.purges.catch_up(&series.account).await;
        }
        let (interval, asked_at) = (errand.interval(), self.clock.now() - Duration::from_millis(errand.asked_ago));
        let (page_range, asker) = (PageRange::ALL, Requester::from(&errand.asker));
        let query = WindowQuery { series: series.clone(), interval, page_range, asked_at, asker, may_stream: false };
        let placed = if errand.exactly { PlacementCheck::Unchecked } else { PlacementCheck::Checked };
        let request = AssemblyRequest { query, queue_timeout: patience.clone(), placed, batch_guard: arrival };
        let AssembledWindow { segments: parts, outcome, calls } = (self.assemble_window)(self.clone(), request).await?;
        let chunks = self.to_hand_over(&parts, placed).await?;
        let passing = errand.passing(relay.0.post.prefix(), from);
        let mut hand_overs = 0;
        let pieces = loop {
            hand_overs += 1;
            match relay.0.tier.hand_over(series, &passing, &chunks, errand.attempt > 0).await {
                Ok(pieces) => break pieces,
                Err(HandoverError::Refused) if hand_overs < HAND_OVERS => sleep(PAUSE).await,
                Err(HandoverError::Refused) => {
                    return Err(CacheError::QuotaExhausted(Exhausted { retry_after: COME_AGAIN }));
                }
                // The one who asks fetches it for itself.
                Err(HandoverError::TooLarge) => return Err(CacheError::ConfigMismatch),
            }
        };
        let end =
            if errand.exactly { interval.end } else { parts.last().map_or(interval.end, |part| part.interval.end) };
        let collapsed = matches!(outcome, Outcome::Hit | Outcome::Collapsed);
        Ok(RemoteResult {
            interval: (interval.start.as_nanos(), end.as_nanos()),
            pieces,
            calls: calls.charge(),
            collapsed,
        })
    }

    /// The chunks that an answer is made of, each once, and whether the tier keeps it.
    async fn to_hand_over(
        &self,
        parts: &[Segment],
        placed: PlacementCheck,
    ) -> Result<Vec<(Arc<Chunk>, bool)>, CacheError> {
        let mut chunks: Vec<(Arc<Chunk>, bool)> = Vec::with_capacity(parts.len());
        for part in parts {
            let chunk = &part.slice.chunk;
            // The parts of one chunk need not be neighbours, but are hardly ever far from each other.
            if chunks.iter().rev().take(8).any(|(known, _)| Arc::ptr_eq(known, chunk)) {
                continue;
            }
            if part.is_derived {
                let chunk = chunk.clone();
                let packed = tokio::task::spawn_blocking(move || chunk.deflated()).await.unwrap_or(Err(Damaged))?;
                chunks.push((Arc::new(packed), false));
            } else {
                let kept = placed == PlacementCheck::Checked && self.is_storable(chunk, placed);
                chunks.push((chunk.clone(), kept));
            }
        }
        Ok(chunks)
    }
}
