//! Whatever goes wrong upstream: never a wrong answer, never a part for the whole, and right again at the next good one.

use std::time::Duration;

use futures_util::future::join_all;
use koregate::window::Timestamp;
use koregate_simulator::{
    AcceptedScheme, CallOutcome, Fault, FaultPlan, Profile, RateLimits, RecordedCall, RollingLimit, TokenRules,
};

use crate::support::{Answer, Ask, NOW, Rig, Settings, at, exact_profile, until};
use crate::tap::Tap;

/// A settled day of three pages.
const DAY: &str = "from=2026-02-23&to=2026-02-23";
const PAGES: u64 = 3;
/// A part of it.
const NOON: &str = "from=2026-02-23T09:00:00&to=2026-02-23T14:59:59";

/// Each way to go wrong, what a caller is told if it lasts, and how many calls that takes.
const FAULTS: [(Fault, u16, u64); 15] = [
    (Fault::Status500, 502, 3),
    (Fault::Html502, 502, 3),
    (Fault::TooMany, 503, 3),
    (Fault::TooManySilent, 503, 3),
    (Fault::Unauthorized, 502, 2),
    (Fault::Reset, 502, 3),
    (Fault::Truncated, 502, 3),
    (Fault::TruncatedJson, 502, 3),
    (Fault::Garbage, 502, 3),
    (Fault::Html200, 502, 3),
    (Fault::EmptyBody, 502, 3),
    (Fault::Slow, 504, 2),
    (Fault::SlowBody, 504, 2),
    (Fault::WrongCount, 502, 3),
    (Fault::EmptyPage, 502, 3),
];

fn profile() -> Profile {
    exact_profile(250, 4)
}

/// A limit that no test reaches, and short, for so long is an account closed that is not told when to come again.
fn settings() -> Settings {
    Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]")
}

async fn rig_for(fault: Fault) -> Rig {
    let settings = match fault {
        Fault::Slow | Fault::SlowBody => settings().section("upstream", "timeout = '3s'"),
        // A run that has begun is held for so long.
        _ if is_refusal(fault) => settings().section("quota", "queue_timeout = '4s'"),
        _ => settings(),
    };
    Rig::start(profile(), &settings).await
}

fn is_refusal(fault: Fault) -> bool {
    matches!(fault, Fault::TooMany | Fault::TooManySilent)
}

fn day(rig: &Rig) -> Vec<Vec<u8>> {
    rig.truth(at("2026-02-23"), at("2026-02-24"))
}

#[track_caller]
fn assert_whole(answer: &Answer, truth: &[Vec<u8>], told: &str) {
    let page = answer.page();
    assert!(!page.has_more && page.items().eq(truth.iter().map(Vec::as_slice)), "{told}: not the whole window");
}

/// A problem document, with Kore's errors in it, that holds no item and may not be kept.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, told: &str) {
    assert_eq!(answer.status.as_u16(), status, "{told}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{told}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{told}");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{told}");
    assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"), "{told}");
    assert!(problem["errors"][0]["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{told}: {problem}");
    assert!(problem["errors"][0]["code"].is_u64() && problem["data"].is_null(), "{told}: {problem}");
    if status == 503 {
        assert!((1..=60).contains(&retry_after(answer)), "{told}: {:?}", answer.headers);
    }
}

fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").expect("Retry-After").parse().unwrap()
}

#[tokio::test]
async fn a_fault_that_passes_costs_one_call_and_nobody_sees_it() {
    join_all(FAULTS.into_iter().flat_map(|(fault, ..)| [(fault, 0), (fault, 1)]).map(|(fault, good)| async move {
        let told = format!("{fault:?} after {good}");
        let rig = rig_for(fault).await;
        rig.control.set_faults(FaultPlan::times(fault, 1).after(good));
        assert_whole(&rig.get(DAY).await, &day(&rig), &told);
        assert_eq!((rig.calls(), rig.control.counts().ok), (PAGES + 1, PAGES), "{told}");
        let again = rig.get(DAY).await;
        assert_whole(&again, &day(&rig), &told);
        assert!(again.cache_status().starts_with("koregate; hit"), "{told}: {}", again.cache_status());
        assert_eq!(rig.calls(), PAGES + 1, "{told}");
    }))
    .await;
}

