//! HTTP/1.1 on the wire (RFC 9112): how each message of a client ends, by bytes that no client library would send. A message
//! that can be read in two ways is refused or ends its connection, so that nothing smuggled in behind it is answered.
//!
//! Each case is sent to a small answer, and to one that is passed to the socket without a copy.

use std::net::SocketAddr;

use tokio::task::spawn_blocking;

use crate::support::{Answers, Rig, STREAM, Settings, exact_profile, exchange, first_answer};

/// A whole settled day; with `limit=100` an answer of about a megabyte.
const DAY: &str = "from=2026-02-23&to=2026-02-23";
/// In the name of each request that must not be answered.
const SMUGGLED: &str = "smuggled";

/// What a client sends, and how it is answered.
struct Case {
    name: &'static str,
    /// `{line}` stands for a request line without its end, `{next}` for a request that asks for the same and has the name
    /// of a smuggled one. What is sent is what stands here, byte for byte.
    sent: &'static str,
    /// The status of each answer, in their order; none if the connection ends without one.
    expected: &'static [u16],
    end: End,
}

/// How a connection ends after the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The gateway closes it, and nothing that came behind was answered.
    Closed,
    /// It stays open: the request behind the case is answered.
    Open,
    /// The client closes its half of it.
    Cut,
}

const fn closed(name: &'static str, sent: &'static str, expected: &'static [u16]) -> Case {
    Case { name, sent, expected, end: End::Closed }
}

const fn open(name: &'static str, sent: &'static str, expected: &'static [u16]) -> Case {
    Case { name, sent, expected, end: End::Open }
}

/// Where a body ends (RFC 9112, 6.3), and what is to be taken for the next request.
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
    // All that is there is a body, however much it looks like a request.
    Case {
        name: "a length that is never reached",
        sent: "POST {line}\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n{}{next}",
        expected: &[400],
        end: End::Cut,
    },
];

/// A body in chunks (RFC 9112, 7.1).
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
    // A trailer changes nothing of the message that it ends.
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

/// The head (RFC 9112, 2 to 5).
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
    closed("a wish to close", "GET {line}\r\nHost: localhost\r\nConnection: close\r\n\r\n{next}", &[200]),
    closed("HTTP/1.0", "GET {line0}\r\nHost: localhost\r\n\r\n{next}", &[200]),
    // What is asked for in a row is answered in a row.
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

/// What the answers are to cases that are too long to be written down.
fn long_cases() -> [(String, &'static [u16]); 3] {
    let head = "POST {line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    [
        // Of a chunk's extensions and of trailers, hyper takes 16 KiB.
        (format!("{head}2;{}\r\n{{}}\r\n0\r\n\r\n{{next}}", "x".repeat(32 << 10)), &[400]),
        (format!("{head}2\r\n{{}}\r\n0\r\nA: {}\r\n\r\n{{next}}", "x".repeat(32 << 10)), &[400]),
        (format!("GET {{line}}\r\nHost: localhost\r\nA: {}\r\n\r\n{{next}}", "x".repeat(1 << 20)), &[431]),
    ]
}

/// A gateway that has both kinds of answers at hand.
struct Target {
    rig: Rig,
    addr: SocketAddr,
    /// Paths with their queries: of a small answer, and of one that is passed on without a copy.
    targets: [String; 2],
}

impl Target {
    async fn start() -> Self {
        let rig = Rig::start(exact_profile(250, 4), &Settings::default()).await;
        let addr = rig.door.addr();
        // Ready when it has been asked for so often.
        for _ in 0..20 {
            assert!(rig.get(format!("{DAY}&limit=100")).await.body.len() > 64 << 10);
        }
        let path = format!("/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions?{DAY}");
        Self { rig, addr, targets: [format!("{path}&limit=1"), format!("{path}&limit=100")] }
    }

    /// Sends a case to each of the two, and checks how it is answered.
    async fn check(&self, name: &str, sent: &str, expected: &[u16], end: End) {
        for target in &self.targets {
            let message = written(sent, target);
            let behind = format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: behind\r\nConnection: close\r\n\r\n"
            );
            let behind = if end == End::Open { behind } else { String::new() };
            let (addr, is_cut) = (self.addr, end == End::Cut);
            let received = spawn_blocking(move || exchange(addr, &(message + &behind), is_cut)).await.unwrap();
            let answers = Answers::read(&received);
            let expected_behind = if end == End::Open { &[200][..] } else { &[] };
            assert_eq!(answers.statuses, [expected, expected_behind].concat(), "{name}: {target}");
            assert!(!answers.heads.contains(SMUGGLED), "{name}: {target}\n{}", answers.heads);
            assert_eq!(answers.heads.contains("behind"), end == End::Open, "{name}: {target}\n{}", answers.heads);
        }
    }
}

/// A case as it goes over the wire.
fn written(sent: &str, target: &str) -> String {
    let next = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {SMUGGLED}\r\n\r\n");
    sent.replace("{line}", &format!("{target} HTTP/1.1"))
        .replace("{line0}", &format!("{target} HTTP/1.0"))
        .replace("{target}", target)
        .replace("{next}", &next)
}

async fn check_all(cases: &[Case]) {
    let target = Target::start().await;
    let calls = target.rig.calls();
    for Case { name, sent, expected, end } in cases {
        target.check(name, sent, expected, *end).await;
    }
    assert_eq!(target.rig.calls(), calls, "all of it was at hand");
}

#[tokio::test]
async fn body_ends_where_its_framing_says_or_the_connection_does() {
    check_all(FRAMING).await;
}

#[tokio::test]
async fn chunks_are_read_as_they_are_written_or_refused() {
    check_all(CHUNKS).await;
}

#[tokio::test]
async fn head_that_breaks_a_rule_is_refused() {
    check_all(HEADS).await;
}

#[tokio::test]
async fn head_chunk_extension_or_trailer_that_is_too_long_is_refused() {
    let target = Target::start().await;
    for (sent, expected) in long_cases() {
        target.check(&sent[..80], &sent, expected, End::Closed).await;
    }
}

/// Bodies longer than what both ends of a connection hold.
#[tokio::test]
async fn body_beyond_the_limit_is_refused_and_the_answer_is_read() {
    let target = Target::start().await;
    let line = format!("POST {} HTTP/1.1\r\nHost: localhost\r\n", target.targets[0]);
    let with_length = format!("{line}Content-Length: 33554432\r\n\r\n");
    let in_chunks = format!("{line}Transfer-Encoding: chunked\r\n\r\n2000000\r\n");
    for (head, body) in [
        // An answer that waits for the body would not come.
        (&with_length, 0),
        // As most clients do: first all is sent, then the answer is read.
        (&with_length, 32 << 20),
        (&in_chunks, 32 << 20),
    ] {
        let (addr, message) = (target.addr, [head.as_bytes(), &vec![b' '; body]].concat());
        let received = spawn_blocking(move || first_answer(addr, &message)).await.unwrap();
        assert!(received.starts_with("HTTP/1.1 413 "), "{head}, {body} bytes of it: {received}");
    }
}
