//! Tests of a scheduler whose quota other replicas share.

use super::*;

/// The share is that of one more replica than is assumed, for those that start meanwhile.
#[tokio::test(start_paused = true)]
async fn quota_share_without_redis_counts_one_more_replica() {
    let scheduler = scheduler(&[(60, 60), (1800, 3600)], 30);
    let (now, me) = (scheduler.clock.now(), ReplicaId::parse(b"0000000000000001").unwrap());
    let call_timeout = Duration::from_secs(30);
    let limits = scheduler.lock().gates.limits.clone();
    scheduler.lock().gates.lease.shared = Some(SharedQuota::new(me, limits, 8, call_timeout, now, Vec::new()));
    assert_eq!(scheduler.quota_share(), None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let exchange = scheduler.begin_exchange().unwrap();
    scheduler.update_lease(|shared, now| ((), shared.fail_exchange(now, &exchange)));
    let usage: Vec<_> = scheduler.limit_usage().iter().map(|usage| usage.limit.requests).collect();
    assert_eq!(usage, [60 / 9, 1800 / 9]);
    assert_eq!(scheduler.quota_share().unwrap().to_string(), "1/9 of the quota");
}