#[tokio::test]
async fn a_fault_that_lasts_is_told_and_leaves_nothing_behind() {
    let cases = FAULTS.into_iter().flat_map(|(fault, status, calls)| [0, 1].map(|good| (fault, status, calls, good)));
    join_all(cases.map(|(fault, status, calls, good)| async move {
        let told = format!("{fault:?} after {good}");
        let rig = rig_for(fault).await;
        rig.control.set_faults(FaultPlan::always(fault).after(good));
        assert_problem(&rig.get(DAY).await, status, &told);
        // What had begun is held and goes on, which may cost a call more every second.
        let more = if is_refusal(fault) && good > 0 { 4 } else { 0 };
        assert!((good + calls..=good + calls + more).contains(&rig.calls()), "{told}: {} calls", rig.calls());

        rig.control.clear_faults();
        assert_whole(&rig.get(NOON).await, &rig.truth(at("2026-02-23T09:00:00Z"), end_of(NOON)), &told);
        assert_whole(&rig.get(DAY).await, &day(&rig), &told);
        let spent = rig.calls();
        assert_whole(&rig.get(DAY).await, &day(&rig), &told);
        assert_eq!(rig.calls(), spent, "{told}");
    }))
    .await;
}

/// The end of a window whose `to` is a second: that very instant counts, what comes after it does not.
fn end_of(query: &str) -> Timestamp {
    let to = query.rsplit('=').next().unwrap();
    at(&format!("{to}Z")).next_tick()
}

#[tokio::test]
async fn those_who_wait_for_the_same_window_are_all_told_and_cost_no_more() {
    for (fault, status) in [(Fault::Status500, 502), (Fault::TooMany, 503), (Fault::Truncated, 502)] {
        let rig = rig_for(fault).await;
        rig.control.set_faults(FaultPlan::always(fault));
        let lines = Ask::get(DAY).header("accept", "application/x-ndjson");
        let asks = [Ask::get(DAY), lines, Ask::get(NOON), Ask::get(DAY).and("offset=50&limit=10")];
        for answer in rig.door.ask_at_once(&asks).await {
            assert_problem(&answer, status, &format!("{fault:?}"));
        }
        assert_eq!(rig.calls(), 3, "{fault:?}");
    }
}

#[tokio::test]
async fn what_the_upstream_said_is_told() {
    for (fault, said) in [
        (Fault::Status500, "500"),
        (Fault::Html502, "502"),
        (Fault::Unauthorized, "Invalid SDK credentials"),
        (Fault::Html200, "not a page"),
        (Fault::EmptyBody, "empty body"),
    ] {
        let rig = rig_for(fault).await;
        rig.control.set_faults(FaultPlan::always(fault));
        let problem = rig.get(DAY).await.json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(said), "{fault:?}: {detail}");
    }
}

#[tokio::test]
async fn closed_windows_are_served_while_the_upstream_is_broken_or_gone() {
    let mut rig = Rig::start(profile(), &settings()).await;
    assert_whole(&rig.get(DAY).await, &day(&rig), "at first");
    rig.control.set_faults(FaultPlan::always(Fault::Reset));
    assert_whole(&rig.get(DAY).await, &day(&rig), "broken");
    assert_problem(&rig.get("from=2026-02-22&to=2026-02-22").await, 502, "broken");
    assert_problem(&rig.get("from=2026-02-22&to=2026-02-23").await, 502, "half of it is there, which is not the whole");
    rig.stop_upstream().await;
    assert_whole(&rig.get(DAY).await, &day(&rig), "gone");
    assert_problem(&rig.get("from=2026-02-22&to=2026-02-22").await, 502, "gone");
}

#[tokio::test]
async fn a_call_that_never_reached_the_upstream_costs_no_quota() {
    let mut rig = Rig::start(profile(), &Settings::default().limits("[{ requests = 60, per = '1m' }]")).await;
    rig.stop_upstream().await;
    assert_problem(&rig.get(DAY).await, 502, "gone");
    let status = rig.door.admin("/api/v1/status").await.json();
    assert_eq!(status["accounts"][0]["quota"][0]["remaining"], 60);
}

