//! All calls of the fleet that may still count, as one replica knows them. Pure: time is an argument.

use std::collections::HashMap;
use std::sync::Arc;

use super::MonotonicTime;

/// The name of a call in the fleet: its replica's, and a number.
pub(in crate::quota) type CallName = Arc<str>;

/// A call of this replica's.
#[derive(Clone, Debug)]
struct Own {
    /// Whom it is charged to.
    by: Arc<str>,
    /// When it counts at the latest: at its end, or for now as long ahead as others may count on without a word of it.
    at: MonotonicTime,
    is_open: bool,
    /// Whether Redis knows as much.
    is_told: bool,
    /// Whether it was made out of this replica's share, which no other replica has taken into account yet.
    is_alone: bool,
}

/// A call of somebody else's.
#[derive(Clone, Copy, Debug)]
struct Other {
    /// When it counts at the latest.
    at: MonotonicTime,
    /// Whether Redis knows as much.
    is_told: bool,
}

/// The calls that this replica knows of.
#[derive(Clone, Debug, Default)]
pub(super) struct CallLog {
    own: HashMap<CallName, Own>,
    others: HashMap<CallName, Other>,
}

impl CallLog {
    /// A call of this replica's begins, and counts before `latest` unless it is said again: one that was granted, or one out of its share.
    pub(super) fn begin(&mut self, name: CallName, by: Arc<str>, latest: MonotonicTime, is_alone: bool) {
        self.own.insert(name, Own { by, at: latest, is_open: true, is_told: !is_alone, is_alone });
    }

    /// All replicas have found each other: what each made out of its share, all know.
    pub(super) fn gather(&mut self) {
        self.own.values_mut().for_each(|call| call.is_alone = false);
    }

    /// Calls that are still under way, and would be taken to have counted by `due`, may do so until `latest`.
    pub(super) fn stand_by_open(&mut self, due: MonotonicTime, latest: MonotonicTime) {
        for call in self.own.values_mut().filter(|call| call.is_open && call.at < due) {
            (call.at, call.is_told) = (latest, false);
        }
    }

    /// It has ended.
    pub(super) fn end(&mut self, name: &str, at: MonotonicTime) {
        if let Some(call) = self.own.get_mut(name) {
            (call.at, call.is_open, call.is_told) = (at, false, false);
        }
    }

    /// It has never left; gives whether Redis may know of it.
    pub(super) fn take_back(&mut self, name: &str) {
        self.own.remove(name);
    }

    /// A call of somebody else's counts at `at`.
    pub(super) fn hear_of(&mut self, name: CallName, at: MonotonicTime, is_told: bool) {
        if !self.own.contains_key(&name) {
            self.others.insert(name, Other { at, is_told });
        }
    }

    /// Whether a call of somebody else's may have ended sooner than is known here.
    pub(super) fn expects(&self, now: MonotonicTime) -> bool {
        self.others.values().any(|call| call.at > now)
    }

    /// A call of somebody else's does not count any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.others.remove(name);
    }

    /// Redis has told of all calls of others that count after `since`: what it has not told of is not there, but for what
    /// it has not been told.
    pub(super) fn read(&mut self, since: MonotonicTime, calls: impl IntoIterator<Item = (CallName, MonotonicTime)>) {
        self.others.retain(|_, call| call.at <= since || !call.is_told);
        for (name, at) in calls {
            self.hear_of(name, at, true);
        }
    }

    /// Redis has lost what it knew: of this replica's calls, or of all.
    pub(super) fn tell_again(&mut self, all: bool) {
        self.own.values_mut().for_each(|call| call.is_told = false);
        if all {
            self.others.values_mut().for_each(|call| call.is_told = false);
        }
    }

    /// Up to `most` calls that Redis is to be told of, and when each counts.
    pub(super) fn untold(&self, most: usize) -> Vec<(CallName, MonotonicTime)> {
        let own = self.own.iter().filter(|(_, call)| !call.is_told).map(|(name, call)| (name.clone(), call.at));
        let others = self.others.iter().filter(|(_, call)| !call.is_told).map(|(name, call)| (name.clone(), call.at));
        own.chain(others).take(most).collect()
    }

    /// Whether Redis knows of all calls, and none is under way here.
    pub(super) fn is_told(&self) -> bool {
        self.own.values().all(|call| call.is_told && !call.is_open) && self.others.values().all(|call| call.is_told)
    }

    /// Redis has been told of these.
    pub(super) fn told(&mut self, calls: &[(CallName, MonotonicTime)]) {
        for (name, at) in calls {
            // It may have ended meanwhile.
            if let Some(call) = self.own.get_mut(name).filter(|call| call.at == *at) {
                call.is_told = true;
            }
            if let Some(call) = self.others.get_mut(name).filter(|call| call.at == *at) {
                call.is_told = true;
            }
        }
    }

    /// Forgets what counted before `since`.
    pub(super) fn forget_before(&mut self, since: MonotonicTime) {
        self.own.retain(|_, call| call.is_open || call.at > since);
        self.others.retain(|_, call| call.at > since);
    }

    /// When each call counts that is not under way here, and whom it is charged to; ascending.
    pub(super) fn stamps(&self) -> Vec<(MonotonicTime, Arc<str>)> {
        self.stamps_of(|_| true)
    }

    /// The same for one of `replicas` that share what the calls leave. Of those that all know, of each so many, counted
    /// from the latest, the latest: so of any window that ends now or later it holds the share, rounded up. And all of its
    /// own that nobody else has taken into account.
    pub(super) fn share(&self, replicas: usize) -> Vec<(MonotonicTime, Arc<str>)> {
        let common = self.stamps_of(|own| !own.is_alone);
        let alone = self.own.values().filter(|call| !call.is_open && call.is_alone);
        let mut stamps: Vec<_> = common.into_iter().rev().step_by(replicas.max(1)).collect();
        stamps.extend(alone.map(|call| (call.at, call.by.clone())));
        stamps.sort_by_key(|(at, _)| *at);
        stamps
    }

    fn stamps_of(&self, own: impl Fn(&Own) -> bool) -> Vec<(MonotonicTime, Arc<str>)> {
        let nobody: Arc<str> = Arc::from("");
        let own = self.own.values().filter(|call| !call.is_open && own(call)).map(|call| (call.at, call.by.clone()));
        let mut stamps: Vec<_> = own.chain(self.others.values().map(|call| (call.at, nobody.clone()))).collect();
        stamps.sort_by_key(|(at, _)| *at);
        stamps
    }
}
