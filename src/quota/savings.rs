//! Balance between the calls that an account has spent and the calls that its callers would have made themselves.
//!
//! Over all answers that ended whole, the calls that their callers would have made are the calls spent plus the calls
//! saved. Some calls serve no such answer: those for a page that is smaller than the window it is cut from, of a failed
//! run, of an answer that broke off, and retries. They are *unsettled* until they are set against later savings, so
//! that the sum holds.

use std::sync::atomic::{AtomicU64, Ordering};

/// Unsettled calls of one account: spent, and not set against a saving yet.
#[derive(Debug, Default)]
pub(super) struct Savings {
    unsettled: AtomicU64,
}

impl Savings {
    pub(super) fn add_unsettled(&self, calls: u32) {
        if calls > 0 {
            self.unsettled.fetch_add(calls.into(), Ordering::Relaxed);
        }
    }

    pub(super) fn settle(&self, net: i64) -> u64 {
        let Ok(gain) = u64::try_from(net) else {
            self.unsettled.fetch_add(net.unsigned_abs(), Ordering::Relaxed);
            return 0;
        };
        // In general no calls are unsettled, and a load leaves the cache line to the other threads.
        if gain == 0 || self.unsettled.load(Ordering::Relaxed) == 0 {
            return gain;
        }
        let pay_off = |unsettled: u64| Some(unsettled.saturating_sub(gain));
        let unsettled = self.unsettled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay_off).unwrap_or_default();
        gain.saturating_sub(unsettled)
    }

    pub(super) fn unsettled(&self) -> u64 {
        self.unsettled.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn saving_after_overspend_pays_it_off_first() {
        let savings = Savings::default();
        assert_eq!(savings.settle(-19), 0);
        savings.add_unsettled(2);
        assert_eq!([20, 2, 5].map(|net| savings.settle(net)), [0, 1, 5]);
    }

    proptest! {
        /// Each step is an answer (calls that its caller would have made, and calls that were made), or calls of no
        /// answer.
        #[test]
        fn any_sequence_keeps_alone_equal_to_spent_plus_saved(
            steps in prop::collection::vec((prop::option::of(1i64..200), 0u32..200), 0..50)
        ) {
            let savings = Savings::default();
            let (mut alone, mut spent, mut saved) = (0, 0, 0);
            for (answer, calls) in steps {
                spent += i64::from(calls);
                match answer {
                    Some(would_have_made) => {
                        alone += would_have_made;
                        saved += savings.settle(would_have_made - i64::from(calls)).cast_signed();
                    }
                    None => savings.add_unsettled(calls),
                }
            }
            prop_assert_eq!(alone, spent + saved - savings.unsettled.into_inner().cast_signed());
        }
    }
}