/// A storm of faults, seeded: whatever comes, an answer is the truth or a problem.
#[tokio::test]
async fn in_a_storm_of_faults_each_answer_is_the_truth_or_a_problem() {
    let faults: Vec<Fault> = FAULTS.iter().filter(|(_, status, _)| *status == 502).map(|(fault, ..)| *fault).collect();
    let mut dice = fastrand::Rng::with_seed(7);
    let rig = Rig::start(profile(), &settings()).await;
    let (mut right, mut told) = (0, 0);
    for round in 0..12 {
        let fault = faults[dice.usize(..faults.len())];
        rig.control.set_faults(FaultPlan::times(fault, dice.u64(1..6)).after(dice.u64(..4)));
        let windows: Vec<(Timestamp, Timestamp)> = std::iter::repeat_with(|| {
            let from = at("2026-02-22") + Duration::from_secs(dice.u64(..36 * 3600));
            (from, from + Duration::from_secs(dice.u64(1..12 * 3600)))
        })
        .take(4)
        .collect();
        let query = |(from, to): &(Timestamp, Timestamp)| {
            let [from, to] = [from, to].map(|at| at.to_string().trim_end_matches('Z').to_owned());
            Ask::get(format!("from={from}&to={to}"))
        };
        let answers = rig.door.ask_at_once(&windows.iter().map(query).collect::<Vec<_>>()).await;
        for ((from, to), answer) in windows.iter().zip(answers) {
            if answer.status == 200 {
                assert_whole(&answer, &rig.truth(*from, to.next_tick()), &format!("round {round}, {fault:?}"));
                right += 1;
            } else {
                assert_problem(&answer, 502, &format!("round {round}, {fault:?}"));
                told += 1;
            }
        }
    }
    assert!(right > 0 && told > 0, "{right} right, {told} told: the storm proves nothing");
}

#[tokio::test]
async fn a_credential_that_is_refused_for_good_costs_two_calls_however_many_gaps_there_are() {
    let rig = Rig::start(profile(), &settings()).await;
    for hour in ["03", "09", "15", "21"] {
        rig.get(format!("from=2026-02-23T{hour}:00:00&to=2026-02-23T{hour}:59:59")).await.page();
    }
    rig.control.reset_counts();
    rig.control.change(|profile| profile.token.scope_missing = true);
    let answer = rig.get(DAY).await;
    assert_problem(&answer, 502, "the scope is missing");
    assert!(answer.text().contains("Scope is incorrect"), "{}", answer.text());
    assert_eq!(rig.calls(), 2);

    rig.control.change(|profile| profile.token.scope_missing = false);
    rig.control.reset_counts();
    assert_whole(&rig.get(DAY).await, &day(&rig), "the scope is there");
    assert_eq!(rig.control.counts().unauthorized, 0);
}

#[tokio::test]
async fn a_token_that_is_refused_once_is_replaced_by_a_fresh_one() {
    let rig = Rig::start(profile(), &settings()).await;
    let tap = Tap::start(rig.simulator.as_ref().unwrap().addr(), None).await;
    let door = tap.door(&rig, &settings()).await;
    rig.control.set_faults(FaultPlan::times(Fault::Unauthorized, 1));
    tap.hold();
    let ask = Ask::get(DAY);
    let later = at(NOW) + Duration::from_secs(2);
    let (answer, ()) = tokio::join!(door.ask(&ask), async {
        until("the first call is made", || tap.auths().len() == 1).await;
        // A token made now differs from one made then.
        rig.clock.set(later);
        tap.release();
    });
    assert_whole(&answer, &day(&rig), "a 401 once");
    let auths = tap.auths();
    let [refused, fresh, rest @ ..] = auths.as_slice() else { panic!("{} calls", auths.len()) };
    assert_ne!(refused, fresh);
    assert!(rest.len() == 2 && rest.iter().all(|auth| auth == fresh), "the fresh one is kept");
    let claims: serde_json::Value = jsonwebtoken::dangerous::insecure_decode_claims(fresh).unwrap();
    assert_eq!(claims["iat"], later.as_seconds());
}

#[tokio::test]
async fn where_jti_is_enforced_each_call_carries_a_token_of_its_own() {
    let rig = Rig::start(
        Profile { token: TokenRules { enforce_jti: true, ..TokenRules::default() }, ..profile() },
        &settings(),
    )
    .await;
    let tap = Tap::start(rig.simulator.as_ref().unwrap().addr(), None).await;
    let door = tap.door(&rig, &settings().account("token = { jti = 'per-request' }")).await;
    // The second attempt of a call needs a fresh token as well.
    rig.control.set_faults(FaultPlan::times(Fault::Status500, 1).after(1));
    assert_whole(&door.ask(&Ask::get(DAY)).await, &day(&rig), "per-request");
    let mut auths = tap.auths();
    assert_eq!((auths.len() as u64, rig.control.counts().unauthorized), (PAGES + 1, 0));
    auths.sort_unstable();
    auths.dedup();
    assert_eq!(auths.len() as u64, PAGES + 1);

    // Without a jti the app refuses all tokens: said after two calls.
    rig.control.reset_counts();
    assert_problem(&rig.get(DAY).await, 502, "off");
    assert_eq!(rig.calls(), 2);
}

