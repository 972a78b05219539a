//! The limits that hold while replicas have different ones: a reload reaches one after the other. Until all agree, the
//! lowest of each window holds. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::outage::shares;
use super::shared_quota::{QuotaChange, SharedQuota};
use crate::config::QuotaLimit;
use crate::replicas::ReplicaId;

/// Of each window the lowest of `own` limits and those of `others`, in the order in which the windows first occur.
pub(super) fn lowest<'a>(own: &[QuotaLimit], others: impl IntoIterator<Item = &'a QuotaLimit>) -> Vec<QuotaLimit> {
    let mut lowest = own.to_vec();
    for other in others {
        match lowest.iter_mut().find(|limit| limit.per == other.per) {
            Some(limit) => limit.requests = limit.requests.min(other.requests),
            None => lowest.push(*other),
        }
    }
    lowest
}

/// The text by which a replica tells the others its limits: `60/60000 1800/3600000`, calls and milliseconds of each. Empty
/// if it has none.
pub(super) fn encode(limits: &[QuotaLimit]) -> String {
    let limits = limits.iter().map(|limit| format!("{}/{}", limit.requests, limit.per.as_millis()));
    limits.collect::<Vec<_>>().join(" ")
}

/// Reads such a text; `None` if it is none.
pub(super) fn decode(text: &str) -> Option<Vec<QuotaLimit>> {
    let limit = |text: &str| {
        let (requests, per) = text.split_once('/')?;
        let (requests, per) = (requests.parse().ok()?, Duration::from_millis(per.parse().ok()?));
        (requests > 0 && !per.is_zero()).then_some(QuotaLimit { requests, per })
    };
    text.split_terminator(' ').map(limit).collect()
}

impl SharedQuota {
    /// Replaces the limits that this replica is configured with.
    pub(in crate::quota) fn set_limits(&mut self, configured: Vec<QuotaLimit>) {
        self.replica.configured = configured;
        self.agree();
    }

    /// Takes in the limits that replicas were configured with.
    pub(in crate::quota) fn note_limits(&mut self, limits: Vec<(ReplicaId, Vec<QuotaLimit>)>) -> QuotaChange {
        self.members.note_limits(limits);
        let has_changed = self.agree();
        QuotaChange { ledger: has_changed, queue: has_changed }
    }

    /// Finds the lowest limits of all replicas that are alive. Returns whether they have changed.
    fn agree(&mut self) -> bool {
        let mut others: BTreeSet<ReplicaId> = self.members.alive();
        others.remove(&self.replica.me);
        let agreed = lowest(&self.replica.configured, self.members.limits_of(&others));
        if agreed == self.replica.limits {
            return false;
        }
        if let Some(partition) = self.state.partition_mut() {
            partition.shares = shares(&agreed, partition.replicas);
        }
        self.replica.limits = agreed;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> impl Strategy<Value = Vec<QuotaLimit>> {
        let limit = (1u32..5, 1u64..5)
            .prop_map(|(requests, minutes)| QuotaLimit { requests, per: Duration::from_mins(minutes) });
        prop::collection::vec(limit, 0..4)
    }

    proptest! {
        #[test]
        fn lowest_limit_of_each_window_holds(all in prop::collection::vec(limits(), 1..4)) {
            let found = lowest(&all[0], all[1..].iter().flatten());
            for minutes in 1..5 {
                let per = Duration::from_mins(minutes);
                let of_window = |limits: &[QuotaLimit]| {
                    limits.iter().filter(|limit| limit.per == per).map(|limit| limit.requests).min()
                };
                prop_assert_eq!(of_window(&found), of_window(&all.concat()));
            }
        }

        #[test]
        fn limits_are_read_as_they_were_written(limits in limits(), garbage in "[0-9/ a-z]{0,12}") {
            prop_assert_eq!(decode(&encode(&limits)), Some(limits));
            let read = decode(&garbage);
            prop_assert!(read.is_none_or(|limits| limits.iter().all(|limit| limit.requests > 0 && !limit.per.is_zero())));
        }
    }
}
