//! What operators rely on: the real binary, from its first line to its exit code.

use std::net::SocketAddr;
use std::time::Duration;

use koregate::clock::Clock;
use koregate_simulator::{Control, Credential, ItemFilter, Profile, Simulator};
use tokio::net::TcpStream;

use crate::process::{Running, environment, on_one_core, run, text};
use crate::support::{Answer, Ask, Client, STREAM, at, exact_profile, until};
use crate::tap::Tap;

/// A settled day, whenever the test runs, in data that ends with 2026-02-25.
const DAY: &str = "from=2026-02-23&to=2026-02-23";
const SECRET: &str = "simulated-secret-of-no-worth-at-all=";

/// A simulator on the machine's clock, for a gateway that has no other.
pub(crate) async fn simulator() -> (Simulator, Control) {
    let profile = Profile { end: Some(at("2026-02-26").into()), ..exact_profile(250, 4) };
    let simulator = Simulator::start(profile).await.unwrap();
    let control = simulator.control();
    (simulator, control)
}

async fn ask(addr: SocketAddr, ask: &Ask) -> Answer {
    Client::default().send(addr, ask).await.unwrap()
}

async fn admin(addr: SocketAddr, path: &str) -> Answer {
    ask(addr, &Ask::get("").path(path)).await
}

#[track_caller]
fn assert_whole(answer: &Answer, control: &Control) {
    let truth = control.expected_until(STREAM, at("2026-02-23"), at("2026-02-24"), false, &ItemFilter::default());
    assert!(answer.page().items().eq(truth.iter().map(|(_, item)| item.as_slice())));
}

#[tokio::test]
async fn it_serves_with_the_environment_alone_and_tells_its_state() {
    let (simulator, control) = simulator().await;
    let mut gateway = Running::start(&["serve"], &environment(&simulator.base_url()));
    let (addr, operators) = gateway.listening().await;
    for path in ["/livez", "/startupz", "/readyz"] {
        assert_eq!(admin(operators, path).await.status, 200, "{path}");
    }
    assert_eq!(admin(operators, "/readyz").await.json()["status"], "ready");

    assert_whole(&ask(addr, &Ask::get(DAY)).await, &control);
    assert_whole(&ask(addr, &Ask::get(DAY)).await, &control);
    assert_eq!(control.counts().total, 3);
    // No accountId is needed where there is one account only; and operators' paths are not for callers.
    assert_whole(&ask(addr, &Ask::get(DAY).header("accountId", "")).await, &control);
    assert_eq!(ask(addr, &Ask::get("").path("/metrics")).await.status, 404);

    let metrics = admin(operators, "/metrics").await;
    let value = |name: &str, labels: &[&str]| -> f64 {
        let line = metrics.text().lines().find(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|l| line.contains(l))
        });
        let line = line.unwrap_or_else(|| panic!("no {name} {labels:?} in\n{}", metrics.text()));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let account = "account=\"664b33a620bd0892e0000001\"";
    let told = [account, "stream=\"st-test\"", "caller=\"-\""];
    assert_eq!(value("koregate_requests_total", &[&told[..], &["outcome=\"miss\""]].concat()).to_string(), "1");
    assert_eq!(value("koregate_requests_total", &[&told[..], &["outcome=\"hit\""]].concat()).to_string(), "2");
    assert_eq!(value("koregate_upstream_calls_total", &[account, "result=\"ok\""]).to_string(), "3");
    assert_eq!(value("koregate_upstream_calls_avoided_total", &[account, "caller=\"-\""]).to_string(), "6");
    assert_eq!(value("koregate_quota_remaining", &[account, "window=\"3600s\""]).to_string(), "1797");
    assert!(value("koregate_quota_remaining", &[account, "window=\"60s\""]) <= 60.0);
    assert!(value("koregate_cache_bytes", &["tier=\"memory\""]) > 0.0);
    for (histogram, count) in [
        ("koregate_request_duration_seconds_count", "4"),
        ("koregate_upstream_duration_seconds_count", "3"),
        ("koregate_quota_wait_seconds_count", "3"),
    ] {
        assert_eq!(value(histogram, &[]).to_string(), count, "{histogram}");
    }
    assert!(admin(operators, "/").await.text().contains("koregate is ready"));
    assert_eq!(admin(operators, "/api/v1/status").await.json()["accounts"][0]["quota"][1]["remaining"], 1797);
    assert_eq!(admin(operators, "/nothing").await.status, 404);
}

