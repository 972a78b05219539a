//! Naive reading of JSON, to compare with the product's.

use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in their order, repeated names included, each with the text of its value. `None` if `text`
/// is no object.
pub(crate) fn members(text: &str) -> Option<Vec<(String, &RawValue)>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }

    let mut reader = serde_json::Deserializer::from_str(text);
    let members = serde::Deserializer::deserialize_map(&mut reader, Members).ok()?;
    reader.end().ok().map(|()| members)
}
