//! Random messages are decoded as they were encoded.

use std::time::Duration;

use proptest::prelude::*;

use super::super::fetch_message::{
    ChunkRef, FetchReply, FetchTerms, RemoteFetch, RemoteResult, RequesterJson, SeriesJson,
};
use super::tests::{cipher, message, payload};
use super::*;
use crate::request::{Filter, KnownFilter, QueueWait, Series};
use crate::window::{Interval, Timestamp};

fn series() -> impl Strategy<Value = Series> {
    let filter = prop_oneof![
        Just(Filter::None),
        prop::collection::btree_set(".*", 1..4)
            .prop_map(|channels| Filter::Known(Box::new(KnownFilter { channels, ..KnownFilter::default() }))),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| Filter::Opaque(body.into())),
    ];
    let parameters = prop::collection::vec((".*", ".*"), 0..3);
    (".*", ".*", filter, parameters, any::<bool>()).prop_map(|(account, stream, filter, parameters, agentic)| {
        let [account, stream] = [account, stream].map(Arc::from);
        Series { account, stream, filter, parameters, agentic }
    })
}

fn requester() -> impl Strategy<Value = Requester> {
    let priority = prop_oneof![Just(Priority::Interactive), Just(Priority::Refresh), Just(Priority::Background)];
    (".*", 1u32.., priority).prop_map(|(caller, weight, priority)| Requester {
        caller: caller.into(),
        weight,
        priority,
    })
}

fn queue_wait() -> impl Strategy<Value = QueueWait> {
    any::<(Duration, u32)>().prop_map(|(time, pages)| QueueWait { time, pages })
}

prop_compose! {
    fn any_remote_fetch()(
        series in series(), requester in requester(), interval in any::<(i64, i64)>(), id in any::<u64>(),
        attempt in any::<u8>(), is_exact in any::<bool>(), age_ms in any::<u64>(), queue_wait in queue_wait(),
        epoch in any::<u64>(), (max_age_ms, refetch, queue_timeout_ms) in any::<(Option<u64>, bool, Option<u64>)>(),
        trace in proptest::option::of(".*"),
    ) -> RemoteFetch {
        let (series, requester) = ((&series).into(), (&requester).into());
        let terms = FetchTerms { max_age_ms, refetch, queue_timeout_ms };
        RemoteFetch { id, attempt, series, interval, is_exact, requester, age_ms, queue_wait, epoch, terms, trace }
    }
}

fn any_fetch_message() -> impl Strategy<Value = FetchMessage> {
    let chunk = any::<(i64, i64, i64, u64, bool)>().prop_map(ChunkRef::from);
    let result = (any::<(i64, i64)>(), prop::collection::vec(chunk, 0..5), any::<u32>(), any::<bool>())
        .prop_map(|(interval, chunks, calls, is_coalesced)| RemoteResult { interval, chunks, calls, is_coalesced });
    prop_oneof![
        (".*", any::<u64>()).prop_map(|(account, batch)| FetchMessage::BatchAnnounced { account, batch }),
        any::<u64>().prop_map(|batch| FetchMessage::BatchEmpty { batch }),
        any::<u64>().prop_map(|id| FetchMessage::Cancelled { id }),
        prop::collection::vec((any::<u64>(), queue_wait()), 0..3).prop_map(FetchMessage::QueueWaits),
        (".*", prop::collection::vec(any_remote_fetch(), 0..3), any::<Option<u64>>()).prop_map(
            |(settings, requests, closes)| {
                FetchMessage::Requests { settings: FetchSettings::new(&settings), requests, closes }
            }
        ),
        (any::<u64>(), any::<u8>(), result).prop_map(|(id, attempt, result)| FetchMessage::Reply(FetchReply {
            id,
            attempt,
            result: Ok(result)
        })),
    ]
}

fn any_permit_message() -> impl Strategy<Value = PermitMessage> {
    prop_oneof![
        requester().prop_map(PermitMessage::Request),
        "[0-9a-f]{16}:[0-9]{1,9}".prop_map(|name| PermitMessage::Granted(name.into())),
        any::<u64>().prop_map(PermitMessage::Exhausted),
        Just(PermitMessage::Returned),
        Just(PermitMessage::Answered),
        any::<u64>().prop_map(PermitMessage::Refused),
        Just(PermitMessage::Unused),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let permit =
        (any::<u64>(), any_permit_message()).prop_map(|(number, message)| QuotaMessage::Permit { number, message });
    let granted = any::<(u64, u32)>().prop_map(|(first, count)| QuotaMessage::Granted { first, count });
    let quota = prop_oneof![Just(QuotaMessage::Joined), Just(QuotaMessage::LeaseChanged), granted, permit];
    let ids = prop::option::of(prop::collection::vec(any::<u32>(), 1..9));
    let tombstone = (prop::option::of(".{1,12}"), any::<(i64, i64)>(), ids).prop_map(|(stream, (start, end), ids)| {
        let interval = Interval::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end));
        Tombstone { stream: stream.map(Into::into), interval, ids: ids.map(|ids| ids.into_iter().collect()) }
    });
    prop_oneof![
        (".*", quota).prop_map(|(account, message)| Message::Quota { account: account.into(), message }),
        any::<(u64, Option<u64>)>()
            .prop_map(|(number, chunks)| Message::Purge(PurgeMessage::Applied { number, chunks })),
        (any::<u64>(), 0..1u64 << 62, ".+", tombstone).prop_map(|(number, epoch, account, tombstone)| {
            Message::Purge(PurgeMessage::Apply { number, epoch, account: account.into(), tombstone })
        }),
        any_fetch_message().prop_map(Message::Fetch),
    ]
}

proptest! {
    #[test]
    fn decoded_message_is_the_encoded_one(sent in any_message(), is_sealed in any::<bool>()) {
        let keys = cipher(if is_sealed { &["key"] } else { &[] });
        prop_assert_eq!(message(&payload(&sent, &keys), &keys), Ok(sent));
    }

    #[test]
    fn series_and_requester_survive_json(series in series(), requester in requester()) {
        prop_assert_eq!(Series::from(&SeriesJson::from(&series)), series);
        prop_assert_eq!(Requester::from(&RequesterJson::from(&requester)), requester);
    }

    #[test]
    fn random_fetch_messages_are_unreadable(body in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assume!(body != b"?");
        let bytes: Bytes = [b"e0123456789abcdef".as_slice(), &body].concat().into();
        for keys in [cipher(&[]), cipher(&["key"])] {
            prop_assert_eq!(message(&bytes, &keys), Err(DecodeError::Unreadable));
        }
    }

    #[test]
    fn random_permit_words_are_read_as_they_are_written(text in "[a-z:0-9%]{0,40}") {
        if let Some((number, message)) = decode_permit(&text) {
            prop_assert_eq!(decode_permit(&encode_permit(number, &message)), Some((number, message)));
        }
    }
}
