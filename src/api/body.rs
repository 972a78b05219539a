//! The body of an answer, put together block by block: no more of it is in memory than the client takes. With gzip, a
//! JSON body is put together from the deflated blocks of the chunks; NDJSON is deflated as it is sent, because chunks
//! have commas where it has line feeds.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use flate2::write::GzEncoder;
use http_body::{Body, Frame, SizeHint};

use super::error::StreamAborted;
use super::gzip::{GzipMember, encoder};
use super::negotiation::{Coding, Format, Negotiated};
use super::report::Progress;
use super::streaming_body::StreamedPieces;
use crate::cache::{Damaged, DeflateSplice, ItemSlice, Slice};

/// The items of one answer, as bytes.
impl ItemSlice {
    /// A hash of the items' content, independent of how they are divided into chunks.
    pub(super) fn sum(&self) -> u64 {
        self.slices.iter().fold(0, |sum, slice| sum.wrapping_add(slice.chunk.sum(slice.rows.clone())))
    }

    fn text_len(&self) -> u64 {
        self.slices.iter().map(|slice| slice.chunk.text_len(slice.rows.clone())).sum()
    }

    fn envelope(&self) -> String {
        format!(r#"{{"numResults":{},"hasMore":{},"data":["#, self.count, self.has_more)
    }

    /// Length of the body without a content coding, in bytes.
    pub(super) fn body_len(&self, format: Format) -> u64 {
        match format {
            Format::Ndjson => self.text_len() + self.count,
            Format::Json => {
                let commas = self.count.saturating_sub(1);
                self.envelope().len() as u64 + self.text_len() + commas + ENVELOPE_END.len() as u64
            }
        }
    }

    /// The body in pieces.
    fn pieces(self, format: Format) -> Pieces {
        match format {
            Format::Ndjson => Box::new(self.slices.into_iter().flat_map(|slice| {
                let items = slice.rows.len() as u64;
                with_items(items, slice.chunk.lines(slice.rows))
            })),
            Format::Json => {
                let begin = Piece::from(Bytes::from(self.envelope()));
                let items = in_order(self.slices).flat_map(|(slice, is_first)| {
                    let items = slice.rows.len() as u64;
                    with_items(items, slice.chunk.text(slice.rows, is_first))
                });
                Box::new([Ok(begin)].into_iter().chain(items).chain([Ok(Bytes::from_static(ENVELOPE_END).into())]))
            }
        }
    }

    /// The body as a gzip member, in pieces.
    fn gzip_pieces(self, format: Format) -> Pieces {
        match format {
            Format::Ndjson => Box::new(Gzip { pieces: self.pieces(format), items: 0, encoder: Some(encoder()) }),
            Format::Json => {
                let (mut member, envelope) = (GzipMember::default(), self.envelope());
                let begin = member.begin(envelope.as_bytes());
                let splices = in_order(self.slices).flat_map(|(slice, is_first)| {
                    let mut items = slice.rows.len() as u64;
                    let splices = slice.chunk.splices(slice.rows, is_first);
                    splices.map(move |splice| splice.map(|splice| (splice, std::mem::take(&mut items))))
                });
                Box::new(std::iter::once(Ok(begin.into())).chain(Joined { splices, member: Some(member) }.flatten()))
            }
        }
    }
}

/// The slices, each with whether it is the first.
fn in_order(slices: Vec<Slice>) -> impl Iterator<Item = (Slice, bool)> {
    slices.into_iter().zip(std::iter::once(true).chain(std::iter::repeat(false)))
}

const ENVELOPE_END: &[u8] = b"]}";

/// A part of a body.
struct Piece {
    bytes: Bytes,
    /// Number of the items in the slices that begin with this piece.
    items: u64,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, items: 0 }
    }
}

type Pieces = Box<dyn Iterator<Item = Result<Piece, Damaged>> + Send + Sync>;

/// The pieces of a slice with `items` items.
fn with_items(
    mut items: u64,
    pieces: impl Iterator<Item = Result<Bytes, Damaged>>,
) -> impl Iterator<Item = Result<Piece, Damaged>> {
    pieces.map(move |piece| piece.map(|bytes| Piece { bytes, items: std::mem::take(&mut items) }))
}

