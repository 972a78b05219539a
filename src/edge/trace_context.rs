//! The trace that a request belongs to (W3C Trace Context, `traceparent`).

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Digits of a trace id, of the id of the parent span, and of the flags.
const DIGITS: [usize; 3] = [32, 16, 2];
/// Length of a field of version 00; later versions may be longer.
const LENGTH: usize = 55;

/// The trace id of a request: 32 hexadecimal digits. `None` without a valid `traceparent`.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (version, rest) = value.split_once('-')?;
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    if !is_hex(version, 2) || version == "ff" || (version == "00" && value.len() != LENGTH) {
        return None;
    }
    let mut parts = rest.splitn(4, '-');
    let mut part = |length| parts.next().filter(|part| is_hex(part, length));
    let [trace, parent, _flags] = [part(DIGITS[0])?, part(DIGITS[1])?, part(DIGITS[2])?];
    let is_zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    (!is_zero(trace) && !is_zero(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn id_of(values: &[String]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        }
        trace_id(&headers).map(ToOwned::to_owned)
    }

    #[test]
    fn only_a_valid_field_gives_its_trace_id() {
        let parent = "00f067aa0ba902b7";
        for valid in ["00-TRACE-PARENT-01", "00-TRACE-PARENT-00", "cc-TRACE-PARENT-01-what-comes-later"] {
            let value = valid.replace("TRACE", TRACE).replace("PARENT", parent);
            assert_eq!(id_of(&[value]).as_deref(), Some(TRACE), "{valid}");
        }
        for invalid in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{parent}-01"),
            format!("00-{TRACE}-{parent}-01-more"),
            format!("00-{TRACE}-{parent}"),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{parent}-01", TRACE.to_uppercase()),
            format!("00-{}-{parent}-011", &TRACE[1..]),
            format!("0-{TRACE}-{parent}-001"),
        ] {
            assert_eq!(id_of(std::slice::from_ref(&invalid)), None, "{invalid}");
        }
        let twice = format!("00-{TRACE}-{parent}-01");
        assert_eq!(id_of(&[twice.clone(), twice]), None);
        assert_eq!(id_of(&[]), None);
    }
}
