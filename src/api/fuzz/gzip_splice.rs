//! Bodies of answers, plain and compressed.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::bufread::GzDecoder;

use crate::api::body::WindowBody;
use crate::api::negotiation::{Coding, Format, Negotiated};
use crate::cache::{ItemSlice, Memory, PageRange, Slice};
use crate::fuzz_targets::{Input, chunk_of, items};

/// A gzip body, spliced from several chunks, inflates to the plain body, and both hold the items of the page.
///
/// # Panics
/// If a property does not hold.
pub fn gzip_splice(data: &[u8]) {
    let mut input = Input::new(data);
    let (chunks, is_derived, is_in_memory) = (1 + input.below(3), input.flag(), input.flag());
    let page = PageRange { offset: input.below(100) as u64, limit: input.flag().then(|| input.below(100) as u64) };
    let memory = Memory::new(1 << 24);
    let (mut window, mut wanted) = (Vec::new(), Vec::new());
    for _ in 0..chunks {
        let items = items(&mut input);
        let chunk = chunk_of(&items, &mut input);
        let chunk = Arc::new(if is_derived { chunk.derive(Some).expect("a sound chunk") } else { chunk });
        if is_in_memory {
            memory.insert(chunk.clone());
        }
        let (one, other) = (input.below(items.len() + 1), input.below(items.len() + 1));
        let rows = one.min(other)..one.max(other);
        wanted.extend(items[rows.clone()].iter().map(|item| item.json.clone()));
        window.push(Slice { chunk, rows });
    }
    let total = wanted.len() as u64;
    let selected = wanted.into_iter().skip(index(page.offset)).take(page.limit.map_or(usize::MAX, index));
    let (selected, answer) = (selected.collect::<Vec<_>>(), page.of(window));
    // Frequent reads of what is in memory take another path than rare ones.
    for _ in 0..if is_in_memory { 4 } else { 1 } {
        check_answers(&answer, &selected, page, total);
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn check_answers(items: &ItemSlice, wanted: &[Bytes], page: PageRange, total: u64) {
    let has_more = page.limit.is_some_and(|limit| page.offset + limit < total);
    assert_eq!((items.count, items.has_more), (wanted.len() as u64, has_more));
    let json = [
        format!(r#"{{"numResults":{},"hasMore":{has_more},"data":["#, wanted.len()).into_bytes(),
        wanted.join(&b','),
        b"]}".to_vec(),
    ];
    let line = |json: &Bytes| {
        let spaces = json.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte });
        spaces.chain([b'\n']).collect::<Vec<_>>()
    };
    let lines: Vec<u8> = wanted.iter().flat_map(line).collect();
    for (format, wanted) in [(Format::Json, json.concat()), (Format::Ndjson, lines)] {
        let plain = whole(items, format, Coding::Identity);
        assert!(plain == wanted, "{format:?} differs: {} bytes, not {}", plain.len(), wanted.len());
        assert_eq!(items.body_len(format), wanted.len() as u64);
        let inflated = inflate(&whole(items, format, Coding::Gzip));
        assert!(inflated == wanted, "{format:?} inflates to {} bytes, not {}", inflated.len(), wanted.len());
    }
}

fn whole(items: &ItemSlice, format: Format, coding: Coding) -> Bytes {
    let body = WindowBody::new(items.clone(), Negotiated { format, coding });
    body.whole().unwrap_or_else(|_| panic!("a chunk that does not decode"))
}

/// The text of one gzip member, whose checksum and length are checked, with nothing behind it.
fn inflate(gzip: &[u8]) -> Vec<u8> {
    let (mut decoder, mut text) = (GzDecoder::new(gzip), Vec::new());
    decoder.read_to_end(&mut text).expect("a gzip member with the right checksum and length");
    assert!(decoder.into_inner().is_empty(), "bytes behind the member");
    text
}
