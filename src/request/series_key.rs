//! The key of a series: everything that identifies an answer besides its time.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::item_ids::{IdFilter, IdKind};

/// A series of items. Two requests that differ in any field never share an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    /// Kore's `accountId`.
    pub account: Arc<str>,
    /// Kore's `streamId`.
    pub stream: Arc<str>,
    /// The filter in the body.
    pub filter: Filter,
    /// Query parameters that the gateway does not know, decoded, in the caller's order.
    pub parameters: Vec<(String, String)>,
    /// Whether items have `agenticActivities` (`includeAgenticData=true`).
    pub agentic: bool,
}

/// The filter in the body of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Filter {
    /// No body, or a body without a filter.
    #[default]
    None,
    /// Only documented filters: the gateway can apply them to cached items.
    Known(Box<KnownFilter>),
    /// Any other body, kept byte for byte: only the upstream knows its meaning.
    Opaque(Bytes),
}

/// The documented filters. An item passes if it passes each filter that is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KnownFilter {
    /// Allowed values of an item's `botSessionID`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub session_ids: BTreeSet<String>,
    /// Allowed values of an item's `conversationID`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub conversation_ids: BTreeSet<String>,
    /// Allowed values of an item's `channel`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub channels: BTreeSet<String>,
    /// Allowed values of an item's `agent.agentId`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub agent_ids: BTreeSet<String>,
}

/// The members of a body that are documented filters.
const FILTER_NAMES: [&str; 4] = ["sessionIds", "conversationIds", "channels", "agentIds"];

/// Names of what selects items in a request: its filters, `other` for a body that only the upstream understands, and
/// `parameters` for such query parameters. Never a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterNames(u8);

impl FilterNames {
    const ALL: [&'static str; 6] =
        [FILTER_NAMES[0], FILTER_NAMES[1], FILTER_NAMES[2], FILTER_NAMES[3], "other", "parameters"];

    fn new(is_there: [bool; Self::ALL.len()]) -> Self {
        Self(is_there.iter().rev().fold(0, |bits, is_there| bits << 1 | u8::from(*is_there)))
    }

    /// The names.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().enumerate().filter(move |(place, _)| self.0 >> place & 1 == 1).map(|(_, name)| name)
    }
}

/// Why a body is not a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// The body is not a JSON object.
    NotAnObject,
    /// The filter of this name is not a list of strings.
    NotStrings(&'static str),
}

impl Series {
    /// The same series, with or without `agenticActivities`.
    pub fn with_agentic(self: &Arc<Self>, agentic: bool) -> Arc<Self> {
        if self.agentic == agentic { self.clone() } else { Arc::new(Self { agentic, ..Self::clone(self) }) }
    }

    /// Whether the series is all of its stream: no filter, no other body, and no unknown parameter.
    pub fn is_plain(&self) -> bool {
        self.filter == Filter::None && self.parameters.is_empty()
    }

    /// The ids that the filter names.
    pub fn filter_ids(&self) -> IdFilter {
        let Filter::Known(filter) = &self.filter else { return IdFilter::default() };
        let conversations = filter.conversation_ids.iter().map(|id| IdKind::Conversation.hash(id));
        let sessions = filter.session_ids.iter().map(|id| IdKind::Session.hash(id));
        IdFilter::Hashes(conversations.chain(sessions).collect())
    }

    /// The names of what selects items beside the time.
    pub fn filter_names(&self) -> FilterNames {
        let (known, is_opaque) = match &self.filter {
            Filter::None => (None, false),
            Filter::Known(known) => (Some(known), false),
            Filter::Opaque(_) => (None, true),
        };
        let has = |values: fn(&KnownFilter) -> &BTreeSet<String>| known.is_some_and(|known| !values(known).is_empty());
        let documented = [
            has(|known| &known.session_ids),
            has(|known| &known.conversation_ids),
            has(|known| &known.channels),
            has(|known| &known.agent_ids),
        ];
        let [a, b, c, d] = documented;
        FilterNames::new([a, b, c, d, is_opaque, !self.parameters.is_empty()])
    }

    /// Whether the series has a part that only the upstream understands, and that may select by another timestamp.
    pub fn may_shift(&self) -> bool {
        !self.parameters.is_empty() || matches!(self.filter, Filter::Opaque(_))
    }
}

impl Filter {
    /// Parses a body.
    ///
    /// An empty array is opaque, because no source says whether it selects everything or nothing. So are members that
    /// are not documented, whatever their value.
    ///
    /// # Errors
    /// If the body is neither empty nor a JSON object, or a documented filter is not a list of strings.
    pub fn parse(body: &Bytes) -> Result<Self, FilterError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::None);
        }
        let members: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body).map_err(|_| FilterError::NotAnObject)?;
        if members.is_empty() {
            return Ok(Self::None);
        }
        let is_list_of_strings = |value: &serde_json::Value| {
            value.as_array().is_some_and(|values| values.iter().all(serde_json::Value::is_string))
        };
        let is_malformed = |name: &&str| members.get(*name).is_some_and(|value| !is_list_of_strings(value));
        if let Some(name) = FILTER_NAMES.into_iter().find(is_malformed) {
            return Err(FilterError::NotStrings(name));
        }
        let selects_nothing = members.values().any(|value| value.as_array().is_some_and(Vec::is_empty));
        // Read from the bytes, not from the map: a member that stands twice is not ours to judge.
        match serde_json::from_slice::<KnownFilter>(body) {
            Ok(known) if !selects_nothing => Ok(Self::Known(Box::new(known))),
            _ => Ok(Self::Opaque(body.clone())),
        }
    }

    /// The body of the upstream request; `None` if no body is needed.
    pub fn body(&self) -> Option<Bytes> {
        match self {
            Self::None => None,
            Self::Known(known) => serde_json::to_vec(known).ok().map(Bytes::from),
            Self::Opaque(bytes) => Some(bytes.clone()),
        }
    }
}

