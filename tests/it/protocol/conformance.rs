//! Conformance with HTTP/1.1 (RFC 9112), tested with bytes that no client library would send. An ambiguous message is
//! refused or ends its connection, so that no smuggled request behind it is answered.
//!
//! Each case is sent twice: for a small response, and for one that is sent without a copy.

use std::net::SocketAddr;

use tokio::task::spawn_blocking;

use crate::support::{RawResponses, SETTLED_DAY, STREAM, TestHarness, exchange, first_response};

/// The request ID of each request that must not be answered.
const SMUGGLED: &str = "smuggled";

/// Bytes that a client sends, and the expected responses.
struct Case {
    name: &'static str,
    /// The bytes, in which `{line}` is a request line without its end, `{target}` its target, and `{next}` the same
    /// request with [`SMUGGLED`] as its ID.
    sent: &'static str,
    /// The status of each response, in their order.
    expected: &'static [u16],
    end: End,
}

/// The state of the connection after the last response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The gateway closes it and answers nothing that follows.
    Closed,
    /// It stays open: a following request is answered.
    Open,
    /// The client closes its sending half.
    HalfClosed,
}

const fn closed(name: &'static str, sent: &'static str, expected: &'static [u16]) -> Case {
    Case { name, sent, expected, end: End::Closed }
}

const fn open(name: &'static str, sent: &'static str, expected: &'static [u16]) -> Case {
    Case { name, sent, expected, end: End::Open }
}

/// Framing of the body (RFC 9112, 6.3).
const FRAMING: &[Case] = &[
    // RFC 9112, 6.1: Transfer-Encoding overrides Content-Length, and the connection is closed.
    closed(
        "CL.TE",
        "POST {line}\r\nHost: localhost\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}",
        &[200],
    ),
    closed(
        "TE.CL",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{next}",
        &[200],
    ),
    closed(
        "TE.TE, of which one is obscured",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-encoding: x\r\n\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "Transfer-Encoding twice",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "a coding that is not known",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "a coding below chunked",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "chunked is not the last coding",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "a tab within the coding",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chun\tked\r\n\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "Transfer-Encoding over HTTP/1.0",
        "POST {line0}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}",
        &[400],
    ),
    open(
        "the same Content-Length twice",
        "POST {line}\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        &[200],
    ),
    closed(
        "two lengths that differ",
        "POST {line}\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}{next}",
        &[400],
    ),
    closed("a list of lengths", "POST {line}\r\nHost: localhost\r\nContent-Length: 2, 2\r\n\r\n{}{next}", &[400]),
    closed("a length with a sign", "POST {line}\r\nHost: localhost\r\nContent-Length: +2\r\n\r\n{}{next}", &[400]),
    closed("a negative length", "POST {line}\r\nHost: localhost\r\nContent-Length: -2\r\n\r\n{}{next}", &[400]),
    closed("a hexadecimal length", "POST {line}\r\nHost: localhost\r\nContent-Length: 0x2\r\n\r\n{}{next}", &[400]),
    closed("no length", "POST {line}\r\nHost: localhost\r\nContent-Length:\r\n\r\n{}{next}", &[400]),
    closed(
        "a length beyond 64 bits",
        "POST {line}\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n{}{next}",
        &[400],
    ),
    closed(
        "a length beyond the limit of a body",
        "POST {line}\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n{}{next}",
        &[413],
    ),
    open("a length on a GET", "GET {line}\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", &[200]),
    // The remaining bytes are a body, even if they look like a request.
    Case {
        name: "a length that is never reached",
        sent: "POST {line}\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n{}{next}",
        expected: &[400],
        end: End::HalfClosed,
    },
];

/// Chunked bodies (RFC 9112, 7.1).
const CHUNKS: &[Case] = &[
    open(
        "chunks",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        &[200],
    ),
    open(
        "chunk extensions",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b;c=\"d\"\r\n{}\r\n0;e\r\n\r\n",
        &[200],
    ),
    open(
        "trailers",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Request-Id: smuggled\r\n\r\n",
        &[200],
    ),
    // Trailers do not change the framing.
    open(
        "trailers that would frame a body",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nContent-Length: 99\r\n\r\n",
        &[200],
    ),
    open(
        "zeros before a size",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0000000000002\r\n{}\r\n0\r\n\r\n",
        &[200],
    ),
    closed(
        "a size beyond 64 bits",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "a size that is no number",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "a size with a sign",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "no size",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "a chunk that is longer than its size",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "a bare LF behind a size",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "a bare LF in an extension",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;a\n{}\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "a bare LF behind a chunk",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\n0\r\n\r\n{next}",
        &[400],
    ),
    closed(
        "no last chunk",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n{next}",
        &[400],
    ),
];