#[tokio::test]
async fn it_serves_with_a_file() {
    let (simulator, control) = simulator().await;
    let dir = tempfile::tempdir().unwrap();
    let (file, secret) = (dir.path().join("koregate.toml"), dir.path().join("secret"));
    std::fs::write(&secret, SECRET).unwrap();
    let Credential { account_id, client_id, .. } = Credential::default();
    let toml = format!(
        "[server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n[upstream]\nbase_url = '{}'\n[[accounts]]\n\
         account_id = '{account_id}'\nclient_id = '{client_id}'\nclient_secret = {{ file = '{}' }}\n",
        simulator.base_url(),
        secret.display()
    );
    std::fs::write(&file, toml).unwrap();
    let mut gateway = Running::start(&["serve", "--config", file.to_str().unwrap()], &[]);
    let (addr, _) = gateway.listening().await;
    let client = Client::default();
    assert_whole(&client.send(addr, &Ask::get(DAY)).await.unwrap(), &control);
    // Connections without a request, fresh or kept by their client, hold up nobody.
    let idle = TcpStream::connect(addr).await.unwrap();
    assert_whole(&ask(addr, &Ask::get(DAY)).await, &control);
    gateway.terminate();
    let (code, printed) = gateway.ended().await;
    assert_eq!(code, Some(0));
    assert!(!printed.contains("did not end in time"), "{printed}");
    drop((client, idle));
}

