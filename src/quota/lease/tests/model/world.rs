//! The state of the model: three places for replicas, the Redis that they share, and the upstream.

use std::time::Duration;

use super::fault::Fault;
use super::fingerprint::Fingerprint;
use super::replica::{ModelReplica, PendingExchange};
use crate::config::QuotaLimit;
use crate::quota::lease::outage::shares;
use crate::quota::lease::state::LeaseState;
use crate::quota::lease::sync::{ExchangeReply, ExchangeRequest};
use crate::quota::lease::tests::redis::SimulatedRedis;
use crate::quota::limiter::{GUARD, MonotonicTime};
use crate::replicas::ReplicaId;

/// The time of one step. The lease (1250 ms in Redis, 1100 ms for its holder), pulses (650 ms), the contact required
/// (2500 ms and 1200 ms), the lifetime of grants (2 s), the threshold of suspension (2 s) and the intervals of
/// exchanges all end in different steps.
pub(super) const TICK: Duration = Duration::from_millis(125);
/// The time at which each run begins.
const START: MonotonicTime = Duration::from_secs(100);
/// The steps in which the first of several replicas becomes the leader.
const LEAD_TICKS: u32 = 24;
/// The number of replicas, and of those that one assumes which has seen no other.
pub(super) const PLACES: usize = 3;

/// The part of a run that faults do not change.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModelSettings {
    pub(super) name: &'static str,
    pub(super) limit: QuotaLimit,
    /// How many steps a call takes, and how many the longest.
    pub(super) call_ticks: u32,
    pub(super) longest_call_ticks: u32,
    /// The place whose clock is slow by a tenth.
    pub(super) slow_place: Option<usize>,
    /// Whether the replica in the last place acts first in each step.
    pub(super) is_reversed: bool,
    /// How many steps the run goes on before the first fault.
    pub(super) warm_up: u32,
}

/// A call that the upstream may count at any time from its beginning to its end.
#[derive(Clone, Debug)]
pub(super) struct UpstreamCall {
    pub(super) id: u64,
    pub(super) number: u64,
    pub(super) ends: u32,
    pub(super) is_partitioned: bool,
}

#[derive(Clone)]
pub(super) struct ModelWorld {
    pub(super) settings: ModelSettings,
    pub(super) tick: u32,
    pub(super) redis: SimulatedRedis,
    pub(super) down_until: u32,
    pub(super) replicas: [Option<ModelReplica>; PLACES],
    /// The number of replicas that were ever started.
    pub(super) started: u64,
    /// The next numbers of replicas that have ended.
    ended: Vec<(u64, u64)>,
    /// Requests of exchanges that have failed, which Redis runs later all the same, each in its step.
    pub(super) stray_requests: Vec<(u32, ExchangeRequest)>,
    pub(super) upstream: Vec<UpstreamCall>,
    pub(super) has_demand: bool,
    /// The calls above the limit that the documents allow for the faults so far.
    pub(super) documented_overrun: u32,
    pub(super) faults: Vec<Fault>,
}

impl ModelWorld {
    pub(super) fn new(settings: ModelSettings) -> Self {
        let mut world = Self {
            settings,
            tick: 0,
            redis: SimulatedRedis::default(),
            down_until: 0,
            replicas: [None, None, None],
            started: 0,
            ended: Vec::new(),
            stray_requests: Vec::new(),
            upstream: Vec::new(),
            has_demand: true,
            documented_overrun: 0,
            faults: Vec::new(),
        };
        // A replica whose clock is slow leads only if it is there before the others.
        if let Some(place) = settings.slow_place {
            world.start(place);
            (0..LEAD_TICKS).for_each(|_| world.step());
        }
        for place in (0..PLACES).filter(|place| Some(*place) != settings.slow_place) {
            world.start(place);
        }
        while world.tick < settings.warm_up {
            world.step();
        }
        world
    }

    /// The time by a right clock.
    pub(super) fn now(&self) -> MonotonicTime {
        START + TICK * self.tick
    }

    /// The time by the clock of the replica in `place`.
    pub(super) fn local_time(&self, place: usize) -> MonotonicTime {
        let since = TICK * self.tick;
        START + if self.settings.slow_place == Some(place) { since * 9 / 10 } else { since }
    }

    pub(super) fn start(&mut self, place: usize) {
        self.started += 1;
        let now = self.local_time(place);
        self.replicas[place] = Some(ModelReplica::new(self.started, &self.settings, now, self.tick));
    }

    /// Ends a replica. The upstream has its calls in flight soon after, if it counts them at all.
    pub(super) fn kill(&mut self, place: usize) {
        let Some(replica) = self.replicas[place].take() else { return };
        self.ended.push((replica.id, replica.quota.next_number));
        let silent = replica.quota.replica.silent_call_time().as_millis().div_ceil(TICK.as_millis());
        let last = self.tick + u32::try_from(silent).unwrap();
        for call in self.upstream.iter_mut().filter(|call| call.id == replica.id) {
            call.ends = call.ends.min(last);
        }
    }

