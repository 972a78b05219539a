//! Reading of the bytes of an input.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Reads values from the bytes of an input. Behind its end, all bytes are zero.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.part(1).first().copied().unwrap_or_default()
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `limit`, which is at most 65,536 and more than zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % limit
    }

    pub(crate) fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let part = self.part(8);
        bytes[..part.len()].copy_from_slice(part);
        u64::from_le_bytes(bytes)
    }

    /// The next `len` bytes, or as many as are left.
    pub(crate) fn part(&mut self, len: usize) -> &'a [u8] {
        let (part, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        part
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Splits an input like an HTTP message: lines up to an empty one, and the bytes behind it. Lines that are not UTF-8
/// are left out.
pub(crate) fn lines_and_body(data: &[u8]) -> (Vec<&str>, &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((data, &[][..]), |end| (&data[..end], &data[end + 2..]));
    (head.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()).collect(), body)
}

/// The header fields in lines such as `name: value`. Other lines are left out.
pub(crate) fn header_fields(lines: &[&str]) -> HeaderMap {
    let field = |line: &&str| {
        let (name, value) = line.split_once(':')?;
        let value = HeaderValue::from_bytes(value.trim_start_matches(' ').as_bytes()).ok()?;
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    };
    let mut fields = HeaderMap::new();
    for (name, value) in lines.iter().take(64).filter_map(field) {
        fields.append(name, value);
    }
    fields
}
