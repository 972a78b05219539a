//! Replicas that share a quota, simulated: Redis dies, forgets and returns, replicas start, stop, die and are
//! suspended, and an upstream counts the calls of all.

mod fleet;
mod invariants;
pub(super) mod model;
mod readings;
mod redis;
mod transitions;

use std::time::Duration;

use proptest::prelude::*;

use self::fleet::{FleetEvent, LIMITS, RedisLoad, SimulatedFleet};
use super::sync::ExchangeReply;
use super::{QuotaChange, SharedQuota};
use crate::quota::limiter::MonotonicTime;
use crate::quota::role::Role;
use crate::replicas::ReplicaId;

/// The longest call of an upstream that is fast,
const FAST_CALLS: Duration = Duration::from_millis(800);
/// and of one that is slow.
const SLOW_CALLS: Duration = Duration::from_secs(9);

impl SharedQuota {
    /// Runs an exchange in which Redis names `holder`, for tests of a scheduler.
    pub(in crate::quota) fn exchange_held_by(&mut self, now: MonotonicTime, holder: Option<&ReplicaId>) -> QuotaChange {
        let request = self.begin_exchange(now);
        let is_acquired = holder == Some(&self.replica.me) && self.state.leadership().is_none();
        let holder = holder.cloned();
        let reply = ExchangeReply { holder, is_acquired, is_complete: true, granted: 0, calls: None };
        self.finish_exchange(now, &request, &reply)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The events reach all replicas that are alive alike.
    #[test]
    fn no_rolling_window_exceeds_its_limit_whatever_happens(
        replicas in 1usize..6, is_slow in any::<bool>(), seed in any::<u64>(),
        events in prop::collection::vec((0u64..15_000, FleetEvent::strategy()), 0..10),
    ) {
        let mut fleet = SimulatedFleet::new(replicas, if is_slow { SLOW_CALLS } else { FAST_CALLS }, seed);
        for (wait, event) in events {
            let until = fleet.now + Duration::from_millis(wait);
            while fleet.now < until {
                fleet.step();
            }
            fleet.happen(&event);
        }
        fleet.has_demand = true;
        fleet.steps(2400);
        fleet.assert_within_limits()?;
        prop_assert!(!fleet.counted.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// Replicas that start and die cost the others next to nothing.
    #[test]
    fn quota_is_used_while_replicas_start_and_die(replicas in 2usize..6, seed in any::<u64>(), loss in 2u64..10) {
        let mut fleet = SimulatedFleet::new(replicas, FAST_CALLS, seed);
        fleet.loss = loss;
        for step in 0..8000u32 {
            fleet.step();
            if step % 300 == 299 {
                let place = usize::try_from(fleet.roll(6)).unwrap();
                fleet.happen(&FleetEvent::Kill(place));
                fleet.happen(&FleetEvent::Start);
            }
        }
        fleet.assert_within_limits()?;
        let from = Duration::from_secs(140);
        let used = fleet.counted.iter().filter(|at| **at >= from).count();
        let used = f64::from(u32::try_from(used).unwrap());
        let windows = fleet.now.saturating_sub(from).as_secs_f64() / LIMITS[1].per.as_secs_f64();
        prop_assert!(used >= 0.95 * windows * f64::from(LIMITS[1].requests), "{} calls in {} windows", used, windows);
    }
}

#[test]
fn replicas_in_contact_have_one_leader_and_followers() {
    let mut fleet = SimulatedFleet::new(4, FAST_CALLS, 7);
    fleet.steps(200);
    let roles = fleet.replicas.iter().map(|replica| replica.quota.role(fleet.now));
    let following = roles.filter(|role| matches!(role, Role::Follower(_))).count();
    assert_eq!((fleet.leaders(), following), (1, 3));
}

#[test]
fn replicas_without_redis_have_shares_and_reunite_afterwards() {
    let mut fleet = SimulatedFleet::new(4, FAST_CALLS, 7);
    fleet.steps(400);
    fleet.happen(&FleetEvent::Down(60_000));
    fleet.steps(200);
    let limits: Vec<u32> = fleet.replicas.iter().map(|replica| replica.quota.limits()[0].requests).collect();
    assert_eq!(limits, [4, 4, 4, 4], "one of five shares is left to replicas that start meanwhile");
    let before = fleet.counted.len();
    fleet.steps(2000);
    assert!(fleet.counted.len() > before + 100, "calls go on");
    fleet.steps(400);
    assert_eq!(fleet.leaders(), 1);
    fleet.assert_within_limits().unwrap();
}

/// An idle fleet, and the load that it puts on Redis in so many seconds.
fn idle_fleet(replicas: usize, seconds: usize) -> (SimulatedFleet, RedisLoad) {
    let mut fleet = SimulatedFleet::new(replicas, FAST_CALLS, 7);
    fleet.steps(20 * 40);
    fleet.has_demand = false;
    fleet.steps(20 * 40);
    assert!(fleet.replicas.iter().all(|replica| replica.quota.is_idle(fleet.now)));
    fleet.load = RedisLoad::default();
    fleet.steps(seconds * 40);
    let load = fleet.load;
    (fleet, load)
}

#[test]
fn load_of_idle_replica_does_not_grow_with_their_number() {
    for replicas in [1, 3, 60] {
        let (_, load) = idle_fleet(replicas, 120);
        let each = |number: usize| number.div_ceil(replicas);
        // In a second: three pulses in two seconds, a heartbeat in five, an exchange in sixty.
        assert!(each(load.pulses) <= 120 * 1000 / 650 + 1, "{replicas}: {load:?}");
        assert!(each(load.heartbeats) <= 120 / 5 + 1, "{replicas}: {load:?}");
        assert!(each(load.exchanges) <= 120 / 60 + 1, "{replicas}: {load:?}");
        assert!(each(load.members_read) <= 120 * 10 + 2 * replicas, "{replicas}: {load:?}");
    }
}

#[test]
fn leader_that_dies_while_idle_is_replaced_within_two_seconds() {
    let (mut fleet, _) = idle_fleet(5, 3);
    let leader = fleet.replicas.iter().position(|replica| replica.quota.role(fleet.now) == Role::Leader).unwrap();
    fleet.replicas.remove(leader);
    let died = fleet.now;
    while fleet.leaders() == 0 {
        fleet.step();
        assert!(fleet.now <= died + Duration::from_secs(2), "no replica makes the calls");
    }
}
