//! Whose turn it is: each caller's share of the quota by its weight. Pure.
//!
//! Fair queueing by virtual time: each call moves its caller's mark on by `1/weight`, and the lowest mark goes first. So
//! while callers compete, their calls are as their weights, whatever they ask for and however many of them wait.

use std::collections::HashMap;
use std::sync::Arc;

use crate::request::Requester;

/// How far a mark moves by a call of weight 1.
const CALL: u128 = 1 << 64;
/// So many calls' worth of a share that was not used is remembered. A caller that asks for one thing after the other is
/// never in the queue while it reads an answer; without this, each burst in which nobody has to wait would go to
/// whoever is quickest, and a weight would mean nothing. More would let one who comes back stop the others for long.
const CREDIT: u128 = 10;

/// A caller's mark: the lower, the sooner.
pub(in crate::quota) type VirtualTime = u128;

/// What each caller has had.
#[derive(Debug, Default)]
pub(in crate::quota) struct FairShare {
    marks: HashMap<Arc<str>, VirtualTime>,
    /// The highest mark that was ever served: about what all who compete have reached.
    reached: VirtualTime,
}

impl FairShare {
    /// Where `asker` stands now. One who has long been away is brought up to those who compete, but for its credit.
    pub(in crate::quota) fn mark(&self, asker: &Requester) -> VirtualTime {
        let step = step(asker);
        let least = self.reached.saturating_sub(CREDIT * step);
        self.marks.get(&asker.caller).map_or(least, |mark| least.max(*mark))
    }

    /// A call goes for `asker`.
    pub(in crate::quota) fn charge(&mut self, asker: &Requester) {
        let mark = self.mark(asker);
        self.reached = self.reached.max(mark);
        self.marks.insert(asker.caller.clone(), mark + step(asker));
    }

    /// The last call that went for `asker` never left.
    pub(in crate::quota) fn refund(&mut self, asker: &Requester) {
        if let Some(mark) = self.marks.get_mut(&asker.caller) {
            *mark = mark.saturating_sub(step(asker));
        }
    }
}

fn step(asker: &Requester) -> VirtualTime {
    CALL / u128::from(asker.weight.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::request::Priority;

    fn asker(caller: usize, weight: u32) -> Requester {
        Requester { caller: caller.to_string().into(), weight, class: Priority::Interactive }
    }

    /// Gives `turns` to those who wait in each, and counts who got how many.
    fn served(weights: &[u32], turns: usize, waits: impl Fn(usize, usize) -> bool) -> Vec<u32> {
        let askers: Vec<Requester> =
            weights.iter().enumerate().map(|(caller, weight)| asker(caller, *weight)).collect();
        let mut shares = FairShare::default();
        let mut got = vec![0; weights.len()];
        for turn in 0..turns {
            let waiting = (0..askers.len()).filter(|caller| waits(turn, *caller));
            let Some(next) = waiting.min_by_key(|caller| shares.mark(&askers[*caller])) else { continue };
            shares.charge(&askers[next]);
            got[next] += 1;
        }
        got
    }

    proptest! {
        /// Those who always wait get their weights' share, to the call.
        #[test]
        fn standing_demand_is_served_by_weight(weights in prop::collection::vec(1u32..20, 1..6), rounds in 1usize..20) {
            let all = weights.iter().sum::<u32>() as usize;
            let got = served(&weights, all * rounds, |_, _| true);
            for (weight, got) in weights.iter().zip(got) {
                let due = weight * u32::try_from(rounds).unwrap();
                prop_assert!(got.abs_diff(due) <= 1 + weight, "{} of {}", got, due);
            }
        }

        /// Nobody waits longer than the weights of the others allow, whatever these do.
        #[test]
        fn nobody_is_starved(weight in 1u32..1000, away in 0usize..500) {
            let got = served(&[1, weight], away + 2 * (weight as usize + 10) + 2, |turn, caller| caller == 1 || turn >= away);
            prop_assert!(got[0] > 0);
        }
    }

    #[test]
    fn one_who_comes_now_and_then_goes_first() {
        let got = served(&[1, 1, 2, 1], 1000, |turn, caller| caller != 3 || turn % 50 == 49);
        assert_eq!(got[3], 20, "each of its single calls goes in the very turn in which it comes");
    }

    #[test]
    fn one_who_was_away_does_not_stop_the_others_for_long() {
        let mut shares = FairShare::default();
        let (stayed, away) = (asker(0, 1), asker(1, 1));
        for _ in 0..1000 {
            shares.charge(&stayed);
        }
        let mut turns = 0;
        while shares.mark(&away) < shares.mark(&stayed) {
            shares.charge(&away);
            turns += 1;
        }
        assert!((10..=11).contains(&turns), "{turns}");
    }

    #[test]
    fn a_refund_takes_nothing_from_a_share() {
        let mut shares = FairShare::default();
        let one = asker(0, 3);
        shares.charge(&one);
        let before = shares.mark(&one);
        shares.charge(&one);
        shares.refund(&one);
        assert_eq!(shares.mark(&one), before);
    }
}
