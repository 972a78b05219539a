//! Invariants of the states, checked after every step of a simulation.

use std::time::Duration;

use proptest::prelude::*;

use super::fleet::{FleetEvent, LIMITS, SimulatedFleet};
use super::{FAST_CALLS, SLOW_CALLS};
use crate::quota::lease::state::LeaseState;

/// A partitioned replica finds Redis again within this.
const RECOVERY_TIME: Duration = Duration::from_millis(500);

impl SimulatedFleet {
    fn assert_invariants(&self) -> Result<(), TestCaseError> {
        let now = self.now;
        let may_spend = |state: &LeaseState| state.leadership().is_some_and(|held| held.may_spend(now));
        let leaders = self.replicas.iter().filter(|replica| may_spend(&replica.quota.state)).count();
        prop_assert!(leaders <= 1, "{} replicas may spend the lease", leaders);
        let mut shares = [0; LIMITS.len()];
        for replica in &self.replicas {
            match &replica.quota.state {
                LeaseState::Following { leader } => prop_assert_ne!(leader, &replica.quota.replica.me),
                LeaseState::Partitioned(partition) => {
                    let is_suspended = replica.suspended_until > now;
                    let is_reachable = now >= self.down_until + RECOVERY_TIME;
                    prop_assert!(is_suspended || !is_reachable, "partitioned, although Redis answers");
                    prop_assert!(!partition.is_exchanging);
                    for (sum, limit) in shares.iter_mut().zip(&partition.shares) {
                        *sum += limit.requests;
                    }
                }
                LeaseState::Joining { .. } | LeaseState::Leading(_) => {}
            }
        }
        for (sum, limit) in shares.iter().zip(LIMITS) {
            prop_assert!(*sum <= limit.requests, "shares of {} of {}", sum, limit.requests);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// At most one replica may spend the lease at any time, and the shares of partitioned replicas fit into the
    /// limits.
    #[test]
    fn invariants_of_each_state_hold_after_every_step(
        replicas in 1usize..6, is_slow in any::<bool>(), seed in any::<u64>(), loss in 2u64..10,
        events in prop::collection::vec((0u64..15_000, FleetEvent::strategy()), 0..20),
    ) {
        let mut fleet = SimulatedFleet::new(replicas, if is_slow { SLOW_CALLS } else { FAST_CALLS }, seed);
        fleet.loss = loss;
        for (wait, event) in events {
            let until = fleet.now + Duration::from_millis(wait);
            while fleet.now < until {
                fleet.step();
                fleet.assert_invariants()?;
            }
            fleet.happen(&event);
        }
    }
}
