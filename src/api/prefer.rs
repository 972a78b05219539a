//! The `Prefer` field (RFC 7240).

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The preference for a dry run: the cost of a window instead of the window.
const DRY_RUN: &str = "dry-run";
/// The preference for how errors of the request are handled (RFC 7240, 4.4), and its value for cutting a window.
const HANDLING: &str = "handling";
const LENIENT: &str = "lenient";
/// The preference for how long the request may wait for the quota, in seconds (RFC 7240, 4.3).
const WAIT: &str = "wait";
/// The preference for an answer that is fetched later (RFC 7240, 4.1).
const RESPOND_ASYNC: &str = "respond-async";

/// The preferences of a request, and which of that was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Preferences {
    /// Whether the caller prefers the cost of the window to the window.
    pub(super) dry_run: bool,
    handling: Handling,
    wait: Option<Wait>,
    respond_async: Asynchrony,
}

/// How a window is handled that begins before what is retained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Handling {
    /// The window is an error.
    #[default]
    Strict,
    /// The window is cut.
    Lenient,
    /// The window was cut.
    LenientApplied,
}

/// How long the request may wait for the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// As the caller prefers it.
    Preferred(Duration),
    /// As it is applied.
    Applied(Duration),
}

/// Whether the window may be fetched after the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asynchrony {
    #[default]
    Synchronous,
    Preferred,
    Applied,
}

impl Preferences {
    /// The preferences in the `Prefer` fields of a request. Values of `dry-run`, and parameters, are ignored; of a
    /// preference that stands twice, the first counts (RFC 7240, 2).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        let (mut dry_run, mut handling, mut wait, mut respond_async) = (false, None, None, Asynchrony::Synchronous);
        for (name, value) in fields.flat_map(list_members) {
            dry_run |= name.eq_ignore_ascii_case(DRY_RUN);
            if name.eq_ignore_ascii_case(RESPOND_ASYNC) {
                respond_async = Asynchrony::Preferred;
            }
            if name.eq_ignore_ascii_case(WAIT) {
                wait =
                    wait.or(value.and_then(|value| value.parse().ok()).map(Duration::from_secs).map(Wait::Preferred));
            }
            if name.eq_ignore_ascii_case(HANDLING) {
                let is_lenient = value.is_some_and(|value| value.eq_ignore_ascii_case(LENIENT));
                handling.get_or_insert(if is_lenient { Handling::Lenient } else { Handling::Strict });
            }
        }
        Self { dry_run, handling: handling.unwrap_or_default(), wait, respond_async }
    }

    /// Whether a window that begins too early is cut; if so, that is applied from now on.
    pub(super) fn apply_lenience(&mut self) -> bool {
        if self.handling == Handling::Lenient {
            self.handling = Handling::LenientApplied;
        }
        self.handling == Handling::LenientApplied
    }

    /// How long the request waits for the quota, if it says so: at most `longest`. That is applied from now on.
    pub(super) fn apply_wait(&mut self, longest: Duration) -> Option<Duration> {
        let (Wait::Preferred(wait) | Wait::Applied(wait)) = self.wait?;
        let wait = wait.min(longest);
        self.wait = Some(Wait::Applied(wait));
        Some(wait)
    }

    /// Whether the caller prefers an answer that is fetched later to a long wait.
    pub(super) fn prefers_async(self) -> bool {
        self.respond_async != Asynchrony::Synchronous
    }

    /// The same preferences, of an answer that is fetched later.
    pub(super) fn applied_async(self) -> Self {
        Self { respond_async: Asynchrony::Applied, ..self }
    }

    /// `Preference-Applied` of the answer; `None` if nothing was applied.
    pub(super) fn applied(self) -> Option<HeaderValue> {
        let mut applied: Vec<Cow<'static, str>> = Vec::new();
        if self.dry_run {
            applied.push(DRY_RUN.into());
        }
        if self.respond_async == Asynchrony::Applied {
            applied.push(RESPOND_ASYNC.into());
        }
        if let Some(Wait::Applied(wait)) = self.wait.filter(|_| !self.dry_run) {
            applied.push(format!("{WAIT}={}", wait.as_secs()).into());
        }
        if self.handling == Handling::LenientApplied {
            applied.push("handling=lenient".into());
        }
        if applied.is_empty() { None } else { HeaderValue::try_from(applied.join(", ")).ok() }
    }
}

