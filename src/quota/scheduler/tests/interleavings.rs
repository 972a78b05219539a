//! The last waiter of a run leaves, and another joins, while its call is granted a permit; in many schedules (see
//! [`crate::sync`]). One call may be in flight at a time.

use shuttle::future::block_on;

use super::*;
use crate::sync::{JoinHandle, explore, spawn};

/// A scheduler that allows one call in flight, and the permit of that call.
fn busy_scheduler() -> (Arc<CallScheduler>, CallPermit) {
    let limits = vec![QuotaLimit { requests: 1_000, per: Duration::from_mins(1) }];
    let quota = QuotaConfig {
        queue_timeout: Duration::from_secs(30),
        max_wait: Duration::from_mins(5),
        interactive_reserve: 0.0,
        state_file: None,
    };
    let scheduler = CallScheduler::new(&"a".into(), limits, &quota, 1, None);
    let permit = block_on(scheduler.acquire(&sole_run())).unwrap();
    (scheduler, permit)
}

/// Acquires a permit for a call of `run`, and ends the call. Returns whether it was made.
fn make_call(scheduler: &Arc<CallScheduler>, run: &Arc<RunWaiters>) -> JoinHandle<bool> {
    let (scheduler, run) = (scheduler.clone(), run.clone());
    spawn(async move {
        match scheduler.acquire(&run).await {
            Ok(permit) => {
                permit.answered(None);
                true
            }
            Err(AcquireError::Abandoned) => false,
            Err(error) => panic!("{error:?}"),
        }
    })
}

/// Asserts that no permit was lost, and that as many calls count as were made.
async fn assert_no_permit_is_lost(scheduler: &Arc<CallScheduler>, made: u32) {
    assert_eq!(scheduler.queue_length(), 0);
    assert_eq!(scheduler.lock().gates.ledger.in_flight(), 0);
    let caller = &Requester::anyone().caller;
    assert_eq!(scheduler.spent_by(caller).0, u64::from(made));
    assert_eq!(scheduler.limit_usage()[0].remaining, 1_000 - made);
    scheduler.acquire(&sole_run()).await.expect("a permit").answered(None);
}

#[test]
fn run_left_and_joined_while_granted_is_made_or_refuses_to_be_joined() {
    explore(|| {
        let (scheduler, other_call) = busy_scheduler();
        let run = RunWaiters::new(Requester::anyone());
        let last_waiter = run.join(Requester::anyone(), None);
        let call = make_call(&scheduler, &run);
        let ending = spawn(async move { other_call.answered(None) });
        let leaving = spawn(async move { drop(last_waiter) });
        let joined = run.join(Requester::anyone(), None);
        block_on(async {
            let is_made = call.await.unwrap();
            assert!(is_made || joined.is_none(), "a request waits for a run that is abandoned");
            assert_eq!(run.has_begun(), is_made);
            assert_eq!(run.is_abandoned(), !is_made);
            ending.await.unwrap();
            leaving.await.unwrap();
            assert_no_permit_is_lost(&scheduler, 1 + u32::from(is_made)).await;
        });
    });
}

#[test]
fn call_behind_an_abandoned_one_gets_its_permit() {
    explore(|| {
        let (scheduler, other_call) = busy_scheduler();
        let run = RunWaiters::new(Requester::anyone());
        let last_waiter = run.join(Requester::anyone(), None);
        let call = make_call(&scheduler, &run);
        let behind = make_call(&scheduler, &sole_run());
        let ending = spawn(async move { other_call.answered(None) });
        drop(last_waiter);
        block_on(async {
            let is_made = call.await.unwrap();
            assert!(behind.await.unwrap());
            ending.await.unwrap();
            assert_no_permit_is_lost(&scheduler, 2 + u32::from(is_made)).await;
        });
    });
}

#[test]
fn call_cancelled_while_granted_leaves_its_permit_to_the_next() {
    explore(|| {
        let (scheduler, other_call) = busy_scheduler();
        let cancelled = make_call(&scheduler, &sole_run());
        let behind = make_call(&scheduler, &sole_run());
        let ending = spawn(async move { other_call.refund() });
        cancelled.abort();
        block_on(async {
            let is_made = cancelled.await.unwrap_or(false);
            assert!(behind.await.unwrap());
            ending.await.unwrap();
            assert_no_permit_is_lost(&scheduler, 1 + u32::from(is_made)).await;
        });
    });
}
