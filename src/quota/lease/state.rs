//! The states of the lease, and the transitions between them. The table is in the module's documentation. Pure: time
//! is an argument.

#[cfg(test)]
mod fingerprint;

use std::collections::VecDeque;
use std::time::Duration;

use super::outage::{Outage, Partition};
use super::timing::LEASE_DURATION;
use crate::quota::limiter::MonotonicTime;
use crate::quota::role::Role;
use crate::replicas::ReplicaId;

/// The holder stops using the lease this much before Redis lets it expire: the clocks of two machines do not run quite
/// alike.
const LEASE_SAFETY_MARGIN: Duration = Duration::from_millis(150);
/// How long a granted call may wait to begin.
pub(super) const GRANT_LIFETIME: Duration = Duration::from_secs(2);

/// The state of one replica, with the data that exists in that state only.
#[derive(Clone, Debug)]
pub(super) enum LeaseState {
    /// The leader is not known. After an outage, the calls of replicas that have not come back are still to be
    /// assumed.
    Joining { outage: Option<Outage> },
    /// The lease is held by this replica, or held it until a moment ago.
    Leading(Leadership),
    /// Another replica holds the lease.
    Following { leader: ReplicaId },
    /// Redis does not answer: this replica calls within its share of each limit.
    Partitioned(Partition),
}

/// The lease of this replica, and the calls that Redis has granted under it.
#[derive(Clone, Debug, Default)]
pub(super) struct Leadership {
    /// When this replica stops using the lease, unless it is renewed.
    until: MonotonicTime,
    /// When calls may begin: at once, or after the replicas have recorded calls that Redis has lost.
    spends_from: MonotonicTime,
    /// Granted calls that have not begun; the first one lapses first.
    granted: VecDeque<Grant>,
    /// Calls that the next exchange asks for.
    wanted: u32,
    /// When calls may be asked for again, after Redis granted none.
    not_before: MonotonicTime,
}

/// A call that is recorded in Redis and has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    number: u64,
    /// When it can begin no more.
    until: MonotonicTime,
}

/// An event that can change the state.
#[derive(Clone, Debug)]
pub(super) enum LeaseEvent {
    /// Redis names this replica as the holder, in a reply to the exchange that began at `sent`.
    Held {
        sent: MonotonicTime,
        /// Whether this exchange acquired the lease.
        is_acquired: bool,
        /// When calls may begin, unless this continues a lease.
        spends_from: MonotonicTime,
    },
    /// Redis names another holder.
    HeldByOther(ReplicaId),
    /// Redis names no holder.
    Vacant,
    /// Redis has not answered for the duration of a lease.
    Unreachable(Partition),
}

/// The data of the previous state that a transition leaves to be dealt with.
#[derive(Clone, Debug, Default)]
pub(super) struct Remains {
    /// The numbers of granted calls that will not be made.
    pub(super) unused: Vec<u64>,
    /// An outage that is over.
    pub(super) outage: Option<Outage>,
}

impl LeaseState {
    /// Changes the state as the table says. Returns what is left of the previous state.
    pub(super) fn apply(&mut self, event: LeaseEvent) -> Remains {
        let before = std::mem::replace(self, Self::Joining { outage: None });
        let (after, remains) = before.transition(event);
        *self = after;
        remains
    }

    fn transition(self, event: LeaseEvent) -> (Self, Remains) {
        match event {
            LeaseEvent::Held { sent, is_acquired, spends_from } => {
                let until = sent + LEASE_DURATION.saturating_sub(LEASE_SAFETY_MARGIN);
                match self {
                    Self::Leading(leadership) => {
                        let is_continued = !is_acquired || sent < leadership.until;
                        let spends_from = if is_continued { leadership.spends_from } else { spends_from };
                        (Self::Leading(Leadership { until, spends_from, ..leadership }), Remains::default())
                    }
                    other => (
                        Self::Leading(Leadership { until, spends_from, ..Leadership::default() }),
                        other.into_remains(),
                    ),
                }
            }
            // Its leader assumes the calls of the replicas that have not come back.
            LeaseEvent::HeldByOther(leader) => {
                (Self::Following { leader }, Remains { outage: None, ..self.into_remains() })
            }
            LeaseEvent::Vacant => {
                let Remains { unused, outage } = self.into_remains();
                (Self::Joining { outage }, Remains { unused, outage: None })
            }
            // The partition contains the outage that had not ended before.
            LeaseEvent::Unreachable(partition) => {
                (Self::Partitioned(partition), Remains { outage: None, ..self.into_remains() })
            }
        }
    }