    pub(super) fn next_number(&self, id: u64) -> u64 {
        let alive = self.alive().find(|replica| replica.id == id).map(|replica| replica.quota.next_number);
        alive.or_else(|| self.ended.iter().find(|(ended, _)| *ended == id).map(|(_, next)| *next)).unwrap()
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = &ModelReplica> {
        self.replicas.iter().flatten()
    }

    pub(super) fn is_down(&self) -> bool {
        self.tick < self.down_until
    }

    /// The share of a replica among so many.
    pub(super) fn share(&self, replicas: usize) -> u32 {
        shares(&[self.settings.limit], replicas)[0].requests
    }

    /// Whether all faults are over.
    pub(super) fn is_quiet(&self) -> bool {
        let is_quiet = |replica: &ModelReplica| replica.is_undisturbed(self.tick);
        !self.is_down() && self.stray_requests.is_empty() && self.alive().all(is_quiet)
    }

    /// The calls that the upstream may have counted in the window that ends now.
    pub(super) fn counted(&self) -> u32 {
        let window = self.settings.limit.per + GUARD;
        let is_counted = |call: &&UpstreamCall| TICK * call.ends + window > TICK * self.tick;
        u32::try_from(self.upstream.iter().filter(is_counted).count()).unwrap()
    }

    pub(super) fn step(&mut self) {
        self.tick += 1;
        let window = self.settings.limit.per + GUARD;
        self.upstream.retain(|call| TICK * call.ends + window > TICK * self.tick);
        let due = self.stray_requests.extract_if(.., |(tick, _)| *tick <= self.tick).collect::<Vec<_>>();
        for (_, request) in &due {
            self.run_in_redis(request);
        }
        for place in 0..PLACES {
            let place = if self.settings.is_reversed { PLACES - 1 - place } else { place };
            let Some(mut replica) = self.replicas[place].take() else { continue };
            if self.tick >= replica.suspended_until {
                let now = self.local_time(place);
                replica.step(self, now);
            }
            self.replicas[place] = Some(replica);
        }
    }

    /// Runs an exchange in Redis, and announces to the other replicas what it has changed.
    pub(super) fn run_in_redis(&mut self, request: &ExchangeRequest) -> ExchangeReply {
        let reply = self.redis.exchange(self.now(), request);
        for place in 0..PLACES {
            let (tick, now) = (self.tick, self.local_time(place));
            if let Some(replica) = &mut self.replicas[place] {
                replica.hear(tick, now, request, &reply);
            }
        }
        reply
    }

    pub(super) fn announce_start(&mut self, id: &ReplicaId) {
        for place in 0..PLACES {
            let now = self.local_time(place);
            if let Some(replica) = &mut self.replicas[place] {
                replica.quota.note_joined(now, id);
            }
        }
    }

    /// A hash that is the same for states which differ in names and in the time of day only.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut out = Fingerprint::new(self);
        let left = |tick: u32| tick.saturating_sub(self.tick);
        out.put((left(self.down_until), self.has_demand, self.documented_overrun));
        out.put(self.faults.iter().map(|fault| fault.kind()).collect::<Vec<_>>());
        out.put(self.redis.is_complete);
        out.put(self.redis.lease.as_ref().map(|(holder, until)| (out.place(holder), out.age(*until))));
        let ms = i64::try_from(self.now().as_millis()).unwrap();
        out.set(self.redis.ledger.iter().map(|(name, at)| (out.call(name), ms - at)).collect());
        out.set(self.redis.members.keys().map(|replica| out.place(replica)).collect());
        let upstream = self.upstream.iter().map(|call| (call.ends + 200 - self.tick, call.is_partitioned));
        out.set(upstream.collect());
        for (tick, request) in &self.stray_requests {
            PendingExchange::fingerprint_request(request, &mut out);
            out.put(left(*tick));
        }
        for (place, replica) in self.replicas.iter().enumerate() {
            out.put(replica.is_some());
            if let Some(replica) = replica {
                out.at(self.local_time(place), replica.quota.next_number);
                replica.fingerprint(self.tick, &mut out);
            }
        }
        out.finish()
    }

    /// One line about each replica, and about Redis.
    pub(super) fn describe(&self) -> String {
        let replicas = self.replicas.iter().map(|replica| match replica {
            None => "ended".to_owned(),
            Some(replica) => match &replica.quota.state {
                LeaseState::Joining { .. } => "Joining".to_owned(),
                LeaseState::Leading(_) => "Leading".to_owned(),
                LeaseState::Following { .. } => "Following".to_owned(),
                LeaseState::Partitioned(partition) => format!("Partitioned by {}", partition.replicas),
            },
        });
        let ledger = if self.redis.is_complete { "complete" } else { "incomplete" };
        format!("{}; ledger {ledger}, {} calls", replicas.collect::<Vec<_>>().join(", "), self.redis.ledger.len())
    }
}
