//! The words of the letters, and how they go over the wire: JSON, sealed if there are keys, bound to who writes to whom.

use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

use super::wire_error::WireError;
use crate::cache::redis::ChunkRef;
use crate::cache::redis::Cipher;
use crate::redis_client::ReplicaId;
use crate::request::{Filter, KnownFilter, Priority, QueueWait, Requester, Series};
use crate::window::{Interval, Timestamp};

/// What must not stand in a text as it is, if each byte is to come back.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// What one replica says to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum ClusterMessage {
    /// To the one who calls: something is being gathered, and there may be errands soon.
    AnnouncedBatches { account: String, gathering: u64 },
    /// To the one who calls: what was gathered needs no errand.
    Nothing { gathering: u64 },
    /// To the one who calls: bring this. `closes` names the gathering whose last errands these are.
    Errands { cut: String, errands: Vec<RemoteFetch>, closes: Option<u64> },
    /// To the one who calls: nobody waits for this any more.
    Gone { id: u64 },
    /// To the one who asked: these errands are not there yet, but have not waited for the quota for longer than this.
    QueueWait(Vec<(u64, QueueWait)>),
    /// To the one who asked: it is there, or it failed.
    FetchReply(FetchReply),
}

/// A window that the one who calls is to bring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RemoteFetch {
    /// Its name; each sender uses one only once.
    pub(super) id: u64,
    /// How often it was brought already, and could not be found.
    pub(super) attempt: u8,
    pub(super) series: SeriesInWords,
    /// In nanoseconds, from and up to.
    #[serde(rename = "span")]
    pub(super) interval: (i64, i64),
    /// Whether it must be exactly this window, cut by nobody.
    pub(super) exactly: bool,
    pub(super) asker: AskerInWords,
    /// How long ago it was asked for, in milliseconds: clocks need not agree.
    pub(super) asked_ago: u64,
    /// How long the one who asks waits for the quota, and how many pages have come at the most, of whomever it was asked.
    pub(super) waited: QueueWait,
    /// The last purge of the account that was known to the one who asks: what was fetched before is not wanted.
    pub(super) epoch: u64,
}

/// What became of an errand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FetchReply {
    pub(super) id: u64,
    pub(super) attempt: u8,
    pub(super) result: Result<RemoteResult, WireError>,
}

