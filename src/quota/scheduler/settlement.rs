//! Balance of calls spent and calls saved of one account, for the stages above.

use super::call_scheduler::CallScheduler;

impl CallScheduler {
    /// Adds calls that were spent for no answer that ended whole: those of a run that failed or that no request waited
    /// for, and those that an answer which broke off had stated. Each call is added once.
    pub fn add_unsettled(&self, calls: u32) {
        self.savings.add_unsettled(calls);
    }

    /// Settles an answer that ended whole. `net` is the number of calls that its caller would have made, less those
    /// that the answer tells of. Returns the calls saved: what is left of `net` after unsettled calls are paid off.
    pub fn settle(&self, net: i64) -> u64 {
        self.savings.settle(net)
    }

    /// Number of unsettled calls.
    pub fn unsettled(&self) -> u64 {
        self.savings.unsettled()
    }
}
