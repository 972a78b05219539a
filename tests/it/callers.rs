//! Who may call, what each caller may see, and how often.

use aws_lc_rs::digest::{SHA256, digest};
use http::Method;
use koregate_simulator::{Credential, Fault, FaultPlan, Profile, StreamProfile};

use crate::support::{ACCOUNT, Answer, Ask, Rig, STREAM, Settings, exact_profile};

const DAY: &str = "from=2026-02-23&to=2026-02-23";
const OTHER_ACCOUNT: &str = "664b33a620bd0892e0000002";
const OTHER_STREAM: &str = "st-other";

fn hash(key: &str) -> String {
    let hash: Vec<String> = digest(&SHA256, key.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    hash.concat()
}

/// A caller as an operator writes it down, with more `lines`.
pub(crate) fn caller(name: &str, key: &str, lines: &str) -> String {
    format!("[[callers]]\nname = '{name}'\napi_key_sha256 = '{}'\n{lines}\n", hash(key))
}

/// Two accounts, two streams of the first, and callers that may see less than all of it.
async fn rig() -> Rig {
    let other = Credential {
        account_id: OTHER_ACCOUNT.to_owned(),
        client_id: "cs-2".to_owned(),
        client_secret: "another-secret-of-no-worth".to_owned(),
    };
    let mut profile = Profile { more_accounts: vec![other], ..exact_profile(50, 4) };
    profile.streams.push(StreamProfile::new(OTHER_STREAM, 50));
    let callers = [
        caller("all", "key-of-all", ""),
        caller("one", "key-of-one", &format!("accounts = ['{ACCOUNT}']\nstreams = ['{STREAM}']")),
        caller("few", "key-of-few", "requests_per_minute = 3"),
    ];
    Rig::start(profile, &Settings::default().tables(&callers.concat())).await
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.json()["status"], status);
}

#[tokio::test]
async fn without_a_key_that_somebody_has_nothing_is_asked_for() {
    let rig = rig().await;
    let ask = Ask::get(DAY);
    for ask in [
        ask.clone(),
        ask.clone().header("x-api-key", "key-of-nobody"),
        ask.clone().header("authorization", "Bearer key-of-nobody"),
        ask.clone().header("authorization", "Basic key-of-all"),
        ask.clone().header("auth", "key-of-all"),
        // One wrong key is not mended by another that is right.
        ask.header("x-api-key", "key-of-nobody").header("authorization", "Bearer key-of-all"),
    ] {
        let answer = rig.ask(&ask).await;
        assert_problem(&answer, 401);
        assert_eq!(answer.json()["errors"][0]["code"], 4002, "as Kore says it");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(!answer.text().contains("key-of"), "{}", answer.text());
    }
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn a_key_works_in_either_header() {
    let rig = rig().await;
    rig.ask(&Ask::get(DAY).header("x-api-key", "key-of-one")).await.page();
    rig.ask(&Ask::get(DAY).header("authorization", "Bearer key-of-one")).await.page();
    rig.ask(&Ask::get(DAY).header("authorization", "bearer key-of-all")).await.page();
    assert_eq!(rig.calls(), 1, "what one caller fetched serves the others");
}

#[tokio::test]
async fn a_caller_sees_its_own_accounts_and_streams_only() {
    let rig = rig().await;
    let ask = Ask::get(DAY).header("x-api-key", "key-of-one");
    rig.ask(&ask.clone().header("x-api-key", "key-of-all").stream(OTHER_STREAM)).await.page();
    let spent = rig.calls();
    let mut told = Vec::new();
    for ask in [
        ask.clone().stream(OTHER_STREAM),
        ask.clone().header("accountId", OTHER_ACCOUNT),
        ask.clone().header("accountId", OTHER_ACCOUNT).stream(OTHER_STREAM),
        ask.clone().header("accountId", "no-account"),
        ask.clone().stream("st-none"),
        // What the caller may not see is not hinted at by what else is wrong.
        Ask::get("from=never").header("x-api-key", "key-of-one").stream(OTHER_STREAM),
    ] {
        let answer = rig.ask(&ask).await;
        assert_problem(&answer, 403);
        told.push(answer.json()["detail"].clone());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "one answer for all, so that it tells nothing of what exists: {told:?}");
    assert_eq!(rig.calls(), spent, "not even what is cached already costs or shows anything");
    assert_problem(&rig.ask(&ask.header("accountId", "")).await, 400);
}

#[tokio::test]
async fn a_caller_that_asks_too_often_is_told_when_to_come_again() {
    let rig = rig().await;
    let ask = Ask::get(DAY).header("x-api-key", "key-of-few");
    for _ in 0..3 {
        rig.ask(&ask).await.page();
    }
    let answer = rig.ask(&ask).await;
    assert_problem(&answer, 429);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "a third of a minute at most: {wait}");
    rig.ask(&ask.header("x-api-key", "key-of-all")).await.page();
}

