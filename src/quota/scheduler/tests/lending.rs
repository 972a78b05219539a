//! Tests of remote permits, on both sides.

use tokio::task::JoinHandle;

use super::*;
use crate::quota::role::Role;
use crate::quota::scheduler::permit::LentPermit;
use crate::replicas::PermitMessage;

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

/// The leader grants the request with this number of its borrower.
async fn grant(borrower: &Arc<CallScheduler>, number: u64) {
    borrower.on_permit_message(&replica(2), number, PermitMessage::Granted(format!("{}:{number}", replica(2)).into()));
    tokio::task::yield_now().await;
}

/// The numbers of the requests that wait for an answer of the leader.
fn requested(borrower: &CallScheduler) -> Vec<u64> {
    borrower.remote_permits.lock().unwrap().requested.keys().copied().collect()
}

#[tokio::test(start_paused = true)]
async fn refused_borrower_asks_for_no_permit_during_the_pause() {
    let scheduler = borrower(&[(60, 60)]);
    let (refused, waits) = (waiting_call(&scheduler).await, waiting_call(&scheduler).await);
    grant(&scheduler, 0).await;
    let refusal = refused.await.unwrap().unwrap().refused(SpentLimit::Unnamed, Some(Duration::from_secs(7)), None);
    assert_eq!(refusal.closed_for, Duration::from_secs(7));
    let begun = Instant::now();
    // Its permit is returned unused.
    grant(&scheduler, 1).await;
    let later = waiting_call(&scheduler).await;
    tokio::time::sleep(Duration::from_millis(6900)).await;
    assert!(requested(&scheduler).is_empty());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(requested(&scheduler), [2, 3]);
    assert!(!waits.is_finished() && !later.is_finished());
    grant(&scheduler, 2).await;
    grant(&scheduler, 3).await;
    assert!(waits.await.unwrap().is_ok() && later.await.unwrap().is_ok());
    assert!(begun.elapsed() < Duration::from_secs(8));
}

/// The leader of a partition of one, which needs no Redis to name its calls.
async fn lender(limits: &[(u32, u64)]) -> Arc<CallScheduler> {
    let scheduler = sharing(limits);
    lose_redis(&scheduler).await;
    scheduler
}

/// Replica 2 requests a permit, or repeats its request.
async fn request(lender: &Arc<CallScheduler>, number: u64, priority: Priority) {
    lender.on_permit_message(&replica(2), number, PermitMessage::Request(requester("b", 1, priority)));
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn is_granted(lender: &CallScheduler, number: u64) -> bool {
    matches!(lender.remote_permits.lock().unwrap().lent.get(&(replica(2), number)), Some(LentPermit::Granted { .. }))
}

#[tokio::test(start_paused = true)]
async fn refusal_of_lent_call_pauses_the_lender() {
    let scheduler = lender(&[(60, 60)]).await;
    request(&scheduler, 7, Priority::Interactive).await;
    assert!(is_granted(&scheduler, 7));
    scheduler.on_permit_message(&replica(2), 7, PermitMessage::Refused(7000));
    let begun = Instant::now();
    assert!(scheduler.acquire(&sole_run()).await.is_ok());
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn lent_probe_answered_with_page_ends_the_pause() {
    let scheduler = lender(&[(60, 60), (1800, 3600)]).await;
    request(&scheduler, 7, Priority::Interactive).await;
    scheduler.on_permit_message(&replica(2), 7, PermitMessage::Refused(3_600_000));
    assert_eq!(scheduler.closed_for(), Some(Duration::from_hours(1)));
    tokio::time::sleep(Duration::from_mins(2)).await;
    request(&scheduler, 8, Priority::Interactive).await;
    assert!(is_granted(&scheduler, 8), "a probe");
    scheduler.on_permit_message(&replica(2), 8, PermitMessage::Answered);
    assert_eq!(scheduler.closed_for(), None);
}

#[tokio::test(start_paused = true)]
async fn queued_request_gets_the_priority_of_its_repetition() {
    // Its share is one call.
    let scheduler = lender(&[(2, 10)]).await;
    drop(scheduler.acquire(&sole_run()).await.unwrap());
    request(&scheduler, 7, Priority::Background).await;
    let refresh = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.acquire(&RunWaiters::new(requester("r", 1, Priority::Refresh))).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    request(&scheduler, 7, Priority::Interactive).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(is_granted(&scheduler, 7) && !refresh.is_finished());
    scheduler.on_permit_message(&replica(2), 7, PermitMessage::Answered);
    assert!(refresh.await.unwrap().is_ok());
}
