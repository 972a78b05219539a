//! The transition table, row by row, through exchanges with prepared replies.

use std::sync::Arc;
use std::time::Duration;

use crate::config::QuotaLimit;
use crate::quota::lease::state::LeaseState;
use crate::quota::lease::sync::{ExchangeReply, ExchangeRequest};
use crate::quota::lease::{CallName, LEASE_DURATION, Pass, SharedQuota};
use crate::quota::limiter::MonotonicTime;
use crate::replicas::ReplicaId;

const LIMIT: QuotaLimit = QuotaLimit { requests: 24, per: Duration::from_secs(4) };
const START: MonotonicTime = Duration::from_secs(100);
const LONGEST_CALL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Joining,
    Leading,
    Following,
    Partitioned,
}
use State::{Following, Joining, Leading, Partitioned};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Held,
    HeldByOther,
    Vacant,
    Unreachable,
}
use Event::{Held, HeldByOther, Unreachable, Vacant};

const STATES: [State; 4] = [Joining, Leading, Following, Partitioned];
const EVENTS: [Event; 4] = [Held, HeldByOther, Vacant, Unreachable];

fn replica(id: u8) -> ReplicaId {
    ReplicaId::parse(format!("{id:016x}").as_bytes()).unwrap()
}

/// A replica whose exchanges are answered at once.
struct Scripted {
    quota: SharedQuota,
    now: MonotonicTime,
}

impl Scripted {
    fn new() -> Self {
        let quota = SharedQuota::new(replica(1), vec![LIMIT], 2, LONGEST_CALL, START, Vec::new());
        Self { quota, now: START }
    }

    /// A replica that has seen another one, and is in the given state.
    fn in_state(state: State) -> Self {
        let mut scripted = Self::new();
        scripted.quota.note_joined(START, &replica(2));
        scripted.apply(match state {
            Joining => Vacant,
            Leading => Held,
            Following => HeldByOther,
            Partitioned => Unreachable,
        });
        assert_eq!(scripted.state(), state);
        scripted
    }

    fn state(&self) -> State {
        match self.quota.state {
            LeaseState::Joining { .. } => Joining,
            LeaseState::Leading(_) => Leading,
            LeaseState::Following { .. } => Following,
            LeaseState::Partitioned(_) => Partitioned,
        }
    }

    fn apply(&mut self, event: Event) -> ExchangeRequest {
        let holder = match event {
            Held => Some(replica(1)),
            HeldByOther => Some(replica(2)),
            Vacant => None,
            Unreachable => {
                self.now += LEASE_DURATION;
                let request = self.quota.begin_exchange(self.now);
                self.quota.fail_exchange(self.now, &request);
                return request;
            }
        };
        let is_acquired = holder == Some(replica(1)) && self.state() != Leading;
        self.exchange(|_| ExchangeReply { holder, is_acquired, is_complete: true, granted: 0, calls: None })
    }

    fn exchange(&mut self, reply: impl FnOnce(&ExchangeRequest) -> ExchangeReply) -> ExchangeRequest {
        self.now += Duration::from_millis(100);
        let request = self.quota.begin_exchange(self.now);
        let reply = reply(&request);
        self.quota.finish_exchange(self.now, &request, &reply);
        request
    }

    fn pass(&mut self) -> Pass {
        self.quota.pass(self.now, &Arc::from("caller"), 64)
    }

    /// Has calls granted to a leader that asks for them.
    fn grant(&mut self) -> Vec<CallName> {
        assert!(matches!(self.pass(), Pass::Wait(_)));
        let request = self.exchange(|request| ExchangeReply {
            holder: Some(replica(1)),
            is_acquired: false,
            is_complete: true,
            granted: request.grants.calls,
            calls: None,
        });
        request.grants.numbers(request.grants.calls).map(|number| self.quota.call_name(number)).collect()
    }

    /// Whether the leader asks for calls as soon as one waits.
    fn asks_for_calls(&mut self) -> bool {
        assert!(matches!(self.pass(), Pass::Wait(_)));
        self.quota.begin_exchange(self.now).grants.calls > 0
    }

    /// The names of the calls that the next exchange records.
    fn recorded(&mut self) -> Vec<CallName> {
        let request = self.quota.begin_exchange(self.now);
        request.recorded.into_iter().map(|(name, _)| name).collect()
    }
}

