use super::*;
use crate::config::QuotaConfig;
use crate::upstream::{RateLimitHeader, SpentLimit};

fn turns_with(limits: &[(u32, u64)], queue_seconds: u64, reserve: f64) -> Arc<CallScheduler> {
    let limits =
        limits.iter().map(|(requests, per)| QuotaLimit { requests: *requests, per: Duration::from_secs(*per) });
    let queue_timeout = Duration::from_secs(queue_seconds);
    let quota = QuotaConfig { queue_timeout, interactive_reserve: reserve, state_file: None };
    CallScheduler::new(&"a".into(), limits.collect(), &quota, 8, None)
}

fn turns(limits: &[(u32, u64)], queue_seconds: u64) -> Arc<CallScheduler> {
    turns_with(limits, queue_seconds, 0.0)
}

fn asker(caller: &str, weight: u32, class: Priority) -> Requester {
    Requester { caller: caller.into(), weight, class }
}

/// What one caller that nobody competes with wants.
fn wanted() -> Arc<RunWaiters> {
    RunWaiters::new(Requester::anyone())
}

/// Takes a turn and makes a call of 150 ms with it. Gives how long it waited.
async fn call(turns: &Arc<CallScheduler>, demand: &Arc<RunWaiters>) -> Result<Duration, AcquireError> {
    let asked = Instant::now();
    let turn = turns.acquire(demand).await?;
    let waited = asked.elapsed();
    tokio::time::sleep(Duration::from_millis(150)).await;
    turn.answered(None);
    Ok(waited)
}

