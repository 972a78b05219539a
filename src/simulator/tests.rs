//! The simulator over real sockets, held against its own truth.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;
use crate::clock::Clock;
use crate::window::{Moment, UpperBound};

const NOW: &str = "2026-02-25T12:00:00Z";
const STREAM: &str = "st-test";
const DAY: &str = "from=2026-02-24&to=2026-02-24";

fn at(spelled: &str) -> Moment {
    spelled.parse::<jiff::Timestamp>().expect("a timestamp").into()
}

fn small() -> Profile {
    Profile { streams: vec![StreamProfile::new(STREAM, 240)], days: 3, ..Profile::default() }
}

struct Rig {
    simulator: Simulator,
    control: Control,
    client: Client<HttpConnector, Full<Bytes>>,
    token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    num_results: usize,
    has_more: bool,
    data: Vec<Box<RawValue>>,
}

impl Rig {
    async fn start(profile: Profile) -> Self {
        let simulator = Simulator::start(profile, Clock::manual(at(NOW))).await.expect("a free port");
        let control = simulator.control();
        let token = control.token().expect("a token");
        Self { simulator, control, client: Client::builder(TokioExecutor::new()).build_http(), token }
    }

    fn request(&self, query: &str) -> http::request::Builder {
        let base = self.simulator.base_url();
        Request::get(format!("{base}/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions?{query}"))
            .header("accountId", "664b33a620bd0892e0000001")
            .header("auth", &self.token)
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: &str,
    ) -> anyhow::Result<(http::response::Parts, Bytes)> {
        let request = request.body(Full::from(body.to_owned()))?;
        let (parts, body) = self.client.request(request).await?.into_parts();
        Ok((parts, body.collect().await?.to_bytes()))
    }

    async fn get(&self, query: &str) -> anyhow::Result<(http::response::Parts, Bytes)> {
        self.send(self.request(query), "").await
    }

    async fn page(&self, query: &str, body: &str) -> Page {
        let (parts, body) = self.send(self.request(query), body).await.expect("an answer");
        assert_eq!(parts.status, StatusCode::OK);
        let page: Page = serde_json::from_slice(&body).expect("a page");
        assert_eq!(page.num_results, page.data.len());
        page
    }

    /// All pages of a window, put together.
    async fn window(&self, query: &str) -> Vec<String> {
        let mut items = Vec::new();
        loop {
            let page = self.page(&format!("{query}&offset={}", items.len()), "").await;
            items.extend(page.data.iter().map(|item| item.get().to_owned()));
            if !page.has_more {
                return items;
            }
        }
    }

    /// The truth of a whole UTC day.
    fn day(&self, day: &str, rich: bool, filter: &Filter) -> Vec<(String, String)> {
        let from = at(&format!("{day}T00:00:00Z"));
        let truth = self.control.expected_until(STREAM, from, from + Duration::from_hours(24), rich, filter);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        truth.into_iter().map(|(id, bytes)| (id, text(bytes))).collect()
    }
}

fn bodies(truth: &[(String, String)]) -> Vec<String> {
    truth.iter().map(|(_, item)| item.clone()).collect()
}

fn sorted(mut items: Vec<String>) -> Vec<String> {
    items.sort_unstable();
    items
}

#[derive(Deserialize)]
struct Known {
    #[serde(rename = "segmentID")]
    segment_id: String,
    #[serde(rename = "segmentStartTime")]
    start: String,
    #[serde(rename = "segmentEndTime")]
    end: Option<String>,
}

#[tokio::test]
async fn the_same_seed_gives_the_same_bytes() {
    let (one, same) = (Rig::start(small()).await, Rig::start(Profile { days: 9, ..small() }).await);
    let other = Rig::start(Profile { seed: 2, ..small() }).await;
    let day = |rig: &Rig| rig.day("2026-02-24", true, &Filter::default());
    assert!(day(&one) == day(&same), "whatever the length of the timeline");
    assert!(day(&one) != day(&other));
}

