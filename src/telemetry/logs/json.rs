//! A log line as JSON, for a machine: one object with the members `timestamp`, `level` and `message`, those of the event,
//! and `span` with those of the span that it happened in.
//!
//! tracing-subscriber's own formatter says the same. It took a third of what a hit costs: it writes each line by way of
//! several strings, and reads the span's members back from one to write them again.

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

/// Room for a line of usual length.
const USUAL_LINE: usize = 640;

/// Writes a line for each event.
pub(super) struct Json<W>(pub(super) W);

/// The members of a span, as they stand in a line.
struct SpanMembers(Vec<u8>);

impl<S, W> Layer<S> for Json<W>
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
        // It writes to a string, which does not fail.
        let _ = time().format_time(&mut Writer::new(&mut now));
        let mut line = Vec::with_capacity(USUAL_LINE);
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
        // Nobody can be told that it fails.
        let _ = self.0.make_writer_for(event.metadata()).write_all(&escape(line));
    }
}

/// Escapes, as JSON does, what could make a line look like another one: controls beyond those that JSON escapes anyway,
/// separators of lines, and marks that turn the direction of text.
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
        // The end of the line is no part of it.
        if is_mark || (char.is_control() && char != '\n') {
            // It writes to a string, which does not fail.
            let _ = fmt::Write::write_fmt(&mut escaped, format_args!("\\u{:04x}", u32::from(char)));
        } else {
            escaped.push(char);
        }
    }
    escaped.into_bytes()
}

/// Adds members to an object that has been opened.
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
        // Text and numbers can always be written to memory.
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
        self.add(field.name(), &Debugged(value));
    }
}

/// A value as the text that `Debug` makes of it.
struct Debugged<'a>(&'a dyn Debug);

impl fmt::Display for Debugged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Debugged<'_> {
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
        /// The lines, without the time, which differs.
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

    #[test]
    fn a_line_is_what_tracing_subscriber_would_write() {
        let (own, theirs) = (Written::default(), Written::default());
        let (of_own, of_theirs) = (own.clone(), theirs.clone());
        let fmt = tracing_subscriber::fmt::layer().with_target(false).json().flatten_event(true).with_span_list(false);
        let both = tracing_subscriber::registry()
            .with(Json(move || of_own.clone()))
            .with(fmt.with_writer(move || of_theirs.clone()));
        tracing::subscriber::with_default(both, || {
            let error = io::Error::other("it \"broke\"\n");
            tracing::info!("nothing else");
            tracing::warn!(%error, why = ?Some("ä\u{1}"), n = -1, share = 0.5, is = true, missing = None::<u64>, "odd");
            let span = tracing::info_span!("request", request_id = "a-1", n = 7);
            span.in_scope(|| tracing::error!(status = 200_u16, error = &error as &dyn Error, "in {}", "it"));
            tracing::info_span!("bare").in_scope(|| tracing::info!(late = 1));
        });
        // In a span, tracing-subscriber sorts.
        let theirs = theirs
            .lines()
            .into_iter()
            .map(|line| line.replace(r#""n":7,"request_id":"a-1""#, r#""request_id":"a-1","n":7"#));
        assert_eq!(own.lines(), theirs.collect::<Vec<_>>());
        assert_eq!(own.lines().len(), 4);
    }

    #[test]
    fn characters_that_forge_a_line_are_escaped() {
        let written = Written::default();
        let of_test = written.clone();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Json(move || of_test.clone())), || {
            tracing::info!(caller = "a\u{202e}b\u{7f}\u{85}\u{2066}c\u{2028}ü\r\n");
        });
        let line = written.lines().concat();
        assert!(line.contains(r#""a\u202eb\u007f\u0085\u2066c\u2028ü\r\n""#), "{line}");
        assert_eq!(
            serde_json::from_str::<Value>(&line).unwrap()["caller"],
            "a\u{202e}b\u{7f}\u{85}\u{2066}c\u{2028}ü\r\n"
        );
    }
}
