//! Secrets: no log line, metric or response shows the credential, a key, a filter or an item.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{
    ACCOUNT, Control, Credential, FAULTS, FaultPlan, GatewayProcess, ItemFilter, KoregateProcess, RecordingProxy,
    SETTLED_DAY, STREAM, TestRequest, TestResponse, at, caller_table, exact_profile, start_dated_simulator,
};

const KEY: &str = "caller-key-5f2d9c";
const WRONG_KEY: &str = "wrong-key-77ab01";
/// Values of filters and parameters.
const PRIVATE_VALUES: [&str; 4] = ["session-8c1f4e", "conversation-33d0aa", "unknown-91b7c2", "parameter-c04d5e"];
/// The `auth` header of callers, which is never forwarded.
const CALLER_AUTH: &str = "callers-own-token-6e1f";

fn configuration(base_url: &str) -> String {
    let Credential { account_id, client_id, .. } = Credential::default();
    format!(
        "[server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n[upstream]\nbase_url = '{base_url}'\n\
         timeout = '1s'\n[[accounts]]\naccount_id = '{account_id}'\nclient_id = '{client_id}'\n\
         client_secret = {{ env = 'KORE_CLIENT_SECRET' }}\n\
         quota = {{ limits = [{{ requests = 1000, per = '1s' }}] }}\n\
         {}",
        caller_table("bi-etl", KEY, &format!("streams = ['{STREAM}']"))
    )
}

/// All texts of the items that are too long to occur in a log line by chance.
fn item_texts(control: &Control) -> BTreeSet<String> {
    fn gather(value: &Value, texts: &mut BTreeSet<String>) {
        match value {
            Value::String(text) => drop(texts.insert(text.clone())),
            Value::Array(values) => values.iter().for_each(|value| gather(value, texts)),
            Value::Object(members) => members.values().for_each(|value| gather(value, texts)),
            _ => {}
        }
    }
    let items = control.expected_until(STREAM, at("2026-02-22"), at("2026-02-26"), true, &ItemFilter::default());
    let mut texts = BTreeSet::new();
    for (_, item) in items {
        gather(&serde_json::from_slice(&item).unwrap(), &mut texts);
    }
    texts.retain(|text| text.len() >= 12 && text != ACCOUNT && text != STREAM);
    texts
}

/// Sends requests and collects all that must not show a secret: headers, and bodies other than of a 200.
struct OutputCollector {
    gateway: GatewayProcess,
    outputs: Vec<String>,
}

impl OutputCollector {
    async fn send(&mut self, request: TestRequest) -> TestResponse {
        let response = self.gateway.send(&request.header("auth", CALLER_AUTH)).await;
        self.outputs.push(format!("{:?}", response.headers));
        if response.status != 200 {
            self.outputs.push(String::from_utf8_lossy(&response.body).into_owned());
        }
        response
    }

    async fn statuses(&mut self, requests: Vec<TestRequest>) -> Vec<u16> {
        let mut statuses = Vec::new();
        for request in requests {
            statuses.push(self.send(request).await.status.as_u16());
        }
        statuses
    }
}

fn keyed(query: &str) -> TestRequest {
    TestRequest::get(query).key(KEY)
}

#[tokio::test]
async fn outputs_contain_no_secret_key_filter_or_item() {
    let (simulator, control) = start_dated_simulator(exact_profile(120, 4)).await;
    let proxy = RecordingProxy::start(simulator.addr(), None).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("koregate.toml");
    std::fs::write(&file, configuration(&proxy.base_url())).unwrap();
    let secret = Credential::default().client_secret;
    let arguments = ["serve", "--log", "trace", "--config", file.to_str().unwrap()];
    let process = KoregateProcess::start(&arguments, &[("KORE_CLIENT_SECRET", secret.clone())]);
    let gateway = GatewayProcess::from_process(process).await;
    let mut collector = OutputCollector { gateway, outputs: Vec::new() };

    let day = SETTLED_DAY;
    let [session, conversation, unknown, parameter] = PRIVATE_VALUES;
    let good = vec![
        keyed(day),
        keyed(day).ndjson().gzip(),
        keyed(day).and("includeAgenticData=true"),
        TestRequest::get(day).header("authorization", &format!("Bearer {KEY}")),
        keyed(day).body(format!(r#"{{"sessionIds":["{session}"],"conversationIds":["{conversation}"]}}"#)),
        TestRequest::post(day, format!(r#"{{"other":["{unknown}"]}}"#)).key(KEY),
        keyed(day).and(&format!("custom={parameter}")),
    ];
    assert_eq!(collector.statuses(good).await, [200; 7]);
    let bad = vec![
        TestRequest::get(day),
        TestRequest::get(day).key(WRONG_KEY),
        keyed(day).stream("st-other"),
        keyed(day).header("accountId", "another"),
        keyed(&format!("from={parameter}&to=2026-02-23")),
        keyed(&format!("{day}&limit={parameter}")),
        keyed(day).body(format!(r#"["{unknown}""#)),
        keyed(day).path(format!("/{parameter}")),
        keyed(day).method(http::Method::DELETE),
    ];
    assert_eq!(collector.statuses(bad).await, [401, 401, 403, 403, 400, 400, 400, 404, 405]);
    for (number, fault) in FAULTS.into_iter().enumerate() {
        control.set_faults(FaultPlan::always(fault));
        let window = format!("from=2026-02-22T{number:02}:00:00&to=2026-02-22T{number:02}:59:59");
        let body = format!(r#"{{"sessionIds":["{session}"],"other":["{unknown}"]}}"#);
        let response = collector.send(TestRequest::post(window, body).key(KEY)).await;
        assert!(response.status.is_server_error(), "{fault:?}: {}", response.text());
    }
    control.clear_faults();
    for path in ["/metrics", "/", "/api/v1/status", "/readyz", "/nothing"] {
        let response = collector.gateway.get_admin(path).await;
        collector.outputs.push(format!("{:?}\n{}", response.headers, response.text()));
    }
    let OutputCollector { gateway, outputs } = collector;
    let (code, printed) = gateway.stop().await;
    assert_eq!(code, Some(0));
    // A silent process would pass any such test.
    for word in ["a run failed", "is tried again", "somebody else spends it too", "\"outcome\":\"hit\"", "draining"] {
        assert!(printed.contains(word), "no log line about {word}");
    }

    let tokens: BTreeSet<String> = proxy.tokens().into_iter().collect();
    assert!(!tokens.is_empty() && tokens.iter().all(|token| token.starts_with("eyJ")), "{}", tokens.len());
    let texts = item_texts(&control);
    assert!(texts.len() > 1000, "{} texts", texts.len());
    let all = format!("{printed}\n{}", outputs.join("\n"));
    let secrets = [secret.as_str(), "eyJ", KEY, WRONG_KEY, CALLER_AUTH].into_iter().chain(PRIVATE_VALUES);
    let texts = texts.iter().map(String::as_str);
    for hidden in secrets.chain(tokens.iter().flat_map(|token| token.split('.'))).chain(texts) {
        if let Some(line) = all.lines().find(|line| line.contains(hidden)) {
            panic!("{hidden} occurs in: {line}");
        }
    }
}
