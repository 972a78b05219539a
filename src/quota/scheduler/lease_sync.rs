//! Interface between a scheduler and the lease driver: what is due at Redis, and what follows from its answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::call_scheduler::CallScheduler;
use super::lease_gate::QuotaShare;
use crate::config::QuotaLimit;
use crate::quota::lease::{ExchangeRequest, LEASE_DURATION, LeaseChannel, QuotaChange, SharedQuota, SyncSchedule};
use crate::quota::limiter::MonotonicTime;
use crate::quota::role::Role;
use crate::replicas::ReplicaId;
use crate::telemetry;

impl CallScheduler {
    /// Shares the quota with the replicas on `channel`, as `me`. No call takes longer than `call_timeout`. Until others
    /// have been seen, `assumed` replicas are taken to be alive.
    pub(in crate::quota) fn share(
        &self,
        me: &ReplicaId,
        channel: &LeaseChannel,
        assumed: usize,
        call_timeout: Duration,
    ) {
        let _ = self.lease_link.channel.set(channel.clone());
        let (mut state, now) = (self.lock(), self.clock.now());
        let past = state.gates.ledger.stamps().collect();
        let shared = SharedQuota::new(me.clone(), state.gates.limits.clone(), assumed, call_timeout, now, past);
        state.gates.lease.shared = Some(shared);
        self.lease_link.role.send_replace(Role::Unknown);
    }

    /// Role of this replica, now and from now on.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.lease_link.role.subscribe()
    }

    /// Share of the quota that this replica uses while the replicas cannot reach each other; `None` while they can.
    pub fn quota_share(&self) -> Option<QuotaShare> {
        self.lock().gates.lease.share
    }

    /// Intervals at which the lease driver contacts Redis, and the notification that makes an exchange due at once.
    pub(in crate::quota) fn schedule(&self) -> (SyncSchedule, Arc<Notify>) {
        let (state, now) = (self.lock(), self.clock.now());
        let schedule = state.gates.lease.shared.as_ref().map_or(SyncSchedule::NEVER, |shared| shared.schedule(now));
        (schedule, self.lease_link.exchange_wanted.clone())
    }

    /// Begins a pulse if the lease is at rest. Returns the holder that it is about, and its time.
    pub(in crate::quota) fn begin_pulse(&self) -> Option<(ReplicaId, MonotonicTime)> {
        let (mut state, now) = (self.lock(), self.clock.now());
        Some((state.gates.lease.shared.as_mut()?.begin_pulse(now)?, now))
    }

    /// Ends the pulse that was `sent` then. `is_held`: that holder still holds the lease.
    pub(in crate::quota) fn end_pulse(&self, sent: MonotonicTime, is_held: bool) {
        let (mut state, now) = (self.lock(), self.clock.now());
        if state.gates.lease.shared.as_mut().is_some_and(|shared| shared.end_pulse(now, sent, is_held)) {
            self.exchange_soon();
        }
    }

    /// Makes the next exchange due at once.
    pub(in crate::quota) fn exchange_soon(&self) {
        self.lease_link.exchange_wanted.notify_one();
    }

    /// The limits that this replica is configured with, which the others are about to be told; none if it is not.
    pub(in crate::quota) fn take_limits(&self) -> Vec<QuotaLimit> {
        self.lease_link.limits_changed.store(false, Ordering::Relaxed);
        if self.is_configured() { self.lock().gates.limits.clone() } else { Vec::new() }
    }

    /// Whether the limits of this replica have changed since [`CallScheduler::take_limits`].
    pub(in crate::quota) fn has_new_limits(&self) -> bool {
        self.lease_link.limits_changed.load(Ordering::Relaxed)
    }

    /// Makes the next reading of the members due at once, because `joined` has started or has other limits now.
    pub(in crate::quota) fn read_members_soon(&self, joined: &ReplicaId) {
        if self.lease_link.channel().is_some_and(|channel| channel.mailbox().me() != joined) {
            self.lease_link.members_wanted.store(true, Ordering::Relaxed);
            self.exchange_soon();
        }
    }

    /// Whether [`CallScheduler::read_members_soon`] was called since this was.
    pub(in crate::quota) fn take_members_wanted(&self) -> bool {
        self.lease_link.members_wanted.swap(false, Ordering::Relaxed)
    }

    /// Begins an exchange, which must be answered or failed; `None` without other replicas.
    pub(in crate::quota) fn begin_exchange(&self) -> Option<ExchangeRequest> {
        let (mut state, now) = (self.lock(), self.clock.now());
        state.gates.lease.shared.as_mut().map(|shared| shared.begin_exchange(now))
    }

    /// Applies `update` to the shared quota, and what follows from it to ledger, role and queue. Returns what `update`
    /// returns; `None` without other replicas.
    pub(in crate::quota) fn update_lease<T>(
        &self,
        update: impl FnOnce(&mut SharedQuota, MonotonicTime) -> (T, QuotaChange),
    ) -> Option<T> {
        let (mut state, now) = (self.lock(), self.clock.now());
        let gates = &mut state.gates;
        let lender = gates.lease.lender(now);
        let (value, change) = update(gates.lease.shared.as_mut()?, now);
        if change.ledger {
            gates.reload_from_lease();
        }
        let shared = gates.lease.shared.as_ref()?;
        let share =
            shared.divided_by().map(|replicas| QuotaShare::new(replicas, shared.whole_limits(), &shared.limits()));
        if lender.is_some() && lender != gates.lease.lender(now) {
            self.forget_requests();
        }
        let role = gates.lease.effective_role(now);
        let has_new_role =
            self.lease_link.role.send_if_modified(|known| std::mem::replace(known, role.clone()) != role);
        if has_new_role && role == Role::Leader && share.is_none() {
            // The leader before left a while ago, and its lease had to run out: no call was made meanwhile.
            gates.pacers.catch_up(LEASE_DURATION * 2);
        }
        if std::mem::replace(&mut gates.lease.share, share) != share || has_new_role {
            let replicas_and_share = share.map(|share| (share.replicas, share.to_string()));
            telemetry::replica_role(&self.account, role.label(share.is_some()), replicas_and_share);
        }
        if change.queue || has_new_role {
            state.queue.wake_all();
        }
        Some(value)
    }
}

impl Role {
    /// Label in logs and metrics.
    fn label(&self, is_partitioned: bool) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Leader if is_partitioned => "alone",
            Self::Leader => "calls",
            Self::Follower(_) => "follows",
        }
    }
}
