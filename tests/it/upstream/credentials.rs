//! The credential and the tokens made of it.

use std::time::Duration;

use crate::support::{
    AcceptedScheme, Fault, FaultPlan, NOW, Profile, SETTLED_DAY, Settings, TestHarness, TestRequest, TokenRules, at,
    exact_profile,
};

const PAGES: u64 = 3;

async fn start() -> TestHarness {
    TestHarness::start(exact_profile(250, 4), &Settings::one_second_limit()).await
}

#[tokio::test]
async fn refused_credential_many_gaps_costs_two_calls() {
    let harness = start().await;
    for hour in ["03", "09", "15", "21"] {
        harness.get(format!("from=2026-02-23T{hour}:00:00&to=2026-02-23T{hour}:59:59")).await.page();
    }
    harness.control.reset_counts();
    harness.control.change(|profile| profile.token.scope_missing = true);
    let response = harness.get(SETTLED_DAY).await;
    response.assert_problem(502, "the scope is missing");
    assert!(response.text().contains("Scope is incorrect"), "{}", response.text());
    assert_eq!(harness.calls(), 2);

    harness.control.change(|profile| profile.token.scope_missing = false);
    harness.control.reset_counts();
    harness.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "the scope is there");
    assert_eq!(harness.control.counts().unauthorized, 0);
}

#[tokio::test]
async fn token_refused_once_is_replaced() {
    let harness = start().await;
    let proxy = harness.start_proxy().await;
    let gateway = harness.add_replica_behind(&proxy, &Settings::one_second_limit()).await;
    harness.control.set_faults(FaultPlan::times(Fault::Unauthorized, 1));
    proxy.hold_requests();
    let request = TestRequest::get(SETTLED_DAY);
    let later = at(NOW) + Duration::from_secs(2);
    let (response, ()) = tokio::join!(gateway.send(&request), async {
        proxy.until_calls_exceed(0).await;
        // A token of a later second differs from the first.
        harness.clock.set(later);
        proxy.release();
    });
    response.assert_complete(&harness.settled_day(), "a 401 once");
    let tokens = proxy.tokens();
    let [refused, fresh, rest @ ..] = tokens.as_slice() else { panic!("{} calls", tokens.len()) };
    assert_ne!(refused, fresh);
    assert!(rest.len() == 2 && rest.iter().all(|token| token == fresh), "the fresh token is reused");
    let claims: serde_json::Value = jsonwebtoken::dangerous::insecure_decode_claims(fresh).unwrap();
    assert_eq!(claims["iat"], later.as_seconds());
}

#[tokio::test]
async fn enforced_jti_each_call_has_own_token() {
    let harness = TestHarness::start(
        Profile { token: TokenRules { enforce_jti: true, ..TokenRules::default() }, ..exact_profile(250, 4) },
        &Settings::one_second_limit(),
    )
    .await;
    let proxy = harness.start_proxy().await;
    let gateway = harness
        .add_replica_behind(&proxy, &Settings::one_second_limit().account("token = { jti = 'per-request' }"))
        .await;
    // A retried call needs a fresh token as well.
    harness.control.set_faults(FaultPlan::times(Fault::Status500, 1).after(1));
    gateway.get(SETTLED_DAY).await.assert_complete(&harness.settled_day(), "per-request");
    let mut tokens = proxy.tokens();
    assert_eq!((tokens.len() as u64, harness.control.counts().unauthorized), (PAGES + 1, 0));
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len() as u64, PAGES + 1);

    // Tokens without a jti are refused, which two calls show.
    harness.control.reset_counts();
    harness.get(SETTLED_DAY).await.assert_problem(502, "off");
    assert_eq!(harness.calls(), 2);
}

#[tokio::test]
async fn token_is_sent_in_configured_scheme() {
    for (required, scheme, accepted) in [
        (AcceptedScheme::Bearer, "bearer", true),
        (AcceptedScheme::Bare, "bare", true),
        (AcceptedScheme::Bearer, "bare", false),
        (AcceptedScheme::Bare, "bearer", false),
    ] {
        let settings = Settings::one_second_limit().account(&format!("token = {{ scheme = '{scheme}' }}"));
        let harness = TestHarness::start(
            Profile { token: TokenRules { scheme: required, ..TokenRules::default() }, ..exact_profile(250, 4) },
            &settings,
        )
        .await;
        let response = harness.get(SETTLED_DAY).await;
        if accepted {
            response.assert_complete(&harness.settled_day(), scheme);
        } else {
            response.assert_problem(502, scheme);
            assert_eq!(harness.calls(), 2, "{required:?}, {scheme}");
        }
    }
}
