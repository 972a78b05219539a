//! Removal of one member from a JSON object without changing another byte.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// `item` without its member `name`: the comma goes with it, and all other bytes stay.
///
/// `None` if `item` is not a JSON object.
pub(in crate::cache) fn without(item: &Bytes, name: &str) -> Option<Bytes> {
    let text = std::str::from_utf8(item).ok()?;
    let members = serde_json::Deserializer::from_str(text).deserialize_map(Members(text)).ok()?;
    if members.iter().all(|member| member.name != name) {
        return Some(item.clone());
    }
    let mut rest = BytesMut::with_capacity(item.len());
    let first = members.first()?;
    rest.extend_from_slice(&item[..first.start]);
    // Each member is copied with the bytes before it, except that the first one is copied without the comma.
    for (kept, member) in members.iter().filter(|member| member.name != name).enumerate() {
        let from = if kept == 0 { member.after_comma } else { member.start };
        rest.extend_from_slice(&item[from..member.end]);
    }
    rest.extend_from_slice(&item[members.last()?.end..]);
    Some(rest.freeze())
}

struct Member<'a> {
    name: Cow<'a, str>,
    /// The end of the member before it, or of the opening brace.
    start: usize,
    /// The position after the comma before it, if there is one.
    after_comma: usize,
    end: usize,
}

struct Members<'a>(&'a str);

impl<'a> Visitor<'a> for Members<'a> {
    type Value = Vec<Member<'a>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an item")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Vec<Member<'a>>, A::Error> {
        let mut start = self.0.find('{').map_or(0, |brace| brace + 1);
        let mut members: Vec<Member<'a>> = Vec::new();
        while let Some((Name(name), value)) = map.next_entry::<Name<'a>, &'a RawValue>()? {
            // The value is a part of the text, so its offset is the difference of the two addresses.
            let end = value.get().as_ptr().addr() - self.0.as_ptr().addr() + value.get().len();
            let comma = if members.is_empty() { None } else { self.0[start..end].find(',') };
            members.push(Member { name, start, after_comma: comma.map_or(start, |comma| start + comma + 1), end });
            start = end;
        }
        Ok(members)
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_is_removed_with_its_comma_only() {
        for (item, rest) in [
            (r#"{"a":1.0,"x":[{"x":1}],"b":1e2}"#, r#"{"a":1.0,"b":1e2}"#),
            (r#"{"a":1.0,"b":1e2,"x":null}"#, r#"{"a":1.0,"b":1e2}"#),
            (r#"{"x":"},{","a": 1 , "b":2 }"#, r#"{"a": 1 , "b":2 }"#),
            (r#"{"x":1}"#, "{}"),
            (r#"{ "a":1 , "x" : [1, 2] , "b":"x" }"#, r#"{ "a":1 , "b":"x" }"#),
            (r#"{"x":1,"x":2,"a":{"x":3}}"#, r#"{"a":{"x":3}}"#),
            (r#"{"a":"é","\u0078":1}"#, r#"{"a":"é"}"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("{}", "{}"),
        ] {
            assert_eq!(without(&Bytes::from_static(item.as_bytes()), "x").as_deref(), Some(rest.as_bytes()), "{item}");
        }
        assert_eq!(without(&Bytes::from_static(b"[1]"), "x"), None);
    }
}
