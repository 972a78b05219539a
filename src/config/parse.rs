//! Parsers of single values. Each returns a message that says what to write instead.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::NamePatterns;
use super::schema::described::Described;
use super::value_tree::{ConfigNode, Value};
use crate::units;
use crate::window::Bound;

/// A parser of a single value. A function is one if the schema of its values is known by their type.
pub(super) trait ValueParser<T> {
    /// The value of `node`, or a message that says what to write instead.
    fn parse(self, node: &ConfigNode) -> Result<T, String>;

    /// JSON Schema of the values that are accepted, as far as a schema can say it.
    fn schema(&self) -> serde_json::Value;
}

impl<T: Described, F: FnOnce(&ConfigNode) -> Result<T, String>> ValueParser<T> for F {
    fn parse(self, node: &ConfigNode) -> Result<T, String> {
        self(node)
    }

    fn schema(&self) -> serde_json::Value {
        T::schema()
    }
}

/// A value for an error message: quoted, escaped, and cut to 40 characters. Not for keys that take a secret.
fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 40;
    if text.chars().count() <= MAX_CHARS {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(MAX_CHARS).collect();
    format!("{:?}", format!("{start}…"))
}

/// The text of a string. `expected` describes the value in errors, with an article.
pub(super) fn text<'a>(node: &'a ConfigNode, expected: &str) -> Result<&'a str, String> {
    match &node.value {
        Value::String(text) | Value::Raw(text) => Ok(text),
        _ => Err(format!("is {}; it must be {expected}", node.kind())),
    }
}

/// An identifier for headers, paths or Redis keys: one or more characters of visible ASCII.
pub(super) fn name(node: &ConfigNode) -> Result<String, String> {
    let label = label(node)?;
    if label.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(label)
    } else {
        Err("holds a space or a character beyond ASCII".to_owned())
    }
}

/// Text that is not blank and has no control characters.
pub(super) fn label(node: &ConfigNode) -> Result<String, String> {
    let text = text(node, "a string")?;
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character".to_owned());
    }
    Ok(text.to_owned())
}

/// A duration such as `"30s"`, or zero.
pub(super) fn duration(node: &ConfigNode) -> Result<Duration, String> {
    let text = text(node, "a duration such as \"30s\", \"5m\" or \"24h\"")?;
    units::parse_duration(text).ok_or_else(|| {
        format!(
            "{} is not a duration (at most \"36500d\"); write it like \"250ms\", \"30s\", \"5m\" or \"24h\"",
            quoted(text)
        )
    })
}

/// A duration such as `"30s"`, more than zero.
pub(super) fn positive_duration(node: &ConfigNode) -> Result<Duration, String> {
    let duration = duration(node)?;
    if duration.is_zero() { Err("must be more than zero".to_owned()) } else { Ok(duration) }
}

/// A duration of whole seconds such as `"1h"`, more than zero.
pub(super) fn whole_seconds(node: &ConfigNode) -> Result<Duration, String> {
    let duration = positive_duration(node)?;
    if duration.subsec_nanos() == 0 { Ok(duration) } else { Err("must be whole seconds".to_owned()) }
}

/// A size such as `"256MiB"`, or a number of bytes; more than zero.
pub(super) fn size(node: &ConfigNode) -> Result<u64, String> {
    let size = if let Value::Integer(bytes) = &node.value {
        u64::try_from(*bytes).unwrap_or(0)
    } else {
        let text = text(node, "a size such as \"256MiB\"")?;
        units::parse_size(text).ok_or_else(|| {
            format!("{} is not a size; write it like \"64KiB\", \"256MiB\", \"1GiB\" or \"1000000\"", quoted(text))
        })?
    };
    if size == 0 { Err("must be more than zero".to_owned()) } else { Ok(size) }
}

/// A size of at least `least` bytes.
pub(super) fn size_of_at_least(least: u64) -> impl Fn(&ConfigNode) -> Result<u64, String> {
    move |node| match size(node)? {
        size if size < least => Err(format!("must be at least {}", units::print_size(least))),
        size => Ok(size),
    }
}

/// A size within `range`, in bytes.
pub(super) fn size_within(range: RangeInclusive<u32>) -> impl Fn(&ConfigNode) -> Result<usize, String> {
    move |node| {
        let size = size(node)?;
        let within = u32::try_from(size).ok().filter(|size| range.contains(size));
        let print = |size: &u32| units::print_size(u64::from(*size));
        within.map(|size| size as usize).ok_or_else(|| {
            format!(
                "is {}; it must be a size from {} to {}",
                units::print_size(size),
                print(range.start()),
                print(range.end())
            )
        })
    }
}

/// A whole number within `range`.
pub(super) fn integer(range: RangeInclusive<u32>) -> IntegerWithin {
    IntegerWithin(range)
}

/// See [`integer`].
pub(super) struct IntegerWithin(RangeInclusive<u32>);

impl ValueParser<u32> for IntegerWithin {
    fn parse(self, node: &ConfigNode) -> Result<u32, String> {
        let Self(range) = self;
        let expected = || format!("it must be a whole number from {} to {}", range.start(), range.end());
        let number = match &node.value {
            Value::Integer(number) => *number,
            Value::Raw(text) => text.parse().map_err(|_| format!("is {}; {}", quoted(text), expected()))?,
            _ => return Err(format!("is {}; {}", node.kind(), expected())),
        };
        let within = u32::try_from(number).ok().filter(|number| range.contains(number));
        within.ok_or_else(|| format!("is {number}; {}", expected()))
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "type": "integer", "minimum": self.0.start(), "maximum": self.0.end() })
    }
}

