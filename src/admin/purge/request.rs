//! Parses a purge request.

use std::time::Duration;

use serde_json::value::RawValue;

use super::Refused;
use super::ids::RequestedIds;
use crate::units::parse_duration;
use crate::window::{Bound, Interval, Timestamp, UpperBound};

/// The longest time after which a purge is repeated.
const MAX_REPEAT_PAUSE: Duration = Duration::from_hours(30 * 24);
/// What is said of an unknown parameter.
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
                    Err(_) => return Err(bad(&name, "it is no text")),
                }
            }
        }
        Ok(request)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), Refused> {
        let slot = match name {
            "account" | "accountId" => &mut self.account,
            "stream" | "streamId" => &mut self.stream,
            "from" => &mut self.from,
            "to" => &mut self.to,
            "repeat_after" => &mut self.repeat_after,
            _ => return Err(bad(name, UNKNOWN)),
        };
        if value.is_empty() {
            return Err(bad(name, "it is empty; leave it out if all is meant"));
        }
        if slot.replace(value).is_some() {
            return Err(bad(name, "it stands twice"));
        }
        Ok(())
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
            let malformed = "it is no time; write YYYY-MM-DD, YYYY-MM-DD-HH:mm:SS, YYYY-MM-DD HH:mm:SS or \
                             YYYY-MM-DDTHH:mm:SS, in UTC";
            let parse = |text: &String| Bound::parse(text).ok_or_else(|| bad(name, malformed));
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

pub(super) fn bad(parameter: &str, reason: &'static str) -> Refused {
    Refused::BadParameter { parameter: parameter.chars().take(64).collect(), reason }
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
    fn bounds_are_parsed_as_for_callers() {
        let interval = |query: &str| parse(query, "").unwrap().interval(UpperBound::Inclusive);
        let at = |text: &str| Bound::parse(text).unwrap().start();
        assert_eq!(interval(""), Ok(Interval::EVER));
        assert_eq!(interval("from=2026-02-23&to=2026-02-23"), Ok(Interval::new(at("2026-02-23"), at("2026-02-24"))));
        assert_eq!(interval("from=2026-02-23"), Ok(Interval::new(at("2026-02-23"), Timestamp::MAX)));
        let to = at("2026-02-23T10:00:00").next_tick();
        assert_eq!(interval("to=2026-02-23-10:00:00"), Ok(Interval::new(Timestamp::MIN, to)));
        for (query, name) in
            [("from=2026-02-24&to=2026-02-23", "from"), ("from=soon", "from"), ("to=2026-02-23T10:00:00Z", "to")]
        {
            let Err(Refused::BadParameter { parameter, .. }) = interval(query) else { panic!("{query}") };
            assert_eq!(parameter, name, "{query}");
        }
    }
}
