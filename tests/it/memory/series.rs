//! Attacks by the identity of a series: long bodies chosen by the caller.

use super::monitored_gateway::{MonitoredGateway, UNLIMITED};
use crate::support::{SETTLED_DAY, TestRequest, exact_profile, start_dated_simulator};

/// Close to the limit of a body that identifies a series, in bytes.
const LONG: usize = 250_000;

/// Asserts that 200 distinct bodies take bounded memory.
async fn assert_bodies_bounded(body: impl Fn(usize) -> String) {
    let (simulator, _control) = start_dated_simulator(exact_profile(250, 4)).await;
    let gateway = MonitoredGateway::start(&simulator.base_url(), &[UNLIMITED]).await;
    for nth in 0..200 {
        let response = gateway.send(&TestRequest::post(SETTLED_DAY, body(nth).into_bytes())).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    gateway.assert_alive_within_bounds();
}

#[tokio::test]
async fn long_filters_take_bounded_memory() {
    assert_bodies_bounded(|nth| {
        let ids: Vec<_> = (0..LONG / 50).map(|id| format!(r#""{nth:020}-{id:020}""#)).collect();
        format!(r#"{{"sessionIds":[{}]}}"#, ids.join(","))
    })
    .await;
}

#[tokio::test]
async fn long_unknown_bodies_take_bounded_memory() {
    let pad = "x".repeat(LONG);
    assert_bodies_bounded(|nth| format!(r#"{{"unknown":"{nth}{pad}"}}"#)).await;
}
