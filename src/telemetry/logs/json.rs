//! Formatter of a log line as a JSON object: `timestamp`, `level`, `message`, the other fields of the event, and `span`
//! with the fields of its span.

use std::error::Error;
use std::fmt::{self, Debug};
use std::io::Write as _;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, time};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Initial capacity of a line in bytes.
const LINE_CAPACITY: usize = 640;

/// The layer that writes a line for each event.
pub(super) struct JsonLayer<W>(pub(super) W);

/// The fields of a span as JSON members.
struct SpanMembers(Vec<u8>);

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut members = Vec::new();
        attributes.record(&mut Members(&mut members));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanMembers(members));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanMembers(members)) = span.extensions_mut().get_mut()
        {
            values.record(&mut Members(members));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut now = String::new();
        // Writing to a string does not fail.
        let _ = time().format_time(&mut Writer::new(&mut now));
        let mut line = Vec::with_capacity(LINE_CAPACITY);
        line.push(b'{');
        let mut members = Members(&mut line);
        members.add("timestamp", &now);
        members.add("level", event.metadata().level().as_str());
        event.record(&mut members);
        if let Some(span) = context.event_span(event) {
            line.extend_from_slice(br#","span":{"#);
            if let Some(SpanMembers(members)) = span.extensions().get() {
                line.extend_from_slice(members);
            }
            Members(&mut line).add("name", span.name());
            line.push(b'}');
        }
        line.extend_from_slice(b"}\n");
        // A failure cannot be reported anywhere.
        let _ = self.0.make_writer_for(event.metadata()).write_all(&escape(line));
    }
}

/// Escapes characters that could make a line look like another one: control characters that JSON allows unescaped, line
/// separators, and marks that change the direction of text.
fn escape(line: Vec<u8>) -> Vec<u8> {
    const DELETE: u8 = 0x7f;
    if line.iter().all(|byte| *byte < DELETE) {
        return line;
    }
    let text = String::from_utf8_lossy(&line);
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        let is_mark = matches!(
            char,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        // The line feed that ends the line is kept.
        if is_mark || (char.is_control() && char != '\n') {
            // Writing to a string does not fail.
            let _ = fmt::Write::write_fmt(&mut escaped, format_args!("\\u{:04x}", u32::from(char)));
        } else {
            escaped.push(char);
        }
    }
    escaped.into_bytes()
}

/// Appends members to an open JSON object.
struct Members<'a>(&'a mut Vec<u8>);

impl Members<'_> {
    fn add(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        if self.0.last().is_some_and(|last| *last != b'{') {
            self.0.push(b',');
        }
        self.write(name);
        self.0.push(b':');
        self.write(value);
    }

    fn write(&mut self, value: &(impl Serialize + ?Sized)) {
        // Serializing text and numbers to memory does not fail.
        let _ = serde_json::to_writer(&mut *self.0, value);
    }
}

impl Visit for Members<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field.name(), &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field.name(), &DebugText(value));
    }
}

/// A value that serializes as its `Debug` text.
struct DebugText<'a>(&'a dyn Debug);

impl fmt::Display for DebugText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for DebugText<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        /// The lines, with an empty timestamp.
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let without_time = |line: &str| {
                let object: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
                assert_eq!(object["timestamp"].as_str().map(str::len), Some("2026-11-23T02:28:37.221878Z".len()));
                line.replacen(object["timestamp"].as_str().unwrap(), "", 1)
            };
            text.lines().map(without_time).collect()
        }
    }

    fn logged(log: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::registry().with(JsonLayer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, log);
        written.lines()
    }

    /// The lines that tracing-subscriber's JSON formatter writes, except that it sorts the fields of a span.
    #[test]
    fn line_has_the_fields_of_the_event_and_the_span() {
        let lines = logged(|| {
            let error = io::Error::other("it \"broke\"\n");
            tracing::info!("nothing else");
            tracing::warn!(%error, why = ?Some("ä\u{1}"), n = -1, share = 0.5, is = true, missing = None::<u64>, "odd");
            let span = tracing::info_span!("request", request_id = "a-1", n = 7);
            span.in_scope(|| tracing::error!(status = 200_u16, error = &error as &dyn Error, "in {}", "it"));
            tracing::info_span!("bare").in_scope(|| tracing::info!(late = 1));
        });
        let expected = [
            r#"{"timestamp":"","level":"INFO","message":"nothing else"}"#,
            concat!(
                r#"{"timestamp":"","level":"WARN","message":"odd","error":"it \"broke\"\n","why":"Some(\"ä\\u{1}\")","#,
                r#""n":-1,"share":0.5,"is":true}"#
            ),
            concat!(
                r#"{"timestamp":"","level":"ERROR","message":"in it","status":200,"error":"it \"broke\"\n","#,
                r#""span":{"request_id":"a-1","n":7,"name":"request"}}"#
            ),
            r#"{"timestamp":"","level":"INFO","late":1,"span":{"name":"bare"}}"#,
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn characters_that_could_forge_a_line_are_escaped() {
        let lines = logged(|| {
            tracing::info!(caller = "a\u{202e}b\u{7f}\u{85}\u{2066}c\u{2028}ü\r\n");
        });
        let line = lines.concat();
        assert!(line.contains(r#""a\u202eb\u007f\u0085\u2066c\u2028ü\r\n""#), "{line}");
        assert_eq!(
            serde_json::from_str::<Value>(&line).unwrap()["caller"],
            "a\u{202e}b\u{7f}\u{85}\u{2066}c\u{2028}ü\r\n"
        );
    }
}
