//! Tests of authentication, of the callers' limits, and of what a reload changes.

use std::num::NonZeroU32;

use super::*;
use crate::config::NamePatterns;

/// A caller without a key and with the defaults.
fn anyone() -> config::CallerConfig {
    config::CallerConfig {
        name: "c".into(),
        api_key_sha256: Vec::new(),
        certificate_san: None,
        accounts: NamePatterns::All,
        streams: NamePatterns::All,
        weight: 1,
        cache_control: config::CacheControlGrants::default(),
        max_priority: PriorityClass::Interactive,
        not_after: None,
        limits: config::CallerLimits::default(),
    }
}

fn at(time: &str) -> Timestamp {
    Bound::parse(time).unwrap().start()
}

fn callers() -> Callers {
    let hash = |key: &&str| digest(&SHA256, key.as_bytes()).as_ref().try_into().unwrap();
    let caller = |name: &str, keys: &[&str], rate| config::CallerConfig {
        name: name.into(),
        api_key_sha256: keys.iter().map(hash).collect(),
        limits: config::CallerLimits {
            requests_per_minute: NonZeroU32::new(rate).unwrap(),
            ..config::CallerLimits::default()
        },
        ..anyone()
    };
    Callers::new(&[caller("bi", &["key-1"], 600), caller("qa", &["key-2", "key-2-new"], 2)], &[])
}

fn authenticate(
    callers: &Callers,
    name: &'static str,
    value: &'static str,
) -> (Option<AuthenticatedCaller>, Result<(), EdgeError>) {
    let mut headers = HeaderMap::new();
    headers.insert(name, value.parse().unwrap());
    callers.load().admit(&headers, None, at("2026-06-01"))
}

fn admit(callers: &Callers, name: &'static str, value: &'static str) -> Result<String, EdgeError> {
    let (authenticated, admitted) = authenticate(callers, name, value);
    admitted.map(|()| authenticated.unwrap().caller.name.to_string())
}

