//! Parses a purge request.

use std::time::Duration;

use serde_json::value::RawValue;

use super::ids::RequestedIds;
use super::refused::{Refused, bad};
use crate::units::parse_duration;
use crate::window::{Bound, Interval, Timestamp, UpperBound};

/// The longest time after which a purge is repeated.
const MAX_REPEAT_PAUSE: Duration = Duration::from_hours(30 * 24);
/// The error message for an unknown parameter.
const UNKNOWN: &str = "it is not known here; account, stream, from, to, conversationIds, sessionIds, segmentIds and \
                       repeat_after are";

/// A purge request, with its values as spelled and its ids hashed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PurgeRequest {
    pub(super) account: Option<String>,
    pub(super) stream: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) ids: RequestedIds,
    pub(super) repeat_after: Option<String>,
}

impl PurgeRequest {
    /// Parses query and body; each name may occur once in both together. An unknown name is an error, because a
    /// misspelled `from` must not purge everything.
    pub(super) fn read(query: &str, body: &[u8]) -> Result<Self, Refused> {
        let mut request = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if RequestedIds::is_name(&name) {
                return Err(bad(&name, "it belongs into the body, as an array of texts"));
            }
            request.take(&name, value.into_owned())?;
        }
        if !body.iter().all(u8::is_ascii_whitespace) {
            let members: Members = serde_json::from_slice(body).map_err(|error| Refused::BadBody(error.to_string()))?;
            for (name, value) in members.0 {
                if RequestedIds::is_name(&name) {
                    request.ids.take(&name, &value)?;
                    continue;
                }
                match serde_json::from_str(value.get()) {
                    Ok(text) => request.take(&name, text)?,
                    Err(_) => {
                        return Err(bad(&name, if request.slot(&name).is_some() { "it is no text" } else { UNKNOWN }));
                    }
                }
            }
        }
        Ok(request)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), Refused> {
        let Some(slot) = self.slot(name) else { return Err(bad(name, UNKNOWN)) };
        if value.is_empty() {
            return Err(bad(name, "it is empty; leave it out if all is meant"));
        }
        if slot.replace(value).is_some() {
            return Err(bad(name, "it stands twice"));
        }
        Ok(())
    }

    /// The place of a parameter that is a text; `None` if it is unknown.
    fn slot(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "account" | "accountId" => Some(&mut self.account),
            "stream" | "streamId" => Some(&mut self.stream),
            "from" => Some(&mut self.from),
            "to" => Some(&mut self.to),
            "repeat_after" => Some(&mut self.repeat_after),
            _ => None,
        }
    }

    /// After which time the purge is repeated.
    pub(super) fn repeat_after(&self) -> Result<Option<Duration>, Refused> {
        let Some(text) = &self.repeat_after else { return Ok(None) };
        let malformed = "it is no time between 1ms and 30d; write 24h or 7d";
        let duration = parse_duration(text).filter(|pause| !pause.is_zero() && *pause <= MAX_REPEAT_PAUSE);
        duration.map(Some).ok_or_else(|| bad("repeat_after", malformed))
    }

    /// The interval to purge, with `from` and `to` as for callers.
    pub(super) fn interval(&self, upper_bound: UpperBound) -> Result<Interval, Refused> {
        let bound = |name: &str, text: &Option<String>| {
            let parse = |text: &String| Bound::parse(text).ok_or_else(|| bad(name, Bound::MALFORMED));
            text.as_ref().map(parse).transpose()
        };
        let (from, to) = (bound("from", &self.from)?, bound("to", &self.to)?);
        let start = from.map_or(Timestamp::MIN, Bound::start);
        let end = to.map_or(Timestamp::MAX, |to| upper_bound.enclosed(to, to).end);
        let interval = Interval::new(start, end);
        if interval.is_empty() {
            Err(bad("from", "it does not lie before to, so there is nothing between"))
        } else {
            Ok(interval)
        }
    }
}

