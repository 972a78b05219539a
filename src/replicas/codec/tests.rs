//! Literal bytes of all messages, and messages that cannot be read.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;

use super::super::fetch_message::{ChunkRef, FetchReply, FetchTerms, RemoteFetch, RemoteResult, WireError};
use super::*;
use crate::request::{Filter, KnownFilter, QueueWait, Series};
use crate::window::{Interval, Timestamp};

fn replica(digits: &str) -> ReplicaId {
    ReplicaId::parse(digits.as_bytes()).unwrap()
}

fn sender() -> ReplicaId {
    replica("0123456789abcdef")
}

fn receiver() -> ReplicaId {
    replica("fedcba9876543210")
}

pub(super) fn cipher(secrets: &[&str]) -> Cipher {
    let secrets: Vec<SecretString> = secrets.iter().map(|secret| (*secret).into()).collect();
    Cipher::new(&secrets).unwrap()
}

/// The payload of a message between two replicas.
pub(super) fn payload(message: &Message, cipher: &Cipher) -> Bytes {
    encode(message, cipher, &sender(), &Recipient::One(receiver())).unwrap().into()
}

/// The message of a payload between two replicas.
pub(super) fn message(payload: &Bytes, cipher: &Cipher) -> Result<Message, DecodeError> {
    let (kind, from, body) = decode_head(payload).ok_or(DecodeError::Unreadable)?;
    decode_body(kind, body, cipher, &from, &receiver())
}

fn quota(message: QuotaMessage) -> Message {
    Message::Quota { account: "664b-33".into(), message }
}

fn permit(message: PermitMessage) -> Message {
    quota(QuotaMessage::Permit { number: 7, message })
}

fn borrow(priority: Priority) -> Message {
    permit(PermitMessage::Request(Requester { caller: "bi:etl ü".into(), weight: 3, priority }))
}

fn apply(stream: Option<&str>) -> Message {
    let interval = Interval::new(Timestamp::from_nanos(-7), Timestamp::from_nanos(1_700_000_000_000_000_000));
    let tombstone = Tombstone { stream: stream.map(Into::into), interval, ids: None };
    Message::Purge(PurgeMessage::Apply { number: 4, epoch: 1_700_000_000_123, account: "664b 33".into(), tombstone })
}

fn erase() -> Message {
    match apply(None) {
        Message::Purge(PurgeMessage::Apply { number, epoch, account, mut tombstone }) => {
            tombstone.ids = Some([0x0bad_cafe, 7].into_iter().collect());
            Message::Purge(PurgeMessage::Apply { number, epoch, account, tombstone })
        }
        other => panic!("{other:?}"),
    }
}

fn remote_fetch(id: u64, filter: Filter, agentic: bool, is_exact: bool) -> RemoteFetch {
    let parameters = vec![("x".to_owned(), "y z".to_owned())];
    let series = Series { account: "664b33a6".into(), stream: "st-1".into(), filter, parameters, agentic };
    let requester = Requester { caller: "bi-etl".into(), weight: 2, priority: Priority::Background };
    RemoteFetch {
        id,
        attempt: 1,
        series: (&series).into(),
        interval: (-7, 1_700_000_000_000_000_000),
        is_exact,
        requester: (&requester).into(),
        age_ms: 17,
        queue_wait: QueueWait { time: Duration::from_millis(1250), pages: 3 },
        epoch: 1_700_000_000_123,
        terms: FetchTerms::default(),
        trace: None,
    }
}

fn reply(result: Result<RemoteResult, WireError>) -> Message {
    Message::Fetch(FetchMessage::Reply(FetchReply { id: 5, attempt: 0, result }))
}

