use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::layout::{Row, Text};
use super::*;
use crate::cache::store::Memory;
use crate::paging::Item;
use crate::window::{Interval, Timestamp};

fn items(sizes: &[usize]) -> Vec<Item> {
    let json = |n: usize, size: usize| Bytes::from(format!(r#"{{"n":{n},"x":"{}"}}"#, "é,\\\"".repeat(size)));
    let item = |(n, size): (usize, &usize)| Item {
        at: Timestamp::from_nanos(i64::try_from(n / 2).unwrap()),
        id: format!("{n}").into(),
        json: json(n, *size),
    };
    sizes.iter().enumerate().map(item).collect()
}

/// Inflates deflate blocks that end on a byte boundary and are not marked as the last.
fn inflate(pieces: &[Bytes]) -> Vec<u8> {
    let (mut text, mut pieces) = (Vec::new(), pieces.concat());
    pieces.extend_from_slice(&[3, 0]);
    flate2::read::DeflateDecoder::new(&pieces[..]).read_to_end(&mut text).unwrap();
    text
}

fn chunk(items: &[Item]) -> Arc<Chunk> {
    let interval = Interval::new(Timestamp::from_nanos(0), Timestamp::from_nanos(1000));
    Arc::new(Chunk::new(interval, Timestamp::from_nanos(0), Settled::No, items))
}

proptest! {
    #[test]
    fn rows_read_back_in_each_form(
        sizes in prop::collection::vec(prop_oneof![0usize..50, 5_000usize..40_000], 0..24),
        a: prop::sample::Index, b: prop::sample::Index,
    ) {
        let items = items(&sizes);
        let chunk = chunk(&items);
        let (a, b) = (a.index(items.len() + 1), b.index(items.len() + 1));
        let rows = a.min(b)..a.max(b);
        let wanted: Vec<&[u8]> = items[rows.clone()].iter().map(|item| item.json.as_ref()).collect();
        let read: Vec<_> = chunk.read(rows.clone()).map(|row| row.unwrap().1).collect();
        prop_assert_eq!(&read, &wanted);
        let texts: Vec<_> = chunk.clone().text(rows.clone(), false).map(|text| text.unwrap()).collect();
        let with_commas = wanted.iter().flat_map(|json| [&b","[..], json]).collect::<Vec<_>>().concat();
        prop_assert_eq!(texts.concat(), with_commas.clone());
        let lines: Vec<_> = chunk.clone().lines(rows.clone()).map(|lines| lines.unwrap()).collect();
        prop_assert_eq!(lines.concat(), wanted.iter().flat_map(|json| [*json, b"\n"]).collect::<Vec<_>>().concat());
        prop_assert_eq!(chunk.text_len(rows.clone()), wanted.iter().map(|json| json.len() as u64).sum::<u64>());
        let part = rows.start + rows.len() / 2;
        prop_assert_eq!(chunk.sum(rows.clone()), chunk.sum(rows.start..part).wrapping_add(chunk.sum(part..rows.end)));
    }

    /// Spliced text is the plain text of the same rows, wherever it begins and ends.
    #[test]
    fn splices_inflate_to_the_text(
        sizes in prop::collection::vec(
            prop_oneof![4 => 0usize..50, 2 => 300usize..2_000, 1 => 5_000usize..40_000], 0..60),
        a: prop::sample::Index, b: prop::sample::Index, is_first: bool, derived: bool, kept: bool,
    ) {
        let items = items(&sizes);
        let mut chunk = chunk(&items);
        if derived {
            chunk = Arc::new(chunk.derive(Some).unwrap());
        }
        let memory = Memory::new(1 << 24);
        if kept {
            memory.insert(chunk.clone());
        }
        let (a, b) = (a.index(items.len() + 1), b.index(items.len() + 1));
        let rows = a.min(b)..a.max(b);
        let with_commas = items[rows.clone()].iter().flat_map(|item| [&b","[..], &item.json]);
        let mut wanted = with_commas.collect::<Vec<_>>().concat();
        if is_first && !wanted.is_empty() {
            wanted.remove(0);
        }
        for _ in 0..3 {
            let splices: Vec<_> = chunk.clone().splices(rows.clone(), is_first).map(|splice| splice.unwrap()).collect();
            let (mut text, mut crc) = (Vec::new(), crc32fast::Hasher::new());
            for splice in splices {
                let part = inflate(&splice.pieces);
                prop_assert_eq!((splice.len, splice.crc), (part.len() as u64, crc32fast::hash(&part)));
                crc.combine(&crc32fast::Hasher::new_with_initial_len(splice.crc, splice.len));
                text.extend(part);
            }
            prop_assert!(text == wanted);
            prop_assert_eq!(crc.finalize(), crc32fast::hash(&wanted));
        }
    }

    #[test]
    fn rows_within_interval_are_found(count in 0usize..30, start in 0i64..20, length in 0i64..20) {
        let items = items(&vec![1; count]);
        let interval = Interval::new(Timestamp::from_nanos(start), Timestamp::from_nanos(start + length));
        let rows = chunk(&items).rows_within(interval);
        for (row, item) in items.iter().enumerate() {
            prop_assert_eq!(rows.contains(&row), interval.contains(item.at));
        }
    }
}

#[test]
fn multiline_item_becomes_one_line() {
    let json = Bytes::from_static(b"{\"a\":\"\\n\",\r\n \"b\":1\n}");
    let several = |n| Item { at: Timestamp::from_nanos(n), id: format!("{n}").into(), json: json.clone() };
    let lines: Vec<_> = chunk(&[several(0), several(1)]).lines(0..2).map(|lines| lines.unwrap()).collect();
    let line = r#"{"a":"\n",   "b":1 }"#;
    assert_eq!(lines.concat(), format!("{line}\n{line}\n").as_bytes());
}

#[test]
fn derived_chunk_keeps_timestamps_and_id_hashes() {
    let items = items(&[1, 2, 3, 4]);
    let derived = chunk(&items).derive(|json| (json != items[1].json).then(|| Bytes::from_static(b"{}"))).unwrap();
    let (third, fourth) = (items[2].at, items[3].at.next_tick());
    assert_eq!(derived.rows_within(Interval::new(third, fourth)), 1..3);
    let whole = chunk(&items);
    assert_eq!(derived.id_hashes(1..3), whole.id_hashes(2..4), "items that may still move keep their hashes");
    assert!(derived.read(0..3).all(|row| row.unwrap().1 == "{}"));
}

#[test]
fn damaged_block_is_an_error() {
    let mut broken = Chunk::new(Interval::default(), Timestamp::from_nanos(0), Settled::Yes, &items(&[500]));
    let Text::Deflated(good) = &broken.text else { panic!("not deflated") };
    let cut = good.slice(..good.len() / 2);
    broken.text = Text::Deflated(cut);
    assert_eq!(Arc::new(broken).text(0..1, false).next(), Some(Err(Damaged)));
}

#[test]
fn hot_block_is_cached_until_its_chunk_is_removed() {
    let memory = Memory::new(1 << 20);
    let chunk = chunk(&items(&[100; 20]));
    let id = memory.insert(chunk.clone());
    let read = || chunk.clone().text(3..9, false).map(|text| text.unwrap()).collect::<Vec<_>>();
    let first = read();
    assert_eq!(read(), first);
    assert_eq!(memory.hot_bytes(), 0, "a client that reads everything twice");
    assert_eq!(read(), first);
    let hot = memory.hot_bytes();
    assert!(hot > chunk.text_len(0..20), "the whole block and its overhead: {hot}");
    assert_eq!(read(), first);
    memory.remove(id);
    memory.bytes();
    assert_eq!(memory.hot_bytes(), 0);
}

#[test]
fn weight_includes_text_and_index() {
    let many = chunk(&items(&[100; 200]));
    assert!(many.weight() > 200 * size_of::<Row>() + super::layout::OVERHEAD_BYTES);
    assert!(chunk(&[]).weight() >= super::layout::OVERHEAD_BYTES);
}
