//! The access log, and the metrics beside it: one line for each request, written when the body of its answer has ended, and
//! true of how it ended.

use std::net::SocketAddr;
use std::time::Instant;

use http_body_util::BodyExt as _;
use koregate_simulator::{Control, Fault, FaultPlan, Profile, Simulator};
use serde_json::Value;

use crate::process::{Running, environment};
use crate::support::{Ask, Client, at, exact_profile, send_raw, until};
use crate::tap::Tap;

/// Four settled days of 2000 items in all: twenty pages, streamed.
const LONG: &str = "from=2026-02-20&to=2026-02-23";
const PAGES: u64 = 20;
/// One of these days.
const DAY: &str = "from=2026-02-20&to=2026-02-20";

/// The binary before a simulator.
struct Gateway {
    process: Running,
    addr: SocketAddr,
    admin: SocketAddr,
    control: Control,
    tap: Tap,
    client: Client,
    _simulator: Simulator,
}

impl Gateway {
    async fn start(drain_timeout: &str) -> Self {
        let profile = Profile { end: Some(at("2026-02-26").into()), ..exact_profile(500, 6) };
        let simulator = Simulator::start(profile).await.unwrap();
        let tap = Tap::start(simulator.addr(), None).await;
        let mut environment = environment(&tap.base_url());
        let limits = "{limits = [{requests = 1000000, per = '1s'}]}";
        environment.push(("KOREGATE__ACCOUNTS__0__QUOTA", limits.to_owned()));
        environment.push(("KOREGATE__SERVER__DRAIN_TIMEOUT", drain_timeout.to_owned()));
        let mut process = Running::start(&["serve"], &environment);
        let (addr, admin) = process.listening().await;
        let (control, client) = (simulator.control(), Client::default());
        Self { process, addr, admin, control, tap, client, _simulator: simulator }
    }

    /// The next line about a request on the data plane.
    async fn logged(&mut self) -> Value {
        self.process.line(request_line).await
    }

