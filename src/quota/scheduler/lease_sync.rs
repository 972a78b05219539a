//! How a queue takes part in the quota that replicas have in common.

use std::sync::Arc;
use tokio::sync::Notify;

use super::{CallScheduler, State};
use crate::quota::lease::{ExchangeRequest, LEASE_DURATION, QuotaChange, SharedQuota, SyncSchedule};
use crate::quota::limiter::MonotonicTime;
use crate::quota::limiter::Pacer;
use crate::quota::role::Role;
use crate::replicas::ReplicaId;
use crate::telemetry;

impl CallScheduler {
    /// When this replica does what to be in touch with the others, and what makes an exchange earlier.
    pub(in crate::quota) fn schedule(&self) -> (SyncSchedule, Arc<Notify>) {
        let (state, now) = (self.lock(), self.now());
        let schedule = state.common.as_ref().map_or(SyncSchedule::NEVER, |common| common.schedule(now));
        (schedule, self.exchange.clone())
    }

    /// Begins a pulse, if it is at rest: whose lease it is about, and when it began.
    pub(in crate::quota) fn begin_pulse(&self) -> Option<(ReplicaId, MonotonicTime)> {
        let (mut state, now) = (self.lock(), self.now());
        Some((state.common.as_mut()?.begin_pulse(now)?, now))
    }

    /// Ends a pulse: whether the lease is held by whom it was about.
    pub(in crate::quota) fn end_pulse(&self, sent: MonotonicTime, is_held: bool) {
        let (mut state, now) = (self.lock(), self.now());
        if state.common.as_mut().is_some_and(|common| common.end_pulse(now, sent, is_held)) {
            self.exchange_soon();
        }
    }

    /// The next exchange is due now.
    pub(in crate::quota) fn exchange_soon(&self) {
        self.exchange.notify_one();
    }

    /// Begins an exchange; it must be answered or failed.
    pub(in crate::quota) fn begin_exchange(&self) -> Option<ExchangeRequest> {
        let (mut state, now) = (self.lock(), self.now());
        state.common.as_mut().map(|common| common.begin_exchange(now))
    }

    /// Does something to this replica's part in the common quota, and what follows from it. `None` if there is none.
    pub(in crate::quota) fn update_lease<T>(
        &self,
        act: impl FnOnce(&mut SharedQuota, MonotonicTime) -> (T, QuotaChange),
    ) -> Option<T> {
        let (mut state, now) = (self.lock(), self.now());
        let (value, change) = act(state.common.as_mut()?, now);
        if change.ledger {
            self.make_ledger_anew(&mut state);
        }
        let common = state.common.as_ref()?;
        let divided_by = common.divided_by();
        let role = match common.role(now) {
            Role::Follower(caller) if state.apart.as_ref() == Some(&caller) => Role::Leader,
            role => role,
        };
        let is_news = self.role.send_if_modified(|known| std::mem::replace(known, role.clone()) != role);
        if is_news && role == Role::Leader && divided_by.is_none() {
            // Whoever called before has left it a while ago, and the lease had to run out.
            let State { pace, background_pace, .. } = &mut *state;
            for pace in pace.iter_mut().chain(background_pace) {
                pace.make_up_for(LEASE_DURATION * 2);
            }
        }
        if std::mem::replace(&mut state.divided_by, divided_by) != divided_by || is_news {
            telemetry::replica_role(&self.account, role.label(divided_by), divided_by);
        }
        if change.queue || is_news {
            state.queue.values().for_each(|waiting| waiting.called.notify_one());
        }
        Some(value)
    }

    fn make_ledger_anew(&self, state: &mut State) {
        let Some(common) = &state.common else { return };
        let limits = common.limits();
        let calls = common.stamps();
        if state.ledger.replace(&limits, calls) {
            (state.pace, state.background_pace) = Pacer::both(&limits, self.reserve, self.queue_timeout);
        }
    }

    /// The replicas among which the quota is divided because they have lost each other; `None` while they have not.
    pub fn divided_by(&self) -> Option<usize> {
        self.lock().divided_by
    }
}

impl Role {
    /// The word in logs and metrics.
    fn label(&self, divided_by: Option<usize>) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Leader if divided_by.is_some() => "alone",
            Self::Leader => "calls",
            Self::Follower(_) => "follows",
        }
    }
}
