//! `koregate key`.

use crate::support::{
    GatewayProcess, SETTLED_DAY, TestRequest, environment, exact_profile, run_koregate, settled_day_items,
    start_dated_simulator, text,
};

#[tokio::test]
async fn generated_key_hash_admits_caller() {
    let generated = run_koregate(&["key", "--log", "trace"], &[], "");
    assert_eq!(generated.status.code(), Some(0), "{}", text(&generated.stderr));
    let (header, hash) = text(&generated.stdout).split_once('\n').unwrap();
    let key = header.strip_prefix("x-api-key: ").unwrap();
    assert!(text(&generated.stderr).contains("[[callers]]") && !text(&generated.stderr).contains(key));

    let hashed = run_koregate(&["key", "--hash"], &[], &format!("{key}\n"));
    assert_eq!((hashed.status.code(), text(&hashed.stdout), text(&hashed.stderr)), (Some(0), hash, ""));
    assert_eq!(run_koregate(&["key", "--hash"], &[], "\n").status.code(), Some(1));

    let (simulator, control) = start_dated_simulator(exact_profile(250, 4)).await;
    let value = hash.trim_end().strip_prefix("api_key_sha256 = ").unwrap().trim_matches('"');
    let mut environment = environment(&simulator.base_url());
    environment.push(("KOREGATE__CALLERS__0__NAME", "etl".to_owned()));
    environment.push(("KOREGATE__CALLERS__0__API_KEY_SHA256", value.to_owned()));
    let gateway = GatewayProcess::start(&environment).await;
    assert_eq!(gateway.get(SETTLED_DAY).await.status, 401);
    let response = gateway.send(&TestRequest::get(SETTLED_DAY).key(key)).await;
    response.assert_complete(&settled_day_items(&control), "with the key");
}
