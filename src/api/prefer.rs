//! The `Prefer` field (RFC 7240).

use http::HeaderMap;

/// The preference for a dry run: the cost of a window instead of the window.
const DRY_RUN: &str = "dry-run";

/// Whether the caller prefers a dry run. A value or parameters of the preference are ignored.
pub(super) fn is_dry_run(headers: &HeaderMap) -> bool {
    let fields = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    fields.flat_map(preference_names).any(|name| name.eq_ignore_ascii_case(DRY_RUN))
}

/// Names of the preferences in one field; quoted text belongs to a value.
fn preference_names(field: &str) -> impl Iterator<Item = &str> {
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
    preferences.filter_map(|preference| preference.split(['=', ';']).next()).map(str::trim)
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
            assert_eq!(is_dry_run(&headers), expected, "{fields:?}");
        }
    }
}
