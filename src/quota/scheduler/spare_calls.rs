//! What the quota has to spare: whether further runs of one window may begin beside the first, and what a call waits.

use std::time::Duration;

use super::CallScheduler;
use crate::quota::limiter::usable;
use crate::quota::role::Role;
use crate::request::Priority;

/// The share of each limit that runs beside the first leave alone: each costs half a call more than it must, and where
/// little is left, nothing is to be wasted.
const SPARE_RESERVE: f64 = 0.2;

impl CallScheduler {
    /// How many calls of this class, at most `most`, could be had at once: nobody waits for a turn, the pace lets them
    /// go, and a fifth of each limit stays free.
    pub fn spare_calls(&self, class: Priority, most: u32) -> u32 {
        let mut state = self.lock();
        let now = self.now();
        if let Some(common) = &state.common
            && let Role::Follower(_) = common.role(now)
        {
            return 0;
        }
        let reserve = self.reserve(class);
        let outlook = state.ledger.outlook(now, reserve);
        let paced = state.pace(class).map_or(now, |pace| pace.admits_at(outlook));
        if !state.queue.is_empty() || state.backoff.until().max(paced) > now {
            return 0;
        }
        let idle = usable(self.max_concurrency, reserve).saturating_sub(state.ledger.under_way());
        let fits = |calls: &u32| state.ledger.free_at(now, calls - 1, reserve.max(SPARE_RESERVE)) <= now;
        u32::try_from((1..=most.min(idle)).take_while(fits).count()).unwrap_or(most)
    }

    /// How long each call waits for its turn while callers compete; nothing if they do not.
    pub fn expected_wait(&self) -> Duration {
        if !self.is_contended() {
            return Duration::ZERO;
        }
        self.limits
            .iter()
            .min_by_key(|limit| limit.per)
            .map_or(Duration::ZERO, |limit| limit.per / limit.requests.max(1))
    }
}
