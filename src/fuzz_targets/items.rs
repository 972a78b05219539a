//! Items and chunks that are made from an input.

use bytes::Bytes;

use super::input::Input;
use crate::cache::{Chunk, Settled};
use crate::paging::Item;
use crate::window::{Interval, Timestamp};

/// Bytes of all items of an input, about, so that one run takes milliseconds.
const MAX_BYTES: usize = 150_000;

/// Items in the contract's order, with timestamps from 0 on: short and long ones, text that deflates well, hardly, and
/// over long distances, and sometimes with line breaks between the tokens.
pub(crate) fn items(input: &mut Input<'_>) -> Vec<Item> {
    let (count, mut bytes, mut at) = (usize::from(input.byte() % 64), 0, 0);
    let mut items = Vec::with_capacity(count);
    for number in 0..count {
        let kind = input.byte();
        at += i64::from(kind >> 6);
        let len = [16, 256, 4 << 10, 48 << 10][usize::from(kind & 3)];
        let len = if kind & 4 == 0 { len } else { input.below(len) };
        let text = text(kind >> 3 & 3, len, input);
        let line_break = if kind & 32 == 0 { "" } else { "\r\n" };
        let json = format!("{{\"n\":{number},{line_break}\"x\":\"{text}\"}}");
        bytes += json.len();
        if bytes > MAX_BYTES {
            break;
        }
        let id = Bytes::from(vec![input.byte()]);
        items.push(Item { at: Timestamp::from_nanos(at), id, json: json.into() });
    }
    Item::sort(&mut items);
    items
}

/// A text of `len` letters.
fn text(kind: u8, len: usize, input: &mut Input<'_>) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyzABCDEF";
    let mut state = u64::from(input.byte()) | 1;
    let mut letter = |place: usize| match kind {
        0 => 'x',
        1 => char::from(LETTERS[place / 7 % 32]),
        _ => {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(LETTERS[usize::try_from(state >> 59).unwrap_or_default()])
        }
    };
    (0..len).map(&mut letter).collect()
}

/// A chunk of all `items`.
pub(crate) fn chunk(items: &[Item], input: &mut Input<'_>) -> Chunk {
    let end = items.last().map_or(0, |item| item.at.as_nanos()) + 1;
    let interval = Interval::new(Timestamp::from_nanos(0), Timestamp::from_nanos(end));
    let settled = if input.flag() { Settled::Yes } else { Settled::No };
    Chunk::new(interval, Timestamp::from_nanos(77), settled, items).with_epoch(u64::from(input.byte()))
}