#[tokio::test(start_paused = true)]
async fn caller_is_found_by_each_of_its_keys() {
    let callers = callers();
    assert_eq!(admit(&callers, "x-api-key", "key-1").unwrap(), "bi");
    assert_eq!(admit(&callers, "authorization", "bearer key-2").unwrap(), "qa");
    assert_eq!(admit(&callers, "x-api-key", "key-2-new").unwrap(), "qa");
    for (name, value) in
        [("x-api-key", "key-3"), ("authorization", "Basic key-1"), ("accept", "key-1"), ("x-api-key", "")]
    {
        let (authenticated, admitted) = authenticate(&callers, name, value);
        assert!(authenticated.is_none() && matches!(admitted, Err(EdgeError::UnknownCaller)), "{name}: {value}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_caller_has_its_own_limit() {
    let callers = callers();
    // Both keys belong to the same caller.
    assert!(admit(&callers, "x-api-key", "key-2").is_ok() && admit(&callers, "x-api-key", "key-2-new").is_ok());
    let Err(EdgeError::TooManyRequests { retry_after }) = admit(&callers, "x-api-key", "key-2") else { panic!() };
    assert!(admit(&callers, "x-api-key", "key-1").is_ok());
    tokio::time::advance(retry_after).await;
    assert!(admit(&callers, "x-api-key", "key-2").is_ok());
}

#[tokio::test(start_paused = true)]
async fn refused_caller_is_known_with_its_status() {
    let callers = callers();
    let limit_status = || {
        let (authenticated, admitted) = authenticate(&callers, "x-api-key", "key-2");
        let RateLimitStatus { limit, left, more_in, .. } = authenticated.unwrap().limit_status;
        (admitted.is_ok(), limit, left, more_in.unwrap().as_secs())
    };
    assert_eq!(limit_status(), (true, 2, 1, 30));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(limit_status(), (true, 2, 0, 20));
    assert_eq!(limit_status(), (false, 2, 0, 20));
    let anonymous = Callers::new(&[], &[]).load().admit(&HeaderMap::new(), None, at("2026-06-01"));
    assert!(matches!(anonymous, (None, Ok(()))));
}

fn certificate(names: &[&str]) -> PeerCertificate {
    PeerCertificate { names: names.iter().map(|name| Arc::from(*name)).collect(), until: at("2029-01-01") }
}

#[tokio::test(start_paused = true)]
async fn certificate_stands_for_its_caller_without_a_key() {
    let with_san = |name: &str, san: &str| config::CallerConfig {
        name: name.into(),
        certificate_san: Some(san.into()),
        ..anyone()
    };
    let callers = Callers::new(&[with_san("bi", "spiffe://a/bi"), with_san("qa", "qa.internal")], &[]).load();
    let key = HeaderMap::from_iter([(http::HeaderName::from_static("x-api-key"), "k".parse().unwrap())]);
    for (headers, names, expected) in [
        (HeaderMap::new(), &["other", "spiffe://a/bi"][..], Some("bi")),
        (HeaderMap::new(), &["qa.internal"], Some("qa")),
        (HeaderMap::new(), &["QA.internal", "spiffe://a/bi/x"], None),
        (HeaderMap::new(), &["spiffe://a/bi", "qa.internal"], None),
        (HeaderMap::new(), &[], None),
        (key, &["qa.internal"], None),
    ] {
        let (found, admitted) = callers.admit(&headers, Some(&certificate(names)), at("2026-06-01"));
        assert_eq!(found.map(|found| found.caller.name.to_string()).as_deref(), expected, "{names:?}");
        assert_eq!(admitted.is_ok(), expected.is_some(), "{names:?}");
    }
    assert!(callers.admit(&HeaderMap::new(), None, at("2026-06-01")).1.is_err());
}

#[tokio::test(start_paused = true)]
async fn certificate_admits_nobody_from_its_end_on() {
    let by_name = config::CallerConfig { certificate_san: Some("n".into()), ..anyone() };
    let key = HeaderMap::from_iter([(http::HeaderName::from_static("x-api-key"), "k".parse().unwrap())]);
    for (callers, headers) in
        [(vec![by_name], HeaderMap::new()), (vec![keyed("bi", &["k"], None)], key), (Vec::new(), HeaderMap::new())]
    {
        let callers = Callers::new(&callers, &[]).load();
        let admit = |time| callers.admit(&headers, Some(&certificate(&["n"])), at(time)).1;
        assert!(admit("2028-12-31T23:59:59").is_ok(), "{headers:?}");
        for time in ["2029-01-01", "2029-01-01T00:00:01"] {
            assert!(matches!(admit(time), Err(EdgeError::ExpiredCertificate)), "{headers:?} {time}");
        }
    }
}

/// The only caller, by its certificate.
fn only(
    limits: config::CallerLimits,
    not_after: Option<&str>,
) -> impl Fn(&str) -> Result<AuthenticatedCaller, EdgeError> {
    let not_after = not_after.and_then(Bound::parse);
    let config = config::CallerConfig { certificate_san: Some("n".into()), limits, not_after, ..anyone() };
    let callers = Callers::new(&[config], &[]).load();
    move |time| {
        let (found, admitted) = callers.admit(&HeaderMap::new(), Some(&certificate(&["n"])), at(time));
        admitted.map(|()| found.unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn caller_is_refused_from_its_end_on() {
    let admit = only(config::CallerLimits::default(), Some("2027-01-01"));
    assert!(admit("2026-12-31T23:59:59").is_ok());
    for time in ["2027-01-01", "2027-01-01T00:00:01"] {
        assert!(matches!(admit(time), Err(EdgeError::ExpiredCaller)), "{time}");
    }
}

#[tokio::test(start_paused = true)]
async fn slot_is_released_when_the_answer_has_ended() {
    let limits = config::CallerLimits { max_concurrent_requests: NonZeroU32::new(2), ..Default::default() };
    let admit = only(limits, None);
    let (first, _second) = (admit("2026-06-01").unwrap(), admit("2026-06-01").unwrap());
    assert!(matches!(admit("2026-06-01"), Err(EdgeError::TooManyConcurrentRequests)));
    drop(first);
    assert!(admit("2026-06-01").is_ok());
}

#[tokio::test(start_paused = true)]
async fn shadow_limits_refuse_nothing() {
    let one = NonZeroU32::new(1).unwrap();
    let limits = |mode| config::CallerLimits {
        requests_per_minute: one,
        max_concurrent_requests: Some(one),
        mode,
        ..Default::default()
    };
    let (shadow, enforced) = (only(limits(LimitMode::Shadow), None), only(limits(LimitMode::Enforce), None));
    let held: Vec<_> = (0..5).map(|_| shadow("2026-06-01").unwrap()).collect();
    assert_eq!(held.len(), 5);
    let _held = enforced("2026-06-01").unwrap();
    assert!(matches!(enforced("2026-06-01"), Err(EdgeError::TooManyRequests { .. })));
}

/// A caller with these keys, and perhaps a limit of concurrent requests.
fn keyed(name: &str, keys: &[&str], most: Option<u32>) -> config::CallerConfig {
    let max_concurrent_requests = most.and_then(NonZeroU32::new);
    config::CallerConfig {
        name: name.into(),
        api_key_sha256: keys.iter().map(|key| digest(&SHA256, key.as_bytes()).as_ref().try_into().unwrap()).collect(),
        limits: config::CallerLimits {
            requests_per_minute: NonZeroU32::new(2).unwrap(),
            max_concurrent_requests,
            ..config::CallerLimits::default()
        },
        ..anyone()
    }
}

#[tokio::test(start_paused = true)]
async fn removed_key_is_refused_at_once_and_revoked_later() {
    let callers = Callers::new(&[keyed("bi", &["kept", "old"], None), keyed("qa", &["gone"], None)], &[]);
    let revoked = |key| authenticate(&callers, "x-api-key", key).0.unwrap().revoked;
    let [kept, old, gone] = ["kept", "old", "gone"].map(revoked);
    callers.configure(&[keyed("bi", &["kept", "new"], None), keyed("other", &["gone"], None)], &[]);
    assert!(matches!(admit(&callers, "x-api-key", "old"), Err(EdgeError::UnknownCaller)));
    assert_eq!(admit(&callers, "x-api-key", "gone").unwrap(), "other", "the key of another caller now");
    assert!(![&kept, &old, &gone].map(CancellationToken::is_cancelled).contains(&true), "answers under way go on");
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!([kept, old, gone].map(|token| token.is_cancelled()), [false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_caller_go_on_after_a_reload() {
    let callers = Callers::new(&[keyed("bi", &["k"], Some(2))], &[]);
    let left = || {
        let (authenticated, admitted) = authenticate(&callers, "x-api-key", "k");
        admitted.map(|()| authenticated.unwrap())
    };
    let first = left().unwrap();
    assert_eq!(first.limit_status.left, 1);
    callers.configure(&[keyed("bi", &["k"], Some(1))], &[]);
    assert!(matches!(left(), Err(EdgeError::TooManyConcurrentRequests)), "the request from before counts");
    drop(first);
    assert!(matches!(left(), Err(EdgeError::TooManyRequests { .. })), "both requests from before count");
    callers.configure(
        &[config::CallerConfig { limits: config::CallerLimits::default(), ..keyed("bi", &["k"], None) }],
        &[],
    );
    assert_eq!(left().unwrap().limit_status.left, 599);
}

#[tokio::test(start_paused = true)]
async fn caller_of_another_reload_has_another_generation() {
    let callers = Callers::new(&[keyed("bi", &["k"], None)], &[]);
    let caller = || authenticate(&callers, "x-api-key", "k").0.unwrap().caller;
    let before = caller();
    callers.configure(
        &[config::CallerConfig { streams: NamePatterns::Only(Vec::new()), ..keyed("bi", &["k"], None) }],
        &[],
    );
    let after = caller();
    assert_ne!(before.generation, after.generation);
    assert!(before.streams.allow("s") && !after.streams.allow("s"));
}

#[tokio::test(start_paused = true)]
async fn first_callers_close_the_gateway_to_anyone_else() {
    let callers = Callers::new(&[], &[]);
    let request = || http::Request::builder().header("host", "other.example").body(()).unwrap();
    assert!(callers.load().hosts().check(&request()).is_err());
    callers.configure(&[keyed("bi", &["k"], None)], &[]);
    assert!(callers.load().hosts().check(&request()).is_ok());
    assert!(matches!(admit(&callers, "accept", "any"), Err(EdgeError::UnknownCaller)));
}
