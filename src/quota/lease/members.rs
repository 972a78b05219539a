//! The replicas that are alive. Each one increments a counter in Redis, and one whose counter moves is alive: no
//! replica's clock is compared with another's. Pure: time is an argument.

#[cfg(test)]
mod fingerprint;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::QuotaLimit;
use crate::quota::limiter::MonotonicTime;
use crate::replicas::ReplicaId;

/// A replica whose counter has not moved for this long, and for as long as nobody read it, is taken for dead: more
/// than twice the longest interval of heartbeats.
const MEMBER_SILENCE_TIMEOUT: Duration = Duration::from_secs(12);
/// The interval at which an idle replica reads the counters, for each replica: so the load of all readings grows with
/// the number of replicas, and not with its square.
const READ_INTERVAL_PER_MEMBER: Duration = Duration::from_millis(100);
/// A replica whose counter has not moved for this long is removed from Redis. If it is alive after all, it starts
/// again at one.
const MEMBER_REMOVAL_TIMEOUT: Duration = Duration::from_mins(10);

/// The last counter that was read of a replica, and when it was seen to move.
#[derive(Clone, Copy, Debug)]
struct Heartbeat {
    count: i64,
    moved_at: MonotonicTime,
}

/// The replicas that one replica has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    heartbeats: BTreeMap<ReplicaId, Heartbeat>,
    /// The limits that each was configured with, as far as known.
    limits: BTreeMap<ReplicaId, Vec<QuotaLimit>>,
    /// When the counters were last read.
    read_at: MonotonicTime,
    /// Whether contact with Redis has lasted for long enough to have seen all others.
    is_complete: bool,
}

impl Members {
    /// Takes in the counters that were read at `now`; all exchanges since `steady_since` were answered. Returns the
    /// replicas that are to be removed from Redis.
    pub(super) fn note_heartbeats(
        &mut self,
        now: MonotonicTime,
        counts: impl IntoIterator<Item = (ReplicaId, i64)>,
        steady_since: Option<MonotonicTime>,
    ) -> Vec<ReplicaId> {
        // A counter that moved during an outage does not say that its replica has survived the outage.
        let is_recent = steady_since.is_some_and(|since| since <= self.read_at);
        for (replica, count) in counts {
            let heartbeat = self.heartbeats.entry(replica).or_insert(Heartbeat { count, moved_at: now });
            if std::mem::replace(&mut heartbeat.count, count) != count && is_recent {
                heartbeat.moved_at = now;
            }
        }
        self.read_at = now;
        // A replica that is missing from the reading stays: perhaps Redis has lost it, and it is alive.
        let silent = self.heartbeats.extract_if(.., |_, heartbeat| heartbeat.moved_at + MEMBER_REMOVAL_TIMEOUT <= now);
        let gone: Vec<_> = silent.map(|(replica, _)| replica).collect();
        self.limits.retain(|replica, _| !gone.contains(replica));
        gone
    }

    /// Takes in the limits of replicas. Those of a replica that is missing stay.
    pub(super) fn note_limits(&mut self, limits: Vec<(ReplicaId, Vec<QuotaLimit>)>) {
        self.limits.extend(limits);
    }

    /// The limits of `replicas`, as far as known.
    pub(super) fn limits_of(&self, replicas: &BTreeSet<ReplicaId>) -> impl Iterator<Item = &QuotaLimit> {
        replicas.iter().filter_map(|replica| self.limits.get(replica)).flatten()
    }

    /// A replica has announced that it has started.
    pub(super) fn note_joined(&mut self, now: MonotonicTime, replica: &ReplicaId) {
        let joined = Heartbeat { count: 0, moved_at: now };
        self.heartbeats.entry(replica.clone()).or_insert(joined).moved_at = now;
    }

    /// The replicas that were alive when the counters were last read.
    pub(super) fn alive(&self) -> BTreeSet<ReplicaId> {
        self.alive_since(self.read_at.saturating_sub(MEMBER_SILENCE_TIMEOUT + self.read_interval()))
    }

    /// The replicas whose counters have moved since `then`.
    pub(super) fn alive_since(&self, then: MonotonicTime) -> BTreeSet<ReplicaId> {
        self.heartbeats
            .iter()
            .filter(|(_, heartbeat)| heartbeat.moved_at >= then)
            .map(|(replica, _)| replica.clone())
            .collect()
    }

    /// The shortest interval at which an idle replica reads the counters.
    pub(super) fn read_interval(&self) -> Duration {
        READ_INTERVAL_PER_MEMBER.saturating_mul(u32::try_from(self.heartbeats.len()).unwrap_or(u32::MAX))
    }

    /// Notes that all other replicas have been seen.
    pub(super) fn mark_complete(&mut self) {
        self.is_complete = true;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }
}