#[test]
fn each_event_leads_to_the_state_of_the_table() {
    let table = [
        (Joining, [Leading, Following, Joining, Partitioned]),
        (Leading, [Leading, Following, Joining, Partitioned]),
        (Following, [Leading, Following, Joining, Partitioned]),
        (Partitioned, [Leading, Following, Joining, Partitioned]),
    ];
    for (from, row) in table {
        for (event, expected) in EVENTS.into_iter().zip(row) {
            let mut scripted = Scripted::in_state(from);
            scripted.apply(event);
            assert_eq!(scripted.state(), expected, "{from:?} at {event:?}");
        }
    }
}

#[test]
fn calls_begin_only_in_the_states_that_allow_them() {
    for state in STATES {
        let mut scripted = Scripted::in_state(state);
        match (state, scripted.pass()) {
            (Joining | Leading, Pass::Wait(_)) | (Following, Pass::Elsewhere) | (Partitioned, Pass::Go(_)) => {}
            (_, pass) => panic!("{state:?}: {pass:?}"),
        }
    }
    let mut leader = Scripted::in_state(Leading);
    let granted = leader.grant();
    assert_eq!(granted.len(), 8);
    assert_eq!(leader.pass(), Pass::Go(granted[0].clone()));
}

#[test]
fn failure_before_lease_duration_changes_no_state() {
    for state in STATES {
        let mut scripted = Scripted::in_state(state);
        let request = scripted.quota.begin_exchange(scripted.now);
        scripted.quota.fail_exchange(scripted.now, &request);
        assert_eq!(scripted.state(), state);
    }
}

#[test]
fn unused_grants_are_removed_when_leadership_ends() {
    for event in [HeldByOther, Vacant, Unreachable] {
        let mut leader = Scripted::in_state(Leading);
        let granted = leader.grant();
        let Pass::Go(begun) = leader.pass() else { panic!("a call was granted") };
        leader.apply(event);
        let removed = leader.quota.begin_exchange(leader.now).removed;
        let unused: Vec<_> = granted.into_iter().filter(|name| *name != begun).collect();
        assert!(unused.iter().all(|name| removed.contains(name)), "{event:?}: {removed:?}");
        assert!(!removed.contains(&begun), "{event:?}");
    }
}

#[test]
fn grant_that_lapses_is_removed_and_not_used() {
    let mut leader = Scripted::in_state(Leading);
    let granted = leader.grant();
    for _ in 0..25 {
        leader.apply(Held);
    }
    assert!(matches!(leader.pass(), Pass::Wait(_)));
    assert!(leader.quota.calls.is_idle(), "the lapsed grants were removed by an exchange");
    assert_eq!(granted.len(), 8);
}

#[test]
fn lease_that_ran_out_allows_no_call_until_renewed() {
    let mut leader = Scripted::in_state(Leading);
    let granted = leader.grant();
    leader.now += LEASE_DURATION;
    assert_eq!(leader.state(), Leading);
    assert!(matches!(leader.pass(), Pass::Wait(_)));
    leader.apply(Held);
    assert_eq!(leader.pass(), Pass::Go(granted[0].clone()));
}

#[test]
fn leader_of_incomplete_ledger_waits_one_lease_duration() {
    let incomplete = |_: &ExchangeRequest| ExchangeReply {
        holder: Some(replica(1)),
        is_acquired: true,
        is_complete: false,
        granted: 0,
        calls: None,
    };
    // A lease that had run out and is acquired anew counts as a new one.
    for (state, age) in [(Following, Duration::ZERO), (Leading, LEASE_DURATION)] {
        let mut leader = Scripted::in_state(state);
        leader.now += age;
        leader.exchange(incomplete);
        assert!(!leader.asks_for_calls(), "{state:?}");
        leader.now += LEASE_DURATION / 2;
        leader.exchange(incomplete);
        leader.now += LEASE_DURATION / 2;
        assert!(leader.asks_for_calls(), "{state:?}");
    }
    // A valid lease that Redis has lost goes on.
    let mut leader = Scripted::in_state(Leading);
    let granted = leader.grant();
    leader.exchange(incomplete);
    assert_eq!(leader.pass(), Pass::Go(granted[0].clone()));
}

#[test]
fn only_a_new_leader_assumes_calls_of_missing_replicas() {
    let assumed = |scripted: &mut Scripted| {
        let missing = replica(2);
        scripted.recorded().iter().filter(|name| name.starts_with(missing.as_str())).count()
    };
    let share = LIMIT.requests as usize / 2;
    for (events, expected) in [
        (vec![Held], share),
        (vec![Vacant, Held], share),
        (vec![Vacant, Unreachable, Held], share),
        (vec![Vacant], 0),
        (vec![HeldByOther], 0),
        (vec![HeldByOther, Held], 0),
    ] {
        let mut scripted = Scripted::in_state(Partitioned);
        for event in &events {
            scripted.apply(*event);
        }
        assert_eq!(assumed(&mut scripted), expected, "{events:?}");
    }
}

