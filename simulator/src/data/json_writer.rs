//! A JSON writer with full control over the spelling: unusual numbers, escapes and white space, which a client that
//! parses and re-serializes items would not preserve. `serde_json` offers no such control.

use std::io::Write as _;

use fastrand::Rng;
use jiff::Timestamp;

use super::item::push_uuid;
use super::sentences::Language;
use super::timeline::DAY_MS;
use crate::time::UnixTime;

/// The choices of the writer where JSON leaves some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Without insignificant white space.
    Compact,
    /// `,` and `:` are followed by insignificant white space.
    Spaced,
    /// Compact, and without numbers and escapes that make readers stumble.
    Plain,
}

/// Writes one item, and draws its random content.
pub(super) struct JsonWriter<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) rng: Rng,
    pub(super) language: Language,
    spelling: Spelling,
    /// Whether a comma is due before the next value or key.
    comma_due: bool,
    /// The day of the last timestamp and its text, which most timestamps of an item share.
    last_day: (i64, [u8; 11]),
}

impl<'a> JsonWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, rng: Rng, language: Language, spelling: Spelling) -> Self {
        Self { out, rng, language, spelling, comma_due: false, last_day: (i64::MIN, [0; 11]) }
    }

    pub(super) fn is_plain(&self) -> bool {
        self.spelling == Spelling::Plain
    }

    /// Draws whether an event with a probability of 1/`n` happens.
    pub(super) fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(..n) == 0
    }

    /// Draws an element of a list that is not empty.
    pub(super) fn pick(&mut self, list: &[&'static str]) -> &'static str {
        list.get(self.rng.usize(..list.len().max(1))).copied().unwrap_or_default()
    }

    pub(super) fn key(&mut self, name: &str) -> &mut Self {
        self.write_comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(if self.spelling == Spelling::Spaced { b"\": " } else { b"\":" });
        self.comma_due = false;
        self
    }

    pub(super) fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.nested(b'{', b'}', members);
    }

    pub(super) fn array(&mut self, elements: impl FnOnce(&mut Self)) {
        self.nested(b'[', b']', elements);
    }

    fn nested(&mut self, open: u8, close: u8, inner: impl FnOnce(&mut Self)) {
        self.write_comma();
        self.out.push(open);
        self.comma_due = false;
        inner(self);
        self.out.push(close);
        self.comma_due = true;
    }

    /// Writes a value in exactly this spelling.
    pub(super) fn raw(&mut self, json: &str) {
        self.write_comma();
        self.out.extend_from_slice(json.as_bytes());
        self.comma_due = true;
    }

    pub(super) fn number(&mut self, number: impl Into<u64>) {
        self.write_comma();
        // Writing to a vector cannot fail.
        let _ = write!(self.out, "{}", number.into());
        self.comma_due = true;
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    /// Writes a string whose characters need no escapes, or are escaped already.
    pub(super) fn string(&mut self, escaped: &str) {
        self.quoted(|json| json.out.extend_from_slice(escaped.as_bytes()));
    }

    /// Writes a string whose escaped content `inner` writes.
    pub(super) fn quoted(&mut self, inner: impl FnOnce(&mut Self)) {
        self.write_comma();
        self.out.push(b'"');
        inner(self);
        self.out.push(b'"');
        self.comma_due = true;
    }

    /// Writes `"<prefix>xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"` with random digits.
    pub(super) fn id(&mut self, prefix: &str) {
        let mut id = prefix.to_owned();
        push_uuid(&mut id, 0x6964_7321, self.rng.u64(..));
        self.string(&id);
    }

    /// Writes a timestamp, such as `"2026-02-25T09:33:10.120Z"`.
    pub(super) fn time(&mut self, millis: i64) {
        let day = millis.div_euclid(DAY_MS);
        if day != self.last_day.0 {
            let text = Timestamp::from(UnixTime::from_millis(day * DAY_MS)).to_string();
            if let Some(date) = text.as_bytes().first_chunk() {
                self.last_day = (day, *date);
            }
        }
        let date = self.last_day.1;
        let millis = millis.rem_euclid(DAY_MS);
        let two = |number: i64| {
            let digit = |number: i64| u8::try_from(number % 10).map_or(b'0', |digit| b'0' + digit);
            [digit(number / 10), digit(number)]
        };
        let [hour, minute, second] = [millis / 3_600_000, millis / 60_000 % 60, millis / 1_000 % 60].map(two);
        let [tenth, rest] = [millis % 1_000 / 100, millis % 100].map(two);
        self.quoted(|json| {
            let out = &mut *json.out;
            out.extend_from_slice(&date);
            out.extend_from_slice(&hour);
            out.push(b':');
            out.extend_from_slice(&minute);
            out.push(b':');
            out.extend_from_slice(&second);
            out.extend_from_slice(&[b'.', tenth[1], rest[0], rest[1], b'Z']);
        });
    }

    fn write_comma(&mut self) {
        if self.comma_due {
            self.out.extend_from_slice(if self.spelling == Spelling::Spaced { b",\n  " } else { b"," });
        }
        self.comma_due = false;
    }
}
