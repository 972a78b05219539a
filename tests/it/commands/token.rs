//! `koregate token`.

use super::SECRET;
use crate::support::{
    HttpClient, SETTLED_DAY, TestRequest, environment, exact_profile, run_koregate, start_dated_simulator, text,
};

#[tokio::test]
async fn minted_token_is_accepted_upstream_and_explained() {
    let (simulator, control) = start_dated_simulator(exact_profile(250, 4)).await;
    let environment = environment(&simulator.base_url());
    let minted = run_koregate(&["token"], &environment, "");
    assert_eq!(minted.status.code(), Some(0), "{}", text(&minted.stderr));
    let token = text(&minted.stdout).trim_end();
    let request = TestRequest::get(SETTLED_DAY).header("auth", token);
    let response = HttpClient::default().send(simulator.addr(), &request).await;
    assert_eq!((response.page().items().len(), control.counts().unauthorized), (100, 0));

    let explained = run_koregate(&["token", "-"], &environment, token);
    let explanation = text(&explained.stdout);
    assert_eq!(explained.status.code(), Some(0), "{}", text(&explained.stderr));
    for part in ["\"appId\": \"cs-00000000-0000-5000-8000-000000000001\"", "expires", "signature  good"] {
        assert!(explanation.contains(part), "no {part} in {explanation}");
    }
    for output in [&minted.stderr, &explained.stdout, &explained.stderr] {
        assert!(!text(output).contains(SECRET) && !text(output).contains(token), "{}", text(output));
    }
    assert_eq!(run_koregate(&["token", "-"], &environment, "no token").status.code(), Some(1));
}