/// Request lines and header fields (RFC 9112, 2 to 5).
const HEADS: &[Case] = &[
    open("a GET", "GET {line}\r\nHost: localhost\r\n\r\n", &[200]),
    open("an empty line before the request", "\r\nGET {line}\r\nHost: localhost\r\n\r\n", &[200]),
    // RFC 9112, 2.2: a recipient may take a single LF for the end of a line.
    open("bare LFs", "GET {line}\nHost: localhost\n\n", &[200]),
    open("names in any case", "GET {line}\r\nhOsT: localhost\r\n\r\n", &[200]),
    open("blanks around a value", "GET {line}\r\nHost: \t localhost \t\r\n\r\n", &[200]),
    open("a whole URI", "GET http://localhost{target} HTTP/1.1\r\nHost: localhost\r\n\r\n", &[200]),
    closed("obs-fold", "GET {line}\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n{next}", &[400]),
    closed(
        "obs-fold that hides a coding",
        "POST {line}\r\nHost: localhost\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{next}",
        &[400],
    ),
    closed("a fold before the first field", "GET {line}\r\n Host: localhost\r\n\r\n{next}", &[400]),
    closed("a blank before the colon", "GET {line}\r\nHost : localhost\r\n\r\n{next}", &[400]),
    closed(
        "a blank before the colon of a length",
        "POST {line}\r\nHost: localhost\r\nContent-Length : 2\r\n\r\n{}{next}",
        &[400],
    ),
    closed("a bare CR", "GET {line}\r\nHost: localhost\r\nA: b\rContent-Length: 9\r\n\r\n{next}", &[400]),
    closed("a NUL in a value", "GET {line}\r\nHost: localhost\r\nA: b\0c\r\n\r\n{next}", &[400]),
    closed("a NUL in a name", "GET {line}\r\nHost: localhost\r\nA\0: b\r\n\r\n{next}", &[400]),
    closed("no name", "GET {line}\r\nHost: localhost\r\n: b\r\n\r\n{next}", &[400]),
    closed("no colon", "GET {line}\r\nHost: localhost\r\nA\r\n\r\n{next}", &[400]),
    closed("no Host", "GET {line}\r\n\r\n{next}", &[400]),
    closed("two Hosts", "GET {line}\r\nHost: localhost\r\nHost: localhost\r\n\r\n{next}", &[400]),
    closed("a Host that is none", "GET {line}\r\nHost: localhost/@evil.example\r\n\r\n{next}", &[400]),
    open("another Host", "GET {line}\r\nHost: evil.example\r\n\r\n", &[421]),
    open("another host in a whole URI", "GET http://evil.example{target} HTTP/1.1\r\nHost: localhost\r\n\r\n", &[421]),
    closed("no Host over HTTP/1.0", "GET {line0}\r\n\r\n", &[200]),
    closed("two Hosts over HTTP/1.0", "GET {line0}\r\nHost: localhost\r\nHost: localhost\r\n\r\n", &[400]),
    closed("HTTP/0.9", "GET {target}\r\n", &[400]),
    closed("HTTP/1.2", "GET {target} HTTP/1.2\r\nHost: localhost\r\n\r\n{next}", &[400]),
    closed("HTTP/2 in plain text", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{next}", &[]),
    closed("no method", " {line}\r\nHost: localhost\r\n\r\n{next}", &[400]),
    closed("two blanks", "GET  {line}\r\nHost: localhost\r\n\r\n{next}", &[400]),
    closed("a target with a control", "GET {target}\u{1} HTTP/1.1\r\nHost: localhost\r\n\r\n{next}", &[400]),
    open("another method", "get {line}\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", &[405]),
    open("OPTIONS of all", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", &[404]),
    open("CONNECT", "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n", &[404]),
    open("an upgrade", "GET {line}\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", &[200]),
    closed("Connection: close", "GET {line}\r\nHost: localhost\r\nConnection: close\r\n\r\n{next}", &[200]),
    closed("HTTP/1.0", "GET {line0}\r\nHost: localhost\r\n\r\n{next}", &[200]),
    // Pipelined requests are answered in their order.
    open(
        "pipelining",
        "GET {line}\r\nHost: localhost\r\n\r\nPOST {line}\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[200, 200, 404],
    ),
    closed(
        "pipelining behind what is refused",
        "GET {line}\r\nHost: localhost\r\n\r\nGET {line}\r\n\r\n{next}",
        &[200, 400],
    ),
    open(
        "Expect: 100-continue",
        "POST {line}\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        &[200],
    ),
];

/// Cases with generated bytes, and the status of the response.
fn long_cases() -> [(String, &'static [u16]); 3] {
    let head = "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    [
        // hyper accepts 16 KiB of chunk extensions and of trailers.
        (format!("{head}2;{}\r\n{{}}\r\n0\r\n\r\n{{next}}", "x".repeat(32 << 10)), &[400]),
        (format!("{head}2\r\n{{}}\r\n0\r\nA: {}\r\n\r\n{{next}}", "x".repeat(32 << 10)), &[400]),
        (format!("GET {{line}}\r\nHost: localhost\r\nA: {}\r\n\r\n{{next}}", "x".repeat(1 << 20)), &[431]),
    ]
}

/// A gateway with both kinds of responses cached.
struct Target {
    harness: TestHarness,
    addr: SocketAddr,
    /// Targets of a small response and of one that is sent without a copy.
    targets: [String; 2],
}

impl Target {
    async fn start() -> Self {
        let harness = TestHarness::start_exact(250, 4).await;
        let addr = harness.gateway.addr();
        // Repeated requests put the response into the response cache.
        for _ in 0..20 {
            assert!(harness.get(format!("{SETTLED_DAY}&limit=100")).await.body.len() > 64 << 10);
        }
        let path = format!("/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions?{SETTLED_DAY}");
        Self { harness, addr, targets: [format!("{path}&limit=1"), format!("{path}&limit=100")] }
    }

    /// Sends a case for each target and asserts its responses.
    async fn assert_case(&self, name: &str, sent: &str, expected: &[u16], end: End) {
        for target in &self.targets {
            let message = render(sent, target);
            let behind = format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: behind\r\nConnection: close\r\n\r\n"
            );
            let behind = if end == End::Open { behind } else { String::new() };
            let (addr, half_close) = (self.addr, end == End::HalfClosed);
            let received = spawn_blocking(move || exchange(addr, &(message + &behind), half_close)).await.unwrap();
            let responses = RawResponses::parse(&received);
            let expected_behind = if end == End::Open { &[200][..] } else { &[] };
            assert_eq!(responses.statuses, [expected, expected_behind].concat(), "{name}: {target}");
            assert!(!responses.heads.contains(SMUGGLED), "{name}: {target}\n{}", responses.heads);
            assert_eq!(responses.heads.contains("behind"), end == End::Open, "{name}: {target}\n{}", responses.heads);
        }
    }
}

/// The bytes of a case for a target.
fn render(sent: &str, target: &str) -> String {
    let next = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {SMUGGLED}\r\n\r\n");
    sent.replace("{line}", &format!("{target} HTTP/1.1"))
        .replace("{line0}", &format!("{target} HTTP/1.0"))
        .replace("{target}", target)
        .replace("{next}", &next)
}

async fn assert_cases(cases: &[Case]) {
    let target = Target::start().await;
    let calls = target.harness.calls();
    for Case { name, sent, expected, end } in cases {
        target.assert_case(name, sent, expected, *end).await;
    }
    assert_eq!(target.harness.calls(), calls, "all responses are cached");
}

#[tokio::test]
async fn body_framing_is_followed_or_refused() {
    assert_cases(FRAMING).await;
}

#[tokio::test]
async fn chunked_body_is_decoded_or_refused() {
    assert_cases(CHUNKS).await;
}

#[tokio::test]
async fn head_violating_grammar_is_refused() {
    assert_cases(HEADS).await;
}

#[tokio::test]
async fn oversized_head_chunk_extension_or_trailer_is_refused() {
    let target = Target::start().await;
    for (sent, expected) in long_cases() {
        target.assert_case(&sent[..80], &sent, expected, End::Closed).await;
    }
}

/// Bodies that are larger than the socket buffers of both ends.
#[tokio::test]
async fn oversized_body_refusal_reaches_sending_client() {
    let target = Target::start().await;
    let line = format!("POST {} HTTP/1.1\r\nHost: localhost\r\n", target.targets[0]);
    let with_length = format!("{line}Content-Length: 33554432\r\n\r\n");
    let in_chunks = format!("{line}Transfer-Encoding: chunked\r\n\r\n2000000\r\n");
    for (head, body) in [
        // The refusal must not wait for the body.
        (&with_length, 0),
        // Most clients send the whole body before they read the response.
        (&with_length, 32 << 20),
        (&in_chunks, 32 << 20),
    ] {
        let (addr, message) = (target.addr, [head.as_bytes(), &vec![b' '; body]].concat());
        let received = spawn_blocking(move || first_response(addr, &message)).await.unwrap();
        assert!(received.starts_with("HTTP/1.1 413 "), "{head}, {body} bytes of it: {received}");
    }
}
