//! All calls of the replicas that may still count, as one replica knows them. Pure: time is an argument.
//!
//! A call is *recorded* if the ledger in Redis holds it as it is known here.

#[cfg(test)]
mod fingerprint;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::quota::limiter::MonotonicTime;
use crate::replicas::ReplicaId;

/// The name of a call among all replicas: the replica that made it, and a number.
pub(in crate::quota) type CallName = Arc<str>;

/// A call of this replica.
#[derive(Clone, Debug)]
struct OwnCall {
    /// The caller who is charged.
    caller: Arc<str>,
    /// When it counts at the latest: at its end, or for a call in flight, when the others take it to have counted.
    at: MonotonicTime,
    is_open: bool,
    is_recorded: bool,
    /// Whether it was made out of this replica's share, so that no other replica has taken it into account yet.
    is_partitioned: bool,
}

/// A call of another replica, or of an earlier process.
#[derive(Clone, Copy, Debug)]
struct OtherCall {
    /// When it counts at the latest.
    at: MonotonicTime,
    is_recorded: bool,
}

/// The calls that this replica knows of.
#[derive(Clone, Debug, Default)]
pub(super) struct CallLog {
    own: BTreeMap<CallName, OwnCall>,
    others: BTreeMap<CallName, OtherCall>,
    /// Calls that Redis may have recorded and that do not count.
    cancelled: Vec<CallName>,
    /// The calls assumed for each replica that has not come back from an outage; they are among the `others`.
    assumed: BTreeMap<ReplicaId, Vec<CallName>>,
}

impl CallLog {
    /// A log with the calls that an earlier process made on the machine of the replica `me`. They count as recorded,
    /// because Redis may know them by other names: the first reading of a complete ledger replaces them. If the ledger was
    /// lost, the leader records them like all others.
    pub(super) fn new(me: &ReplicaId, previous: Vec<MonotonicTime>) -> Self {
        let mut log = Self::default();
        for (number, at) in previous.into_iter().enumerate() {
            log.record_other(format!("past:{me}:{number}").into(), at, true);
        }
        log
    }

    /// A call of this replica begins. It was granted, so it is recorded; or it is made out of the replica's share. It
    /// counts at `latest` at the latest, unless that is extended.
    pub(super) fn begin(&mut self, name: CallName, caller: Arc<str>, latest: MonotonicTime, is_partitioned: bool) {
        let is_recorded = !is_partitioned;
        self.own.insert(name, OwnCall { caller, at: latest, is_open: true, is_recorded, is_partitioned });
    }

    /// The replicas know of each other's calls again: those that each made out of its share are known to all.
    pub(super) fn end_partition(&mut self) {
        self.own.values_mut().for_each(|call| call.is_partitioned = false);
    }

    /// Extends the calls in flight that would be taken to have counted before `due`: they count at `latest` at the
    /// latest.
    pub(super) fn extend_open(&mut self, due: MonotonicTime, latest: MonotonicTime) {
        for call in self.own.values_mut().filter(|call| call.is_open && call.at < due) {
            (call.at, call.is_recorded) = (latest, false);
        }
    }

    /// A call of this replica has ended, and counts at `at`.
    pub(super) fn end(&mut self, name: &str, at: MonotonicTime) {
        if let Some(call) = self.own.get_mut(name) {
            (call.at, call.is_open, call.is_recorded) = (at, false, false);
        }
    }

    /// A call of this replica never reached the upstream.
    pub(super) fn refund(&mut self, name: &CallName) {
        self.own.remove(name);
        self.cancelled.push(name.clone());
    }

    /// Cancels calls that are or may be recorded and will not be made.
    pub(super) fn cancel(&mut self, names: impl IntoIterator<Item = CallName>) {
        self.cancelled.extend(names);
    }

    /// Removes the cancelled calls, for an exchange that removes them in Redis.
    pub(super) fn take_cancelled(&mut self) -> Vec<CallName> {
        std::mem::take(&mut self.cancelled)
    }

    /// A call of another replica counts at `at` at the latest.
    pub(super) fn record_other(&mut self, name: CallName, at: MonotonicTime, is_recorded: bool) {
        if !self.own.contains_key(&name) {
            self.others.insert(name, OtherCall { at, is_recorded });
        }
    }

    /// Whether a call of another replica may have ended sooner than is known here.
    pub(super) fn awaits_ends(&self, now: MonotonicTime) -> bool {
        self.others.values().any(|call| call.at > now)
    }

