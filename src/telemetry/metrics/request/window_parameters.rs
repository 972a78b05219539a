//! The parameters of a window, as the access log has them. Pure.

use std::borrow::Cow;

/// The parameters that are logged.
const NAMES: [&str; 4] = ["from", "to", "offset", "limit"];
/// Maximum bytes of a value.
const MAX_LENGTH: usize = 128;

/// The first value of `from`, `to`, `offset` and `limit` each in the query of a request, cut at [`MAX_LENGTH`] bytes.
/// `None` if it is not given, or has other characters than times and numbers: these may be anything, such as a name.
pub(super) fn window_parameters(query: &str) -> [Option<String>; 4] {
    let mut values = [const { None }; NAMES.len()];
    for (name, value) in query.split('&').filter_map(decoded) {
        if let Some(place) = NAMES.iter().position(|known| *known == name)
            && value.bytes().all(|byte| byte.is_ascii_digit() || b"-+:. TZ".contains(&byte))
        {
            values[place].get_or_insert_with(|| value[..value.len().min(MAX_LENGTH)].to_owned());
        }
    }
    values
}

/// The name and the value of a parameter. Nothing is decoded where nothing is encoded.
fn decoded(pair: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    if pair.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return form_urlencoded::parse(pair.as_bytes()).next();
    }
    let (name, value) = pair.split_once('=')?;
    Some((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_harmless_value_of_each_is_read_and_cut() {
        let query = format!(
            "to=2026-02-24T00%3A00%3A00Z&from={}&limit=-1&offset=some+one&auth=hunter2&limit=3",
            "1".repeat(200)
        );
        let from = "1".repeat(MAX_LENGTH);
        let expected = [Some(&*from), Some("2026-02-24T00:00:00Z"), None, Some("-1")];
        assert_eq!(window_parameters(&query).each_ref().map(Option::as_deref), expected);
        assert_eq!(
            window_parameters("%66rom=1+2&to&offset=\u{e9}").each_ref().map(Option::as_deref),
            [Some("1 2"), None, None, None]
        );
        assert_eq!(window_parameters(""), [const { None }; 4]);
    }
}
