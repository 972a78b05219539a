//! The access log and the request metrics: one line for each request, written when the body of its response has ended.

use serde_json::Value;

use crate::support::{
    ACCOUNT, Control, Fault, FaultPlan, GatewayProcess, HttpClient, RecordingProxy, STREAM, Simulator, TestRequest,
    environment, exact_profile, send_raw, start_dated_simulator,
};

/// Four settled days with 2000 items: twenty pages, streamed.
const FOUR_DAYS: &str = "from=2026-02-20&to=2026-02-23";
const PAGES: u64 = 20;
/// One of these days.
const ONE_DAY: &str = "from=2026-02-20&to=2026-02-20";

/// A gateway process, with a proxy between it and the simulator.
struct LoggedGateway {
    gateway: GatewayProcess,
    control: Control,
    proxy: RecordingProxy,
    _simulator: Simulator,
}

impl LoggedGateway {
    async fn start(drain_timeout: &str) -> Self {
        let (simulator, control) = start_dated_simulator(exact_profile(500, 6)).await;
        let proxy = RecordingProxy::start(simulator.addr(), None).await;
        let mut environment = environment(&proxy.base_url());
        let limits = "{limits = [{requests = 1000000, per = '1s'}]}";
        environment.push(("KOREGATE__ACCOUNTS__0__QUOTA", limits.to_owned()));
        environment.push(("KOREGATE__SERVER__DRAIN_TIMEOUT", drain_timeout.to_owned()));
        // Without parallel runs, which would make the number of calls random.
        environment.push(("KOREGATE__UPSTREAM__MAX_CONCURRENCY", "1".to_owned()));
        let gateway = GatewayProcess::start(&environment).await;
        Self { gateway, control, proxy, _simulator: simulator }
    }

    /// The next line of the access log.
    async fn next_line(&mut self) -> Value {
        self.gateway.process.wait_for_line(request_line).await
    }

    /// The number of requests with this outcome, from the metrics.
    async fn count(&self, outcome: &str) -> u64 {
        self.gateway.metrics().await.count("koregate_requests_total", &[&format!("outcome=\"{outcome}\"")])
    }
}

fn request_line(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "request").then_some(line)
}

#[track_caller]
fn number(line: &Value, member: &str) -> u64 {
    line[member].as_u64().unwrap_or_else(|| panic!("no {member} in {line}"))
}

#[tokio::test]
async fn streamed_response_logs_totals_at_its_end() {
    let mut logged = LoggedGateway::start("30s").await;
    let mut counted = 0;
    for (encoding, outcome) in [("", "miss"), ("gzip", "hit")] {
        let request = TestRequest::get(FOUR_DAYS).header("accept-encoding", encoding);
        let response = logged.gateway.send(&request).await;
        let line = logged.next_line().await;
        assert_eq!((&line["status"], line["outcome"].as_str()), (&Value::from(200), Some(outcome)), "{line}");
        let figures = ["items", "bytes", "calls"].map(|member| number(&line, member));
        let calls = logged.control.counts().total;
        assert_eq!(figures, [2000, response.body.len() as u64, calls - counted]);
        counted = calls;
        assert!(number(&line, "first_byte_milliseconds") <= number(&line, "milliseconds"), "{line}");
        assert_eq!(logged.count(outcome).await, 1);
    }
}

#[tokio::test]
async fn broken_response_is_logged_as_aborted() {
    let mut logged = LoggedGateway::start("30s").await;
    logged.control.set_faults(FaultPlan::always(Fault::Status500).after(PAGES / 2));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = TestRequest::get(FOUR_DAYS).header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-00"));
    assert!(HttpClient::default().try_send(logged.gateway.addr, &request).await.is_err());
    let failure = logged.gateway.process.wait_for_line(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "a run failed").then_some(line)
    });
    assert_eq!(failure.await["span"]["trace_id"], trace, "the run has the ids of its request");
    let line = logged.next_line().await;
    assert_eq!((&line["outcome"], &line["status"]), (&Value::from("aborted"), &Value::from(200)), "{line}");
    assert!(line["problem"].as_str().unwrap().contains("500"), "{line}");
    assert!(number(&line, "items") < 2000 && number(&line, "bytes") > 0, "{line}");
    assert_eq!(logged.count("aborted").await, 1);
}

#[tokio::test]
async fn client_disconnect_during_response_is_logged_as_client_closed() {
    let mut logged = LoggedGateway::start("30s").await;
    logged.control.set_faults(FaultPlan::always(Fault::Slow).after(PAGES / 2));
    let client = HttpClient::default();
    let mut response = client.open(logged.gateway.addr, &TestRequest::get(FOUR_DAYS)).await.unwrap();
    response.read(1).await;
    drop((response, client));
    let line = logged.next_line().await;
    assert_eq!((&line["outcome"], &line["status"]), (&Value::from("client_closed"), &Value::from(200)), "{line}");
    assert!(number(&line, "items") < 2000 && number(&line, "bytes") > 0, "{line}");
    assert_eq!(logged.count("client_closed").await, 1);
}