    /// Assumes calls for a replica that has not come back from an outage.
    pub(super) fn assume(&mut self, replica: &ReplicaId, times: impl IntoIterator<Item = MonotonicTime>) {
        for (number, at) in times.into_iter().enumerate() {
            // Replicas of other versions write the same names.
            let name: CallName = format!("{replica}:ghost:{number}").into();
            self.record_other(name.clone(), at, false);
            self.assumed.entry(replica.clone()).or_default().push(name);
        }
    }

    /// Cancels the calls assumed for a replica that has come back: it has recorded its calls itself.
    pub(super) fn cancel_assumed(&mut self, replica: &ReplicaId) {
        for name in self.assumed.remove(replica).unwrap_or_default() {
            self.others.remove(&name);
            self.cancelled.push(name);
        }
    }

    /// Whether calls are assumed for any replica.
    pub(super) fn has_assumed(&self) -> bool {
        !self.assumed.is_empty()
    }

    /// Replaces what is known of other replicas by a reading of all their calls that count after `since`. A call that
    /// was not read is gone, unless it has not been recorded yet.
    pub(super) fn replace_others(
        &mut self,
        since: MonotonicTime,
        calls: impl IntoIterator<Item = (CallName, MonotonicTime)>,
    ) {
        self.others.retain(|_, call| call.at <= since || !call.is_recorded);
        for (name, at) in calls {
            self.record_other(name, at, true);
        }
    }

    /// Marks this replica's calls as not recorded: Redis may have lost its ledger.
    pub(super) fn mark_own_unrecorded(&mut self) {
        self.own.values_mut().for_each(|call| call.is_recorded = false);
    }

    /// Marks all calls as not recorded.
    pub(super) fn mark_all_unrecorded(&mut self) {
        self.mark_own_unrecorded();
        self.others.values_mut().for_each(|call| call.is_recorded = false);
    }

    /// Up to `limit` calls that are not recorded, each with the time at which it counts.
    pub(super) fn unrecorded(&self, limit: usize) -> Vec<(CallName, MonotonicTime)> {
        let own = self.own.iter().filter(|(_, call)| !call.is_recorded).map(|(name, call)| (name.clone(), call.at));
        let others =
            self.others.iter().filter(|(_, call)| !call.is_recorded).map(|(name, call)| (name.clone(), call.at));
        own.chain(others).take(limit).collect()
    }

    /// Whether all is recorded, and no call is in flight here.
    pub(super) fn is_idle(&self) -> bool {
        self.cancelled.is_empty()
            && self.own.values().all(|call| call.is_recorded && !call.is_open)
            && self.others.values().all(|call| call.is_recorded)
    }

    /// Marks calls as recorded, unless one has ended since the exchange began.
    pub(super) fn mark_recorded(&mut self, calls: &[(CallName, MonotonicTime)]) {
        for (name, at) in calls {
            if let Some(call) = self.own.get_mut(name).filter(|call| call.at == *at) {
                call.is_recorded = true;
            }
            if let Some(call) = self.others.get_mut(name).filter(|call| call.at == *at) {
                call.is_recorded = true;
            }
        }
    }

    /// Removes the calls that counted at `since` or before.
    pub(super) fn forget_before(&mut self, since: MonotonicTime) {
        self.own.retain(|_, call| call.is_open || call.at > since);
        self.others.retain(|_, call| call.at > since);
    }

    /// The time at which each call counts that is not in flight here, and the caller who is charged; ascending.
    pub(super) fn call_times(&self) -> Vec<(MonotonicTime, Arc<str>)> {
        self.ended(|_| true)
    }

    /// The calls that count against the share of one of `replicas`: one in `replicas` of those that all know, and all
    /// of its own that the others do not. The former are counted from the latest, so that any window that ends now or
    /// later holds the share of its calls, rounded up.
    pub(super) fn share_of_call_times(&self, replicas: usize) -> Vec<(MonotonicTime, Arc<str>)> {
        let common = self.ended(|own| !own.is_partitioned);
        let partitioned = self.own.values().filter(|call| !call.is_open && call.is_partitioned);
        let mut times: Vec<_> = common.into_iter().rev().step_by(replicas.max(1)).collect();
        times.extend(partitioned.map(|call| (call.at, call.caller.clone())));
        times.sort_by_key(|(at, _)| *at);
        times
    }

    fn ended(&self, own: impl Fn(&OwnCall) -> bool) -> Vec<(MonotonicTime, Arc<str>)> {
        let no_caller: Arc<str> = Arc::from("");
        let own = self.own.values().filter(|call| !call.is_open && own(call));
        let own = own.map(|call| (call.at, call.caller.clone()));
        let others = self.others.values().map(|call| (call.at, no_caller.clone()));
        let mut times: Vec<_> = own.chain(others).collect();
        times.sort_by_key(|(at, _)| *at);
        times
    }
}