#[tokio::test(start_paused = true)]
async fn a_long_run_never_waits_longer_than_the_queue_allows() {
    let turns = turns(&[(60, 60), (1800, 3600)], 30);
    let begun = Instant::now();
    for _ in 0..600 {
        call(&turns, &wanted()).await.expect("paced");
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    assert!(600.0 / 60.0 / minutes >= 0.95, "{minutes} minutes for 600 calls");
}

/// One call a minute on the average, and a queue in which nobody waits for a minute.
#[tokio::test(start_paused = true)]
async fn a_slow_limit_is_not_paced() {
    let turns = turns(&[(60, 3600)], 30);
    for _ in 0..60 {
        drop(turns.acquire(&wanted()).await.expect("there is quota left"));
    }
    assert!(turns.acquire(&wanted()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_spent_hour_is_said_at_once() {
    let turns = turns(&[(100, 60), (2, 3600)], 30);
    drop(turns.acquire(&wanted()).await.unwrap());
    drop(turns.acquire(&wanted()).await.unwrap());
    let begun = Instant::now();
    let Err(AcquireError::Exhausted(exhausted)) = turns.acquire(&wanted()).await else { panic!("the hour is spent") };
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(exhausted.retry_after > Duration::from_secs(3590), "{exhausted:?}");
}

#[tokio::test(start_paused = true)]
async fn an_account_is_left_alone_for_as_long_as_the_upstream_asks() {
    let turns = turns(&[(60, 60)], 30);
    let refused = |retry_after| {
        let turns = turns.clone();
        async move { turns.acquire(&wanted()).await.unwrap().refused(SpentLimit::Unnamed, retry_after, None) }
    };
    assert_eq!(refused(Some(Duration::from_secs(7))).await.closed_for, Duration::from_secs(7));
    assert_eq!(turns.limit_usage()[0].remaining, 0);
    let begun = Instant::now();
    drop(turns.acquire(&wanted()).await.unwrap());
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn long_retry_after_is_probed_and_ended_by_first_page() {
    let turns = turns(&[(60, 60), (1800, 3600)], 30);
    let asked = Some(Duration::from_secs(1_000_000_000_000));
    let refused = turns.acquire(&wanted()).await.unwrap().refused(SpentLimit::Unnamed, asked, None);
    assert_eq!((refused.closed_for, refused.retry_after), (Duration::from_hours(1), Duration::from_mins(2)));
    assert_eq!(turns.closed_for(), Some(Duration::from_hours(1)));
    let exhausted = async |seconds| {
        let retry_after = Duration::from_secs(seconds);
        assert_eq!(turns.acquire(&wanted()).await.map(drop), Err(AcquireError::Exhausted(Exhausted { retry_after })));
    };
    exhausted(120).await;
    tokio::time::sleep(Duration::from_secs(80)).await;
    exhausted(40).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    let probe = turns.acquire(&wanted()).await.unwrap();
    exhausted(120).await;
    let refused = probe.refused(SpentLimit::Unnamed, asked, None);
    assert_eq!(refused.retry_after, Duration::from_mins(2));
    tokio::time::sleep(Duration::from_mins(2)).await;
    let probe = turns.acquire(&wanted()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    probe.answered(None);
    assert_eq!(call(&turns, &wanted()).await, Ok(Duration::ZERO));
    assert_eq!(turns.closed_for(), None);
}

#[tokio::test(start_paused = true)]
async fn reset_far_away_closes_account_until_next_probe() {
    let turns = turns(&[(60, 60), (1800, 3600)], 30);
    let spent = RateLimitHeader { limit: None, remaining: 0, reset: Some(Duration::from_hours(24)) };
    turns.acquire(&wanted()).await.unwrap().answered(Some(&spent));
    assert_eq!(turns.closed_for(), Some(Duration::from_hours(1)));
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(call(&turns, &wanted()).await, Ok(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn without_a_word_an_account_is_left_alone_for_longer_and_longer() {
    let turns = turns(&[(60, 60)], 30);
    let mut closed = Vec::new();
    loop {
        match turns.acquire(&wanted()).await {
            Ok(turn) => closed.push(turn.refused(SpentLimit::Minute, None, None).closed_for.as_secs()),
            Err(AcquireError::Exhausted(exhausted)) => break assert!(exhausted.retry_after > Duration::from_secs(30)),
            Err(AcquireError::Abandoned | AcquireError::NotLeader) => panic!("it is wanted"),
        }
    }
    assert_eq!(closed, [1, 2, 4, 8, 16, 32]);
}

/// A wall that nothing gets through is not a wall that less gets through.
#[tokio::test(start_paused = true)]
async fn after_an_outage_the_quota_is_there_again() {
    let turns = turns(&[(60, 60)], 300);
    for _ in 0..8 {
        turns.acquire(&wanted()).await.unwrap().refused(SpentLimit::Unnamed, None, None);
    }
    call(&turns, &wanted()).await.unwrap();
    assert!((42..=45).contains(&turns.limit_usage()[0].budget), "one step down, and a little of it back");
    turns.acquire(&wanted()).await.unwrap().refused(SpentLimit::Unnamed, None, None);
    assert!(turns.limit_usage()[0].budget < 42, "somebody else takes more");
}

#[tokio::test(start_paused = true)]
async fn one_who_hangs_up_gives_its_place_back() {
    let turns = turns(&[(1, 10)], 60);
    let first = turns.acquire(&wanted()).await.unwrap();
    let wait = || {
        let turns = turns.clone();
        tokio::spawn(async move { turns.acquire(&wanted()).await })
    };
    let (second, third) = (wait(), wait());
    tokio::task::yield_now().await;
    assert_eq!(turns.queue_length(), 2);
    second.abort();
    drop(first);
    assert!(third.await.unwrap().is_ok());
    assert_eq!(turns.queue_length(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_wants_any_more_is_not_made() {
    let turns = turns(&[(1, 10)], 60);
    drop(turns.acquire(&wanted()).await.unwrap());
    let demand = wanted();
    let waiting = demand.join(demand.cause().clone(), None);
    let take = tokio::spawn({
        let (turns, demand) = (turns.clone(), demand.clone());
        async move { turns.acquire(&demand).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert_eq!(turns.queue_length(), 1);
    let begun = Instant::now();
    drop(waiting);
    assert_eq!(take.await.unwrap(), Err(AcquireError::Abandoned));
    assert_eq!((turns.queue_length(), begun.elapsed()), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_left_costs_nothing() {
    let turns = turns(&[(1, 10)], 60);
    for _ in 0..5 {
        turns.acquire(&wanted()).await.unwrap().refund();
    }
    assert_eq!(turns.limit_usage()[0].remaining, 1);
    assert_eq!(turns.spent_by("c").0, 0);
}

/// How many calls each of these callers got in `minutes`, each with so many workers that ask without pause.
async fn shares(turns: &Arc<CallScheduler>, weights: &[u32], workers: usize, minutes: u64) -> Vec<u64> {
    let tasks: Vec<_> = weights
        .iter()
        .enumerate()
        .flat_map(|(caller, weight)| std::iter::repeat_n((caller.to_string(), *weight), workers))
        .map(|(caller, weight)| {
            let turns = turns.clone();
            tokio::spawn(async move {
                loop {
                    // Each is a window of its own.
                    let demand = RunWaiters::new(asker(&caller, weight, Priority::Interactive));
                    let _ = call(&turns, &demand).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    (0..weights.len()).map(|caller| turns.spent_by(&caller.to_string()).0).collect()
}

#[tokio::test(start_paused = true)]
async fn callers_that_compete_get_their_shares() {
    for workers in [1, 2, 10] {
        let got = shares(&turns(&[(60, 60), (1800, 3600)], 30), &[1, 1, 2], workers, 2).await;
        let all: u64 = got.iter().sum();
        assert!(all >= 116, "{got:?}");
        for (got, share) in got.iter().zip([0.25, 0.25, 0.5]) {
            #[expect(clippy::cast_precision_loss, reason = "a few hundred calls")]
            let off = *got as f64 / all as f64 / share;
            assert!(
                (0.9..=1.1).contains(&off),
                "{workers} workers each: {got} of {all} is {off} of a share of {share}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_page_now_and_then_does_not_wait_behind_a_backlog() {
    let turns = turns(&[(60, 60), (1800, 3600)], 30);
    let backlog = tokio::spawn({
        let turns = turns.clone();
        async move { shares(&turns, &[1, 1, 2], 5, 4).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    for _ in 0..15 {
        let waited = call(&turns, &RunWaiters::new(asker("now-and-then", 1, Priority::Interactive))).await.unwrap();
        // A turn that has just gone, and its own.
        assert!(waited <= Duration::from_secs(3), "{waited:?}");
        tokio::time::sleep(Duration::from_secs(13)).await;
    }
    backlog.abort();
}

#[tokio::test(start_paused = true)]
async fn background_work_takes_what_is_left_and_leaves_the_reserve_alone() {
    let turns = turns_with(&[(60, 60)], 30, 0.2);
    let backfill: Vec<_> = (0..10)
        .map(|_| {
            let turns = turns.clone();
            tokio::spawn(async move {
                loop {
                    let _ = call(&turns, &RunWaiters::new(asker("backfill", 9, Priority::Background))).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_mins(2)).await;
    let before = turns.spent_by("backfill").0;
    for _ in 0..60 {
        // Twelve a minute: all of the reserve, and none of it is ever waited for.
        assert_eq!(call(&turns, &wanted()).await.unwrap(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(4850)).await;
    }
    let after = turns.spent_by("backfill").0 - before;
    assert!((171..=185).contains(&after), "{after} of what is left in five minutes: 60 - 12 - 12 a minute");
    backfill.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_comes_to_wait_for_goes_first() {
    let turns = turns(&[(1, 10)], 60);
    drop(turns.acquire(&wanted()).await.unwrap());
    let take = |demand: &Arc<RunWaiters>| {
        let (turns, demand) = (turns.clone(), demand.clone());
        tokio::spawn(async move { call(&turns, &demand).await.unwrap() })
    };
    let (backfill, refresh) =
        (RunWaiters::new(asker("b", 1, Priority::Background)), RunWaiters::new(asker("r", 1, Priority::Refresh)));
    let (backfill_goes, refresh_goes) = (take(&backfill), take(&refresh));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waiting = backfill.join(asker("c", 1, Priority::Interactive), None);
    assert_eq!(backfill_goes.await.unwrap().as_secs(), 10);
    assert_eq!(refresh_goes.await.unwrap().as_secs(), 20);
    assert_eq!(turns.spent_by("b").0, 1, "it is charged to who caused it");
    drop(waiting);
}

const PLENTY: (u32, u64) = (10_000, 60);

#[tokio::test(start_paused = true)]
async fn spare_calls_idle_account_are_as_many_as_may_be_under_way() {
    let turns = turns(&[PLENTY], 30);
    assert_eq!((turns.spare_calls(Priority::Interactive, 3), turns.spare_calls(Priority::Interactive, 100)), (3, 8));
    let _turn = turns.acquire(&wanted()).await.unwrap();
    assert_eq!(turns.spare_calls(Priority::Interactive, 100), 7);
    assert_eq!(turns.expected_wait(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn spare_calls_somebody_waits_are_none() {
    let turns = turns(&[(1, 60)], 30);
    drop(turns.acquire(&wanted()).await.unwrap());
    let waiting = tokio::spawn({
        let turns = turns.clone();
        async move { turns.acquire(&wanted()).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(turns.spare_calls(Priority::Interactive, 8), 0);
    assert_eq!(turns.expected_wait(), Duration::from_mins(1));
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn spare_calls_leave_a_fifth_of_each_limit() {
    // So few calls are not paced.
    assert_eq!(turns(&[(5, 3600)], 30).spare_calls(Priority::Interactive, 8), 4);
    // The first twenty calls of a minute go at once, and the others one after the other.
    let paced = turns(&[(60, 60)], 30);
    for _ in 0..22 {
        paced.acquire(&wanted()).await.unwrap().answered(None);
    }
    assert_eq!(paced.spare_calls(Priority::Interactive, 8), 0);
    assert_eq!(paced.expected_wait(), Duration::from_secs(1));
    let refused = turns(&[PLENTY], 30);
    refused.acquire(&wanted()).await.unwrap().refused(SpentLimit::Unnamed, Some(Duration::from_secs(1)), None);
    assert_eq!(refused.spare_calls(Priority::Interactive, 8), 0, "the account is closed");
}

#[tokio::test(start_paused = true)]
async fn spare_calls_background_leaves_the_reserve() {
    assert_eq!(turns_with(&[PLENTY], 30, 0.5).spare_calls(Priority::Background, 8), 4);
}