#[tokio::test]
async fn client_disconnect_before_response_is_logged_as_client_closed() {
    let mut logged = LoggedGateway::start("30s").await;
    logged.proxy.hold_requests();
    let connection = send_raw(logged.gateway.addr, &TestRequest::get(ONE_DAY).to_bytes(logged.gateway.addr));
    logged.proxy.until_calls_exceed(0).await;
    drop(connection);
    let line = logged.next_line().await;
    assert_eq!((&line["outcome"], &line["status"]), (&Value::from("client_closed"), &Value::Null), "{line}");
    assert_eq!(logged.count("client_closed").await, 1);
}

#[tokio::test]
async fn responses_cut_by_drain_are_logged_as_drained() {
    let logged = LoggedGateway::start("100ms").await;
    logged.control.set_faults(FaultPlan::always(Fault::Slow).after(PAGES / 2));
    let client = HttpClient::default();
    let mut streamed = client.open(logged.gateway.addr, &TestRequest::get(FOUR_DAYS)).await.unwrap();
    streamed.read(1).await;
    let before = logged.proxy.calls();
    let other = TestRequest::get("from=2026-02-24&to=2026-02-24");
    let _without_head = send_raw(logged.gateway.addr, &other.to_bytes(logged.gateway.addr));
    logged.proxy.until_calls_exceed(before).await;
    let (code, printed) = logged.gateway.stop().await;
    assert_eq!(code, Some(0), "{printed}");
    let mut lines: Vec<Value> = printed.lines().filter_map(request_line).collect();
    lines.sort_by_key(|line| line["status"].as_u64());
    assert_eq!(lines.len(), 2, "{printed}");
    assert!(lines.iter().all(|line| line["outcome"] == "drained"), "{lines:?}");
    assert_eq!([&lines[0]["status"], &lines[1]["status"]], [&Value::Null, &Value::from(200)]);
    assert!(number(&lines[1], "bytes") > 0, "{}", lines[1]);
    assert!(streamed.try_finish().await.is_err(), "the connection is aborted");
}

/// A client without a key can send requests as fast as the gateway refuses them.
#[tokio::test]
async fn unknown_caller_refusals_are_sampled_in_log() {
    let mut environment = environment("http://127.0.0.1:1");
    environment.push(("KOREGATE__CALLERS__0__NAME", "bi".to_owned()));
    environment.push(("KOREGATE__CALLERS__0__API_KEY_SHA256", "ab".repeat(32)));
    let gateway = GatewayProcess::start(&environment).await;
    for _ in 0..500 {
        assert_eq!(gateway.get(ONE_DAY).await.status, 401);
    }
    let metrics = gateway.metrics().await;
    let all = "koregate_requests_total{account=\"-\",stream=\"-\",caller=\"-\",outcome=\"unauthorized\"} 500";
    assert!(metrics.text().contains(all), "{}", metrics.text());
    let lines = gateway.stop().await.1.lines().filter_map(request_line).count();
    assert!((10..250).contains(&lines), "{lines} lines for 500 refusals");
}

#[tokio::test]
async fn line_says_what_was_asked_on_success_and_on_errors() {
    let mut logged = LoggedGateway::start("30s").await;
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    for (query, status, outcome) in [
        (format!("{ONE_DAY}&offset=7&limit=3"), 200, "miss"),
        (format!("{ONE_DAY}&offset=7&limit=-3"), 400, "bad_request"),
    ] {
        let request = TestRequest::get(&query).header("traceparent", &format!("00-{trace}-{parent}-01"));
        assert_eq!(logged.gateway.send(&request).await.status, status);
        let line = logged.next_line().await;
        let text = |member: &str| line[member].as_str().unwrap_or_else(|| panic!("no {member} in {line}")).to_owned();
        assert_eq!([text("method"), text("outcome")], ["GET", outcome]);
        assert_eq!([text("account"), text("stream")], [ACCOUNT, STREAM]);
        assert_eq!([text("from"), text("to"), text("offset")], ["2026-02-20", "2026-02-20", "7"]);
        assert!(text("limit").ends_with('3') && text("peer").starts_with("127.0.0.1:"), "{line}");
        assert!(number(&line, "wait_milliseconds") <= number(&line, "milliseconds"), "{line}");
        assert_eq!(line["span"]["trace_id"], trace, "{line}");
        assert!(line["span"]["request_id"].is_string());
    }
}