/// What was brought, and at what cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RemoteResult {
    /// Of which time, in nanoseconds, from and up to: a long window is answered from its beginning on, as far as its next
    /// run reaches, and asked for again behind that.
    #[serde(rename = "span")]
    pub(super) interval: (i64, i64),
    pub(super) pieces: Vec<ChunkRef>,
    /// The calls that no other answer tells of.
    pub(super) calls: u32,
    /// Whether it was there, or on its way to somebody else.
    pub(super) collapsed: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SeriesInWords {
    account: String,
    stream: String,
    filter: FilterInWords,
    parameters: Vec<(String, String)>,
    #[serde(rename = "rich")]
    agentic: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum FilterInWords {
    None,
    Known(Box<KnownFilter>),
    Opaque(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct AskerInWords {
    caller: String,
    weight: u32,
    class: Priority,
}

impl ClusterMessage {
    /// The letter as it is sent; `None` if it cannot be sealed.
    pub(super) fn write(&self, seal: &Cipher, from: &ReplicaId, to: &ReplicaId) -> Option<Vec<u8>> {
        seal.seal(serde_json::to_vec(self).ok()?, &between(from, to))
    }

    /// A letter that came; `None` for what nobody of this version has written from there to here.
    pub(super) fn read(body: Bytes, seal: &Cipher, from: &ReplicaId, to: &ReplicaId) -> Option<Self> {
        serde_json::from_slice(&seal.open(body, &between(from, to)).ok()?).ok()
    }
}

/// What a letter is bound to.
fn between(from: &ReplicaId, to: &ReplicaId) -> Vec<u8> {
    format!("letter\0{from}\0{to}").into_bytes()
}

impl ClusterMessage {
    /// How many pieces it names.
    pub(super) fn pieces(&self) -> usize {
        if let Self::FetchReply(FetchReply { result: Ok(brought), .. }) = self { brought.pieces.len() } else { 0 }
    }
}

impl RemoteFetch {
    pub(super) fn interval(&self) -> Interval {
        Interval::new(Timestamp::from_nanos(self.interval.0), Timestamp::from_nanos(self.interval.1))
    }

    /// Where what the tier does not keep is handed over.
    pub(super) fn passing(&self, prefix: &str, from: &ReplicaId) -> String {
        format!("{prefix}:passing:{from}:{}:{}", self.id, self.attempt)
    }
}

impl From<&Series> for SeriesInWords {
    fn from(series: &Series) -> Self {
        // Taken apart, so that a new member cannot be forgotten.
        let Series { account, stream, filter, parameters, agentic } = series;
        let filter = match filter {
            Filter::None => FilterInWords::None,
            Filter::Known(known) => FilterInWords::Known(known.clone()),
            Filter::Opaque(body) => FilterInWords::Opaque(percent_encode(body, ESCAPED).to_string()),
        };
        let (account, stream) = (account.to_string(), stream.to_string());
        Self { account, stream, filter, parameters: parameters.clone(), agentic: *agentic }
    }
}

impl From<&SeriesInWords> for Series {
    fn from(words: &SeriesInWords) -> Self {
        let SeriesInWords { account, stream, filter, parameters, agentic } = words;
        let filter = match filter {
            FilterInWords::None => Filter::None,
            FilterInWords::Known(known) => Filter::Known(known.clone()),
            FilterInWords::Opaque(body) => Filter::Opaque(percent_decode_str(body).collect()),
        };
        let [account, stream] = [account, stream].map(|name| Arc::from(name.as_str()));
        Self { account, stream, filter, parameters: parameters.clone(), agentic: *agentic }
    }
}

impl From<&Requester> for AskerInWords {
    fn from(Requester { caller, weight, class }: &Requester) -> Self {
        Self { caller: caller.to_string(), weight: *weight, class: *class }
    }
}

impl From<&AskerInWords> for Requester {
    fn from(AskerInWords { caller, weight, class }: &AskerInWords) -> Self {
        Self { caller: caller.as_str().into(), weight: (*weight).max(1), class: *class }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use secrecy::SecretString;

    use super::*;

    fn replica(name: &str) -> ReplicaId {
        ReplicaId::read(name.as_bytes()).unwrap()
    }

    fn ids() -> (ReplicaId, ReplicaId) {
        (replica("0123456789abcdef"), replica("fedcba9876543210"))
    }

    fn seal(secrets: &[&str]) -> Cipher {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| (*secret).into()).collect();
        Cipher::new(&secrets).unwrap()
    }

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

    fn class() -> impl Strategy<Value = Priority> {
        prop_oneof![Just(Priority::Interactive), Just(Priority::Refresh), Just(Priority::Background)]
    }

    fn waited() -> impl Strategy<Value = QueueWait> {
        any::<(Duration, u32)>().prop_map(|(time, pages)| QueueWait { time, pages })
    }

    prop_compose! {
        fn errand()(
            series in series(), caller in ".*", weight in 1u32.., class in class(), interval in any::<(i64, i64)>(),
            id in any::<u64>(), attempt in any::<u8>(), exactly in any::<bool>(),
            asked_ago in any::<u64>(), waited in waited(), epoch in any::<u64>(),
        ) -> RemoteFetch {
            let asker = (&Requester { caller: caller.into(), weight, class }).into();
            RemoteFetch { id, attempt, series: (&series).into(), interval, exactly, asker, asked_ago, waited, epoch }
        }
    }

    fn letter() -> impl Strategy<Value = ClusterMessage> {
        let piece = any::<(i64, i64, i64, u64, bool)>().prop_map(ChunkRef::from);
        let brought = (any::<(i64, i64)>(), prop::collection::vec(piece, 0..5), any::<u32>(), any::<bool>())
            .prop_map(|(interval, pieces, calls, collapsed)| RemoteResult { interval, pieces, calls, collapsed });
        prop_oneof![
            (".*", any::<u64>())
                .prop_map(|(account, gathering)| ClusterMessage::AnnouncedBatches { account, gathering }),
            any::<u64>().prop_map(|gathering| ClusterMessage::Nothing { gathering }),
            any::<u64>().prop_map(|id| ClusterMessage::Gone { id }),
            prop::collection::vec((any::<u64>(), waited()), 0..3).prop_map(ClusterMessage::QueueWait),
            (".*", prop::collection::vec(errand(), 0..3), any::<Option<u64>>())
                .prop_map(|(cut, errands, closes)| ClusterMessage::Errands { cut, errands, closes }),
            (any::<u64>(), any::<u8>(), brought).prop_map(|(id, attempt, brought)| ClusterMessage::FetchReply(
                FetchReply { id, attempt, result: Ok(brought) }
            )),
        ]
    }

    proptest! {
        #[test]
        fn a_letter_says_what_it_said(letter in letter(), sealed in any::<bool>()) {
            let (seal, (from, to)) = (seal(if sealed { &["key"] } else { &[] }), ids());
            let body: Bytes = letter.write(&seal, &from, &to).unwrap().into();
            prop_assert_eq!(ClusterMessage::read(body, &seal, &from, &to), Some(letter));
        }

        #[test]
        fn a_series_and_who_asks_for_it_come_back(series in series(), caller in ".*", weight in 1u32.., class in class()) {
            prop_assert_eq!(Series::from(&SeriesInWords::from(&series)), series);
            let asker = Requester { caller: caller.into(), weight, class };
            prop_assert_eq!(Requester::from(&AskerInWords::from(&asker)), asker);
        }

        #[test]
        fn garbage_is_ignored(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let (from, to) = ids();
            for seal in [seal(&[]), seal(&["key"])] {
                prop_assert_eq!(ClusterMessage::read(body.clone().into(), &seal, &from, &to), None);
            }
        }
    }

    #[test]
    fn a_letter_opens_for_whom_it_is_meant_and_shows_nothing_to_others() {
        let (seal_by, (from, to)) = (seal(&["key"]), ids());
        let letter = ClusterMessage::AnnouncedBatches { account: "somebody".to_owned(), gathering: 7 };
        let body: Bytes = letter.write(&seal_by, &from, &to).unwrap().into();
        assert!(!body.windows(8).any(|part| part == b"somebody"));
        assert_eq!(ClusterMessage::read(body.clone(), &seal_by, &from, &to), Some(letter));
        assert_eq!(ClusterMessage::read(body.clone(), &seal_by, &to, &from), None, "sent back");
        assert_eq!(ClusterMessage::read(body.clone(), &seal(&["other"]), &from, &to), None);
        assert_eq!(ClusterMessage::read(body, &seal(&[]), &from, &to), None);
    }
}