#[tokio::test]
async fn it_does_not_start_with_a_faulty_configuration_or_on_a_port_that_is_taken() {
    let output = run(&["serve"], &[], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("KORE_ACCOUNT_ID"), "{}", text(&output.stderr));

    let (simulator, _control) = simulator().await;
    let mut taken = environment(&simulator.base_url());
    taken.push(("KOREGATE__SERVER__LISTEN", simulator.addr().to_string()));
    let output = run(&["serve"], &taken, "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("server.listen"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn sigterm_lets_the_answer_under_way_complete_and_takes_nothing_more_in() {
    let start = |environment: &[_]| Running::start(&["serve"], environment);
    drain_under_way(start).await;
    // There it has one thread for all.
    drain_under_way(|environment| on_one_core(|| start(environment))).await;
}

async fn drain_under_way(start: impl Fn(&[(&'static str, String)]) -> Running) {
    let (simulator, control) = simulator().await;
    let tap = Tap::start(simulator.addr(), None).await;
    let mut gateway = start(&environment(&tap.base_url()));
    let (addr, operators) = gateway.listening().await;
    tap.hold();
    let under_way = tokio::spawn(async move { ask(addr, &Ask::get(DAY)).await });
    until("a call is under way", || !tap.auths().is_empty()).await;

    gateway.terminate();
    let refused = async {
        let readiness = loop {
            let readiness = admin(operators, "/readyz").await;
            if readiness.status != 200 {
                break readiness;
            }
        };
        // The listener may take one more connection in before it learns of the end.
        while TcpStream::connect(addr).await.is_ok() {}
        readiness
    };
    let readiness = tokio::time::timeout(Duration::from_secs(30), refused).await.expect("it goes on as if nothing was");
    assert_eq!((readiness.status.as_u16(), readiness.json()["status"].as_str()), (503, Some("draining")));
    assert_eq!(admin(operators, "/livez").await.status, 200, "operators can look until the end");
    assert!(!under_way.is_finished());

    tap.release();
    assert_whole(&under_way.await.unwrap(), &control);
    let (code, printed) = gateway.ended().await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("draining"), "{printed}");
}

#[tokio::test]
async fn sighup_does_not_end_the_process() {
    let (simulator, control) = simulator().await;
    let mut gateway = Running::start(&["serve"], &environment(&simulator.base_url()));
    let (addr, _) = gateway.listening().await;
    for _ in 0..2 {
        gateway.hang_up();
        gateway.line(|line| line.contains("SIGHUP is ignored").then_some(())).await;
    }
    assert_whole(&ask(addr, &Ask::get(DAY)).await, &control);
    gateway.terminate();
    assert_eq!(gateway.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_large_answer_that_is_ready_is_passed_on_through_a_pipe() {
    let (simulator, _control) = simulator().await;
    let mut gateway = on_one_core(|| Running::start(&["serve"], &environment(&simulator.base_url())));
    let (addr, _) = gateway.listening().await;
    let page = Ask::get(format!("{DAY}&limit=100"));
    let first = ask(addr, &page).await;
    assert!((64 << 10..1 << 20).contains(&first.body.len()), "{}", first.body.len());
    let before = gateway.pipes();
    // Ready when it has been asked for so often; and kept is a pipe that was emptied, which that of a full socket is not.
    for _ in 0..20 {
        assert_eq!(ask(addr, &page).await.body, first.body);
    }
    assert_eq!(gateway.pipes(), before + 1);
}

#[tokio::test]
async fn a_drain_ends_in_time_though_an_answer_does_not() {
    let (simulator, _control) = simulator().await;
    let tap = Tap::start(simulator.addr(), None).await;
    let mut environment = environment(&tap.base_url());
    environment.push(("KOREGATE__SERVER__DRAIN_TIMEOUT", "100ms".to_owned()));
    let mut gateway = Running::start(&["serve"], &environment);
    let (addr, _) = gateway.listening().await;
    tap.hold();
    let under_way = tokio::spawn(async move { Client::default().send(addr, &Ask::get(DAY)).await });
    until("a call is under way", || !tap.auths().is_empty()).await;
    gateway.terminate();
    let (code, printed) = gateway.ended().await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(under_way.await.unwrap().is_err(), "nobody can take it for an answer");
}

#[test]
fn check_prints_what_is_in_effect_without_secrets_and_finds_faults() {
    let output = run(&["check"], &environment("http://127.0.0.1:1"), "");
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for line in ["base_url = \"http://127.0.0.1:1", "settle_after = \"", "queue_timeout = \"30s\"", "client_secret = "]
    {
        assert!(printed.contains(line), "no {line} in {printed}");
    }
    assert!(!printed.contains(SECRET) && !text(&output.stderr).contains(SECRET));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("koregate.toml");
    let account = "[[accounts]]\naccount_id = 'a'\nclient_id = 'c'\nclient_secret = { env = 'KORE_CLIENT_SECRET' }\n";
    for (fault, line, key) in [
        ("[quota]\nqueue_timeuot = '1s'", 6, "quota.queue_timeuot"),
        ("[window]\nchunk = '7h'", 6, "window.chunk"),
        ("[window]\nchunk = ", 6, "window.chunk"),
    ] {
        std::fs::write(&file, format!("{account}{fault}\n")).unwrap();
        let output = run(&["check", "--config", file.to_str().unwrap()], &environment("http://127.0.0.1:1"), "");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{fault}");
        assert!(told.contains(&format!("koregate.toml:{line}")) && told.contains(key), "{fault}: {told}");
        assert!(output.stdout.is_empty() && !told.contains(SECRET), "{told}");
    }
}

#[tokio::test]
async fn token_mints_what_the_upstream_accepts_and_explains_it() {
    let (simulator, control) = simulator().await;
    let environment = environment(&simulator.base_url());
    let minted = run(&["token"], &environment, "");
    assert_eq!(minted.status.code(), Some(0), "{}", text(&minted.stderr));
    let token = text(&minted.stdout).trim_end();
    let answer = ask(simulator.addr(), &Ask::get(DAY).header("auth", token)).await;
    assert_eq!((answer.page().items().len(), control.counts().unauthorized), (100, 0));

    let explained = run(&["token", "-"], &environment, token);
    let told = text(&explained.stdout);
    assert_eq!(explained.status.code(), Some(0), "{}", text(&explained.stderr));
    for part in ["\"appId\": \"cs-00000000-0000-5000-8000-000000000001\"", "expires", "signature  good"] {
        assert!(told.contains(part), "no {part} in {told}");
    }
    for printed in [&minted.stderr, &explained.stdout, &explained.stderr] {
        assert!(!text(printed).contains(SECRET) && !text(printed).contains(token), "{}", text(printed));
    }
    assert_eq!(run(&["token", "-"], &environment, "no token").status.code(), Some(1));
}

#[tokio::test]
async fn key_makes_a_key_that_its_hash_lets_in() {
    let made = run(&["key", "--log", "trace"], &[], "");
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let (header, hash) = text(&made.stdout).split_once('\n').unwrap();
    let key = header.strip_prefix("x-api-key: ").unwrap();
    assert!(text(&made.stderr).contains("[[callers]]") && !text(&made.stderr).contains(key));

    let hashed = run(&["key", "--hash"], &[], &format!("{key}\n"));
    assert_eq!((hashed.status.code(), text(&hashed.stdout), text(&hashed.stderr)), (Some(0), hash, ""));
    assert_eq!(run(&["key", "--hash"], &[], "\n").status.code(), Some(1));

    let (simulator, control) = simulator().await;
    let value = hash.trim_end().strip_prefix("api_key_sha256 = ").unwrap().trim_matches('"');
    let mut environment = environment(&simulator.base_url());
    environment.push(("KOREGATE__CALLERS__0__NAME", "etl".to_owned()));
    environment.push(("KOREGATE__CALLERS__0__API_KEY_SHA256", value.to_owned()));
    let mut gateway = Running::start(&["serve"], &environment);
    let (addr, _) = gateway.listening().await;
    assert_eq!(ask(addr, &Ask::get(DAY)).await.status, 401);
    assert_whole(&ask(addr, &Ask::get(DAY).header("x-api-key", key)).await, &control);
}

#[tokio::test]
async fn simulate_plays_an_upstream_that_a_gateway_can_stand_before() {
    let arguments = [
        "simulate",
        "--listen",
        "127.0.0.1:0",
        "--stream",
        "st-test=250",
        "--exact",
        "--latency",
        "0s",
        "--jitter",
        "0s",
    ];
    let mut simulator = Running::start(&arguments, &[]);
    let base_url = simulator.line(|line| line.strip_prefix("base url").map(|url| url.trim().to_owned())).await;
    let secret = simulator.line(|line| line.strip_prefix("client secret").map(|secret| secret.trim().to_owned())).await;
    assert_eq!(secret, SECRET);
    let mut gateway = Running::start(&["serve"], &environment(&base_url));
    let (addr, _) = gateway.listening().await;
    let yesterday =
        (Clock::system().now().floor_to(Duration::from_hours(24)).to_timestamp() - Duration::from_secs(1)).to_string();
    let day = &yesterday[..10];
    assert_eq!(ask(addr, &Ask::get(format!("from={day}&to={day}"))).await.page().items().len(), 250);

    let address = base_url.trim_start_matches("http://").parse().unwrap();
    assert_eq!(ask(address, &Ask::get("").path("/simulator/counts")).await.json()["total"], 3);
    simulator.terminate();
    let (code, printed) = simulator.ended().await;
    assert_eq!(code, Some(0));
    assert!(printed.contains("\"total\": 3"), "it ends with what it counted: {printed}");
}

#[test]
fn demo_prints_the_percentage_that_its_numbers_make() {
    let output = run(&["demo", "--once"], &[], "");
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    let numbers = |line: &str| -> Vec<u64> { line.split([' ', ':']).filter_map(|word| word.parse().ok()).collect() };
    let of_service = |name: &str| {
        let row = printed.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        let row: Vec<&str> = row.split_whitespace().collect();
        row[3].parse::<u64>().unwrap()
    };
    let services: u64 = ["bi-load", "qa-dashboard", "compliance-export"].map(of_service).iter().sum();
    let total = printed.lines().find(|line| line.contains("Alone they would have called Kore")).unwrap();
    let [alone, spent, percent] = numbers(total)[..] else { panic!("{total}") };
    assert_eq!(percent, (alone - spent) * 100 / alone, "{total}");
    // Within a call for each of the few runs that no answer tells of.
    assert!((services..=services + 5).contains(&alone), "{services} by the services, {total}");
}
