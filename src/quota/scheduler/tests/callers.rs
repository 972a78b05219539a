//! The callers' own limits of upstream calls.

use super::*;
use crate::config::{CallerConfig, CallerLimits, LimitMode, NamePatterns, PriorityClass};
use crate::quota::CallerLimitExceeded;

fn limited(name: &str, per_hour: u32, mode: LimitMode) -> CallerConfig {
    CallerConfig {
        name: name.into(),
        api_key_sha256: Vec::new(),
        certificate_san: None,
        accounts: NamePatterns::All,
        streams: NamePatterns::All,
        weight: 1,
        cache_control: crate::config::CacheControlGrants::default(),
        max_priority: PriorityClass::Interactive,
        not_after: None,
        limits: CallerLimits {
            upstream_calls_per_hour: std::num::NonZeroU32::new(per_hour),
            mode,
            ..CallerLimits::default()
        },
    }
}

fn run_of(caller: &str) -> Arc<RunWaiters> {
    RunWaiters::new(requester(caller, 1, Priority::Interactive))
}

#[tokio::test(start_paused = true)]
async fn spent_caller_is_refused_at_once_and_others_are_not() {
    let scheduler = scheduler(&[(600, 60)], 30);
    scheduler.limit_callers(&[limited("etl", 2, LimitMode::Enforce)]);
    scheduler.acquire(&run_of("etl")).await.unwrap().refund();
    for _ in 0..2 {
        drop(scheduler.acquire(&run_of("etl")).await.expect("a call that was not sent does not count"));
    }
    let begun = Instant::now();
    let Err(AcquireError::CallerLimit(CallerLimitExceeded { per, retry_after })) =
        scheduler.acquire(&run_of("etl")).await
    else {
        panic!("the caller has spent its calls")
    };
    assert_eq!((begun.elapsed(), per), (Duration::ZERO, Duration::from_hours(1)));
    drop(scheduler.acquire(&run_of("bi")).await.unwrap());
    tokio::time::sleep(retry_after).await;
    drop(scheduler.acquire(&run_of("etl")).await.expect("an hour has passed"));
}

#[tokio::test(start_paused = true)]
async fn waiting_caller_pays_for_the_run_of_one_that_has_spent() {
    let scheduler = scheduler(&[(600, 60)], 30);
    scheduler.limit_callers(&[limited("etl", 1, LimitMode::Enforce)]);
    let run = run_of("etl");
    let _etl = run.join(requester("etl", 1, Priority::Interactive), None);
    assert_eq!(&**scheduler.acquire(&run).await.unwrap().payer(), "etl");
    let _bi = run.join(requester("bi", 1, Priority::Interactive), None);
    assert_eq!(&**scheduler.acquire(&run).await.unwrap().payer(), "bi");
    assert_eq!((scheduler.spent_by("etl").0, scheduler.spent_by("bi").0), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn shadow_limit_refuses_no_call() {
    let scheduler = scheduler(&[(600, 60)], 30);
    scheduler.limit_callers(&[limited("etl", 1, LimitMode::Shadow)]);
    for _ in 0..3 {
        drop(scheduler.acquire(&run_of("etl")).await.unwrap());
    }
}
