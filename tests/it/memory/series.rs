//! Attacks by what identifies a series: bodies and parameters that callers choose as long as they like.

use crate::support::attack::Target;
use crate::support::{Ask, Client};

const LIMITS: (&str, &str) = ("KOREGATE__ACCOUNTS__0__QUOTA", "{ limits = [{ requests = 1000000, per = '1m' }] }");
const DAY: &str = "from=2026-02-23&to=2026-02-23";
/// Close to the most that a body may be of, in bytes.
const LONG: usize = 250_000;

async fn assert_bodies_held(body: impl Fn(usize) -> String) {
    let (simulator, _control) = crate::operations::simulator().await;
    let target = Target::start(&simulator.base_url(), &[LIMITS], None).await;
    let client = Client::default();
    for nth in 0..200 {
        let answer = client.send(target.addr, &Ask::post(DAY, body(nth).into_bytes())).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    target.assert_held();
}

#[tokio::test]
async fn long_filters_take_no_memory_of_their_own() {
    assert_bodies_held(|nth| {
        let ids: Vec<_> = (0..LONG / 50).map(|id| format!(r#""{nth:020}-{id:020}""#)).collect();
        format!(r#"{{"sessionIds":[{}]}}"#, ids.join(","))
    })
    .await;
}

#[tokio::test]
async fn long_unknown_bodies_take_no_memory_of_their_own() {
    let pad = "x".repeat(LONG);
    assert_bodies_held(|nth| format!(r#"{{"unknown":"{nth}{pad}"}}"#)).await;
}
