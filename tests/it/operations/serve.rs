//! `koregate serve`: configuration by environment or file, metrics, and start-up errors.

use tokio::net::TcpStream;

use crate::support::{
    ACCOUNT, Control, Credential, GatewayProcess, HttpClient, KoregateProcess, SETTLED_DAY, STREAM, Simulator,
    TestRequest, environment, exact_profile, on_one_core, run_koregate, settled_day_items, start_dated_simulator, text,
};

/// A settled day in three pages, whenever the test runs.
async fn start_simulator() -> (Simulator, Control) {
    start_dated_simulator(exact_profile(250, 4)).await
}

#[tokio::test]
async fn serve_with_environment_alone_reports_metrics() {
    let (simulator, control) = start_simulator().await;
    let gateway = GatewayProcess::start(&environment(&simulator.base_url())).await;
    for path in ["/livez", "/startupz", "/readyz"] {
        assert_eq!(gateway.get_admin(path).await.status, 200, "{path}");
    }
    assert_eq!(gateway.get_admin("/readyz").await.json()["status"], "ready");

    let expected = settled_day_items(&control);
    gateway.get(SETTLED_DAY).await.assert_complete(&expected, "cold");
    gateway.get(SETTLED_DAY).await.assert_complete(&expected, "cached");
    assert_eq!(control.counts().total, 3);
    // A gateway with one account needs no accountId.
    let without_account = TestRequest::get(SETTLED_DAY).header("accountId", "");
    gateway.send(&without_account).await.assert_complete(&expected, "without accountId");
    // Paths of the admin plane do not exist on the data plane.
    assert_eq!(gateway.send(&TestRequest::path_only("/metrics")).await.status, 404);

    let metrics = gateway.metrics().await;
    let account = format!("account=\"{ACCOUNT}\"");
    let (stream, caller) = (format!("stream=\"{STREAM}\""), "caller=\"-\"");
    for (name, labels, value) in [
        ("koregate_requests_total", &[&account, &stream, caller, "outcome=\"miss\""][..], 1),
        ("koregate_requests_total", &[&account, &stream, caller, "outcome=\"hit\""], 2),
        ("koregate_upstream_calls_total", &[&account, "result=\"ok\""], 3),
        ("koregate_upstream_calls_avoided_total", &[&account, caller], 6),
        ("koregate_quota_remaining", &[&account, "window=\"3600s\""], 1797),
        ("koregate_request_duration_seconds_count", &[], 4),
        ("koregate_upstream_duration_seconds_count", &[], 3),
        ("koregate_quota_wait_seconds_count", &[], 3),
    ] {
        assert_eq!(metrics.value(name, labels).to_string(), value.to_string(), "{name} {labels:?}");
    }
    assert!(metrics.value("koregate_quota_remaining", &[&account, "window=\"60s\""]) <= 60.0);
    assert!(metrics.value("koregate_cache_bytes", &["tier=\"memory\""]) > 0.0);

    assert!(gateway.get_admin("/").await.text().contains("Healthy"));
    let status = gateway.get_admin("/api/v1/status").await.json();
    assert_eq!(status["accounts"][0]["quota"][1]["remaining"], 1797);
    assert_eq!(gateway.get_admin("/nothing").await.status, 404);
}

#[tokio::test]
async fn serve_with_configuration_file_drains_idle_connections() {
    let (simulator, control) = start_simulator().await;
    let dir = tempfile::tempdir().unwrap();
    let (file, secret) = (dir.path().join("koregate.toml"), dir.path().join("secret"));
    let Credential { account_id, client_id, client_secret } = Credential::default();
    std::fs::write(&secret, client_secret).unwrap();
    let toml = format!(
        "[server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n[upstream]\nbase_url = '{}'\n[[accounts]]\n\
         account_id = '{account_id}'\nclient_id = '{client_id}'\nclient_secret = {{ file = '{}' }}\n",
        simulator.base_url(),
        secret.display()
    );
    std::fs::write(&file, toml).unwrap();
    let process = KoregateProcess::start(&["serve", "--config", file.to_str().unwrap()], &[]);
    let gateway = GatewayProcess::from_process(process).await;
    let expected = settled_day_items(&control);
    // Idle connections must not delay the drain: one without any request, and one that its client keeps.
    let idle = TcpStream::connect(gateway.addr).await.unwrap();
    let pool = HttpClient::default();
    for client in [&pool, &HttpClient::default()] {
        client.send(gateway.addr, &TestRequest::get(SETTLED_DAY)).await.assert_complete(&expected, "the day");
    }
    let (code, output) = gateway.stop().await;
    assert_eq!(code, Some(0));
    assert!(!output.contains("did not end in time"), "{output}");
    drop((pool, idle));
}

#[tokio::test]
async fn serve_with_bad_configuration_or_taken_port_exits() {
    let output = run_koregate(&["serve"], &[], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("KORE_ACCOUNT_ID"), "{}", text(&output.stderr));

    let (simulator, _control) = start_simulator().await;
    let mut environment = environment(&simulator.base_url());
    environment.push(("KOREGATE__SERVER__LISTEN", simulator.addr().to_string()));
    let output = run_koregate(&["serve"], &environment, "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("server.listen"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn large_cached_response_is_sent_through_pipe() {
    let (simulator, _control) = start_simulator().await;
    let process = on_one_core(|| KoregateProcess::start(&["serve"], &environment(&simulator.base_url())));
    let gateway = GatewayProcess::from_process(process).await;
    let page = TestRequest::get(format!("{SETTLED_DAY}&limit=100"));
    let first = gateway.send(&page).await;
    assert!((64 << 10..1 << 20).contains(&first.body.len()), "{}", first.body.len());
    let before = gateway.process.open_pipes();
    // Repeated requests put the response into the response cache. An emptied pipe is kept for reuse; one of a full
    // socket would not be.
    for _ in 0..20 {
        assert_eq!(gateway.send(&page).await.body, first.body);
    }
    assert_eq!(gateway.process.open_pipes(), before + 1);
}