/// Deflated text as pieces of a gzip member, and its end.
struct Joined<I> {
    splices: I,
    /// `None` after the end.
    member: Option<GzipMember>,
}

impl<I: Iterator<Item = Result<(DeflateSplice, u64), Damaged>>> Iterator for Joined<I> {
    type Item = Vec<Result<Piece, Damaged>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.splices.next() {
            Some(Ok((joint, items))) => {
                Some(with_items(items, self.member.as_mut()?.join(joint).into_iter().map(Ok)).collect())
            }
            Some(Err(damaged)) => Some(vec![Err(damaged)]),
            None => Some(vec![Ok(self.member.take()?.end(ENVELOPE_END).into())]),
        }
    }
}

/// Plain pieces as a gzip member.
struct Gzip {
    pieces: Pieces,
    /// Items of slices that have begun since the last piece.
    items: u64,
    /// `None` after the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Iterator for Gzip {
    type Item = Result<Piece, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(piece) = self.pieces.next() else {
                let deflated = self.encoder.take()?.finish().map_err(|_| Damaged);
                return Some(deflated.map(|deflated| Piece { bytes: deflated.into(), items: self.items }));
            };
            let encoder = self.encoder.as_mut()?;
            match piece {
                Ok(piece) if encoder.write_all(&piece.bytes).is_ok() => self.items += piece.items,
                Ok(_) | Err(Damaged) => return Some(Err(Damaged)),
            }
            // The encoder has no output until it has filled a block.
            if !encoder.get_ref().is_empty() {
                let bytes = std::mem::take(encoder.get_mut()).into();
                return Some(Ok(Piece { bytes, items: std::mem::take(&mut self.items) }));
            }
        }
    }
}

/// The body of a window.
pub struct WindowBody {
    source: Source,
    /// Bytes left, where known.
    left: Option<u64>,
    done: bool,
}

enum Source {
    /// All items are there. With the number of those in the slices that have begun.
    Pieces(Pieces, u64),
    /// Items are still being fetched.
    StreamEvent(Box<StreamedPieces>),
}

impl WindowBody {
    pub(super) fn new(items: ItemSlice, representation: Negotiated) -> Self {
        let Negotiated { format, coding } = representation;
        let (left, pieces) = match coding {
            Coding::Identity => (Some(items.body_len(format)), items.pieces(format)),
            Coding::Gzip => (None, items.gzip_pieces(format)),
        };
        Self { source: Source::Pieces(pieces, 0), left, done: false }
    }

    /// A body that is handed out in these pieces, of one item each.
    #[cfg(test)]
    pub(super) fn of_pieces(pieces: &'static [&str]) -> Self {
        let pieces = pieces.iter().map(|piece| Ok(Piece { bytes: Bytes::from_static(piece.as_bytes()), items: 1 }));
        Self { source: Source::Pieces(Box::new(pieces), 0), left: None, done: false }
    }

    /// A body of unknown length, which stands for one that is not fetched for HEAD.
    pub(super) fn unknown() -> Self {
        Self { source: Source::Pieces(Box::new(std::iter::empty()), 0), left: None, done: false }
    }

    /// The whole body in one buffer.
    ///
    /// # Errors
    /// [`StreamAborted`] if a cached chunk does not decode.
    pub(super) fn whole(self) -> Result<Bytes, Self> {
        let Source::Pieces(mut pieces, _) = self.source else { return Err(self) };
        let mut whole = BytesMut::with_capacity(self.left.and_then(|left| left.try_into().ok()).unwrap_or_default());
        for piece in &mut pieces {
            match piece {
                Ok(piece) => whole.extend_from_slice(&piece.bytes),
                Err(damaged) => {
                    let failed = Box::new(std::iter::once(Err(damaged)));
                    return Err(Self { source: Source::Pieces(failed, 0), ..self });
                }
            }
        }
        Ok(whole.freeze())
    }

    /// The progress of a body that has ended.
    pub fn settle(&self) -> Progress {
        match &self.source {
            Source::Pieces(_, items) => Progress { items: *items, streamed_calls: None },
            Source::StreamEvent(pieces) => pieces.settle(),
        }
    }

    /// A body that is sent while it is fetched.
    pub(super) fn streamed(pieces: StreamedPieces) -> Self {
        Self { source: Source::StreamEvent(Box::new(pieces)), left: None, done: false }
    }
}