/// All members of an object in their order, repeated ones included.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::IdKind;

    fn parse(query: &str, body: &str) -> Result<PurgeRequest, Refused> {
        PurgeRequest::read(query, body.as_bytes())
    }

    #[test]
    fn query_and_body_are_equivalent() {
        let full = parse("account=a&stream=s&from=2026-02-23&to=2026-02-23+10:00:00", "").unwrap();
        let body = r#"{"accountId": "a", "streamId": "s", "from": "2026-02-23", "to": "2026-02-23 10:00:00"}"#;
        assert_eq!(full, parse("", body).unwrap());
        assert_eq!(full, parse("to=2026-02-23+10:00:00&account=a", r#"{"stream":"s","from":"2026-02-23"}"#).unwrap());
        assert_eq!(parse("", " \n").unwrap(), PurgeRequest::default());
    }

    #[test]
    fn invalid_parameter_is_named_and_never_ignored() {
        for (query, body, name) in [
            ("form=2026-02-23", "", "form"),
            ("from=", "", "from"),
            ("from=2026-02-23&from=2026-02-23", "", "from"),
            ("account=a&accountId=a", "", "accountId"),
            ("stream=s", r#"{"stream":"s"}"#, "stream"),
            ("", r#"{"to":null}"#, "to"),
            ("segmentIds=a", "", "segmentIds"),
            ("", r#"{"segmentIds":["a"],"segmentIds":["b"]}"#, "segmentIds"),
            ("", r#"{"segmentIds":["a"],"sessionIds":[]}"#, "sessionIds"),
            ("", r#"{"conversationIds":["a",""]}"#, "conversationIds"),
            ("", r#"{"conversationIds":null}"#, "conversationIds"),
            ("", r#"{"conversationIDs":["a"]}"#, "conversationIDs"),
            ("", r#"{"to":"2026-02-23","to":"2026-02-24"}"#, "to"),
        ] {
            match parse(query, body) {
                Err(Refused::BadParameter { parameter, .. }) => assert_eq!(parameter, name, "{query} {body}"),
                other => panic!("{query} {body}: {other:?}"),
            }
        }
        for body in ["[]", "null", "{", "\"x\"", "{} {}"] {
            assert!(matches!(parse("", body), Err(Refused::BadBody(_))), "{body}");
        }
    }

    #[test]
    fn ids_are_hashed_by_their_kind() {
        let request = parse("", r#"{"segmentIds":["a","b"],"conversationIds":["a"]}"#).unwrap();
        let expected = [IdKind::Segment.hash("a"), IdKind::Segment.hash("b"), IdKind::Conversation.hash("a")];
        assert_eq!(request.ids.hashes(), Some(expected.into_iter().collect()));
        assert_eq!(request.ids.counts().to_string(), "1 conversations, 0 sessions, 2 segments");
        assert_eq!(parse("", "").unwrap().ids.hashes(), None);
        let many = |conversations, segments| {
            let list = |count: usize| serde_json::to_string(&vec!["x"; count]).unwrap();
            let body = format!(r#"{{"conversationIds":{},"segmentIds":{}}}"#, list(conversations), list(segments));
            parse("", &body).is_ok()
        };
        assert!(many(999, 1) && !many(1_000, 1) && !many(1, 1_000));
    }

    #[test]
    fn pause_before_repeat_is_bounded() {
        let pause = |text: &str| parse(&format!("repeat_after={text}"), "").unwrap().repeat_after();
        assert_eq!(parse("", "").unwrap().repeat_after(), Ok(None));
        assert_eq!(pause("24h"), Ok(Some(Duration::from_hours(24))));
        assert_eq!(pause("30d"), Ok(Some(MAX_REPEAT_PAUSE)));
        for text in ["0s", "31d", "24", "soon"] {
            assert!(matches!(pause(text), Err(Refused::BadParameter { .. })), "{text}");
        }
    }

    #[test]
    fn bounds_are_parsed_as_for_callers() {
        let interval = |query: &str| parse(query, "").unwrap().interval(UpperBound::Inclusive);
        let at = |text: &str| Bound::parse(text).unwrap().start();
        assert_eq!(interval(""), Ok(Interval::EVER));
        assert_eq!(interval("from=2026-02-23&to=2026-02-23"), Ok(Interval::new(at("2026-02-23"), at("2026-02-24"))));
        assert_eq!(interval("from=2026-02-23"), Ok(Interval::new(at("2026-02-23"), Timestamp::MAX)));
        let to = at("2026-02-23T10:00:00").next_tick();
        assert_eq!(interval("to=2026-02-23-10:00:00"), Ok(Interval::new(Timestamp::MIN, to)));
        for (query, name) in
            [("from=2026-02-24&to=2026-02-23", "from"), ("from=soon", "from"), ("to=2026-02-23T10:00:00X", "to")]
        {
            let Err(Refused::BadParameter { parameter, .. }) = interval(query) else { panic!("{query}") };
            assert_eq!(parameter, name, "{query}");
        }
    }
}
