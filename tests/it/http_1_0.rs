//! HTTP/1.0 has no chunked coding, so an answer without a length ends where its connection ends, for whatever reason. No
//! such answer is sent.

use http::header::CONTENT_LENGTH;

use crate::representation::ndjson;
use crate::support::{Ask, Rig, Settings, assert_items, at, exact_profile, head_and_body, read_to_end};

/// Four settled days of 2000 items in all, which are streamed over HTTP/1.1.
const LONG: &str = "from=2026-02-20&to=2026-02-23";
const PAGES: u64 = 20;

async fn rig() -> Rig {
    Rig::start(exact_profile(500, 6), &Settings::default().limits("[{ requests = 1_000_000, per = '1s' }]")).await
}

/// The body of an answer that has its length, no coding of any kind, and all that its length says.
async fn body(rig: &Rig, ask: &Ask) -> Vec<u8> {
    let (received, error) = read_to_end(rig.door.addr(), &ask.wire_as("HTTP/1.0", rig.door.addr())).await;
    assert!(error.is_none(), "{error:?}");
    let (head, body) = head_and_body(&received);
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert!(!head.contains("transfer-encoding") && !head.contains("content-encoding"), "{head}");
    assert!(head.contains(&format!("{CONTENT_LENGTH}: {}\r\n", body.len())), "{head}");
    body.to_vec()
}

#[tokio::test]
async fn http_1_0_answer_has_a_length_and_no_coding() {
    let rig = rig().await;
    let json = Ask::get(LONG).header("accept-encoding", "gzip");
    let lines = json.clone().header("accept", "application/x-ndjson");
    let truth = rig.truth(at("2026-02-20"), at("2026-02-24"));
    // First while it is missing, which would be streamed; then from memory.
    for _ in 0..2 {
        assert!(body(&rig, &lines).await == ndjson(&truth));
        let page = serde_json::from_slice(&body(&rig, &json).await).unwrap();
        assert_items(&page, &truth, LONG);
    }
    assert_eq!(rig.calls(), PAGES);
}

/// Answers that are ready are kept apart by what they depend on.
#[tokio::test]
async fn http_1_0_answer_is_not_the_ready_one_of_http_1_1() {
    let rig = rig().await;
    let ask = Ask::get(format!("{LONG}&limit=50")).header("accept-encoding", "gzip");
    for _ in 0..20 {
        assert_eq!(rig.ask(&ask).await.header("content-encoding"), Some("gzip"));
        assert!(body(&rig, &ask).await.starts_with(b"{\"numResults\":50,"));
    }
}

#[tokio::test]
async fn http_1_0_problem_has_a_length() {
    let rig = rig().await;
    let ask = Ask::get("from=never").header("accept-encoding", "gzip");
    let (received, error) = read_to_end(rig.door.addr(), &ask.wire_as("HTTP/1.0", rig.door.addr())).await;
    let (head, body) = head_and_body(&received);
    assert!(error.is_none() && head.starts_with("http/1.0 400"), "{head}");
    assert!(head.contains(&format!("{CONTENT_LENGTH}: {}\r\n", body.len())), "{head}");
}
