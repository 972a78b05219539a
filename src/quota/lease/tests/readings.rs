//! Readings of the calls in Redis, through exchanges with prepared replies.

use std::time::Duration;

use crate::config::QuotaLimit;
use crate::quota::lease::SharedQuota;
use crate::quota::lease::sync::{Age, ExchangeReply};
use crate::quota::limiter::MonotonicTime;
use crate::replicas::ReplicaId;

const START: MonotonicTime = Duration::from_secs(100);

fn replica(id: u8) -> ReplicaId {
    ReplicaId::parse(format!("{id:016x}").as_bytes()).unwrap()
}

/// Milliseconds after the start.
fn at(ms: u64) -> MonotonicTime {
    START + Duration::from_millis(ms)
}

/// Replica 1, which restores the calls that an earlier process made at these times.
fn restarted(previous: Vec<MonotonicTime>) -> SharedQuota {
    let limits = vec![QuotaLimit { requests: 60, per: Duration::from_mins(1) }];
    SharedQuota::new(replica(1), limits, 2, Duration::from_secs(1), START, previous)
}

/// The reply in which Redis names `holder`, and these calls with their ages in milliseconds.
fn reply(holder: u8, is_complete: bool, calls: &[(&str, i64)]) -> ExchangeReply {
    let calls = calls.iter().map(|(name, age)| ((*name).into(), Age(*age))).collect();
    ExchangeReply {
        holder: Some(replica(holder)),
        is_acquired: holder == 1,
        is_complete,
        granted: 0,
        calls: Some(calls),
    }
}

/// Runs an exchange. Returns the names of the calls that it records.
fn exchange(quota: &mut SharedQuota, [sent, done]: [u64; 2], reply: &ExchangeReply) -> Vec<String> {
    let request = quota.begin_exchange(at(sent));
    quota.finish_exchange(at(done), &request, reply);
    request.recorded.iter().map(|(name, _)| name.to_string()).collect()
}

#[test]
fn restored_calls_are_recorded_once_in_a_lost_ledger() {
    let mut leader = restarted([99, 98, 97].map(Duration::from_secs).to_vec());
    exchange(&mut leader, [100, 100], &reply(1, false, &[]));
    let recorded = exchange(&mut leader, [200, 200], &reply(1, true, &[]));
    assert_eq!(recorded, [0, 1, 2].map(|number| format!("past:{}:{number}", replica(1))));
    assert_eq!(leader.stamps().len(), 3);
}

#[test]
fn restored_calls_that_redis_names_are_counted_once() {
    let named = ["0000000000000009:1", "0000000000000009:2"];
    let mut quota = restarted([99, 98].map(Duration::from_secs).to_vec());
    exchange(&mut quota, [100, 100], &reply(2, true, &[(named[0], 1100), (named[1], 2100)]));
    assert_eq!(quota.stamps().len(), 2);
    // The leader dies, and Redis loses the ledger.
    exchange(&mut quota, [200, 200], &reply(1, false, &[]));
    assert_eq!(exchange(&mut quota, [300, 300], &reply(1, true, &[])), named);
    assert_eq!(quota.stamps().len(), 2);
}

/// Redis reads from 50 ms after the age at which the sender has asked.
#[test]
fn follower_keeps_calls_that_age_out_of_a_reading_on_its_way() {
    let mut follower = restarted(Vec::new());
    let call = "0000000000000002:1";
    exchange(&mut follower, [100, 100], &reply(2, true, &[(call, 0)]));
    exchange(&mut follower, [5050, 5050], &reply(2, true, &[(call, 4950)]));
    exchange(&mut follower, [5140, 5340], &reply(2, true, &[]));
    assert_eq!(follower.stamps().len(), 1);
    // A call that is missing among those that Redis has read was removed.
    exchange(&mut follower, [5500, 5500], &reply(2, true, &[("0000000000000002:2", 100)]));
    exchange(&mut follower, [5600, 5600], &reply(2, true, &[]));
    assert_eq!(follower.stamps().len(), 1);
}
