//! The ids by which items are erased, as hashes: the filter beside each chunk that says which ids it may hold, and the
//! ids of an erasure.
//!
//! A hash has 32 bits, so no id can be read back from it: one hash stands for very many ids. A chunk of 300 ids is taken
//! for one of 1,000 erased ids by mistake in one of 14,000 cases, which costs the calls that fetch it again.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The kinds of ids by which items are erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// `conversationID` of an item.
    Conversation,
    /// `botSessionID` of an item.
    Session,
    /// `segmentID` of an item.
    Segment,
}

impl IdKind {
    const ALL: [Self; 3] = [Self::Conversation, Self::Session, Self::Segment];

    /// The member of an item. Its case is not compared, because Kore spells some names in two ways.
    const fn member(self) -> &'static str {
        match self {
            Self::Conversation => "conversationID",
            Self::Session => "botSessionID",
            Self::Segment => "segmentID",
        }
    }

    fn of_member(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.member().eq_ignore_ascii_case(name))
    }

    /// The hash of an id: the first four bytes, little-endian, of the SHA-256 of the member's name, a zero byte and the
    /// id. Hashes are stored in Redis, so they never change.
    pub fn hash(self, id: &str) -> u32 {
        let mut context = Context::new(&SHA256);
        context.update(self.member().as_bytes());
        context.update(b"\0");
        context.update(id.as_bytes());
        // SHA-256 has 32 bytes.
        let digest = context.finish();
        digest.as_ref().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

/// A set of hashes of ids. Clones share their memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdHashes(Arc<[u32]>);

impl IdHashes {
    /// The set of hashes that are strictly ascending; `None` if they are not.
    pub fn from_ascending(hashes: Vec<u32>) -> Option<Self> {
        hashes.is_sorted_by(|one, next| one < next).then(|| Self(hashes.into()))
    }

    /// The hashes, strictly ascending.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// The number of hashes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no hash.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both sets have a hash in common.
    pub fn intersects(&self, other: &Self) -> bool {
        let (few, many) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        few.0.iter().any(|hash| many.contains(*hash))
    }

    /// Whether all hashes of `other` are in the set.
    pub fn is_superset(&self, other: &Self) -> bool {
        other.len() <= self.len() && other.0.iter().all(|hash| self.contains(*hash))
    }

    /// The hashes of both sets.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.0.iter().chain(&*other.0).copied().collect()
    }

    fn contains(&self, hash: u32) -> bool {
        self.0.binary_search(&hash).is_ok()
    }
}

impl FromIterator<u32> for IdHashes {
    fn from_iter<T: IntoIterator<Item = u32>>(hashes: T) -> Self {
        let mut hashes: Vec<u32> = hashes.into_iter().collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes.into())
    }
}

/// Which ids the items of a chunk may have. Its mistakes are to one side: an id that an item has is never denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdFilter {
    /// Only ids with these hashes.
    Hashes(IdHashes),
    /// Any, because an id of an item could not be read.
    Any,
}

impl Default for IdFilter {
    /// The filter of no items.
    fn default() -> Self {
        Self::Hashes(IdHashes::default())
    }
}

impl IdFilter {
    /// The filter of items (JSON).
    pub fn of_items<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hashes = Vec::new();
        for item in items {
            let mut reader = serde_json::Deserializer::from_slice(item);
            if (IdReader { hashes: &mut hashes }).deserialize(&mut reader).is_err() {
                return Self::Any;
            }
        }
        Self::Hashes(hashes.into_iter().collect())
    }

    /// Whether an item may have one of these ids.
    pub fn may_hold(&self, ids: &IdHashes) -> bool {
        match self {
            Self::Hashes(hashes) => hashes.intersects(ids),
            Self::Any => true,
        }
    }

    /// Bytes of memory behind the filter.
    pub fn weight(&self) -> usize {
        match self {
            Self::Hashes(hashes) => size_of_val(hashes.as_slice()),
            Self::Any => 0,
        }
    }
}

/// Reads an item, and adds the hashes of its ids. Fails if it is no object, or an id is neither text nor a number.
struct IdReader<'a> {
    hashes: &'a mut Vec<u32>,
}

