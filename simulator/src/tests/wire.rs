//! Tests of the HTTP interface: paging, errors, limits and faults.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use tokio::time::Instant;

use super::{DAY, NOW, PageBody, STREAM, TestSimulator, at, small_profile};
use crate::{
    ApiVariant, CallCounts, CallOutcome, Credential, EnvelopeOrder, Fault, FaultPlan, ItemFilter, Profile, RateLimits,
    RollingLimit, SelectOn, SortOrder, StreamProfile,
};

fn bodies(items: &[(String, String)]) -> Vec<String> {
    items.iter().map(|(_, item)| item.clone()).collect()
}

fn sorted(mut items: Vec<String>) -> Vec<String> {
    items.sort_unstable();
    items
}

#[tokio::test]
async fn all_pages_contain_expected_items_unless_shuffled() {
    for select_on in [SelectOn::Start, SelectOn::End] {
        let test =
            TestSimulator::start(Profile { api: ApiVariant { select_on, ..ApiVariant::default() }, ..small_profile() })
                .await;
        let expected = bodies(&test.expected_day("2026-02-24", false, &ItemFilter::default()));
        for order in [SortOrder::Ascending, SortOrder::Descending, SortOrder::Unstable, SortOrder::Shuffled] {
            test.control.set_order(order);
            let items = test.all_pages(DAY).await;
            assert_eq!(items.len(), expected.len());
            match order {
                SortOrder::Ascending | SortOrder::Descending => assert!(sorted(items) == sorted(expected.clone())),
                SortOrder::Unstable => {}
                SortOrder::Shuffled => assert!(
                    sorted(items) != sorted(expected.clone()),
                    "shuffled pages repeat some items and skip others"
                ),
            }
        }
        let calls = test.control.counts();
        assert_eq!(calls.ok, 4 * expected.len().div_ceil(100) as u64);
        assert_eq!(calls.pages, calls.ok);
    }
}

#[tokio::test]
async fn paging_at_edges_bounds_and_envelopes_is_exact() {
    let test = TestSimulator::start(small_profile()).await;
    let all = test.expected_day("2026-02-24", false, &ItemFilter::default()).len();
    let page = test.page(&format!("{DAY}&limit=0"), "").await;
    assert!(page.data.is_empty() && page.has_more);
    let page = test.page(&format!("{DAY}&offset={all}"), "").await;
    assert!(page.data.is_empty() && !page.has_more);
    for envelope in [EnvelopeOrder::Documented, EnvelopeOrder::HasMoreLast, EnvelopeOrder::DataFirst] {
        test.control.change(|profile| profile.api.envelope = envelope);
        assert!(test.page(&format!("{DAY}&limit=1"), "").await.has_more);
    }
    // An item exactly at the `to` of the query.
    let id = test.control.insert(STREAM, at("2026-02-24T03:00:07Z")).expect("the stream");
    for exclusive_to in [false, true] {
        test.control.change(|profile| profile.api.exclusive_to = exclusive_to);
        let page = test.page("from=2026-02-24&to=2026-02-24-03:00:07", "").await;
        assert_eq!(page.data.iter().any(|item| item.get().contains(&id)), !exclusive_to);
        let expected = test.control.expected(
            STREAM,
            at("2026-02-24T00:00:00Z"),
            at("2026-02-24T03:00:07Z"),
            false,
            &ItemFilter::default(),
        );
        assert_eq!(page.data.len(), expected.len());
    }
    assert!(test.all_pages("from=2026-02-26&to=2026-02-27").await.is_empty(), "the future is empty");
}

