//! The wire: paging, refusals, limits and faults, over real sockets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};

use super::{DAY, NOW, Page, Rig, STREAM, at, small};
use crate::clock::Clock;
use crate::simulator::{
    Counts, Credential, Envelope, Fault, FaultPlan, Filter, Limit, Order, Outcome, Profile, SelectOn, StreamProfile,
};
use crate::window::UpperBound;

fn bodies(truth: &[(String, String)]) -> Vec<String> {
    truth.iter().map(|(_, item)| item.clone()).collect()
}

fn sorted(mut items: Vec<String>) -> Vec<String> {
    items.sort_unstable();
    items
}

#[tokio::test]
async fn pages_put_together_are_the_truth() {
    for select_on in [SelectOn::Start, SelectOn::End] {
        let rig = Rig::start(Profile { select_on, ..small() }).await;
        let truth = bodies(&rig.day("2026-02-24", false, &Filter::default()));
        for order in [Order::Ascending, Order::Descending, Order::Unstable, Order::Shuffled] {
            rig.control.set_order(order);
            let items = rig.window(DAY).await;
            assert_eq!(items.len(), truth.len());
            match order {
                Order::Ascending | Order::Descending => assert!(sorted(items) == sorted(truth.clone())),
                Order::Unstable => {}
                Order::Shuffled => assert!(sorted(items) != sorted(truth.clone()), "pages of a shuffled window tear"),
            }
        }
        let calls = rig.control.counts();
        assert_eq!(calls.ok, 4 * truth.len().div_ceil(100) as u64);
        assert_eq!(calls.pages, calls.ok);
    }
}

#[tokio::test]
async fn envelopes_bounds_and_edges_of_paging() {
    let rig = Rig::start(small()).await;
    let all = rig.day("2026-02-24", false, &Filter::default()).len();
    let page = rig.page(&format!("{DAY}&limit=0"), "").await;
    assert!(page.data.is_empty() && page.has_more);
    let page = rig.page(&format!("{DAY}&offset={all}"), "").await;
    assert!(page.data.is_empty() && !page.has_more);
    for envelope in [Envelope::Documented, Envelope::HasMoreLast, Envelope::DataFirst] {
        rig.control.change(|profile| profile.envelope = envelope);
        assert!(rig.page(&format!("{DAY}&limit=1"), "").await.has_more);
    }
    // An item on the second that is asked for as `to`.
    let id = rig.control.insert(STREAM, at("2026-02-24T03:00:07Z")).expect("the stream");
    for (upper_bound, counted) in [(UpperBound::Inclusive, true), (UpperBound::Exclusive, false)] {
        rig.control.change(|profile| profile.upper_bound = upper_bound);
        let page = rig.page("from=2026-02-24&to=2026-02-24-03:00:07", "").await;
        assert_eq!(page.data.iter().any(|item| item.get().contains(&id)), counted);
        let truth = rig.control.expected(
            STREAM,
            at("2026-02-24T00:00:00Z"),
            at("2026-02-24T03:00:07Z"),
            false,
            &Filter::default(),
        );
        assert_eq!(page.data.len(), truth.len());
    }
    assert!(rig.window("from=2026-02-26&to=2026-02-27").await.is_empty(), "the future is empty");
}