impl<'de> DeserializeSeed<'de> for IdReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for IdReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item with readable ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(MemberName(name)) = members.next_key()? {
            let Some(kind) = IdKind::of_member(&name) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = members.next_value::<&RawValue>()?.get();
            match value.as_bytes().first() {
                Some(b'"') => {
                    let MemberName(id) = serde_json::from_str(value).map_err(serde::de::Error::custom)?;
                    self.hashes.push(kind.hash(&id));
                }
                Some(b'n') => {}
                Some(b'{' | b'[') | None => return Err(serde::de::Error::custom("an id that is no text")),
                Some(_) => self.hashes.push(kind.hash(value)),
            }
        }
        Ok(())
    }
}

/// A JSON string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn filter(items: &[&str]) -> IdFilter {
        IdFilter::of_items(items.iter().map(|item| item.as_bytes()))
    }

    fn hashes(ids: &[(IdKind, &str)]) -> IdHashes {
        ids.iter().map(|(kind, id)| kind.hash(id)).collect()
    }

    #[test]
    fn hashes_are_those_of_stored_filters() {
        let hashes = IdKind::ALL.map(|kind| kind.hash("conv-1"));
        assert_eq!(hashes, [0xa8f0_463b, 0x291a_147a, 0xc002_758e]);
    }

    #[test]
    fn filter_has_the_own_ids_of_items_only() {
        let item = r#"{"agent":{"conversationID":"nested"},"conversation\u0049D":"c\u002d1","botSessionID":17,
            "segmentId":"s","segmentID":null,"conversationID":"c-2","x":[{"segmentID":"nested"}]}"#;
        let expected = [
            (IdKind::Conversation, "c-1"),
            (IdKind::Conversation, "c-2"),
            (IdKind::Session, "17"),
            (IdKind::Segment, "s"),
        ];
        assert_eq!(filter(&[item, r#"{"y":1}"#]), IdFilter::Hashes(hashes(&expected)));
        assert_eq!(filter(&[]), IdFilter::default());
    }

    #[test]
    fn filter_of_unreadable_ids_may_hold_any() {
        for item in [r#"{"segmentID":{"$oid":"1"}}"#, r#"{"segmentID":"\ud800"}"#, r#"{"\ud800":1}"#, "[]", r#"{"a":"#]
        {
            let filter = filter(&[r#"{"segmentID":"s"}"#, item]);
            assert_eq!(filter, IdFilter::Any, "{item}");
            assert!(filter.may_hold(&hashes(&[(IdKind::Conversation, "c")])));
        }
    }

    proptest! {
        /// The naive model is the list of the ids that the items have.
        #[test]
        fn filter_denies_no_id_that_an_item_has(
            items in prop::collection::vec((".{0,8}", prop::option::of("[a-c]{1,2}"), "[a-c]{1,2}"), 0..30),
            wanted in prop::collection::vec((0usize..3, "[a-c]{1,2}"), 0..5),
        ) {
            let (mut json, mut has) = (Vec::new(), BTreeSet::new());
            for (segment, session, conversation) in &items {
                let item = serde_json::json!({
                    "segmentID": segment, "botSessionID": session, "conversationID": conversation, "x": [1, {}]
                });
                json.push(item.to_string());
                has.extend([(0, conversation.clone()), (2, segment.clone())]);
                has.extend(session.clone().map(|session| (1, session)));
            }
            let filter = IdFilter::of_items(json.iter().map(String::as_bytes));
            let ids = wanted.iter().map(|(kind, id)| IdKind::ALL[*kind].hash(id)).collect();
            // So few ids have no hash in common.
            prop_assert_eq!(filter.may_hold(&ids), wanted.iter().any(|id| has.contains(id)));
        }

        #[test]
        fn sets_of_hashes_are_as_those_of_the_library(
            one in prop::collection::btree_set(0u32..40, 0..20), other in prop::collection::btree_set(0u32..40, 0..20)
        ) {
            let set = |hashes: &BTreeSet<u32>| hashes.iter().rev().copied().collect::<IdHashes>();
            let (left, right) = (set(&one), set(&other));
            prop_assert_eq!(left.intersects(&right), !one.is_disjoint(&other));
            prop_assert_eq!(left.is_superset(&right), one.is_superset(&other));
            prop_assert_eq!(left.union(&right), set(&one.union(&other).copied().collect()));
            let ascending: Vec<u32> = one.iter().copied().collect();
            prop_assert_eq!(IdHashes::from_ascending(ascending), Some(left));
        }
    }

    #[test]
    fn hashes_that_are_not_ascending_are_refused() {
        assert_eq!(IdHashes::from_ascending(vec![1, 1]), None);
        assert_eq!(IdHashes::from_ascending(vec![2, 1]), None);
    }
}
