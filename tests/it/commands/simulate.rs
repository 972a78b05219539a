//! `koregate simulate`.

use std::time::Duration;

use super::SECRET;
use crate::support::{Clock, DAY, GatewayProcess, HttpClient, KoregateProcess, environment};

const ARGUMENTS: [&str; 10] =
    ["simulate", "--listen", "127.0.0.1:0", "--stream", "st-test=250", "--exact", "--latency", "0s", "--jitter", "0s"];

#[tokio::test]
async fn simulate_serves_gateway_and_prints_counts() {
    let mut simulator = KoregateProcess::start(&ARGUMENTS, &[]);
    let base_url = simulator.wait_for_line(|line| line.strip_prefix("base url").map(|url| url.trim().to_owned())).await;
    let secret =
        simulator.wait_for_line(|line| line.strip_prefix("client secret").map(|secret| secret.trim().to_owned()));
    assert_eq!(secret.await, SECRET);
    let gateway = GatewayProcess::start(&environment(&base_url)).await;
    let yesterday = (Clock::system().now().floor_to(DAY).to_timestamp() - Duration::from_secs(1)).to_string();
    let date = &yesterday[..10];
    assert_eq!(gateway.get(format!("from={date}&to={date}")).await.page().items().len(), 250);

    let addr = base_url.trim_start_matches("http://").parse().unwrap();
    assert_eq!(HttpClient::default().get_path(addr, "/simulator/counts").await.json()["total"], 3);
    simulator.terminate();
    let (code, output) = simulator.wait().await;
    assert_eq!(code, Some(0));
    assert!(output.contains("\"total\": 3"), "no counts at the end: {output}");
}
