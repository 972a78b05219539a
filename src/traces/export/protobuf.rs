//! The bytes of an `ExportTraceServiceRequest` (OTLP 1, `opentelemetry/proto/trace/v1/trace.proto`). Pure.
//!
//! Written by hand, because it is one message of few fields; the tests read it with the code that is generated from the
//! definitions.

use crate::traces::context::TraceContext;
use crate::traces::record::{AttributeValue, EndedSpan, SpanKind, SpanParent, SpanStatus};
use crate::window::Timestamp;

/// Types of fields on the wire.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;
/// Flags of a span and of a link beyond those of the trace context: whether it is known that the parent is remote, and
/// whether it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// `STATUS_CODE_ERROR`
const STATUS_ERROR: u64 = 2;

/// The request that exports `spans` of a process with these attributes.
pub(super) fn encode(resource: &[(String, String)], spans: &[EndedSpan]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |resource_spans| {
        resource_spans.message(1, |message| {
            for (name, value) in resource {
                message.attribute(1, name, &AttributeValue::from(value.as_str()));
            }
        });
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| {
                scope.bytes(1, b"koregate");
                scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            for span in spans {
                scope_spans.message(2, |message| message.span(span));
            }
        });
    });
    request.0
}

/// The bytes of a message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        loop {
            let [.., low] = (number & 0x7f).to_be_bytes();
            number >>= 7;
            if number == 0 {
                return self.0.push(low);
            }
            self.0.push(low | 0x80);
        }
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn number(&mut self, field: u32, number: u64) {
        self.tag(field, VARINT);
        self.varint(number);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn fixed32(&mut self, field: u32, number: u32) {
        self.tag(field, FIXED32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn time(&mut self, field: u32, time: Timestamp) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&u64::try_from(time.as_nanos()).unwrap_or_default().to_le_bytes());
    }

    fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn attribute(&mut self, field: u32, name: &str, value: &AttributeValue) {
        self.message(field, |pair| {
            pair.bytes(1, name.as_bytes());
            pair.message(2, |any| match value {
                AttributeValue::Text(text) => any.bytes(1, text.as_bytes()),
                // Negative numbers are written in two's complement.
                AttributeValue::Integer(number) => any.number(3, number.cast_unsigned()),
            });
        });
    }

    fn span(&mut self, EndedSpan { context, parent, kind, started_at, ended_at, data }: &EndedSpan) {
        self.bytes(1, &context.trace.0);
        self.bytes(2, &context.span.0);
        self.state(3, context);
        if let Some(SpanParent { id, .. }) = parent {
            self.bytes(4, &id.0);
        }
        self.bytes(5, data.name.as_bytes());
        self.number(
            6,
            match kind {
                SpanKind::Internal => 1,
                SpanKind::Server => 2,
                SpanKind::Client => 3,
            },
        );
        self.time(7, *started_at);
        self.time(8, *ended_at);
        data.attributes.iter().for_each(|(name, value)| self.attribute(9, name, value));
        data.links.iter().for_each(|link| self.link(link));
        self.number(14, data.dropped_links.into());
        if let SpanStatus::Failed(error) = data.status {
            self.message(15, |status| {
                status.bytes(2, error.as_bytes());
                status.number(3, STATUS_ERROR);
            });
        }
        let is_remote = if parent.is_some_and(|parent| parent.is_remote) { IS_REMOTE } else { 0 };
        self.fixed32(16, u32::from(context.is_sampled) | HAS_IS_REMOTE | is_remote);
    }

    fn link(&mut self, context: &TraceContext) {
        self.message(13, |link| {
            link.bytes(1, &context.trace.0);
            link.bytes(2, &context.span.0);
            link.state(3, context);
            link.fixed32(6, u32::from(context.is_sampled) | HAS_IS_REMOTE);
        });
    }

    fn state(&mut self, field: u32, context: &TraceContext) {
        if let Some(state) = &context.state {
            self.bytes(field, state.as_bytes());
        }
    }
}

/// The number of spans that the collector has refused, of the bytes of an `ExportTraceServiceResponse`; 0 if it has taken
/// all, or if the bytes are no such message.
pub(super) fn rejected_spans(response: &[u8]) -> u64 {
    let partial_success = fields(response).find_map(|(field, value)| match value {
        FieldValue::Bytes(bytes) if field == 1 => Some(bytes),
        _ => None,
    });
    let rejected = fields(partial_success.unwrap_or_default()).find_map(|(field, value)| match value {
        FieldValue::Number(number) if field == 1 => Some(number),
        _ => None,
    });
    rejected.unwrap_or_default()
}