#[tokio::test]
async fn the_token_is_sent_in_the_scheme_that_is_configured() {
    for (wanted, scheme, works) in [
        (AcceptedScheme::Bearer, "bearer", true),
        (AcceptedScheme::Bare, "bare", true),
        (AcceptedScheme::Bearer, "bare", false),
        (AcceptedScheme::Bare, "bearer", false),
    ] {
        let settings = settings().account(&format!("token = {{ scheme = '{scheme}' }}"));
        let rig = Rig::start(
            Profile { token: TokenRules { scheme: wanted, ..TokenRules::default() }, ..profile() },
            &settings,
        )
        .await;
        let answer = rig.get(DAY).await;
        if works {
            assert_whole(&answer, &day(&rig), scheme);
        } else {
            assert_problem(&answer, 502, scheme);
            assert_eq!(rig.calls(), 2, "{wanted:?}, {scheme}");
        }
    }
}

/// The first call that was answered with a fault.
fn faulted(rig: &Rig) -> Option<RecordedCall> {
    rig.control.calls().into_iter().find(|call| matches!(call.outcome, CallOutcome::Faulted(_)))
}

/// Waits until the gateway knows that its account is closed.
async fn until_closed(rig: &Rig) {
    until("a call is refused", || faulted(rig).is_some()).await;
    let closed =
        async { while rig.door.admin("/api/v1/status").await.json()["accounts"][0]["quota"][0]["remaining"] != 0 {} };
    tokio::time::timeout(Duration::from_secs(30), closed).await.expect("the account stays open");
}

#[tokio::test]
async fn a_refused_account_is_left_alone_until_it_opens_and_then_all_are_served() {
    let rig = Rig::start(profile(), &settings()).await;
    let wait = Duration::from_secs(2);
    rig.control.set_faults(FaultPlan::times(Fault::TooMany, 1).after(1).retry_after(wait));
    let (first, others) = tokio::join!(rig.get(DAY), async {
        until_closed(&rig).await;
        let windows =
            (0..12).map(|hour| Ask::get(format!("from=2026-02-22T{hour:02}:00:00&to=2026-02-22T{hour:02}:29:59")));
        rig.door.ask_at_once(&windows.collect::<Vec<_>>()).await
    });
    assert_whole(&first, &day(&rig), "the one that was refused");
    for (hour, answer) in others.iter().enumerate() {
        let from = at("2026-02-22") + Duration::from_secs(hour as u64 * 3600);
        assert_whole(answer, &rig.truth(from, (from + Duration::from_secs(1799)).next_tick()), "one that came later");
    }
    let refused = faulted(&rig).unwrap().arrived;
    let calls = rig.control.calls();
    let after: Vec<_> = calls.iter().filter(|call| call.arrived > refused).collect();
    assert_eq!(after.len(), 2 + 12);
    let early = after.iter().filter(|call| call.arrived < refused + wait).count();
    assert_eq!(early, 0, "calls before Retry-After was over");
}

#[tokio::test]
async fn while_an_account_is_closed_for_longer_than_the_queue_lasts_nobody_calls() {
    let settings = settings().section("quota", "queue_timeout = '1s'");
    let rig = Rig::start(profile(), &settings).await;
    rig.control.set_faults(FaultPlan::times(Fault::TooMany, 1).retry_after(Duration::from_secs(30)));
    assert_problem(&rig.get(DAY).await, 503, "the first");
    let others: Vec<_> = (0..20)
        .map(|hour| Ask::get(format!("from=2026-02-22T{hour:02}:00:00&to=2026-02-22T{hour:02}:59:59")))
        .collect();
    for answer in rig.door.ask_at_once(&others).await {
        assert_problem(&answer, 503, "another");
        assert!(retry_after(&answer) > 1, "no sooner than the account opens: {:?}", answer.headers);
    }
    assert_eq!(rig.calls(), 1);
}

#[tokio::test]
async fn a_spent_quota_is_known_by_its_words_whatever_the_status() {
    for limit_status in [400, 403, 429] {
        let limits = vec![RollingLimit::new(2, Duration::from_secs(1))];
        let rig = Rig::start(
            Profile { rate_limits: RateLimits { refusal_status: limit_status, ..limits.into() }, ..profile() },
            &settings(),
        )
        .await;
        assert_whole(&rig.get(DAY).await, &day(&rig), "others use the quota too");
        assert_eq!((rig.calls(), rig.control.counts().limited), (PAGES + 1, 1), "{limit_status}");
    }
}