#[tokio::test]
async fn filters_select_by_and_and_or() {
    let rig = Rig::start(small()).await;
    let filter = Filter { channels: vec!["chat".into(), "sms".into()], ..Filter::default() };
    let truth = rig.day("2026-02-24", false, &filter);
    let page = rig.page(DAY, r#"{"channels":["chat","sms"],"agentIds":[]}"#).await;
    assert_eq!(page.data.len(), truth.len().min(100));
    assert!(
        page.data.iter().all(|item| ["chat", "sms"].iter().any(|name| item.get().contains(&format!("\"{name}\""))))
    );
    let conversation: serde_json::Value = serde_json::from_str(&truth[0].1).expect("an item");
    let id = conversation["conversationID"].as_str().expect("an id");
    let page = rig.page(DAY, &format!(r#"{{"conversationIds":["{id}"],"channels":["email"]}}"#)).await;
    assert!(page.data.is_empty());
    assert!(!rig.page(DAY, &format!(r#"{{"conversationIds":["{id}"]}}"#)).await.data.is_empty());
    for body in ["not json", "[1]", r#"{"channels":"chat"}"#] {
        let (parts, _) = rig.send(rig.request(DAY), body).await.expect("an answer");
        assert_eq!(parts.status, StatusCode::PRECONDITION_FAILED, "{body}");
    }
    assert!(rig.control.calls().iter().all(|call| call.body));
}

#[tokio::test]
async fn refusals_are_kores() {
    let rig = Rig::start(small()).await;
    let refused = async |request: http::request::Builder| {
        let (parts, body) = rig.send(request, "").await.expect("an answer");
        (parts.status.as_u16(), String::from_utf8_lossy(&body).into_owned())
    };
    let path =
        format!("{}/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions?{DAY}", rig.simulator.base_url());
    let bare = || Request::get(&path).header("accountId", "664b33a620bd0892e0000001");
    let invalid = (401, r#"{"errors":[{"code":4002,"msg":"Invalid SDK credentials"}]}"#.to_owned());
    assert_eq!(refused(bare()).await, invalid);
    assert_eq!(refused(bare().header("auth", format!("{}x", rig.token))).await, invalid);
    assert_eq!(refused(Request::get(&path).header("accountId", "another").header("auth", &rig.token)).await, invalid);
    assert_eq!(refused(rig.request(DAY).uri(path.replace(STREAM, "st-other"))).await, invalid);
    let (status, body) = refused(bare().header("auth", "secret")).await;
    assert!(status == 401 && body.contains("Invalid JWT token"));
    let (status, body) = refused(rig.request(DAY).method(Method::PUT)).await;
    assert!(status == 405 && body.contains("Method Not Allowed"));
    let (status, body) = refused(rig.request("from=yesterday&to=today")).await;
    assert!(status == 412 && body.contains("Validation errors/ Invalid arguments"));
    assert_eq!(refused(rig.request(DAY).uri(path.replace("v2", "v3"))).await.0, 404);
    assert_eq!(refused(bare().header("auth", format!("Bearer {}", rig.token))).await.0, 200);

    let counts = rig.control.counts();
    assert_eq!((counts.total, counts.unauthorized, counts.invalid), (9, 5, 1));
    assert_eq!((counts.wrong_method, counts.not_found, counts.ok), (1, 1, 1));

    rig.control.change(|profile| profile.enforce_jti = true);
    assert_eq!(refused(rig.request(DAY)).await.0, 200);
    let (status, body) = refused(rig.request(DAY)).await;
    assert!(status == 401 && body.contains("possibly a replay"));
    let expired = Clock::manual(at(NOW) - Duration::from_hours(2)).now();
    let token = Credential::default().token(expired, None).expect("a token");
    assert_eq!(refused(bare().header("auth", token)).await, invalid);
}

#[tokio::test]
async fn limits_are_held_and_counted() {
    let limits = vec![Limit::new(3, Duration::from_mins(1)), Limit::new(1_800, Duration::from_hours(1))];
    let rig = Rig::start(Profile { limits, retry_after: true, ..small() }).await;
    for call in 0..5 {
        let (parts, body) = rig.get(DAY).await.expect("an answer");
        assert_eq!(parts.status == StatusCode::OK, call < 3);
        if call >= 3 {
            assert_eq!(parts.status, StatusCode::TOO_MANY_REQUESTS);
            assert!(String::from_utf8_lossy(&body).contains("You've exceeded the per-minute rate limit."));
            let seconds: u64 = parts.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
            assert!((1..=60).contains(&seconds), "{seconds}");
        }
    }
    let counts = rig.control.counts();
    assert_eq!((counts.total, counts.ok, counts.limited, counts.max_concurrent), (5, 3, 2, 1));
    assert_eq!(rig.control.max_in_any_window(Duration::from_mins(1)), 5);
    assert_eq!(rig.control.max_passed_in_any_window(Duration::from_mins(1)), 3);
    rig.control.reset_counts();
    assert_eq!(rig.control.counts(), Counts::default());
    assert_eq!(rig.get(DAY).await.expect("an answer").0.status, StatusCode::TOO_MANY_REQUESTS, "a reset is no amnesty");
}

#[tokio::test]
async fn only_where_it_is_switched_on_every_answer_tells_what_is_left() {
    let limits = vec![Limit::new(100, Duration::from_hours(1)), Limit::new(2, Duration::from_mins(1))];
    let rig = Rig::start(Profile { limits, ..small() }).await;
    let told = async || {
        let (parts, _) = rig.get(DAY).await.expect("an answer");
        let told =
            |name| parts.headers.get(name).map(|value| value.to_str().expect("ASCII").parse().expect("a number"));
        ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(told)
    };
    assert_eq!(told().await, [None, None, None]);
    rig.control.change(|profile| profile.rate_limit_headers = true);
    for call in ["answered", "refused"] {
        let [limit, remaining, reset] = told().await;
        assert_eq!((limit, remaining), (Some(2), Some(0)), "{call}");
        assert!(reset.is_some_and(|reset: u64| (50..=60).contains(&reset)), "{reset:?}");
    }
    rig.control.set_faults(FaultPlan::always(Fault::Status500));
    rig.control.set_limits(vec![Limit::new(9, Duration::from_mins(1))]);
    assert_eq!(told().await[1], Some(6), "a fault is no exception, and the refused call did not count");
}

#[tokio::test]
async fn faults_are_what_they_claim() {
    let rig = Rig::start(small()).await;
    let truth = rig.get(DAY).await.expect("the truth").1;
    let fault = async |fault| {
        rig.control.set_faults(FaultPlan::times(fault, 1).delay(Duration::from_millis(5)));
        rig.get(DAY).await
    };
    let fine = async |which| {
        let (parts, body) = fault(which).await.expect("an answer");
        (parts.status.as_u16(), parts.headers.get("retry-after").cloned(), body)
    };
    assert_eq!(fine(Fault::Status500).await.0, 500);
    assert!(matches!(fine(Fault::Html502).await, (502, None, body) if body.starts_with(b"<html>")));
    assert!(matches!(fine(Fault::TooMany).await, (429, Some(seconds), _) if seconds == "1"));
    assert!(matches!(fine(Fault::TooManySilent).await, (429, None, _)));
    assert_eq!(fine(Fault::Unauthorized).await.0, 401);
    let valid = |body: &Bytes| serde_json::from_slice::<Page>(body).is_ok();
    assert!(matches!(fine(Fault::TruncatedJson).await, (200, _, body) if !valid(&body) && truth.starts_with(&body)));
    assert!(matches!(fine(Fault::Garbage).await, (200, _, body) if !valid(&body) && !body.is_empty()));
    assert!(matches!(fine(Fault::Html200).await, (200, _, body) if body.starts_with(b"<!DOCTYPE html>")));
    assert!(matches!(fine(Fault::EmptyBody).await, (200, _, body) if body.is_empty()));
    let begin = Instant::now();
    for slow in [Fault::Slow, Fault::SlowBody] {
        assert!(matches!(fine(slow).await, (200, _, body) if body == truth));
    }
    assert!(begin.elapsed() >= Duration::from_millis(10));
    let (_, _, body) = fine(Fault::WrongCount).await;
    let page: Page = serde_json::from_slice(&body).expect("valid JSON");
    assert_eq!(page.num_results, page.data.len() + 1);
    let (_, _, body) = fine(Fault::EmptyPage).await;
    let page: Page = serde_json::from_slice(&body).expect("valid JSON");
    assert!(page.num_results == 0 && page.data.is_empty() && page.has_more);

    assert!(fault(Fault::Truncated).await.is_err());
    // The client tries a pooled connection's loss once more by itself, so this one lasts.
    rig.control.set_faults(FaultPlan::always(Fault::Reset));
    let error = rig.get(DAY).await.expect_err("a reset");
    assert!(format!("{error:#} {error:?}").contains("reset"), "{error:?}");
    rig.control.clear_faults();
    assert_eq!(rig.get(DAY).await.expect("the truth").1, truth);
    assert!(rig.control.counts().faulted >= 14);

    rig.control.set_faults(FaultPlan::times(Fault::Status500, 2).after(1));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(rig.get(DAY).await.expect("an answer").0.status.as_u16());
    }
    assert_eq!(statuses, [200, 500, 500, 200]);
}

#[tokio::test]
async fn the_switchboard_is_no_call() {
    let rig = Rig::start(small()).await;
    let base = rig.simulator.base_url();
    let order = r#"{"kind":"status-500","times":1}"#;
    let (parts, _) = rig.send(Request::post(format!("{base}/simulator/faults")), order).await.expect("an answer");
    assert_eq!(parts.status, StatusCode::OK);
    assert_eq!(rig.get(DAY).await.expect("an answer").0.status.as_u16(), 500);
    let (_, body) = rig.send(Request::get(format!("{base}/simulator/counts")), "").await.expect("counts");
    let counts: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&counts["total"], &counts["faulted"]), (&1.into(), &1.into()));
    let (parts, _) = rig.send(Request::post(format!("{base}/simulator/faults")), "{}").await.expect("an answer");
    assert_eq!(parts.status, StatusCode::OK);
    let (parts, _) =
        rig.send(Request::post(format!("{base}/simulator/faults")), r#"{"kind":"?"}"#).await.expect("an answer");
    assert_eq!(parts.status, StatusCode::BAD_REQUEST);
    rig.send(Request::post(format!("{base}/simulator/reset")), "").await.expect("an answer");
    assert_eq!(rig.control.counts(), Counts::default());
    rig.simulator.shutdown().await;
    assert!(rig.client.get(base.parse().expect("a URI")).await.is_err());
}

#[tokio::test]
async fn ties_of_an_unstable_order_move() {
    let rig = Rig::start(Profile { order: Order::Unstable, ..small() }).await;
    for _ in 0..6 {
        rig.control.insert(STREAM, at("2026-02-24T03:00:07.500Z"));
    }
    let second = "from=2026-02-24-03:00:07&to=2026-02-24-03:00:08";
    let first = rig.window(second).await;
    assert!(first.len() >= 6);
    let mut moved = false;
    for _ in 0..8 {
        let again = rig.window(second).await;
        moved |= again != first;
        assert!(sorted(again) == sorted(first.clone()));
    }
    assert!(moved, "eight times the same order");
}

#[tokio::test]
async fn accounts_have_streams_and_limits_of_their_own() {
    let other = Credential { account_id: "other".into(), client_id: "cs-other".into(), client_secret: "o".repeat(32) };
    let stream = StreamProfile { account_id: Some("other".into()), ..StreamProfile::new("st-other", 10) };
    let profile = Profile {
        more_accounts: vec![other.clone()],
        streams: vec![StreamProfile::new(STREAM, 10), stream],
        limits: vec![Limit::new(1, Duration::from_mins(1))],
        ..small()
    };
    let rig = Rig::start(profile).await;
    let token = other.token(at(NOW), None).expect("a token");
    let base = rig.simulator.base_url();
    let call = async |stream: &str| {
        let path = format!("{base}/agentassist/api/v1/public/{stream}/v2/agentassistinteractions?{DAY}");
        let request = Request::get(path).header("accountId", "other").header("auth", &token);
        rig.send(request, "").await.expect("an answer").0.status.as_u16()
    };
    assert_eq!(rig.get(DAY).await.expect("an answer").0.status, StatusCode::OK);
    assert_eq!(call(STREAM).await, 401, "a stream of another account");
    assert_eq!(call("st-other").await, 200, "its limit is not that of the first account");
    assert_eq!(call("st-other").await, 429);
    let outcomes: Vec<_> = rig.control.calls().iter().map(|call| call.outcome).collect();
    assert!(matches!(outcomes[..], [Outcome::Ok { .. }, Outcome::Refused, Outcome::Ok { .. }, Outcome::Limited]));
}
