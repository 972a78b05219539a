//! Traces of requests, as a collector receives them.

use super::otlp_collector::{ExportedSpan, OtlpCollector};
use super::replica_set::ReplicaSet;
use crate::support::{RedisServer, SETTLED_DAY, Settings, TestHarness, TestRequest, caller_table, exact_profile};

const CALLER_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER_SPAN: &str = "00f067aa0ba902b7";

fn traced(collector: &OtlpCollector, service: &str, protocol: &str) -> Settings {
    let lines = format!("endpoint = '{}'\nprotocol = '{protocol}'\nservice_name = '{service}'", collector.endpoint());
    Settings::default().section("traces", &lines)
}

fn with_parent(request: TestRequest, trace: &str, flags: &str) -> TestRequest {
    request.header("traceparent", &format!("00-{trace}-{CALLER_SPAN}-{flags}")).header("tracestate", "vendor=1")
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// The spans of a trace.
struct Trace(Vec<ExportedSpan>);

impl Trace {
    fn of(collector: &OtlpCollector, trace: &str) -> Self {
        Self(collector.spans().into_iter().filter(|exported| hex(&exported.span.trace_id) == trace).collect())
    }

    fn named(&self, service: &str, name: &str) -> Vec<&ExportedSpan> {
        let is_named = |exported: &&ExportedSpan| exported.service == service && exported.span.name == name;
        self.0.iter().filter(is_named).collect()
    }

    #[track_caller]
    fn only(&self, service: &str, name: &str) -> &ExportedSpan {
        let found = self.named(service, name);
        assert_eq!(found.len(), 1, "{name} of {service} in {:#?}", self.outline());
        found[0]
    }

    fn children<'a>(&'a self, parent: &'a ExportedSpan, name: &'a str) -> Vec<&'a ExportedSpan> {
        self.0.iter().filter(|exported| exported.is_child_of(parent) && exported.span.name == name).collect()
    }

    /// The names with those of their parents.
    fn outline(&self) -> Vec<String> {
        let parent = |exported: &ExportedSpan| self.0.iter().find(|parent| exported.is_child_of(parent));
        let line = |exported: &ExportedSpan| {
            let parent = parent(exported).map_or("-", |parent| &parent.span.name);
            format!("{} {} < {parent}", exported.service, exported.span.name)
        };
        self.0.iter().map(line).collect()
    }
}

const REQUEST: &str = "GET /agentassist/api/v1/public/{streamId}/v2/agentassistinteractions";

#[tokio::test]
async fn cold_request_through_two_replicas_is_one_trace() {
    let collector = OtlpCollector::start_http().await;
    let redis = RedisServer::start();
    let callers = caller_table("bi", "planted-key", "");
    let settings = ["leader", "follower"]
        .map(|name| traced(&collector, name, "http/protobuf").redis(&redis.url()).tables(&callers));
    let set = ReplicaSet::start_with(redis, exact_profile(250, 4), &settings).await;
    let request = TestRequest::get(SETTLED_DAY).key("planted-key").header("auth", "planted-token");
    let response = set.follower(0).send(&with_parent(request, CALLER_TRACE, "01")).await;
    response.assert_complete(&set.harness.settled_day(), "cold");
    // A filter that names a person's conversation.
    let filter = r#"{"conversationIds":["planted-conversation"]}"#;
    let filtered = TestRequest::post("from=2026-02-22&to=2026-02-22", filter).key("planted-key");
    let other_trace = "1".repeat(32);
    assert_eq!(set.follower(0).send(&with_parent(filtered, &other_trace, "01")).await.status, 200);
    // Unsampled by its caller.
    let unsampled = TestRequest::get("from=2026-02-21&to=2026-02-21").key("planted-key");
    assert_eq!(set.follower(0).send(&with_parent(unsampled, &"2".repeat(32), "00")).await.status, 200);
    for replica in &set.replicas {
        replica.gateway.server.stack().handles.tracer.flush().await;
    }

    let trace = Trace::of(&collector, CALLER_TRACE);
    assert_tree(&trace);
    let filtered = Trace::of(&collector, &other_trace);
    let filtered = filtered.0.iter().find_map(|exported| exported.attribute("koregate.filters"));
    assert_eq!(filtered.as_deref(), Some("conversationIds"));
    assert!(Trace::of(&collector, &"2".repeat(32)).0.is_empty());
    let item = response.json()["data"][0].clone();
    let ids = ["conversationID", "segmentID"].map(|name| item[name].as_str().unwrap().to_owned());
    let secret = set.harness.control.profile().account.client_secret.clone();
    for planted in ["planted", &secret, &ids[0], &ids[1]] {
        assert!(!collector.has_received(planted), "{planted}");
    }
}