/// What a caller reads of its own limit: `q` of the policy, `r` and `t`; `None` if nothing is said of it.
fn limit(answer: &Answer) -> Option<(u32, u32, u64)> {
    let policy = answer.header("ratelimit-policy");
    let Some(left) = answer.header("ratelimit") else {
        assert_eq!(policy, None);
        return None;
    };
    let limit = policy.unwrap().strip_prefix("\"caller\";q=").unwrap().strip_suffix(";w=60").unwrap();
    let (left, full_in) = left.strip_prefix("\"caller\";r=").unwrap().split_once(";t=").unwrap();
    Some((limit.parse().unwrap(), left.parse().unwrap(), full_in.parse().unwrap()))
}

#[tokio::test]
async fn a_caller_reads_what_is_left_of_its_limit() {
    let rig = rig().await;
    let ask = Ask::get(DAY).header("x-api-key", "key-of-few");
    for (ask, status, left) in
        [(ask.clone(), 200, 2), (ask.clone().header("accountId", "another"), 403, 1), (ask.clone().path("/"), 404, 0)]
    {
        let answer = rig.ask(&ask).await;
        let (limit, told, full_in) = limit(&answer).unwrap();
        assert_eq!((answer.status.as_u16(), limit, told), (status, 3, left));
        // A third of a minute for each request that was made, less what has passed since.
        let at_most = 20 * u64::from(3 - left);
        assert!((at_most - 19..=at_most).contains(&full_in), "{full_in} of {at_most}");
    }
    let answer = rig.ask(&ask).await;
    assert_problem(&answer, 429);
    let (limit, left, full_in) = limit(&answer).unwrap();
    assert_eq!((limit, left), (3, 0));
    assert!((answer.header("retry-after").unwrap().parse().unwrap()..=60).contains(&full_in), "{full_in}");
}

#[tokio::test]
async fn whatever_becomes_of_a_request_its_caller_is_told_its_limit() {
    let rig = rig().await;
    let ask = Ask::get(DAY).header("x-api-key", "key-of-all");
    let etag = rig.ask(&ask).await.header("etag").unwrap().to_owned();
    let other_day = Ask::get("from=2026-02-22&to=2026-02-22").header("x-api-key", "key-of-all");
    for (ask, status, fault) in [
        (ask.clone(), 200, None),
        (ask.clone().header("if-none-match", &etag), 304, None),
        (ask.clone().and("limit=ten"), 400, None),
        (ask.clone().header("accountId", "another"), 403, None),
        (ask.clone().path("/"), 404, None),
        (ask.clone().method(Method::DELETE), 405, None),
        (ask.body(vec![b' '; (1 << 20) + 1]), 413, None),
        (other_day.clone(), 502, Some(Fault::Unauthorized)),
        (other_day, 503, Some(Fault::TooMany)),
    ] {
        if let Some(fault) = fault {
            rig.control.set_faults(FaultPlan::always(fault));
        }
        let answer = rig.ask(&ask).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
        let (limit, left, full_in) = limit(&answer).unwrap();
        assert!(limit == 600 && left < 600 && (1..=2).contains(&full_in), "{status}: {limit} {left} {full_in}");
    }
}

#[tokio::test]
async fn nobody_else_is_told_of_a_limit() {
    let rig = rig().await;
    for ask in [Ask::get(DAY), Ask::get(DAY).header("x-api-key", "key-of-nobody")] {
        let answer = rig.ask(&ask).await;
        assert_problem(&answer, 401);
        assert_eq!(limit(&answer), None);
    }
    let open = Rig::start(exact_profile(50, 4), &Settings::default()).await;
    let answer = open.ask(&Ask::get(DAY).header("x-api-key", "key-of-all")).await;
    answer.page();
    assert_eq!(limit(&answer), None);
    assert_eq!(limit(&open.ask(&Ask::get(DAY).path("/")).await), None);
}

#[tokio::test]
async fn while_a_key_is_changed_the_old_and_the_new_are_one_caller() {
    let keys = format!("api_key_sha256 = ['{}', '{}']\nrequests_per_minute = 2", hash("old"), hash("new"));
    let callers = format!("[[callers]]\nname = 'etl'\n{keys}\n");
    let rig = Rig::start(exact_profile(50, 4), &Settings::default().tables(&callers)).await;
    let with = |key| Ask::get(DAY).header("x-api-key", key);
    rig.ask(&with("old")).await.page();
    rig.ask(&with("new")).await.page();
    assert_problem(&rig.ask(&with("old")).await, 429);
    assert_problem(&rig.ask(&with("new")).await, 429);
    assert_problem(&rig.ask(&with("none")).await, 401);
    let metrics = rig.door.admin("/metrics").await;
    let refused = |line: &str| line.contains("caller=\"etl\",outcome=\"too_many_requests\"} 2");
    assert!(metrics.text().lines().any(refused), "what is refused is counted as its own: {}", metrics.text());
}
