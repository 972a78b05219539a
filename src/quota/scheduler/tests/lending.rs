//! Tests of remote permits, on both sides.

use tokio::task::JoinHandle;

use super::*;
use crate::quota::role::Role;

fn replica(id: u8) -> ReplicaId {
    ReplicaId::parse(format!("{id:016x}").as_bytes()).unwrap()
}

/// A scheduler of replica 1, which shares its quota.
fn sharing(limits: &[(u32, u64)]) -> Arc<CallScheduler> {
    let scheduler = scheduler(limits, 30);
    let (now, limits) = (scheduler.clock.now(), scheduler.lock().gates.limits.clone());
    let shared = SharedQuota::new(replica(1), limits, 1, Duration::from_secs(30), now, Vec::new());
    scheduler.lock().gates.lease.shared = Some(shared);
    scheduler
}

/// An exchange in which Redis names `holder`.
fn exchange(scheduler: &CallScheduler, holder: Option<u8>) {
    scheduler.update_lease(|shared, now| ((), shared.exchange_held_by(now, holder.map(replica).as_ref())));
}

/// Two seconds without Redis.
async fn lose_redis(scheduler: &CallScheduler) {
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let request = scheduler.begin_exchange().unwrap();
        scheduler.update_lease(|shared, now| ((), shared.fail_exchange(now, &request)));
    }
}

/// The same as replica 1, with other settings than replica 2, which is the leader.
fn borrower(limits: &[(u32, u64)]) -> Arc<CallScheduler> {
    let scheduler = sharing(limits);
    exchange(&scheduler, Some(2));
    scheduler.detach(&replica(2));
    assert_eq!(*scheduler.role().borrow(), Role::Leader, "it fetches for itself");
    scheduler
}

/// A call that waits for its permit.
async fn waiting_call(scheduler: &Arc<CallScheduler>) -> JoinHandle<Result<CallPermit, AcquireError>> {
    let scheduler = scheduler.clone();
    let waiting = tokio::spawn(async move { scheduler.acquire(&sole_run()).await });
    tokio::task::yield_now().await;
    waiting
}

#[tokio::test(start_paused = true)]
async fn request_to_former_leader_ends_with_the_exchange_that_shows_it() {
    for holder in [Some(1), Some(3), None] {
        let scheduler = borrower(&[(60, 60)]);
        let waiting = waiting_call(&scheduler).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        exchange(&scheduler, holder);
        assert!(matches!(waiting.await.unwrap(), Err(AcquireError::NotLeader)), "{holder:?}");
        assert_eq!(begun.elapsed(), Duration::ZERO, "{holder:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_ends_when_the_borrower_loses_redis() {
    let scheduler = borrower(&[(60, 60)]);
    let waiting = waiting_call(&scheduler).await;
    lose_redis(&scheduler).await;
    let begun = Instant::now();
    assert!(matches!(waiting.await.unwrap(), Err(AcquireError::NotLeader)));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(scheduler.acquire(&sole_run()).await.is_ok(), "planned again, it is made out of the share");
}