impl KnownFilter {
    /// Whether `item` (JSON) passes. A missing member, or one that is not a string, fails the filter on it.
    pub fn passes(&self, item: &[u8]) -> bool {
        let Some(item) = members(item) else { return false };
        let among = |wanted: &BTreeSet<String>, members: &Members<'_>, name: &str| {
            let text = || serde_json::from_str::<String>(members.get(name)?.get()).ok();
            wanted.is_empty() || text().is_some_and(|text| wanted.contains(&text))
        };
        let agent = item.get("agent").and_then(|agent| members(agent.get().as_bytes())).unwrap_or_default();
        among(&self.session_ids, &item, "botSessionID")
            && among(&self.conversation_ids, &item, "conversationID")
            && among(&self.channels, &item, "channel")
            && among(&self.agent_ids, &agent, "agentId")
    }
}

/// The members of a JSON object; of a repeated name, the last one.
type Members<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

fn members(object: &[u8]) -> Option<Members<'_>> {
    serde_json::from_slice(object).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Filter {
        Filter::parse(&Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    #[test]
    fn order_of_known_filters_does_not_matter() {
        assert_eq!(
            parse(r#"{"sessionIds":["b","a","b"],"channels":["chat"]}"#),
            parse(r#" { "channels": ["chat"], "sessionIds": ["a", "b"] } "#)
        );
    }

    #[test]
    fn unknown_bodies_are_opaque_and_non_objects_refused() {
        assert_eq!(parse(""), Filter::None);
        assert_eq!(parse("{}"), Filter::None);
        for body in [
            r#"{"sessionIds":[]}"#,
            r#"{"sessionids":[1],"x":null}"#,
            r#"{"sessionIds":["a"],"x":1.0}"#,
            r#"{"channels":["a"],"channels":["b"]}"#,
        ] {
            assert_eq!(parse(body), Filter::Opaque(Bytes::copy_from_slice(body.as_bytes())), "{body}");
        }
        for body in ["[]", "1", "{", "{} {}", "\u{0}"] {
            assert!(Filter::parse(&Bytes::copy_from_slice(body.as_bytes())).is_err(), "{body}");
        }
    }

    #[test]
    fn documented_filter_that_is_no_list_of_strings_is_refused() {
        for name in FILTER_NAMES {
            for value in ["null", "\"a\"", "1", "true", "{}", "[1]", "[\"a\",null]", "[[\"a\"]]"] {
                let body = Bytes::from(format!(r#"{{"x":1,"{name}":{value}}}"#));
                assert_eq!(Filter::parse(&body), Err(FilterError::NotStrings(name)), "{body:?}");
            }
        }
        // Each documented name is one of the known filter, and the other way round.
        let all = FILTER_NAMES.map(|name| format!(r#""{name}":["a"]"#)).join(",");
        let Filter::Known(known) = parse(&format!("{{{all}}}")) else { panic!("{all}") };
        assert_eq!(serde_json::to_value(known).unwrap().as_object().unwrap().len(), FILTER_NAMES.len());
    }

    #[test]
    fn names_of_filters_hold_no_values() {
        for (body, parameters, expected) in [
            ("", vec![], &[][..]),
            (r#"{"agentIds":["secret"],"sessionIds":["secret"]}"#, vec![], &["sessionIds", "agentIds"]),
            (r#"{"channels":["chat"],"conversationIds":["c"]}"#, vec![], &["conversationIds", "channels"]),
            (r#"{"secret":1}"#, vec![("secret".to_owned(), "secret".to_owned())], &["other", "parameters"]),
        ] {
            let (account, stream) = ("a".into(), "s".into());
            let series = Series { account, stream, filter: parse(body), parameters, agentic: false };
            assert_eq!(series.filter_names().iter().collect::<Vec<_>>(), expected, "{body}");
        }
    }

    #[test]
    fn item_passes_if_it_passes_each_filter() {
        let item = r#"{"agent":{"agentId":"a\u0031"},"channel":"chat","botSessionID":null,"x":1e2}"#.as_bytes();
        let passes = |body| match parse(body) {
            Filter::Known(known) => known.passes(item),
            other => panic!("{other:?}"),
        };
        assert!(passes(r#"{"agentIds":["a1"]}"#));
        assert!(passes(r#"{"agentIds":["a1","a2"],"channels":["voice","chat"]}"#));
        assert!(!passes(r#"{"agentIds":["a1"],"channels":["voice"]}"#));
        assert!(!passes(r#"{"sessionIds":["null"]}"#));
    }

    #[test]
    fn malformed_member_fails_only_its_filter() {
        let item =
            br#"{"channel":7,"conversationID":"a","conversationID":"b","agent":{"agentId":"a1","agentId":"a2"}}"#;
        let passes = |body| matches!(parse(body), Filter::Known(known) if known.passes(item));
        assert!(passes(r#"{"agentIds":["a2"],"conversationIds":["b"]}"#));
        assert!(!passes(r#"{"agentIds":["a1"]}"#));
        assert!(!passes(r#"{"channels":["7"]}"#));
    }
}
