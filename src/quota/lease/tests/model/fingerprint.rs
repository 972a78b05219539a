//! Canonical form of a state, as a hash: states that differ in names and in the time of day only have the same.
//!
//! - A time is its distance from the present of the clock that it was read from, at most [`LONGEST_AGE`]. This takes
//!   two states for one that differ only in which of two moments further back was the earlier; no run of the model is
//!   so long after its last fault that this could matter.
//! - A replica is named by its place, and one that has ended by how many have started since. So a replica that was
//!   restarted is the same as the first one in its place.
//! - A call is named by its replica and by its distance from that replica's next number.
//! - A heartbeat counter is its distance from the counter in Redis.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::world::ModelWorld;
use crate::quota::lease::CallName;
use crate::quota::limiter::MonotonicTime;
use crate::replicas::ReplicaId;

/// Longer than each timeout of the lease but two, which no run reaches: the interval of exchanges of an idle replica,
/// and the time after which a silent replica is removed.
const LONGEST_AGE: Duration = Duration::from_secs(14);

/// A hash of one state, and what the parts of the state need to write themselves into it.
pub(in crate::quota::lease) struct Fingerprint<'a> {
    world: &'a ModelWorld,
    hash: Xxh3,
    /// The present, by the clock that the times are of which are written.
    now: MonotonicTime,
    /// The number of the next call of the replica whose numbers are written.
    next_number: u64,
}

impl<'a> Fingerprint<'a> {
    pub(super) fn new(world: &'a ModelWorld) -> Self {
        Self { world, hash: Xxh3::new(), now: world.now(), next_number: 0 }
    }

    pub(super) fn at(&mut self, now: MonotonicTime, next_number: u64) {
        (self.now, self.next_number) = (now, next_number);
    }

    pub(super) fn finish(&self) -> u64 {
        self.hash.finish()
    }

    pub(in crate::quota::lease) fn put(&mut self, value: impl Hash) {
        value.hash(&mut self.hash);
    }

    /// Writes values whose order means nothing.
    pub(in crate::quota::lease) fn set<T: Hash + Ord>(&mut self, mut values: Vec<T>) {
        values.sort_unstable();
        values.hash(&mut self.hash);
    }

    /// Milliseconds since `time`; negative if it is to come.
    pub(in crate::quota::lease) fn age(&self, time: MonotonicTime) -> i64 {
        let ms = |time: Duration| i64::try_from(time.min(LONGEST_AGE).as_millis()).unwrap();
        if time <= self.now { ms(self.now.saturating_sub(time)) } else { -ms(time.saturating_sub(self.now)) }
    }

    pub(in crate::quota::lease) fn place(&self, replica: &ReplicaId) -> u64 {
        self.place_of(u64::from_str_radix(replica.as_str(), 16).unwrap())
    }

    fn place_of(&self, id: u64) -> u64 {
        let place = self.world.replicas.iter().position(|replica| replica.as_ref().is_some_and(|it| it.id == id));
        place.map_or(16 + self.world.started - id, |place| place as u64)
    }

    /// The distance of a number from the next one.
    pub(in crate::quota::lease) fn number(&self, number: u64) -> u64 {
        self.next_number - number
    }

    /// The kind of a call, its replica, and its number.
    pub(in crate::quota::lease) fn call(&self, name: &CallName) -> (u8, u64, u64) {
        let parts: Vec<&str> = name.split(':').collect();
        match parts[..] {
            ["unheard", number] => (1, 0, number.parse().unwrap()),
            [replica, "ghost", number] => {
                (2, self.place_of(u64::from_str_radix(replica, 16).unwrap()), number.parse().unwrap())
            }
            [replica, number] => {
                let (id, number) = (u64::from_str_radix(replica, 16).unwrap(), number.parse::<u64>().unwrap());
                (0, self.place_of(id), self.world.next_number(id) - number)
            }
            _ => panic!("the name of a call: {name}"),
        }
    }

    /// The distance of a heartbeat counter from the one in Redis.
    pub(in crate::quota::lease) fn heartbeats(&self, replica: &ReplicaId, count: i64) -> i64 {
        self.world.redis.members.get(replica).copied().unwrap_or_default() - count
    }
}