/// Names and values of the members of a list in one field, without quotes; quoted text belongs to a value.
pub(super) fn list_members(field: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let (mut quoted, mut escaped) = (false, false);
    let preferences = field.split(move |char| {
        let separates = char == ',' && !quoted;
        (quoted, escaped) = match char {
            '"' if !escaped => (!quoted, false),
            '\\' if quoted => (quoted, !escaped),
            _ => (quoted, false),
        };
        separates
    });
    preferences.map(|preference| {
        // A semicolon in a quoted value cuts it short, and no known value has one.
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').map_or((preference, None), |(name, value)| (name, Some(value)));
        (name.trim(), value.map(|value| value.trim().trim_matches('"')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dry_run_is_one_preference_among_others() {
        for (fields, expected) in [
            (vec![], false),
            (vec!["dry-run"], true),
            (vec!["respond-async, wait=10;x , Dry-Run"], true),
            (vec!["wait=10", "dry-run; why=\"a, b\""], true),
            (vec!["handling=\"a\\\", dry-run, b\""], false),
            (vec!["handling=\"\\\\\", dry-run"], true),
            (vec!["dry-running", "x=dry-run, x;dry-run"], false),
        ] {
            let mut headers = HeaderMap::new();
            for field in &fields {
                headers.append("prefer", field.parse().unwrap());
            }
            assert_eq!(Preferences::of(&headers).dry_run, expected, "{fields:?}");
        }
    }

    #[test]
    fn lenience_is_applied_only_where_it_is_preferred() {
        for (field, applied) in [
            ("handling=lenient", Some("handling=lenient")),
            ("wait=10, Handling = \"Lenient\"; x=y , dry-run", Some("dry-run, handling=lenient")),
            ("handling=strict, handling=lenient", None),
            ("handling, x=\"handling=lenient\"", None),
            ("lenient", None),
        ] {
            let headers = HeaderMap::from_iter([(PREFER, field.parse().unwrap())]);
            let mut preferences = Preferences::of(&headers);
            let unapplied = preferences.applied();
            assert_eq!(unapplied.is_some(), preferences.dry_run, "{field}: nothing was cut yet");
            assert_eq!(preferences.apply_lenience(), applied.is_some(), "{field}");
            assert_eq!(preferences.applied().as_ref().map(|value| value.to_str().unwrap()), applied, "{field}");
        }
    }

    #[test]
    fn wait_is_applied_up_to_the_longest() {
        for (field, wait, applied) in [
            ("wait=10", Some(10), Some("wait=10")),
            ("respond-async, Wait=\"99\"", Some(60), Some("wait=60")),
            ("wait=5, wait=7", Some(5), Some("wait=5")),
            ("wait=0", Some(0), Some("wait=0")),
            ("wait", None, None),
            ("wait=-1, wait=x", None, None),
            ("wait=1, dry-run", Some(1), Some("dry-run")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", field.parse().unwrap());
            let mut preferences = Preferences::of(&headers);
            let found = preferences.apply_wait(Duration::from_mins(1));
            assert_eq!(found.map(|wait| wait.as_secs()), wait, "{field}");
            assert_eq!(preferences.applied().as_ref().map(|value| value.to_str().unwrap()), applied, "{field}");
        }
    }

    #[test]
    fn respond_async_is_applied_only_to_a_later_answer() {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", "wait=5, Respond-Async".parse().unwrap());
        let preferences = Preferences::of(&headers);
        assert!(preferences.prefers_async());
        assert_eq!(preferences.applied(), None);
        assert_eq!(preferences.applied_async().applied().unwrap(), "respond-async");
    }
}
