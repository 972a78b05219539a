//! The identity of a span, and its spelling (W3C Trace Context, `traceparent` and `tracestate`). Pure.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field that names the trace of a request.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Digits of a trace id, of the id of the parent span, and of the flags.
const DIGITS: [usize; 3] = [32, 16, 2];
/// Length of a field of version 00; later versions may be longer.
const LENGTH: usize = 55;
/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// Longest `tracestate` that is kept, in bytes.
const MAX_STATE_LENGTH: usize = 512;

/// The id of a trace; not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TraceId(pub(super) [u8; 16]);

/// The id of a span, unique in its trace; not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SpanId(pub(super) [u8; 8]);

impl TraceId {
    pub(super) fn random() -> Self {
        Self((fastrand::u128(1..)).to_be_bytes())
    }
}

impl SpanId {
    pub(super) fn random() -> Self {
        Self((fastrand::u64(1..)).to_be_bytes())
    }
}

/// A valid `traceparent`, as it is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// The trace id: 32 hexadecimal digits.
    pub trace: &'a str,
    span: &'a str,
    is_sampled: bool,
}

impl<'a> TraceParent<'a> {
    /// The parent that a request names; `None` unless there is one valid field.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        Self::parse(value.to_str().ok()?)
    }

    fn parse(value: &'a str) -> Option<Self> {
        let (version, rest) = value.split_once('-')?;
        let is_hex = |text: &str, length| {
            text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        if !is_hex(version, 2) || version == "ff" || (version == "00" && value.len() != LENGTH) {
            return None;
        }
        let mut parts = rest.splitn(4, '-');
        let mut part = |length| parts.next().filter(|part| is_hex(part, length));
        let [trace, span, flags] = [part(DIGITS[0])?, part(DIGITS[1])?, part(DIGITS[2])?];
        let is_zero = |id: &str| id.bytes().all(|byte| byte == b'0');
        let is_sampled = u8::from_str_radix(flags, 16).ok()? & SAMPLED == SAMPLED;
        (!is_zero(trace) && !is_zero(span)).then_some(Self { trace, span, is_sampled })
    }
}

/// The identity of a span, with what its trace carries. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    /// Whether the trace is recorded.
    pub(super) is_sampled: bool,
    /// The `tracestate`, which belongs to other vendors.
    pub(super) state: Option<Arc<str>>,
}

impl TraceContext {
    /// The span of `parent`, with the `tracestate` of the same request.
    pub(super) fn of(parent: TraceParent<'_>, headers: &HeaderMap) -> Option<Self> {
        Self::new(parent, state_of(headers))
    }

    fn new(TraceParent { trace, span, is_sampled }: TraceParent<'_>, state: Option<Arc<str>>) -> Option<Self> {
        let trace = TraceId(u128::from_str_radix(trace, 16).ok()?.to_be_bytes());
        let span = SpanId(u64::from_str_radix(span, 16).ok()?.to_be_bytes());
        Some(Self { trace, span, is_sampled, state })
    }

    /// The context that another replica has sent: the result of [`TraceContext::to_text`].
    pub fn parse(text: &str) -> Option<Self> {
        let (parent, state) = text.split_once(' ').unwrap_or((text, ""));
        let state = Some(state).filter(|state| is_state(state)).map(Arc::from);
        Self::new(TraceParent::parse(parent)?, state)
    }

    /// `traceparent`, and `tracestate` behind a space if there is one.
    pub fn to_text(&self) -> String {
        match &self.state {
            None => self.traceparent(),
            Some(state) => format!("{} {state}", self.traceparent()),
        }
    }

    /// The value of `traceparent` of requests that are made in this span.
    fn traceparent(&self) -> String {
        format!("00-{:032x}-{}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }

    /// Puts the context into the head of a request.
    pub fn set_headers(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.traceparent()) {
            headers.insert(TRACEPARENT, value);
        }
        if let Some(value) = self.state.as_ref().and_then(|state| HeaderValue::from_str(state).ok()) {
            headers.insert(TRACESTATE, value);
        }
    }

    /// The trace id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::LowerHex for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&u128::from_be_bytes(self.0), f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// The `tracestate`, its fields joined; `None` without one, or if it is too long or no text of visible ASCII.
fn state_of(headers: &HeaderMap) -> Option<Arc<str>> {
    let fields: Option<Vec<&str>> = headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
    let state = fields?.join(",");
    is_state(&state).then(|| state.into())
}

fn is_state(state: &str) -> bool {
    (1..=MAX_STATE_LENGTH).contains(&state.len()) && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    fn headers(name: &HeaderName, values: &[String]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn id_of(values: &[String]) -> Option<String> {
        TraceParent::of(&headers(&TRACEPARENT, values)).map(|parent| parent.trace.to_owned())
    }

    #[test]
    fn only_a_valid_field_gives_its_trace_id() {
        for valid in ["00-TRACE-PARENT-01", "00-TRACE-PARENT-00", "cc-TRACE-PARENT-01-what-comes-later"] {
            let value = valid.replace("TRACE", TRACE).replace("PARENT", PARENT);
            assert_eq!(id_of(&[value]).as_deref(), Some(TRACE), "{valid}");
        }
        for invalid in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{}-{PARENT}-011", &TRACE[1..]),
            format!("0-{TRACE}-{PARENT}-001"),
        ] {
            assert_eq!(id_of(std::slice::from_ref(&invalid)), None, "{invalid}");
        }
        let twice = format!("00-{TRACE}-{PARENT}-01");
        assert_eq!(id_of(&[twice.clone(), twice]), None);
        assert_eq!(id_of(&[]), None);
    }

    #[test]
    fn context_survives_headers_and_messages() {
        for (flags, state) in [("00", None), ("01", Some("a=1,b=2")), ("03", Some("vendor@x=t61rcWkgMzE"))] {
            let parent = format!("00-{TRACE}-{PARENT}-{flags}");
            let state_headers = headers(&TRACESTATE, &state.map(str::to_owned).into_iter().collect::<Vec<_>>());
            let context = TraceContext::of(TraceParent::parse(&parent).unwrap(), &state_headers).unwrap();
            assert_eq!(TraceContext::parse(&context.to_text()).as_ref(), Some(&context));
            assert_eq!((context.trace_id().as_str(), context.state.as_deref()), (TRACE, state));
            let mut sent = HeaderMap::new();
            context.set_headers(&mut sent);
            let flag = if flags == "00" { "00" } else { "01" };
            assert_eq!(sent[TRACEPARENT], format!("00-{TRACE}-{PARENT}-{flag}"));
            assert_eq!(sent.get(TRACESTATE).map(|state| state.to_str().unwrap()), state);
        }
    }

    #[test]
    fn state_is_joined_and_dropped_if_too_long() {
        let state = |values: &[String]| state_of(&headers(&TRACESTATE, values));
        assert_eq!(state(&["a=1".to_owned(), "b=2".to_owned()]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&["x".repeat(512)]).map(|state| state.len()), Some(512));
        assert_eq!((state(&["x".repeat(513)]), state(&[])), (None, None));
        assert_eq!(TraceContext::parse("00-0-0-01"), None);
    }

    #[test]
    fn random_ids_are_not_zero_and_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| SpanId::random().0).collect();
        assert!(ids.len() == 1000 && !ids.contains(&[0; 8]));
        assert_ne!(TraceId::random(), TraceId::random());
    }
}
