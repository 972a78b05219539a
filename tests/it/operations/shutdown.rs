//! Signals: the drain that SIGTERM starts, its timeout, and SIGHUP.

use tokio::net::TcpStream;

use crate::support::{
    GatewayProcess, HttpClient, KoregateProcess, RecordingProxy, SETTLED_DAY, TestRequest, environment, exact_profile,
    on_one_core, settled_day_items, start_dated_simulator, until_async,
};

type Environment = [(&'static str, String)];

#[tokio::test]
async fn sigterm_completes_responses_and_refuses_connections() {
    let start = |environment: &Environment| KoregateProcess::start(&["serve"], environment);
    assert_drain(start).await;
    // On one core the gateway has one thread for all.
    assert_drain(|environment| on_one_core(|| start(environment))).await;
}

async fn assert_drain(start: impl Fn(&Environment) -> KoregateProcess) {
    let (simulator, control) = start_dated_simulator(exact_profile(250, 4)).await;
    let proxy = RecordingProxy::start(simulator.addr(), None).await;
    let gateway = GatewayProcess::from_process(start(&environment(&proxy.base_url()))).await;
    let addr = gateway.addr;
    proxy.hold_requests();
    let pending = tokio::spawn(async move { HttpClient::default().send(addr, &TestRequest::get(SETTLED_DAY)).await });
    proxy.until_calls_exceed(0).await;

    gateway.process.terminate();
    until_async("readiness to end", async || gateway.get_admin("/readyz").await.status != 200).await;
    // The listener may accept one more connection before the drain reaches it.
    until_async("connections to be refused", async || TcpStream::connect(addr).await.is_err()).await;
    let readiness = gateway.get_admin("/readyz").await;
    assert_eq!((readiness.status.as_u16(), readiness.json()["status"].as_str()), (503, Some("draining")));
    assert_eq!(gateway.get_admin("/livez").await.status, 200, "the admin plane answers until the end");
    assert!(!pending.is_finished());

    proxy.release();
    pending.await.unwrap().assert_complete(&settled_day_items(&control), "the pending response");
    let (code, output) = gateway.process.wait().await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("draining"), "{output}");
}

#[tokio::test]
async fn drain_timeout_ends_unfinished_response() {
    let (simulator, _control) = start_dated_simulator(exact_profile(250, 4)).await;
    let proxy = RecordingProxy::start(simulator.addr(), None).await;
    let mut environment = environment(&proxy.base_url());
    environment.push(("KOREGATE__SERVER__DRAIN_TIMEOUT", "100ms".to_owned()));
    let gateway = GatewayProcess::start(&environment).await;
    let addr = gateway.addr;
    proxy.hold_requests();
    let pending =
        tokio::spawn(async move { HttpClient::default().try_send(addr, &TestRequest::get(SETTLED_DAY)).await });
    proxy.until_calls_exceed(0).await;
    let (code, output) = gateway.stop().await;
    assert_eq!(code, Some(0), "{output}");
    assert!(pending.await.unwrap().is_err(), "the connection is aborted");
}