#[tokio::test]
async fn filter_selects_by_all_members_and_any_value() {
    let test = TestSimulator::start(small_profile()).await;
    let filter = ItemFilter { channels: vec!["chat".into(), "sms".into()], ..ItemFilter::default() };
    let expected = test.expected_day("2026-02-24", false, &filter);
    let page = test.page(DAY, r#"{"channels":["chat","sms"],"agentIds":[]}"#).await;
    assert_eq!(page.data.len(), expected.len().min(100));
    assert!(
        page.data.iter().all(|item| ["chat", "sms"].iter().any(|name| item.get().contains(&format!("\"{name}\""))))
    );
    let conversation: serde_json::Value = serde_json::from_str(&expected[0].1).expect("an item");
    let id = conversation["conversationID"].as_str().expect("an id");
    let page = test.page(DAY, &format!(r#"{{"conversationIds":["{id}"],"channels":["email"]}}"#)).await;
    assert!(page.data.is_empty());
    assert!(!test.page(DAY, &format!(r#"{{"conversationIds":["{id}"]}}"#)).await.data.is_empty());
    for body in ["not json", "[1]", r#"{"channels":"chat"}"#] {
        let (parts, _) = test.send(test.request(DAY), body).await.expect("a response");
        assert_eq!(parts.status, StatusCode::PRECONDITION_FAILED, "{body}");
    }
    assert!(test.control.calls().iter().all(|call| call.has_body));
}

#[tokio::test]
async fn invalid_requests_get_kores_errors() {
    let test = TestSimulator::start(small_profile()).await;
    let refused = async |request: http::request::Builder| {
        let (parts, body) = test.send(request, "").await.expect("a response");
        (parts.status.as_u16(), String::from_utf8_lossy(&body).into_owned())
    };
    let path =
        format!("{}/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions?{DAY}", test.simulator.base_url());
    let bare = || Request::get(&path).header("accountId", "664b33a620bd0892e0000001");
    let invalid = (401, r#"{"errors":[{"code":4002,"msg":"Invalid SDK credentials"}]}"#.to_owned());
    assert_eq!(refused(bare()).await, invalid);
    assert_eq!(refused(bare().header("auth", format!("{}x", test.token))).await, invalid);
    assert_eq!(refused(Request::get(&path).header("accountId", "another").header("auth", &test.token)).await, invalid);
    assert_eq!(refused(test.request(DAY).uri(path.replace(STREAM, "st-other"))).await, invalid);
    let (status, body) = refused(bare().header("auth", "secret")).await;
    assert!(status == 401 && body.contains("Invalid JWT token"));
    let (status, body) = refused(test.request(DAY).method(Method::PUT)).await;
    assert!(status == 405 && body.contains("Method Not Allowed"));
    let (status, body) = refused(test.request("from=yesterday&to=today")).await;
    assert!(status == 412 && body.contains("Validation errors/ Invalid arguments"));
    assert_eq!(refused(test.request(DAY).uri(path.replace("v2", "v3"))).await.0, 404);
    assert_eq!(refused(bare().header("auth", format!("Bearer {}", test.token))).await.0, 200);

    let counts = test.control.counts();
    assert_eq!((counts.total, counts.unauthorized, counts.invalid), (9, 5, 1));
    assert_eq!((counts.wrong_method, counts.not_found, counts.ok), (1, 1, 1));

    test.control.change(|profile| profile.token.enforce_jti = true);
    assert_eq!(refused(test.request(DAY)).await.0, 200);
    let (status, body) = refused(test.request(DAY)).await;
    assert!(status == 401 && body.contains("possibly a replay"));
    let token = Credential::default().token(at(NOW) - Duration::from_hours(2), None).expect("a token");
    assert_eq!(refused(bare().header("auth", token)).await, invalid);
}

#[tokio::test]
async fn calls_above_a_limit_are_refused_and_counted() {
    let limits = vec![RollingLimit::new(3, Duration::from_mins(1)), RollingLimit::new(1_800, Duration::from_hours(1))];
    let rate_limits = RateLimits { retry_after: true, ..limits.into() };
    let test = TestSimulator::start(Profile { rate_limits, ..small_profile() }).await;
    for call in 0..5 {
        let (parts, body) = test.get(DAY).await.expect("a response");
        assert_eq!(parts.status == StatusCode::OK, call < 3);
        if call >= 3 {
            assert_eq!(parts.status, StatusCode::TOO_MANY_REQUESTS);
            assert!(String::from_utf8_lossy(&body).contains("You've exceeded the per-minute rate limit."));
            let seconds: u64 = parts.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
            assert!((1..=60).contains(&seconds), "{seconds}");
        }
    }
    let counts = test.control.counts();
    assert_eq!((counts.total, counts.ok, counts.limited, counts.max_concurrent), (5, 3, 2, 1));
    assert_eq!(test.control.max_in_any_window(Duration::from_mins(1)), 5);
    assert_eq!(test.control.max_passed_in_any_window(Duration::from_mins(1)), 3);
    test.control.reset_counts();
    assert_eq!(test.control.counts(), CallCounts::default());
    assert_eq!(
        test.get(DAY).await.expect("a response").0.status,
        StatusCode::TOO_MANY_REQUESTS,
        "a reset of the counts keeps the limits"
    );
}

#[tokio::test]
async fn rate_limit_headers_appear_only_if_enabled() {
    let limits = vec![RollingLimit::new(100, Duration::from_hours(1)), RollingLimit::new(2, Duration::from_mins(1))];
    let test = TestSimulator::start(Profile { rate_limits: limits.into(), ..small_profile() }).await;
    let headers = async || {
        let (parts, _) = test.get(DAY).await.expect("a response");
        let number =
            |name| parts.headers.get(name).map(|value| value.to_str().expect("ASCII").parse().expect("a number"));
        ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(number)
    };
    assert_eq!(headers().await, [None, None, None]);
    test.control.change(|profile| profile.rate_limits.headers = true);
    for call in ["answered", "refused"] {
        let [limit, remaining, reset] = headers().await;
        assert_eq!((limit, remaining), (Some(2), Some(0)), "{call}");
        assert!(reset.is_some_and(|reset: u64| (50..=60).contains(&reset)), "{reset:?}");
    }
    test.control.set_faults(FaultPlan::always(Fault::Status500));
    test.control.set_limits(vec![RollingLimit::new(9, Duration::from_mins(1))]);
    assert_eq!(headers().await[1], Some(6), "on faults too; the refused call did not count");
}

/// Time is paused: tokio advances it when all tasks wait, so a slow fault takes no real time.
#[tokio::test(start_paused = true)]
async fn fault_of_each_kind_is_as_documented() {
    const DELAY: Duration = Duration::from_secs(5);
    let test = TestSimulator::start(small_profile()).await;
    let expected = test.get(DAY).await.expect("the correct response").1;
    let fault = async |fault| {
        test.control.set_faults(FaultPlan::times(fault, 1).delay(DELAY));
        test.get(DAY).await
    };
    let fine = async |which| {
        let (parts, body) = fault(which).await.expect("a response");
        (parts.status.as_u16(), parts.headers.get("retry-after").cloned(), body)
    };
    assert_eq!(fine(Fault::Status500).await.0, 500);
    assert!(matches!(fine(Fault::Html502).await, (502, None, body) if body.starts_with(b"<html>")));
    assert!(matches!(fine(Fault::TooMany).await, (429, Some(seconds), _) if seconds == "1"));
    assert!(matches!(fine(Fault::TooManySilent).await, (429, None, _)));
    assert_eq!(fine(Fault::Unauthorized).await.0, 401);
    let valid = |body: &Bytes| serde_json::from_slice::<PageBody>(body).is_ok();
    assert!(matches!(fine(Fault::TruncatedJson).await, (200, _, body) if !valid(&body) && expected.starts_with(&body)));
    assert!(matches!(fine(Fault::Garbage).await, (200, _, body) if !valid(&body) && !body.is_empty()));
    assert!(matches!(fine(Fault::Html200).await, (200, _, body) if body.starts_with(b"<!DOCTYPE html>")));
    assert!(matches!(fine(Fault::EmptyBody).await, (200, _, body) if body.is_empty()));
    let begin = Instant::now();
    for slow in [Fault::Slow, Fault::SlowBody] {
        assert!(matches!(fine(slow).await, (200, _, body) if body == expected));
    }
    assert!(begin.elapsed() >= DELAY * 2);
    let (_, _, body) = fine(Fault::WrongCount).await;
    let page: PageBody = serde_json::from_slice(&body).expect("valid JSON");
    assert_eq!(page.num_results, page.data.len() + 1);
    let (_, _, body) = fine(Fault::EmptyPage).await;
    let page: PageBody = serde_json::from_slice(&body).expect("valid JSON");
    assert!(page.num_results == 0 && page.data.is_empty() && page.has_more);

    assert!(fault(Fault::Truncated).await.is_err());
    // The client itself retries when a pooled connection is lost, so this fault must last.
    test.control.set_faults(FaultPlan::always(Fault::Reset));
    let error = test.get(DAY).await.expect_err("a reset");
    assert!(format!("{error:#} {error:?}").contains("reset"), "{error:?}");
    test.control.clear_faults();
    assert_eq!(test.get(DAY).await.expect("the correct response").1, expected);
    assert!(test.control.counts().faulted >= 14);

    test.control.set_faults(FaultPlan::times(Fault::Status500, 2).after(1));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(test.get(DAY).await.expect("a response").0.status.as_u16());
    }
    assert_eq!(statuses, [200, 500, 500, 200]);
}

#[tokio::test]
async fn admin_api_requests_control_and_are_not_counted() {
    let test = TestSimulator::start(small_profile()).await;
    let base = test.simulator.base_url();
    let request = r#"{"kind":"status-500","times":1}"#;
    let (parts, _) = test.send(Request::post(format!("{base}/simulator/faults")), request).await.expect("a response");
    assert_eq!(parts.status, StatusCode::OK);
    assert_eq!(test.get(DAY).await.expect("a response").0.status.as_u16(), 500);
    let (_, body) = test.send(Request::get(format!("{base}/simulator/counts")), "").await.expect("counts");
    let counts: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&counts["total"], &counts["faulted"]), (&1.into(), &1.into()));
    let (parts, _) = test.send(Request::post(format!("{base}/simulator/faults")), "{}").await.expect("a response");
    assert_eq!(parts.status, StatusCode::OK);
    let (parts, _) =
        test.send(Request::post(format!("{base}/simulator/faults")), r#"{"kind":"?"}"#).await.expect("a response");
    assert_eq!(parts.status, StatusCode::BAD_REQUEST);
    test.send(Request::post(format!("{base}/simulator/reset")), "").await.expect("a response");
    assert_eq!(test.control.counts(), CallCounts::default());
    test.simulator.shutdown().await;
    assert!(test.client.get(base.parse().expect("a URI")).await.is_err());
}

#[tokio::test]
async fn unstable_order_changes_ties_only() {
    let test = TestSimulator::start(Profile {
        api: ApiVariant { order: SortOrder::Unstable, ..ApiVariant::default() },
        ..small_profile()
    })
    .await;
    for _ in 0..6 {
        test.control.insert(STREAM, at("2026-02-24T03:00:07.500Z"));
    }
    let second = "from=2026-02-24-03:00:07&to=2026-02-24-03:00:08";
    let first = test.all_pages(second).await;
    assert!(first.len() >= 6);
    let mut moved = false;
    for _ in 0..8 {
        let again = test.all_pages(second).await;
        moved |= again != first;
        assert!(sorted(again) == sorted(first.clone()));
    }
    assert!(moved, "the order was the same eight times");
}

#[tokio::test]
async fn accounts_have_separate_streams_and_limits() {
    let other = Credential { account_id: "other".into(), client_id: "cs-other".into(), client_secret: "o".repeat(32) };
    let stream = StreamProfile { account_id: Some("other".into()), ..StreamProfile::new("st-other", 10) };
    let profile = Profile {
        more_accounts: vec![other.clone()],
        streams: vec![StreamProfile::new(STREAM, 10), stream],
        rate_limits: vec![RollingLimit::new(1, Duration::from_mins(1))].into(),
        ..small_profile()
    };
    let test = TestSimulator::start(profile).await;
    let token = other.token(at(NOW), None).expect("a token");
    let base = test.simulator.base_url();
    let call = async |stream: &str| {
        let path = format!("{base}/agentassist/api/v1/public/{stream}/v2/agentassistinteractions?{DAY}");
        let request = Request::get(path).header("accountId", "other").header("auth", &token);
        test.send(request, "").await.expect("a response").0.status.as_u16()
    };
    assert_eq!(test.get(DAY).await.expect("a response").0.status, StatusCode::OK);
    assert_eq!(call(STREAM).await, 401, "a stream of another account");
    assert_eq!(call("st-other").await, 200, "its limit is separate from that of the first account");
    assert_eq!(call("st-other").await, 429);
    let outcomes: Vec<_> = test.control.calls().iter().map(|call| call.outcome).collect();
    assert!(matches!(
        outcomes[..],
        [CallOutcome::Ok { .. }, CallOutcome::Refused, CallOutcome::Ok { .. }, CallOutcome::Limited]
    ));
}