/// Checks that queue, run, pages and Redis lie under the caller's span.
fn assert_tree(trace: &Trace) {
    let request = trace.only("follower", REQUEST);
    assert_eq!(hex(&request.span.parent_span_id), CALLER_SPAN);
    assert_eq!((request.span.kind, request.span.trace_state.as_str()), (2, "vendor=1"));
    for (name, value) in [
        ("koregate.caller", "bi"),
        ("koregate.outcome", "miss"),
        ("koregate.items", "250"),
        ("koregate.calls", "3"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(request.attribute(name).as_deref(), Some(value), "{name}");
    }
    let remote = trace.only("follower", "remote fetch");
    let served = trace.only("leader", "serve remote fetch");
    let run = trace.only("leader", "run");
    assert!(remote.is_child_of(request) && served.is_child_of(remote) && run.is_child_of(served));
    let (queued, pages) = (trace.children(run, "queue"), trace.children(run, "page"));
    assert_eq!((queued.len(), pages.len()), (3, 3), "{:#?}", trace.outline());
    assert!(pages.iter().all(|page| page.span.kind == 3));
    // The follower looks into Redis before it asks; the leader hands over through Redis, and the follower takes over.
    let batch = trace.children(request, "batch");
    assert_eq!(batch.len(), 1, "{:#?}", trace.outline());
    for parent in [batch[0], served, remote] {
        assert!(!trace.children(parent, "redis").is_empty(), "{:#?}", trace.outline());
    }
    let is_known = |id: &[u8]| trace.0.iter().any(|exported| exported.span.span_id == id) || hex(id) == CALLER_SPAN;
    assert!(trace.0.iter().all(|exported| is_known(&exported.span.parent_span_id)), "{:#?}", trace.outline());
    assert!(trace.0.iter().all(|exported| exported.span.trace_state == "vendor=1"));
}

#[tokio::test]
async fn request_that_is_not_admitted_has_no_span() {
    let collector = OtlpCollector::start_http().await;
    let settings = traced(&collector, "alone", "http/protobuf")
        .section("traces", "sample_ratio = 1.0")
        .tables(&caller_table("bi", "key", ""));
    let harness = TestHarness::start(exact_profile(250, 4), &settings).await;
    let refused = with_parent(TestRequest::get(SETTLED_DAY), CALLER_TRACE, "01");
    let public = with_parent(TestRequest::path_only("/koregate/v1/problems/"), CALLER_TRACE, "01");
    let without_parent = TestRequest::get(SETTLED_DAY).key("wrong");
    for (request, status) in [(refused.clone(), 401), (public, 200), (without_parent, 401)] {
        assert_eq!(harness.send(&request).await.status, status);
    }
    let admitted = "a".repeat(32);
    harness.send(&with_parent(TestRequest::get(SETTLED_DAY), &admitted, "01").key("key")).await.page();
    harness.gateway.server.stack().handles.tracer.flush().await;
    let spans = collector.spans();
    assert!(!spans.is_empty() && spans.iter().all(|exported| hex(&exported.span.trace_id) == admitted), "{spans:#?}");
}

#[tokio::test]
async fn request_that_waits_for_another_ones_run_links_it_over_grpc() {
    let collector = OtlpCollector::start_grpc().await;
    let harness = TestHarness::start(exact_profile(250, 4), &traced(&collector, "alone", "grpc")).await;
    harness.gateway.open_connections(2).await;
    let traces = ["a".repeat(32), "b".repeat(32)];
    let requests = traces.clone().map(|trace| with_parent(TestRequest::get(SETTLED_DAY), &trace, "01"));
    for response in harness.gateway.send_all(&requests).await {
        response.assert_complete(&harness.settled_day(), "shared");
    }
    assert_eq!(harness.calls(), 3);
    harness.gateway.server.stack().handles.tracer.flush().await;
    let [first, second] = traces.map(|trace| Trace::of(&collector, &trace));
    let (owner, waiting) = if first.named("alone", "run").is_empty() { (second, first) } else { (first, second) };
    let run = owner.only("alone", "run");
    assert!(run.is_child_of(owner.only("alone", REQUEST)) && waiting.named("alone", "run").is_empty());
    assert!(owner.only("alone", REQUEST).span.links.is_empty());
    let links = &waiting.only("alone", REQUEST).span.links;
    assert_eq!(links.len(), 1, "{links:?}");
    assert_eq!((&links[0].trace_id, &links[0].span_id), (&run.span.trace_id, &run.span.span_id));
}