    /// How many requests ended in this way, by the metrics.
    async fn counted(&self, outcome: &str) -> u64 {
        let metrics = self.client.send(self.admin, &Ask::get("").path("/metrics")).await.unwrap();
        let label = format!("outcome=\"{outcome}\"");
        let is_wanted = |line: &&str| line.starts_with("koregate_requests_total{") && line.contains(&label);
        let counts = metrics.text().lines().filter(is_wanted).filter_map(|line| line.rsplit(' ').next());
        counts.map(|count| count.parse::<u64>().unwrap()).sum()
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
async fn streamed_answer_is_logged_at_its_end() {
    let mut gateway = Gateway::start("30s").await;
    for (encoding, outcome, calls) in [("", "miss", PAGES), ("gzip", "hit", 0)] {
        let ask = Ask::get(LONG).header("accept-encoding", encoding);
        let answer = gateway.client.send(gateway.addr, &ask).await.unwrap();
        let line = gateway.logged().await;
        assert_eq!((&line["status"], line["outcome"].as_str()), (&Value::from(200), Some(outcome)), "{line}");
        let figures = ["items", "bytes", "calls"].map(|member| number(&line, member));
        assert_eq!(figures, [2000, answer.body.len() as u64, calls]);
        assert!(number(&line, "first_byte_milliseconds") <= number(&line, "milliseconds"), "{line}");
        assert_eq!(gateway.counted(outcome).await, 1);
    }
}

#[tokio::test]
async fn broken_answer_is_logged_as_aborted() {
    let mut gateway = Gateway::start("30s").await;
    gateway.control.set_faults(FaultPlan::always(Fault::Status500).after(PAGES / 2));
    assert!(gateway.client.send(gateway.addr, &Ask::get(LONG)).await.is_err());
    let line = gateway.logged().await;
    assert_eq!((&line["outcome"], &line["status"]), (&Value::from("aborted"), &Value::from(200)), "{line}");
    assert!(line["problem"].as_str().unwrap().contains("500"), "{line}");
    assert!(number(&line, "items") < 2000 && number(&line, "bytes") > 0, "{line}");
    assert_eq!(gateway.counted("aborted").await, 1);
}

#[tokio::test]
async fn answer_whose_client_leaves_is_logged_as_client_closed() {
    let mut gateway = Gateway::start("30s").await;
    gateway.control.set_faults(FaultPlan::always(Fault::Slow).after(PAGES / 2));
    let client = Client::default();
    let mut answer = client.open(gateway.addr, &Ask::get(LONG)).await.unwrap();
    assert!(answer.body_mut().frame().await.unwrap().is_ok());
    drop((answer, client));
    let line = gateway.logged().await;
    assert_eq!((&line["outcome"], &line["status"]), (&Value::from("client_closed"), &Value::from(200)), "{line}");
    assert!(number(&line, "items") < 2000 && number(&line, "bytes") > 0, "{line}");
    assert_eq!(gateway.counted("client_closed").await, 1);
}

#[tokio::test]
async fn request_without_head_whose_client_leaves_is_client_closed() {
    let mut gateway = Gateway::start("30s").await;
    gateway.tap.hold();
    let connection = send_raw(gateway.addr, &Ask::get(DAY).wire(gateway.addr));
    until("a call is under way", || !gateway.tap.auths().is_empty()).await;
    drop(connection);
    let line = gateway.logged().await;
    assert_eq!((&line["outcome"], &line["status"]), (&Value::from("client_closed"), &Value::Null), "{line}");
    assert_eq!(gateway.counted("client_closed").await, 1);
}

#[tokio::test]
async fn answers_that_a_drain_cuts_are_logged_as_drained() {
    let gateway = Gateway::start("100ms").await;
    gateway.control.set_faults(FaultPlan::always(Fault::Slow).after(PAGES / 2));
    let client = Client::default();
    let mut streamed = client.open(gateway.addr, &Ask::get(LONG)).await.unwrap();
    assert!(streamed.body_mut().frame().await.unwrap().is_ok());
    let before = gateway.tap.auths().len();
    let other = Ask::get("from=2026-02-24&to=2026-02-24");
    let _without_head = send_raw(gateway.addr, &other.wire(gateway.addr));
    until("another call is under way", || gateway.tap.auths().len() > before).await;
    gateway.process.terminate();
    let (code, printed) = gateway.process.ended().await;
    assert_eq!(code, Some(0), "{printed}");
    let mut lines: Vec<Value> = printed.lines().filter_map(request_line).collect();
    lines.sort_by_key(|line| line["status"].as_u64());
    assert_eq!(lines.len(), 2, "{printed}");
    assert!(lines.iter().all(|line| line["outcome"] == "drained"), "{lines:?}");
    assert_eq!([&lines[0]["status"], &lines[1]["status"]], [&Value::Null, &Value::from(200)]);
    assert!(number(&lines[1], "bytes") > 0, "{}", lines[1]);
    assert!(streamed.into_body().collect().await.is_err(), "nobody can take it for whole");
}

/// Whoever has no key can ask as fast as the gateway can refuse.
#[tokio::test]
async fn refusals_of_unknown_callers_are_sampled_in_the_log() {
    let mut environment = environment("http://127.0.0.1:1");
    environment.push(("KOREGATE__CALLERS__0__NAME", "bi".to_owned()));
    environment.push(("KOREGATE__CALLERS__0__API_KEY_SHA256", "ab".repeat(32)));
    let mut process = Running::start(&["serve"], &environment);
    let (addr, admin) = process.listening().await;
    let (client, began) = (Client::default(), Instant::now());
    for _ in 0..500 {
        assert_eq!(client.send(addr, &Ask::get(DAY)).await.unwrap().status, 401);
    }
    let metrics = client.send(admin, &Ask::get("").path("/metrics")).await.unwrap();
    let all = "koregate_requests_total{account=\"-\",stream=\"-\",caller=\"-\",outcome=\"unauthorized\"} 500";
    assert!(metrics.text().contains(all), "{}", metrics.text());
    process.terminate();
    let seconds = began.elapsed().as_secs() + 1;
    let lines: Vec<Value> = process.ended().await.1.lines().filter_map(request_line).collect();
    assert!((10..=10 * (seconds + 1)).contains(&(lines.len() as u64)), "{} lines in {seconds} s", lines.len());
}