/// Messages with the bodies that version 0.1.0 sends for them, without a key. Such a replica runs beside this one
/// during a rolling update, so the bytes must not change. It does not know those of erasures, and reads those of calls
/// that were answered or refused as `Returned`.
fn golden_messages() -> Vec<(Message, &'static str)> {
    let known = KnownFilter { channels: ["chat".to_owned(), "voice".to_owned()].into(), ..KnownFilter::default() };
    let chunk = |in_handover| ChunkRef::from((-7, 8, 9, 10, in_handover));
    let chunks = vec![chunk(true), chunk(false)];
    let requests = vec![
        remote_fetch(1, Filter::None, false, false),
        remote_fetch(2, Filter::Known(Box::new(known)), true, true),
        remote_fetch(3, Filter::Opaque(vec![0, 37, 65, 200].into()), true, false),
    ];
    let settings = FetchSettings::new("segmentStartTime:inclusive:3600");
    let waits = vec![(5, QueueWait { time: Duration::from_millis(1250), pages: 3 })];
    let fetch = Message::Fetch;
    vec![
        (quota(QuotaMessage::Joined), "664b%2D33:joined"),
        (quota(QuotaMessage::LeaseChanged), "664b%2D33"),
        (quota(QuotaMessage::Granted { first: 40, count: 6 }), "664b%2D33:40:6"),
        (borrow(Priority::Interactive), "664b%2D33:borrow:7:interactive:3:bi%3Aetl%20%C3%BC"),
        (borrow(Priority::Refresh), "664b%2D33:borrow:7:refresh:3:bi%3Aetl%20%C3%BC"),
        (borrow(Priority::Background), "664b%2D33:borrow:7:background:3:bi%3Aetl%20%C3%BC"),
        (permit(PermitMessage::Granted("0123456789abcdef:42".into())), "664b%2D33:lent:7:0123456789abcdef:42"),
        (permit(PermitMessage::Exhausted(1500)), "664b%2D33:spent:7:1500"),
        (permit(PermitMessage::Returned), "664b%2D33:back:7"),
        (permit(PermitMessage::Answered), "664b%2D33:back:7:page"),
        (permit(PermitMessage::Refused(1500)), "664b%2D33:back:7:refused:1500"),
        (permit(PermitMessage::Unused), "664b%2D33:unused:7"),
        (apply(Some("st-1")), "bury 4 1700000000123 664b%2033 st%2D1 -7 1700000000000000000"),
        (apply(None), "bury 4 1700000000123 664b%2033 * -7 1700000000000000000"),
        (Message::Purge(PurgeMessage::Applied { number: 4, chunks: None }), "done 4"),
        (erase(), "erase 4 1700000000123 664b%2033 * -7 1700000000000000000 000000070badcafe"),
        (Message::Purge(PurgeMessage::Applied { number: 4, chunks: Some(12) }), "erased 4 12"),
        (fetch(FetchMessage::Unreadable), "?"),
        (
            fetch(FetchMessage::BatchAnnounced { account: "664b\"33".to_owned(), batch: 7 }),
            r#"{"Coming":{"account":"664b\"33","gathering":7}}"#,
        ),
        (fetch(FetchMessage::BatchEmpty { batch: 7 }), r#"{"Nothing":{"gathering":7}}"#),
        (
            fetch(FetchMessage::Requests { settings, requests, closes: Some(9) }),
            concat!(
                r#"{"Errands":{"cut":"2:segmentStartTime:inclusive:3600","errands":["#,
                r#"{"id":1,"attempt":1,"series":{"account":"664b33a6","stream":"st-1","filter":"None","#,
                r#""parameters":[["x","y z"]],"rich":false},"span":[-7,1700000000000000000],"exactly":false,"#,
                r#""asker":{"caller":"bi-etl","weight":2,"class":"Background"},"asked_ago":17,"#,
                r#""waited":{"time":{"secs":1,"nanos":250000000},"pages":3},"epoch":1700000000123},"#,
                r#"{"id":2,"attempt":1,"series":{"account":"664b33a6","stream":"st-1","#,
                r#""filter":{"Known":{"channels":["chat","voice"]}},"parameters":[["x","y z"]],"rich":true},"#,
                r#""span":[-7,1700000000000000000],"exactly":true,"#,
                r#""asker":{"caller":"bi-etl","weight":2,"class":"Background"},"asked_ago":17,"#,
                r#""waited":{"time":{"secs":1,"nanos":250000000},"pages":3},"epoch":1700000000123},"#,
                r#"{"id":3,"attempt":1,"series":{"account":"664b33a6","stream":"st-1","#,
                r#""filter":{"Opaque":"%00%25A%C8"},"parameters":[["x","y z"]],"rich":true},"#,
                r#""span":[-7,1700000000000000000],"exactly":false,"#,
                r#""asker":{"caller":"bi-etl","weight":2,"class":"Background"},"asked_ago":17,"#,
                r#""waited":{"time":{"secs":1,"nanos":250000000},"pages":3},"epoch":1700000000123}],"closes":9}}"#,
            ),
        ),
        (
            fetch(FetchMessage::Requests { settings: FetchSettings::new("x"), requests: vec![], closes: None }),
            r#"{"Errands":{"cut":"2:x","errands":[],"closes":null}}"#,
        ),
        (fetch(FetchMessage::Cancelled { id: 5 }), r#"{"Gone":{"id":5}}"#),
        (fetch(FetchMessage::QueueWaits(waits)), r#"{"Waited":[[5,{"time":{"secs":1,"nanos":250000000},"pages":3}]]}"#),
        (
            reply(Ok(RemoteResult { interval: (1, 2), chunks, calls: 4, is_coalesced: true })),
            concat!(
                r#"{"Landed":{"id":5,"attempt":0,"result":{"Ok":{"span":[1,2],"#,
                r#""pieces":[[-7,8,9,10,true],[-7,8,9,10,false]],"calls":4,"collapsed":true}}}}"#,
            ),
        ),
    ]
}

/// Errors, each with its JSON within the reply that version 0.1.0 sends.
fn golden_errors() -> Vec<(WireError, &'static str)> {
    let wait = Duration::from_millis(61_234);
    let message = || Some("Invalid JWT token".to_owned());
    vec![
        (WireError::QuotaExhausted(wait), r#"{"Held":{"secs":61,"nanos":234000000}}"#),
        (WireError::TooManyFetches(Duration::from_secs(5)), r#"{"Busy":{"secs":5,"nanos":0}}"#),
        (WireError::FetchLost, r#""Lost""#),
        (WireError::ItemsMoving, r#""Restless""#),
        (WireError::Damaged, r#""Damaged""#),
        (WireError::ConfigMismatch, r#""Foreign""#),
        (WireError::TooLargeToBuffer(268_435_456), r#"{"TooLargeToHold":268435456}"#),
        (WireError::WindowField, r#""WindowField""#),
        (WireError::Unplaced, r#""Unplaced""#),
        (WireError::Torn, r#""Torn""#),
        (WireError::Oversized, r#""Oversized""#),
        (WireError::RunTooLarge(7), r#"{"RunTooLarge":7}"#),
        (WireError::CallExhausted(wait), r#"{"Exhausted":{"secs":61,"nanos":234000000}}"#),
        (WireError::CallRefused(wait), r#"{"Refused":{"secs":61,"nanos":234000000}}"#),
        (WireError::Abandoned, r#""Unwanted""#),
        (WireError::NotLeader, r#""Elsewhere""#),
        (WireError::UnknownAccount, r#""UnknownAccount""#),
        (WireError::Mint("why".to_owned()), r#"{"Mint":"why"}"#),
        // Later than version 0.1.0.
        (WireError::StreamRefused(401, message()), r#"{"StreamRefused":[401,"Invalid JWT token"]}"#),
        (WireError::Connect, r#""Connect""#),
        (WireError::BrokenOff, r#""BrokenOff""#),
        (WireError::Timeout, r#""Timeout""#),
        (WireError::Status(503, None), r#"{"Status":[503,null]}"#),
        (WireError::Status(405, message()), r#"{"Status":[405,"Invalid JWT token"]}"#),
        (WireError::Unauthorized(message()), r#"{"Unauthorized":"Invalid JWT token"}"#),
        (WireError::RateLimited, r#""RateLimited""#),
        (WireError::BadPage("WrongCount".to_owned()), r#"{"BadPage":"WrongCount"}"#),
        (WireError::TooLarge, r#""TooLarge""#),
    ]
}

#[test]
fn golden_bytes_of_each_message_are_written_and_read() {
    let plain = cipher(&[]);
    let errors = golden_errors().into_iter().map(|(error, json)| {
        (reply(Err(error)), format!(r#"{{"Landed":{{"id":5,"attempt":0,"result":{{"Err":{json}}}}}}}"#))
    });
    let messages = golden_messages().into_iter().map(|(message, body)| (message, body.to_owned()));
    let mut kinds = BTreeMap::new();
    for (expected, body) in messages.chain(errors) {
        let kind = match expected.kind() {
            MessageKind::Quota => "q",
            MessageKind::Purge => "p",
            MessageKind::Fetch => "e",
        };
        let bytes = Bytes::from(format!("{kind}0123456789abcdef{body}"));
        assert_eq!(payload(&expected, &plain), bytes, "{expected:?}");
        assert_eq!(message(&bytes, &plain), Ok(expected), "{body}");
        *kinds.entry(kind).or_insert(0) += 1;
    }
    assert_eq!(kinds, BTreeMap::from([("e", 36), ("p", 5), ("q", 12)]));
}

#[test]
fn golden_sealed_bytes_are_read() {
    // `{"Coming":{"account":"664b\"33","gathering":7}}`, sealed by version 0.1.0 with the key `golden key`.
    let sealed = golden_sealed();
    let expected = FetchMessage::BatchAnnounced { account: "664b\"33".to_owned(), batch: 7 };
    assert_eq!(message(&sealed, &cipher(&["golden key"])), Ok(Message::Fetch(expected)));
}

fn golden_sealed() -> Bytes {
    const HEX: &str = concat!(
        "6b67733106650b09bf32c88ffd8d33eaebbe3cb4dd1f2cd1cb2f1edac0ea74beee300bb50e6d7a3467",
        "327a00fadd485531c70ac1f2803ab9e59a72c0f3ef02721f787f5f0e348a1fc686130f3fc22d414cacfc",
    );
    let bytes = (0..HEX.len()).step_by(2).map(|at| u8::from_str_radix(&HEX[at..at + 2], 16).unwrap());
    b"e0123456789abcdef".iter().copied().chain(bytes).collect()
}

#[test]
fn words_appended_by_the_lease_script_are_a_grant() {
    let head = encode(&quota(QuotaMessage::LeaseChanged), &cipher(&[]), &sender(), &Recipient::All).unwrap();
    let granted = [head.as_slice(), b":40:6"].concat().into();
    assert_eq!(message(&granted, &cipher(&[])), Ok(quota(QuotaMessage::Granted { first: 40, count: 6 })));
}

#[test]
fn only_fetch_messages_are_sealed() {
    let keys = cipher(&["key"]);
    for (sent, body) in golden_messages() {
        let bytes = payload(&sent, &keys);
        let is_plain = bytes.ends_with(body.as_bytes());
        assert_eq!(is_plain, sent.kind() != MessageKind::Fetch || body == "?", "{sent:?}");
        assert_eq!(message(&bytes, &keys), Ok(sent));
    }
}

#[test]
fn sealed_message_opens_only_for_its_receiver() {
    let keys = cipher(&["key"]);
    let sent = Message::Fetch(FetchMessage::BatchAnnounced { account: "somebody".to_owned(), batch: 7 });
    let bytes = payload(&sent, &keys);
    assert!(!bytes.windows(8).any(|part| part == b"somebody"));
    assert_eq!(message(&bytes, &keys), Ok(sent.clone()));
    let (kind, from, body) = decode_head(&bytes).unwrap();
    let sent_back = decode_body(kind, body, &keys, &receiver(), &from);
    assert_eq!(sent_back, Err(DecodeError::Unreadable));
    for other in [cipher(&["other"]), cipher(&[])] {
        assert_eq!(message(&bytes, &other), Err(DecodeError::Unreadable));
    }
    assert_eq!(encode(&sent, &keys, &sender(), &Recipient::All), None, "sealed for one receiver only");
}

#[test]
fn unknown_versions_and_kinds_are_not_read() {
    let plain = cipher(&[]);
    let fetch = |json: &str| message(&Bytes::from(format!("e0123456789abcdef{json}")), &plain);
    for (json, expected) in [
        (r#"{"Errands":{"cut":"3:x","errands":[],"closes":null}}"#, DecodeError::UnknownVersion(3)),
        (r#"{"Errands":{"cut":"x","errands":[],"closes":null}}"#, DecodeError::Unreadable),
        (r#"{"Errands":{"cut":"3:x","windows":[]}}"#, DecodeError::Unreadable),
        (r#"{"Prefetch":{"id":5}}"#, DecodeError::Unreadable),
        ("", DecodeError::Unreadable),
    ] {
        assert_eq!(fetch(json), Err(expected), "{json}");
    }
    for bytes in ["", "q", "x0123456789abcdef", "q0123456789abcdeX:joined", "p0123456789abcdefbury 4"] {
        assert_eq!(message(&Bytes::from(bytes), &plain), Err(DecodeError::Unreadable), "{bytes}");
    }
    assert_eq!(FetchSettings::from_text("2:x"), FetchSettings::new("x"));
}

#[test]
fn members_added_by_later_versions_are_ignored() {
    let bytes = Bytes::from(r#"e0123456789abcdef{"Nothing":{"gathering":7,"since":1}}"#);
    assert_eq!(message(&bytes, &cipher(&[])), Ok(Message::Fetch(FetchMessage::BatchEmpty { batch: 7 })));
}

#[test]
fn unknown_words_about_a_quota_are_a_hint_to_read_redis() {
    for words in ["", ":renewed", ":lent", ":spent:7:x", ":borrow:7:interactive:0:x", ":borrow:x", ":1:2:3"] {
        let bytes = Bytes::from(format!("q0123456789abcdef664b%2D33{words}"));
        assert_eq!(message(&bytes, &cipher(&[])), Ok(quota(QuotaMessage::LeaseChanged)), "{words}");
    }
}