/// A number within `range`, such as `0.2`.
pub(super) fn share(range: RangeInclusive<f64>) -> ShareWithin {
    ShareWithin(range)
}

/// See [`share`].
pub(super) struct ShareWithin(RangeInclusive<f64>);

impl ValueParser<f64> for ShareWithin {
    fn parse(self, node: &ConfigNode) -> Result<f64, String> {
        let Self(range) = self;
        let expected = || format!("it must be a number from {} to {}", range.start(), range.end());
        let share = match &node.value {
            Value::Float(share) => *share,
            // An integer that does not fit is out of any range that is used here.
            Value::Integer(share) => f64::from(i32::try_from(*share).unwrap_or(i32::MAX)),
            Value::Raw(text) => text.parse().map_err(|_| format!("is {}; {}", quoted(text), expected()))?,
            _ => return Err(format!("is {}; {}", node.kind(), expected())),
        };
        if range.contains(&share) { Ok(share) } else { Err(format!("is {share}; {}", expected())) }
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "type": "number", "minimum": self.0.start(), "maximum": self.0.end() })
    }
}

/// `true` or `false`.
pub(super) fn boolean(node: &ConfigNode) -> Result<bool, String> {
    match &node.value {
        Value::Boolean(value) => Ok(*value),
        Value::Raw(text) => text.parse().map_err(|_| format!("is {}; it must be true or false", quoted(text))),
        _ => Err(format!("is {}; it must be true or false", node.kind())),
    }
}

/// An IP address with a port: `"127.0.0.1:8080"`, `"[::1]:8080"`.
pub(super) fn address(node: &ConfigNode) -> Result<SocketAddr, String> {
    let text = text(node, "an address and a port, such as \"127.0.0.1:8080\"")?;
    text.parse().map_err(|_| {
        format!("{} is not an address and a port; write it like \"127.0.0.1:8080\" or \"[::1]:8080\"", quoted(text))
    })
}

/// The path of a file. The file is not opened here.
pub(super) fn path(node: &ConfigNode) -> Result<PathBuf, String> {
    let text = text(node, "the path of a file")?;
    if text.is_empty() { Err("is empty; it must be the path of a file".to_owned()) } else { Ok(text.into()) }
}

/// A date such as `"2027-01-01"`, which is its midnight in UTC, or one of the spellings with a time.
pub(super) fn date(node: &ConfigNode) -> Result<Bound, String> {
    const EXPECTED: &str = "a date such as \"2027-01-01\"";
    let text = text(node, EXPECTED)?;
    Bound::parse(text).ok_or_else(|| format!("{} is not a date; it must be {EXPECTED}, in UTC", quoted(text)))
}

/// `["*"]`, or a list of one or more names.
pub(super) fn names(node: &ConfigNode) -> Result<NamePatterns, String> {
    const EXPECTED: &str = "write [\"*\"] for all, or a list of names";
    let node = node.clone().structured().map_err(|message| format!("{message}; {EXPECTED}"))?;
    let Value::Array(items) = &node.value else { return Err(format!("is {}; {EXPECTED}", node.kind())) };
    let names = items.iter().map(name).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|message| format!("a name {message}; {EXPECTED}"))?;
    match names.as_slice() {
        [] => Err(format!("is empty; {EXPECTED}")),
        names if names.iter().any(|name| name == "*") => Ok(NamePatterns::All),
        _ => Ok(NamePatterns::Only(names)),
    }
}

/// A list of host names without ports, in lower case and without the final dot; may be empty.
pub(super) fn host_names(node: &ConfigNode) -> Result<Vec<String>, String> {
    const EXPECTED: &str = "write a list of names without ports, such as [\"koregate.internal\"]";
    let node = node.clone().structured().map_err(|message| format!("{message}; {EXPECTED}"))?;
    let Value::Array(items) = &node.value else { return Err(format!("is {}; {EXPECTED}", node.kind())) };
    let host_name = |item: &ConfigNode| {
        let name = text(item, "a string")?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let relative = name.trim_end_matches('.');
        if relative.is_empty() || !name.bytes().all(is_name) {
            return Err(format!("holds {}, which is no name of a host; {EXPECTED}", quoted(name)));
        }
        Ok(relative.to_ascii_lowercase())
    };
    items.iter().map(host_name).collect()
}

/// An enum whose variants are written as keywords.
pub(super) trait Keyword: Copy + PartialEq + 'static {
    /// Each keyword and its variant.
    const KEYWORDS: &'static [(&'static str, Self)];

    /// The keyword of `self`.
    fn keyword(self) -> &'static str {
        let found = Self::KEYWORDS.iter().find(|(_, variant)| *variant == self);
        found.expect("every variant has a keyword, as the tests of `render` go through them all").0
    }
}

impl<K: Keyword> Described for K {
    fn schema() -> serde_json::Value {
        json!({ "enum": K::KEYWORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
    }
}

/// Parses one of the keywords of `K`.
pub(super) fn keyword<K: Keyword>(node: &ConfigNode) -> Result<K, String> {
    let expected = || K::KEYWORDS.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
    let text = text(node, &expected())?;
    let found = K::KEYWORDS.iter().find(|(word, _)| *word == text);
    found.map(|(_, variant)| *variant).ok_or_else(|| format!("is {}; it must be {}", quoted(text), expected()))
}