#[tokio::test]
async fn items_are_valid_unique_and_as_said() {
    let profile =
        Profile { streams: vec![StreamProfile { exact: true, ..StreamProfile::new(STREAM, 1_700) }], ..small() };
    let rig = Rig::start(profile).await;
    let truth = rig.day("2026-02-24", false, &Filter::default());
    assert_eq!(truth.len(), 1_700);
    let mut ids = HashSet::new();
    let mut last = (String::new(), String::new());
    for (id, item) in &truth {
        let known: Known = serde_json::from_str(item).expect("valid JSON");
        assert_eq!(&known.segment_id, id);
        assert!(id.starts_with("ac-") && id.len() == 39, "{id}");
        assert!(ids.insert(id.clone()), "{id} twice");
        let place = (known.start.clone(), id.clone());
        assert!(last < place, "{last:?} before {place:?}");
        assert!(known.start.starts_with("2026-02-24T") && known.start.len() == 24, "{}", known.start);
        assert!(known.end.is_none_or(|end| end > known.start));
        assert!((1_900..31_000).contains(&item.len()), "{} bytes", item.len());
        last = place;
    }
    let usual = truth.iter().filter(|(_, item)| (4_000..8_500).contains(&item.len())).count();
    assert!(usual * 100 > truth.len() * 65, "{usual} of {} are of the usual size", truth.len());
    let has = |part: &str| truth.iter().any(|(_, item)| item.contains(part));
    for part in
        ["\"segmentEndTime\":null", ":1.0,", ":1e2,", ":12345678901234567890", ":-0", "\\u00e9", "😀", "T10:00:00.000Z"]
    {
        assert!(has(part), "no item has {part}");
    }
}

#[tokio::test]
async fn agentic_data_changes_nothing_else() {
    let rig = Rig::start(small()).await;
    let (plain, rich) =
        (rig.day("2026-02-24", false, &Filter::default()), rig.day("2026-02-24", true, &Filter::default()));
    for ((_, plain), (_, rich)) in plain.iter().zip(&rich) {
        serde_json::from_str::<&RawValue>(rich).expect("valid JSON");
        let begin = rich.find(",\"agenticActivities\"").expect("the member");
        let length = rich.len() - plain.len();
        assert_eq!(&[&rich[..begin], &rich[begin + length..]].concat(), plain);
    }
    assert!(rich.iter().any(|(_, item)| item.ends_with("]}")), "sometimes last");
    assert!(rig.page(&format!("{DAY}&includeAgenticData=true"), "").await.data[0].get().contains("agenticActivities"));
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
async fn data_moves_with_the_clock() {
    let clock = Clock::manual(at(NOW));
    let changing = Profile { changing: 0.5, late: 0.3, ..small() };
    let simulator = Simulator::start(changing, clock.clone()).await.expect("a free port");
    let control = simulator.control();
    let window = || {
        control.expected_until(
            STREAM,
            at("2026-02-25T00:00:00Z"),
            at("2026-02-25T12:00:00Z"),
            false,
            &Filter::default(),
        )
    };
    let early = window();
    assert!(early.iter().all(|(_, item)| item.starts_with(b"{")));
    clock.set(at("2026-02-25T18:00:00Z"));
    let settled = window();
    assert!(early.len() < settled.len(), "late items have come");
    assert!(early.iter().any(|item| !settled.contains(item)), "changing items have changed");
    clock.set(at("2026-02-28T00:00:00Z"));
    assert!(window() == settled, "and then nothing changes");

    let id = settled[0].0.clone();
    assert!(control.touch(STREAM, &id) && !control.touch(STREAM, "ac-none"));
    assert!(window()[0] != settled[0]);
    assert!(control.remove(STREAM, &id));
    assert!(window() == settled[1..]);
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

/// A guard against rendering that becomes slow by an order of magnitude; the aim is a tenth of this bound.
#[tokio::test]
async fn rendering_is_quick() {
    let rig = Rig::start(Profile { streams: vec![StreamProfile::new(STREAM, 1_700)], ..small() }).await;
    let begin = Instant::now();
    let items = rig.day("2026-02-24", true, &Filter::default()).len();
    let each = begin.elapsed() / u32::try_from(items).expect("few");
    eprintln!("{each:?} for each of {items} items");
    assert!(each < Duration::from_millis(1), "{each:?} for each item");
}