/// The value of a field.
enum FieldValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, as far as they are numbers and bytes and can be read.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, FieldValue<'_>)> {
    std::iter::from_fn(move || {
        let tag = take_varint(&mut bytes)?;
        let value = match u32::try_from(tag & 7).ok()? {
            VARINT => FieldValue::Number(take_varint(&mut bytes)?),
            BYTES => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                FieldValue::Bytes(value)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    })
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let length = bytes.iter().take(10).position(|byte| *byte < 0x80)? + 1;
    let (varint, rest) = bytes.split_at(length);
    *bytes = rest;
    Some(varint.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f)))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::traces::context::{SpanId, TraceId};
    use crate::traces::record::SpanData;

    fn context() -> impl Strategy<Value = TraceContext> {
        let state = proptest::option::of("[a-z]{1,8}=[a-z]{1,8}");
        (1_u128.., 1_u64.., any::<bool>(), state).prop_map(|(trace, span, is_sampled, state)| TraceContext {
            trace: TraceId(trace.to_be_bytes()),
            span: SpanId(span.to_be_bytes()),
            is_sampled,
            state: state.map(Into::into),
        })
    }

    fn attribute() -> impl Strategy<Value = (&'static str, AttributeValue)> {
        let value =
            prop_oneof![any::<i64>().prop_map(AttributeValue::Integer), ".{0,200}".prop_map(AttributeValue::Text)];
        (prop_oneof![Just("koregate.items"), Just("http.route")], value)
    }

    fn span() -> impl Strategy<Value = EndedSpan> {
        let parent = proptest::option::of((1_u64.., any::<bool>()))
            .prop_map(|parent| parent.map(|(id, is_remote)| SpanParent { id: SpanId(id.to_be_bytes()), is_remote }));
        let kind = prop_oneof![Just(SpanKind::Internal), Just(SpanKind::Server), Just(SpanKind::Client)];
        let status = prop_oneof![Just(SpanStatus::Unset), Just(SpanStatus::Failed("timeout"))];
        let links = proptest::collection::vec(context(), 0..4);
        let data = (proptest::collection::vec(attribute(), 0..5), links, any::<u32>(), status).prop_map(
            |(attributes, links, dropped_links, status)| SpanData {
                name: "run",
                attributes,
                links,
                dropped_links,
                status,
            },
        );
        (context(), parent, kind, 0..i64::MAX, 0..i64::MAX, data).prop_map(
            |(context, parent, kind, start, end, data)| {
                let (started_at, ended_at) = (Timestamp::from_nanos(start), Timestamp::from_nanos(end));
                EndedSpan { context, parent, kind, started_at, ended_at, data }
            },
        )
    }

    fn assert_same(sent: &EndedSpan, read: &opentelemetry_proto::tonic::trace::v1::Span) {
        let EndedSpan { context, parent, kind, started_at, ended_at, data } = sent;
        assert_eq!((&read.trace_id[..], &read.span_id[..]), (&context.trace.0[..], &context.span.0[..]));
        assert_eq!(read.trace_state, context.state.as_deref().unwrap_or_default());
        assert_eq!(read.parent_span_id, parent.map(|parent| parent.id.0.to_vec()).unwrap_or_default());
        assert_eq!((read.name.as_str(), read.kind), (data.name, *kind as i32 + 1));
        let times = [*started_at, *ended_at].map(|time| u64::try_from(time.as_nanos()).unwrap());
        assert_eq!([read.start_time_unix_nano, read.end_time_unix_nano], times);
        let attributes = read.attributes.iter().map(|pair| {
            let value = match pair.value.clone().unwrap().value.unwrap() {
                Value::StringValue(text) => AttributeValue::Text(text),
                Value::IntValue(number) => AttributeValue::Integer(number),
                other => panic!("{other:?}"),
            };
            (pair.key.clone(), value)
        });
        let sent_attributes = data.attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        assert!(attributes.eq(sent_attributes));
        let links =
            read.links.iter().map(|link| (link.trace_id.clone(), link.span_id.clone(), link.trace_state.clone()));
        assert!(links.eq(data.links.iter().map(|link| {
            (link.trace.0.to_vec(), link.span.0.to_vec(), link.state.as_deref().unwrap_or_default().to_owned())
        })));
        assert_eq!(read.dropped_links_count, data.dropped_links);
        let status = read.status.as_ref().map(|status| (status.message.as_str(), status.code));
        let expected = if let SpanStatus::Failed(error) = data.status { Some((error, 2)) } else { None };
        assert_eq!(status, expected);
        let is_remote = parent.is_some_and(|parent| parent.is_remote);
        assert_eq!(read.flags, u32::from(context.is_sampled) | 0x100 | if is_remote { 0x200 } else { 0 });
    }

    proptest! {
        #[test]
        fn generated_code_reads_what_is_written(spans in proptest::collection::vec(span(), 0..4)) {
            let resource = vec![("service.name".to_owned(), "koregate".to_owned())];
            let read = ExportTraceServiceRequest::decode(&encode(&resource, &spans)[..]).unwrap();
            let [resource_spans] = &read.resource_spans[..] else { panic!("{read:?}") };
            prop_assert_eq!(&resource_spans.resource.as_ref().unwrap().attributes[0].key, "service.name");
            let [scope_spans] = &resource_spans.scope_spans[..] else { panic!("{read:?}") };
            prop_assert_eq!(&scope_spans.scope.as_ref().unwrap().name, "koregate");
            prop_assert_eq!(scope_spans.spans.len(), spans.len());
            spans.iter().zip(&scope_spans.spans).for_each(|(sent, read)| assert_same(sent, read));
        }

        #[test]
        fn rejected_spans_are_read_from_any_response(rejected in 0..i64::MAX, message in ".{0,40}") {
            let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: message };
            let response = ExportTraceServiceResponse { partial_success: Some(partial) };
            prop_assert_eq!(rejected_spans(&response.encode_to_vec()), rejected.cast_unsigned());
        }

        #[test]
        fn garbage_is_no_response(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            rejected_spans(&bytes);
        }
    }
}