    fn into_remains(self) -> Remains {
        match self {
            Self::Joining { outage } => Remains { unused: Vec::new(), outage },
            Self::Leading(leadership) => {
                Remains { unused: leadership.granted.into_iter().map(|grant| grant.number).collect(), outage: None }
            }
            Self::Following { .. } => Remains::default(),
            Self::Partitioned(partition) => Remains { unused: Vec::new(), outage: Some(partition.outage) },
        }
    }

    pub(super) fn role(&self, now: MonotonicTime) -> Role {
        match self {
            Self::Leading(leadership) if leadership.is_valid(now) => Role::Leader,
            Self::Partitioned(_) => Role::Leader,
            Self::Following { leader } => Role::Follower(leader.clone()),
            Self::Joining { .. } | Self::Leading(_) => Role::Unknown,
        }
    }

    pub(super) fn leadership(&self) -> Option<&Leadership> {
        if let Self::Leading(leadership) = self { Some(leadership) } else { None }
    }

    pub(super) fn leadership_mut(&mut self) -> Option<&mut Leadership> {
        if let Self::Leading(leadership) = self { Some(leadership) } else { None }
    }

    pub(super) fn partition(&self) -> Option<&Partition> {
        if let Self::Partitioned(partition) = self { Some(partition) } else { None }
    }

    pub(super) fn partition_mut(&mut self) -> Option<&mut Partition> {
        if let Self::Partitioned(partition) = self { Some(partition) } else { None }
    }

    /// The outage whose end has not been dealt with.
    pub(super) fn outage(&self) -> Option<&Outage> {
        match self {
            Self::Joining { outage } => outage.as_ref(),
            Self::Partitioned(partition) => Some(&partition.outage),
            Self::Leading(_) | Self::Following { .. } => None,
        }
    }
}

impl Leadership {
    /// Whether the lease has not expired.
    pub(super) fn is_valid(&self, now: MonotonicTime) -> bool {
        now < self.until
    }

    /// Whether calls may begin, as far as the lease goes.
    pub(super) fn may_spend(&self, now: MonotonicTime) -> bool {
        self.is_valid(now) && self.spends_from <= now
    }

    pub(super) fn spends_from(&self) -> MonotonicTime {
        self.spends_from
    }

    /// When calls may be asked for.
    pub(super) fn not_before(&self) -> MonotonicTime {
        self.not_before
    }

    /// Extends the lease after a pulse that was sent at `sent`.
    pub(super) fn renew(&mut self, sent: MonotonicTime) {
        self.until = self.until.max(sent + LEASE_DURATION.saturating_sub(LEASE_SAFETY_MARGIN));
    }

    /// Adds calls that an exchange granted, which began at `sent`.
    pub(super) fn grant(&mut self, sent: MonotonicTime, numbers: impl Iterator<Item = u64>) {
        self.granted.extend(numbers.map(|number| Grant { number, until: sent + GRANT_LIFETIME }));
    }

    /// Asks for no calls until `until`.
    pub(super) fn pause(&mut self, until: MonotonicTime) {
        self.not_before = until;
    }

    /// Removes a granted call that is to begin now.
    pub(super) fn take_grant(&mut self) -> Option<u64> {
        self.granted.pop_front().map(|grant| grant.number)
    }

    /// Removes the granted calls that did not begin in time.
    pub(super) fn take_lapsed(&mut self, now: MonotonicTime) -> Vec<u64> {
        std::iter::from_fn(|| self.granted.pop_front_if(|grant| grant.until <= now)).map(|grant| grant.number).collect()
    }

    /// Sets how many calls the next exchange asks for.
    pub(super) fn want(&mut self, calls: u32) {
        self.wanted = calls;
    }

    /// Whether a call waits for the next exchange.
    pub(super) fn is_wanting(&self) -> bool {
        self.wanted > 0
    }

    /// How many calls an exchange that begins now asks for.
    pub(super) fn take_wanted(&mut self, now: MonotonicTime) -> u32 {
        if self.may_spend(now) { std::mem::take(&mut self.wanted) } else { 0 }
    }

    /// Gives up all granted calls, and asks for none.
    pub(super) fn release(&mut self) -> Vec<u64> {
        self.wanted = 0;
        self.granted.drain(..).map(|grant| grant.number).collect()
    }

    /// Whether no granted call is left and none is asked for.
    pub(super) fn is_idle(&self) -> bool {
        self.granted.is_empty() && self.wanted == 0
    }
}
