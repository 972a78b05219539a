//! What must not be seen: the credential, the keys of callers, and what people said to each other.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use koregate_simulator::{Control, Credential, Fault, FaultPlan, ItemFilter, Profile, Simulator};
use serde_json::Value;

use crate::callers::caller;
use crate::process::Running;
use crate::support::{ACCOUNT, Answer, Ask, Client, STREAM, at, exact_profile};
use crate::tap::Tap;

const KEY: &str = "caller-key-5f2d9c";
const WRONG_KEY: &str = "wrong-key-77ab01";
/// What callers send that is theirs alone.
const FILTERS: [&str; 4] = ["session-8c1f4e", "conversation-33d0aa", "unknown-91b7c2", "parameter-c04d5e"];
const CALLERS_AUTH: &str = "callers-own-token-6e1f";

const FAULTS: [Fault; 15] = [
    Fault::Status500,
    Fault::Html502,
    Fault::TooMany,
    Fault::TooManySilent,
    Fault::Unauthorized,
    Fault::Reset,
    Fault::Truncated,
    Fault::TruncatedJson,
    Fault::Garbage,
    Fault::Html200,
    Fault::EmptyBody,
    Fault::Slow,
    Fault::SlowBody,
    Fault::WrongCount,
    Fault::EmptyPage,
];

fn configuration(base_url: &str) -> String {
    let Credential { account_id, client_id, .. } = Credential::default();
    format!(
        "[server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n[upstream]\nbase_url = '{base_url}'\n\
         timeout = '1s'\n[[accounts]]\naccount_id = '{account_id}'\nclient_id = '{client_id}'\n\
         client_secret = {{ env = 'KORE_CLIENT_SECRET' }}\n\
         quota = {{ limits = [{{ requests = 1000, per = '1s' }}] }}\n\
         {}",
        caller("bi-etl", KEY, &format!("streams = ['{STREAM}']"))
    )
}

/// Every text of the items that could not stand in a log line by chance.
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

/// Asks for all kinds of things, and keeps what may be shown to anybody: all but the items of a 200.
struct Snoop {
    addr: SocketAddr,
    client: Client,
    seen: Vec<String>,
}

impl Snoop {
    async fn ask(&mut self, ask: Ask) -> Answer {
        let answer = self.client.send(self.addr, &ask.header("auth", CALLERS_AUTH)).await.unwrap();
        self.seen.push(format!("{:?}", answer.headers));
        if answer.status != 200 {
            self.seen.push(String::from_utf8_lossy(&answer.body).into_owned());
        }
        answer
    }

    async fn statuses(&mut self, asks: Vec<Ask>) -> Vec<u16> {
        let mut statuses = Vec::new();
        for ask in asks {
            statuses.push(self.ask(ask).await.status.as_u16());
        }
        statuses
    }
}

fn keyed(query: &str) -> Ask {
    Ask::get(query).header("x-api-key", KEY)
}

#[tokio::test]
async fn no_output_shows_a_secret_a_key_a_filter_or_an_item() {
    let profile = Profile { end: Some(at("2026-02-26").into()), ..exact_profile(120, 4) };
    let simulator = Simulator::start(profile).await.unwrap();
    let control = simulator.control();
    let tap = Tap::start(simulator.addr(), None).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("koregate.toml");
    std::fs::write(&file, configuration(&tap.base_url())).unwrap();
    let secret = Credential::default().client_secret;
    let arguments = ["serve", "--log", "trace", "--config", file.to_str().unwrap()];
    let mut gateway = Running::start(&arguments, &[("KORE_CLIENT_SECRET", secret.clone())]);
    let (addr, operators) = gateway.listening().await;
    let mut snoop = Snoop { addr, client: Client::default(), seen: Vec::new() };

    let day = "from=2026-02-23&to=2026-02-23";
    let [session, conversation, unknown, parameter] = FILTERS;
    let good = vec![
        keyed(day),
        keyed(day).header("accept", "application/x-ndjson").header("accept-encoding", "gzip"),
        keyed(day).and("includeAgenticData=true"),
        Ask::get(day).header("authorization", &format!("Bearer {KEY}")),
        keyed(day).body(format!(r#"{{"sessionIds":["{session}"],"conversationIds":["{conversation}"]}}"#)),
        Ask::post(day, format!(r#"{{"other":["{unknown}"]}}"#)).header("x-api-key", KEY),
        keyed(day).and(&format!("custom={parameter}")),
    ];
    assert_eq!(snoop.statuses(good).await, [200; 7]);
    let bad = vec![
        Ask::get(day),
        Ask::get(day).header("x-api-key", WRONG_KEY),
        keyed(day).stream("st-other"),
        keyed(day).header("accountId", "another"),
        keyed(&format!("from={parameter}&to=2026-02-23")),
        keyed(&format!("{day}&limit={parameter}")),
        keyed(day).body(format!(r#"["{unknown}""#)),
        keyed(day).path(format!("/{parameter}")),
        keyed(day).method(http::Method::DELETE),
    ];
    assert_eq!(snoop.statuses(bad).await, [401, 401, 403, 403, 400, 400, 400, 404, 405]);
    for (number, fault) in FAULTS.into_iter().enumerate() {
        control.set_faults(FaultPlan::always(fault));
        let window = format!("from=2026-02-22T{number:02}:00:00&to=2026-02-22T{number:02}:59:59");
        let body = format!(r#"{{"sessionIds":["{session}"],"other":["{unknown}"]}}"#);
        let answer = snoop.ask(Ask::post(window, body).header("x-api-key", KEY)).await;
        assert!(answer.status.is_server_error(), "{fault:?}: {}", answer.text());
    }
    control.clear_faults();
    for path in ["/metrics", "/", "/api/v1/status", "/readyz", "/nothing"] {
        let answer = snoop.client.send(operators, &Ask::get("").path(path)).await.unwrap();
        snoop.seen.push(format!("{:?}\n{}", answer.headers, answer.text()));
    }
    gateway.terminate();
    let (code, printed) = gateway.ended().await;
    assert_eq!(code, Some(0));
    // Were it silent, it could keep any secret.
    for word in ["a run failed", "is tried again", "somebody else spends it too", "\"outcome\":\"hit\"", "draining"] {
        assert!(printed.contains(word), "nothing is said of {word}");
    }

    let tokens: BTreeSet<String> = tap.auths().into_iter().collect();
    assert!(!tokens.is_empty() && tokens.iter().all(|token| token.starts_with("eyJ")), "{}", tokens.len());
    let texts = item_texts(&control);
    assert!(texts.len() > 1000, "{} texts", texts.len());
    let seen = format!("{printed}\n{}", snoop.seen.join("\n"));
    let secrets = [secret.as_str(), "eyJ", KEY, WRONG_KEY, CALLERS_AUTH].into_iter().chain(FILTERS);
    let texts = texts.iter().map(String::as_str);
    for hidden in secrets.chain(tokens.iter().flat_map(|token| token.split('.'))).chain(texts) {
        if let Some(line) = seen.lines().find(|line| line.contains(hidden)) {
            panic!("{hidden} stands in: {line}");
        }
    }
}
