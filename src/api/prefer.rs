//! The `Prefer` field (RFC 7240).

use http::{HeaderMap, HeaderValue};

/// The preference for a dry run: the cost of a window instead of the window.
const DRY_RUN: &str = "dry-run";
/// The preference for how errors of the request are handled (RFC 7240, 4.4), and its value for cutting a window.
const HANDLING: &str = "handling";
const LENIENT: &str = "lenient";

/// The preferences of a request, and which of that was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Preferences {
    /// Whether the caller prefers the cost of the window to the window.
    pub(super) dry_run: bool,
    handling: Handling,
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

impl Preferences {
    /// The preferences in the `Prefer` fields of a request. Values of `dry-run`, and parameters, are ignored; of a
    /// preference that stands twice, the first counts (RFC 7240, 2).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let fields = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let (mut dry_run, mut handling) = (false, None);
        for (name, value) in fields.flat_map(preferences) {
            dry_run |= name.eq_ignore_ascii_case(DRY_RUN);
            if name.eq_ignore_ascii_case(HANDLING) {
                let is_lenient = value.is_some_and(|value| value.eq_ignore_ascii_case(LENIENT));
                handling.get_or_insert(if is_lenient { Handling::Lenient } else { Handling::Strict });
            }
        }
        Self { dry_run, handling: handling.unwrap_or_default() }
    }

    /// Whether a window that begins too early is cut; if so, that is applied from now on.
    pub(super) fn apply_lenience(&mut self) -> bool {
        if self.handling == Handling::Lenient {
            self.handling = Handling::LenientApplied;
        }
        self.handling == Handling::LenientApplied
    }

    /// `Preference-Applied` of the answer; `None` if nothing was applied.
    pub(super) fn applied(self) -> Option<HeaderValue> {
        match (self.dry_run, self.handling == Handling::LenientApplied) {
            (true, true) => Some(HeaderValue::from_static("dry-run, handling=lenient")),
            (true, false) => Some(HeaderValue::from_static("dry-run")),
            (false, true) => Some(HeaderValue::from_static("handling=lenient")),
            (false, false) => None,
        }
    }
}

/// Names and values of the preferences in one field, without quotes; quoted text belongs to a value.
fn preferences(field: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
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
            let headers =
                HeaderMap::from_iter([(http::header::HeaderName::from_static("prefer"), field.parse().unwrap())]);
            let mut preferences = Preferences::of(&headers);
            let unapplied = preferences.applied();
            assert_eq!(unapplied.is_some(), preferences.dry_run, "{field}: nothing was cut yet");
            assert_eq!(preferences.apply_lenience(), applied.is_some(), "{field}");
            assert_eq!(preferences.applied().as_ref().map(|value| value.to_str().unwrap()), applied, "{field}");
        }
    }
}