#[test]
fn assumed_calls_are_cancelled_when_their_replica_returns() {
    let mut leader = Scripted::in_state(Partitioned);
    leader.apply(Held);
    let assumed = leader.apply(Held).recorded;
    assert_eq!(assumed.len(), LIMIT.requests as usize / 2);
    for count in [1, 2] {
        leader.now += Duration::from_millis(100);
        leader.quota.note_heartbeats(leader.now, vec![(replica(2), count)]);
    }
    let removed = leader.quota.begin_exchange(leader.now).removed;
    assert!(assumed.iter().all(|(name, _)| removed.contains(name)));
}

#[test]
fn partition_goes_on_while_calls_are_left_to_record() {
    for (calls, expected) in [(1999, Leading), (2000, Partitioned)] {
        let mut scripted = Scripted::in_state(Partitioned);
        for number in 0..calls {
            scripted.quota.borrow(scripted.now, format!("borrowed:{number}").into(), Arc::from(""));
            scripted.quota.end(scripted.now, &format!("borrowed:{number}"));
        }
        scripted.apply(Held);
        assert_eq!(scripted.state(), expected, "{calls} calls");
        scripted.apply(Held);
        assert_eq!(scripted.state(), Leading);
    }
}

#[test]
fn leaving_replica_returns_the_lease_and_acquires_none() {
    for state in STATES {
        let mut scripted = Scripted::in_state(state);
        scripted.quota.leave();
        assert_eq!(scripted.state(), state);
        for _ in 0..40 {
            let request = scripted.apply(Vacant);
            assert!(request.lease.duration.is_zero(), "{state:?}");
            assert!(!request.lease.may_acquire, "{state:?}");
        }
        assert_eq!(scripted.state(), Joining);
    }
}

#[test]
fn lease_is_acquired_only_after_the_required_contact() {
    for (has_seen_other, required) in [(false, Duration::from_millis(1200)), (true, Duration::from_millis(2500))] {
        let mut scripted = Scripted::new();
        if has_seen_other {
            for count in [1, 2] {
                scripted.quota.note_heartbeats(START, vec![(replica(2), count), (replica(1), count)]);
            }
        }
        let first = START + Duration::from_millis(100);
        loop {
            let request = scripted.apply(Vacant);
            // The contact is measured up to the last answer.
            let contact = request.sent.saturating_sub(first).saturating_sub(Duration::from_millis(100));
            assert_eq!(request.lease.may_acquire, contact >= required, "after {contact:?}");
            if request.lease.may_acquire {
                break;
            }
        }
    }
}

#[test]
fn leader_keeps_the_lowest_limit_of_living_replicas() {
    let limit = |requests| QuotaLimit { requests, ..LIMIT };
    let mut leader = Scripted::in_state(Leading);
    let beat = |leader: &mut Scripted, count, limits: &[QuotaLimit]| {
        leader.now += Duration::from_millis(100);
        leader.quota.note_heartbeats(leader.now, vec![(replica(2), count)]);
        leader.quota.note_limits(vec![(replica(2), limits.to_vec())])
    };
    for count in [1, 2] {
        beat(&mut leader, count, &[limit(10)]);
    }
    assert_eq!(leader.quota.limits(), [limit(10)], "the other replica was reloaded first");
    leader.quota.set_limits(vec![limit(40)]);
    assert_eq!(leader.quota.limits(), [limit(10)], "and this one is not before the other");
    let change = beat(&mut leader, 3, &[limit(40)]);
    assert!(change.ledger && change.queue);
    assert_eq!(leader.quota.limits(), [limit(40)], "now all agree");
    assert_eq!(leader.quota.begin_exchange(leader.now).limits, [limit(40)]);
    assert!(!beat(&mut leader, 4, &[limit(40)]).ledger);

    beat(&mut leader, 5, &[limit(5)]);
    assert_eq!(leader.quota.limits(), [limit(5)]);
    // The other replica is gone.
    leader.now += Duration::from_secs(30);
    leader.quota.note_heartbeats(leader.now, vec![(replica(2), 5)]);
    leader.quota.note_limits(Vec::new());
    assert_eq!(leader.quota.limits(), [limit(40)]);
}

#[test]
fn share_of_a_partition_is_that_of_the_lowest_limit() {
    let mut scripted = Scripted::in_state(Partitioned);
    let before = scripted.quota.limits();
    scripted.quota.set_limits(vec![QuotaLimit { requests: LIMIT.requests / 2, ..LIMIT }]);
    let after = scripted.quota.limits();
    assert_eq!(after[0].requests, before[0].requests / 2);
}
