//! The parsed part of an item: its timestamp and its `segmentID`. The item itself stays the bytes that came.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::window::Timestamp;

/// An item with its position in the contract's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The timestamp that the upstream selects on.
    pub at: Timestamp,
    /// The `segmentID`; the item itself where it has none, so that two different items never share an identifier.
    pub id: Bytes,
    /// The item, byte for byte.
    pub json: Bytes,
}

impl Item {
    /// Sorts by the contract's order: by timestamp, then by `segmentID`, then by the item's bytes.
    pub fn sort(items: &mut [Self]) {
        items.sort_unstable_by(|a, b| (a.at, &a.id, &a.json).cmp(&(b.at, &b.id, &b.json)));
    }

    /// Parses `json`, a JSON object. The timestamp is `None` if `field` is missing, null or no timestamp.
    pub fn read(json: &Bytes, field: &str) -> (Option<Timestamp>, Bytes) {
        let mut reader = serde_json::Deserializer::from_slice(json);
        // An object that serde cannot parse (nested too deeply, say) is an item without a timestamp.
        let found = Members { field }.deserialize(&mut reader).unwrap_or_default();
        let id = found.id.map_or_else(|| json.clone(), |id| Bytes::copy_from_slice(id.as_bytes()));
        (found.at, id)
    }
}

#[derive(Default)]
struct Found {
    at: Option<Timestamp>,
    id: Option<String>,
}

struct Members<'f> {
    field: &'f str,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(Text(name)) = members.next_key()? {
            if name == self.field {
                found.at = members.next_value::<Scalar>()?.0.as_deref().and_then(timestamp);
            } else if name == "segmentID" {
                found.id = members.next_value::<Scalar>()?.0;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// The name of a member, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A JSON string; any other value reads as `None`.
struct Scalar(Option<String>);

impl<'de> serde::Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Other(IgnoredAny),
        }
        Ok(Self(match Either::deserialize(deserializer)? {
            Either::Text(text) => Some(text),
            Either::Other(IgnoredAny) => None,
        }))
    }
}

/// Parses a response timestamp. Without a zone it is UTC.
fn timestamp(text: &str) -> Option<Timestamp> {
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        return Some(timestamp.into());
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    Some(jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> (Option<Timestamp>, String) {
        let (at, id) = Item::read(&Bytes::copy_from_slice(json.as_bytes()), "segmentStartTime");
        (at, String::from_utf8(id.to_vec()).unwrap())
    }

    #[test]
    fn item_timestamp_comes_from_its_own_members() {
        let json = r#"{"agent":{"segmentID":"no","segmentStartTime":"1999-01-01T00:00:00Z"},"x":[{}],
            "segment\u0049D":"ac-1","segmentStartTime":"2026-02-25T09:33:10.120Z","n":12345678901234567890}"#;
        assert_eq!(read(json), (Some(Timestamp::from_millis(1_772_011_990_120)), "ac-1".to_owned()));
    }

    #[test]
    fn timestamp_without_zone_is_utc() {
        for text in ["2026-02-25T10:33:10.120+01:00", "2026-02-25T09:33:10.120", "2026-02-25T09:33:10.12Z"] {
            let (at, _) = read(&format!(r#"{{"segmentStartTime":"{text}","segmentID":"a"}}"#));
            assert_eq!(at, Some(Timestamp::from_millis(1_772_011_990_120)), "{text}");
        }
    }

    #[test]
    fn malformed_items_have_no_timestamp() {
        for json in [
            r#"{"segmentID":"a"}"#,
            r#"{"segmentID":"a","segmentStartTime":null}"#,
            r#"{"segmentID":"a","segmentStartTime":17}"#,
            r#"{"segmentID":"a","segmentStartTime":"soon"}"#,
            r#"{"segmentID":"a","segmentStartTime":{"$date":"2026-02-25T09:33:10.120Z"}}"#,
        ] {
            assert_eq!(read(json), (None, "a".to_owned()), "{json}");
        }
    }

    #[test]
    fn item_without_segment_id_is_its_own_id() {
        assert_ne!(read(r#"{"a":1}"#).1, read(r#"{"a":2}"#).1);
    }
}