impl Body for WindowBody {
    type Data = Bytes;
    type Error = StreamAborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamAborted>>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        let next = match &mut this.source {
            Source::Pieces(pieces, items) => pieces.next().map(|piece| {
                let piece = piece?;
                *items += piece.items;
                Ok(piece.bytes)
            }),
            Source::StreamEvent(pieces) => ready!(pieces.poll_next(context)),
        };
        this.done = !matches!(next, Some(Ok(_)));
        if let (Some(Ok(bytes)), Some(left)) = (&next, &mut this.left) {
            *left = left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::{Chunk, PageRange};
    use crate::paging::Item;
    use crate::window::{Interval, Timestamp};

    /// Chunks of `sizes` items each, and all their items.
    fn window(sizes: &[usize]) -> (Vec<Slice>, Vec<String>) {
        let mut all = Vec::new();
        let slices = sizes.iter().map(|size| {
            let items: Vec<Item> = (0..*size)
                .map(|n| {
                    let json = format!(r#"{{"n":{},"text":"{}"}}"#, all.len(), "ä".repeat(n * 997 % 3000));
                    all.push(json.clone());
                    Item { at: Timestamp::from_nanos(0), id: Bytes::new(), json: json.into() }
                })
                .collect();
            let chunk = Chunk::new(Interval::EVER, Timestamp::from_nanos(0), crate::cache::Settled::Yes, &items);
            Slice { rows: 0..chunk.len(), chunk: Arc::new(chunk) }
        });
        (slices.collect(), all)
    }

    fn body(items: ItemSlice, format: Format, coding: Coding) -> Vec<u8> {
        let body = WindowBody::new(items, Negotiated { format, coding });
        let hint = body.size_hint().exact();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(body.collect()).unwrap().to_bytes();
        assert!(hint.is_none_or(|hint| hint == bytes.len() as u64), "{hint:?} and {} bytes", bytes.len());
        match coding {
            Coding::Identity => bytes.to_vec(),
            Coding::Gzip => {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
                plain
            }
        }
    }

    #[tokio::test]
    async fn items_are_counted_with_the_first_piece_of_their_slice() {
        for (format, coding) in [
            (Format::Json, Coding::Identity),
            (Format::Json, Coding::Gzip),
            (Format::Ndjson, Coding::Identity),
            (Format::Ndjson, Coding::Gzip),
        ] {
            let (slices, all) = window(&[60, 50, 40]);
            let items = PageRange { offset: 10, limit: None }.of(slices);
            let mut body = WindowBody::new(items, Negotiated { format, coding });
            let mut counts = vec![body.settle().items];
            while let Some(frame) = body.frame().await {
                frame.unwrap();
                counts.push(body.settle().items);
            }
            counts.dedup();
            if coding == Coding::Identity || format == Format::Json {
                assert_eq!(counts, [0, 50, 100, 140]);
            }
            // The encoder takes several pieces before it has one.
            assert!(counts.is_sorted() && counts.ends_with(&[all.len() as u64 - 10]), "{counts:?}");
        }
    }

    proptest! {
        #[test]
        fn page_of_any_size_equals_the_upstreams(
            sizes in prop::collection::vec(0usize..60, 0..6),
            offset in 0u64..200,
            limit in prop::option::of(0u64..200),
            gzip: bool,
        ) {
            let (slices, all) = window(&sizes);
            let coding = if gzip { Coding::Gzip } else { Coding::Identity };
            let start = usize::try_from(offset).unwrap().min(all.len());
            let end = limit.map_or(all.len(), |limit| (start + usize::try_from(limit).unwrap()).min(all.len()));
            let page = &all[start..end];
            let (has_more, data) = (end < all.len(), page.join(","));
            let json = format!(r#"{{"numResults":{},"hasMore":{has_more},"data":[{data}]}}"#, page.len());
            let answered = body(PageRange { offset, limit }.of(slices.clone()), Format::Json, coding);
            prop_assert_eq!(String::from_utf8(answered).unwrap(), json);
            let lines: String = page.iter().flat_map(|item| [item.as_str(), "\n"]).collect();
            let answered = body(PageRange { offset, limit }.of(slices), Format::Ndjson, coding);
            prop_assert_eq!(String::from_utf8(answered).unwrap(), lines);
        }
    }
}
