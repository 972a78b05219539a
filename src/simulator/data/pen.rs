//! Writes JSON straight into a buffer, with the freedom that serde_json has not: spellings of numbers, escapes and
//! white space that a careless parser would lose.

use std::io::Write as _;

use fastrand::Rng;

use super::item::push_uuid;
use super::text::Language;
use super::timeline::DAY_MS;
use crate::window::Timestamp;

/// The state of writing one item.
pub(super) struct Pen<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) rng: Rng,
    pub(super) language: Language,
    /// Insignificant white space after `,` and `:`.
    loose: bool,
    /// A value stands before the next one.
    comma: bool,
    /// The day of the last timestamp and its spelling, since most timestamps of an item share it.
    day: (i64, [u8; 11]),
}

impl<'a> Pen<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, rng: Rng, language: Language, loose: bool) -> Self {
        Self { out, rng, language, loose, comma: false, day: (i64::MIN, [0; 11]) }
    }

    /// True once in `n` times.
    pub(super) fn once_in(&mut self, n: u32) -> bool {
        self.rng.u32(..n) == 0
    }

    /// One of a list that is not empty.
    pub(super) fn pick(&mut self, list: &[&'static str]) -> &'static str {
        list.get(self.rng.usize(..list.len().max(1))).copied().unwrap_or_default()
    }

    pub(super) fn key(&mut self, name: &str) -> &mut Self {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(if self.loose { b"\": " } else { b"\":" });
        self.comma = false;
        self
    }

    pub(super) fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.nested(b'{', b'}', members);
    }

    pub(super) fn array(&mut self, elements: impl FnOnce(&mut Self)) {
        self.nested(b'[', b']', elements);
    }

    fn nested(&mut self, open: u8, close: u8, inner: impl FnOnce(&mut Self)) {
        self.separate();
        self.out.push(open);
        self.comma = false;
        inner(self);
        self.out.push(close);
        self.comma = true;
    }

    /// A value spelled exactly so: a number, `true`, `null`, `[]`.
    pub(super) fn raw(&mut self, json: &str) {
        self.separate();
        self.out.extend_from_slice(json.as_bytes());
        self.comma = true;
    }

    pub(super) fn number(&mut self, number: impl Into<u64>) {
        self.separate();
        // Writing to a vector cannot fail.
        let _ = write!(self.out, "{}", number.into());
        self.comma = true;
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    /// A string whose characters need no escape, or are escaped already.
    pub(super) fn string(&mut self, escaped: &str) {
        self.quoted(|pen| pen.out.extend_from_slice(escaped.as_bytes()));
    }

    /// A string that `inner` writes, without its quotation marks.
    pub(super) fn quoted(&mut self, inner: impl FnOnce(&mut Self)) {
        self.separate();
        self.out.push(b'"');
        inner(self);
        self.out.push(b'"');
        self.comma = true;
    }

    /// `"<prefix>xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"`
    pub(super) fn id(&mut self, prefix: &str) {
        let mut id = prefix.to_owned();
        push_uuid(&mut id, 0x6964_7321, self.rng.u64(..));
        self.string(&id);
    }

    /// `"2026-02-25T09:33:10.120Z"`
    pub(super) fn time(&mut self, millis: i64) {
        let day = millis.div_euclid(DAY_MS);
        if day != self.day.0 {
            let spelled = Timestamp::from_millis(day * DAY_MS).to_string();
            if let Some(date) = spelled.as_bytes().first_chunk() {
                self.day = (day, *date);
            }
        }
        let date = self.day.1;
        let millis = millis.rem_euclid(DAY_MS);
        let two = |number: i64| {
            let digit = |number: i64| u8::try_from(number % 10).map_or(b'0', |digit| b'0' + digit);
            [digit(number / 10), digit(number)]
        };
        let [hour, minute, second] = [millis / 3_600_000, millis / 60_000 % 60, millis / 1_000 % 60].map(two);
        let [tenth, rest] = [millis % 1_000 / 100, millis % 100].map(two);
        self.quoted(|pen| {
            let out = &mut *pen.out;
            out.extend_from_slice(&date);
            out.extend_from_slice(&hour);
            out.push(b':');
            out.extend_from_slice(&minute);
            out.push(b':');
            out.extend_from_slice(&second);
            out.extend_from_slice(&[b'.', tenth[1], rest[0], rest[1], b'Z']);
        });
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.extend_from_slice(if self.loose { b",\n  " } else { b"," });
        }
        self.comma = false;
    }
}
