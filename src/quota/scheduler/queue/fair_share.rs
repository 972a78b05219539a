//! Fairness between callers, for calls: fair queueing by virtual time (Demers, Keshav, Shenker, 1989). Each call
//! advances the virtual time of its caller by `1 / weight`, and the caller with the lowest goes first. Pure.
//!
//! While callers compete, the numbers of their calls are in proportion to their weights, however many calls of each
//! wait.

use std::collections::HashMap;
use std::sync::Arc;

use crate::request::Requester;

/// Advance of virtual time by a call of weight 1.
const CALL: u128 = 1 << 64;
/// Calls that a caller may lag behind the others, so that it goes first when it comes back.
///
/// A caller that sends one request after the other is not in the queue while it reads an answer. Without a credit, the
/// bursts in which no call waits would go to the quickest caller, and weights would have no effect. A larger credit
/// would let a caller that comes back stop the others for long.
const MAX_CREDIT_CALLS: u128 = 10;

/// Virtual time: the calls of a caller, divided by its weight. The lowest goes first.
pub(super) type VirtualTime = u128;

/// Virtual times of all callers.
#[derive(Debug, Default)]
pub(super) struct FairShare {
    by_caller: HashMap<Arc<str>, VirtualTime>,
    /// The highest virtual time at which a call was made: about where the competing callers are.
    highest: VirtualTime,
}

impl FairShare {
    /// Virtual time of a requester. A caller that was away is moved up to the competing callers, except for its credit.
    pub(super) fn virtual_time(&self, requester: &Requester) -> VirtualTime {
        let least = self.highest.saturating_sub(MAX_CREDIT_CALLS * step(requester));
        self.by_caller.get(&requester.caller).map_or(least, |time| least.max(*time))
    }

    /// Records a call of `requester`.
    pub(super) fn charge(&mut self, requester: &Requester) {
        let time = self.virtual_time(requester);
        self.highest = self.highest.max(time);
        self.by_caller.insert(requester.caller.clone(), time + step(requester));
    }

    /// Reverts the last [`FairShare::charge`] of `requester`, whose call was not sent.
    pub(super) fn refund(&mut self, requester: &Requester) {
        if let Some(time) = self.by_caller.get_mut(&requester.caller) {
            *time = time.saturating_sub(step(requester));
        }
    }
}

fn step(requester: &Requester) -> VirtualTime {
    CALL / u128::from(requester.weight.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::request::Priority;

    fn requester(caller: usize, weight: u32) -> Requester {
        Requester { caller: caller.to_string().into(), weight, priority: Priority::Interactive }
    }

    /// Calls of each caller after `rounds` of one call each; `waits` says which callers wait in a round.
    fn calls_by_caller(weights: &[u32], rounds: usize, waits: impl Fn(usize, usize) -> bool) -> Vec<u32> {
        let requesters: Vec<Requester> =
            weights.iter().enumerate().map(|(caller, weight)| requester(caller, *weight)).collect();
        let mut shares = FairShare::default();
        let mut calls = vec![0; weights.len()];
        for round in 0..rounds {
            let waiting = (0..requesters.len()).filter(|caller| waits(round, *caller));
            let Some(next) = waiting.min_by_key(|caller| shares.virtual_time(&requesters[*caller])) else { continue };
            shares.charge(&requesters[next]);
            calls[next] += 1;
        }
        calls
    }

    proptest! {
        /// Exact to one call.
        #[test]
        fn callers_with_standing_demand_get_calls_by_weight(
            weights in prop::collection::vec(1u32..20, 1..6), rounds in 1usize..20,
        ) {
            let all = weights.iter().sum::<u32>() as usize;
            let calls = calls_by_caller(&weights, all * rounds, |_, _| true);
            for (weight, calls) in weights.iter().zip(calls) {
                let due = weight * u32::try_from(rounds).unwrap();
                prop_assert!(calls.abs_diff(due) <= 1 + weight, "{} of {}", calls, due);
            }
        }

        /// No caller waits longer than the weights of the others allow.
        #[test]
        fn caller_of_weight_one_is_not_starved(weight in 1u32..1000, away in 0usize..500) {
            let rounds = away + 2 * (weight as usize + 10) + 2;
            let calls = calls_by_caller(&[1, weight], rounds, |round, caller| caller == 1 || round >= away);
            prop_assert!(calls[0] > 0);
        }
    }

    #[test]
    fn caller_with_rare_calls_goes_first() {
        let calls = calls_by_caller(&[1, 1, 2, 1], 1000, |round, caller| caller != 3 || round % 50 == 49);
        assert_eq!(calls[3], 20, "each of its calls is made in the round in which it comes");
    }

    #[test]
    fn caller_that_was_away_precedes_others_by_its_credit() {
        let mut shares = FairShare::default();
        let (stayed, away) = (requester(0, 1), requester(1, 1));
        for _ in 0..1000 {
            shares.charge(&stayed);
        }
        let mut calls = 0;
        while shares.virtual_time(&away) < shares.virtual_time(&stayed) {
            shares.charge(&away);
            calls += 1;
        }
        assert!((10..=11).contains(&calls), "{calls}");
    }

    #[test]
    fn refund_after_charge_restores_virtual_time() {
        let mut shares = FairShare::default();
        let requester = requester(0, 3);
        shares.charge(&requester);
        let before = shares.virtual_time(&requester);
        shares.charge(&requester);
        shares.refund(&requester);
        assert_eq!(shares.virtual_time(&requester), before);
    }
}
