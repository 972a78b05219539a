//! Writes a long window while it is fetched.

use std::io::Write as _;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::write::GzEncoder;

use super::error::StreamAborted;
use super::gzip::encoder;
use super::negotiation::{Coding, Format, Negotiated};
use super::report::Progress;
use crate::cache::{Damaged, RemainingStream, Slice, StreamEvent};

/// The pieces of an answer whose number of items is known only at its end, where `numResults` stands.
pub(super) struct StreamedPieces {
    rest: RemainingStream,
    format: Format,
    /// Rest of the current slice.
    slice: Box<dyn Iterator<Item = Result<Bytes, Damaged>> + Send + Sync>,
    count: u64,
    state: State,
    /// Gzip encoder, if negotiated.
    gzip: Option<GzEncoder<Vec<u8>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begin,
    Items,
    End,
}

impl StreamedPieces {
    pub(super) fn new(rest: RemainingStream, representation: Negotiated) -> Self {
        let gzip = (representation.coding == Coding::Gzip).then(encoder);
        let slice = Box::new(std::iter::empty());
        Self { rest, format: representation.format, slice, count: 0, state: State::Begin, gzip }
    }

    /// The progress once the body has ended. Calls reported later do not belong to this answer.
    pub(super) fn settle(&self) -> Progress {
        Progress { items: self.count, streamed_calls: Some(self.rest.settle_calls()) }
    }

    /// The next bytes to send; `None` at the end.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamAborted>>> {
        loop {
            let Some(piece) = ready!(self.poll_plain(context)) else {
                let Some(gzip) = self.gzip.take() else { return Poll::Ready(None) };
                return Poll::Ready(Some(gzip.finish().map(Bytes::from).map_err(|_| Damaged.into())));
            };
            let piece = piece?;
            let Some(gzip) = &mut self.gzip else { return Poll::Ready(Some(Ok(piece))) };
            // What has arrived is sent now, although it might compress better together with later text.
            if gzip.write_all(&piece).and_then(|()| gzip.flush()).is_err() {
                return Poll::Ready(Some(Err(Damaged.into())));
            }
            let deflated = std::mem::take(gzip.get_mut());
            if !deflated.is_empty() {
                return Poll::Ready(Some(Ok(deflated.into())));
            }
        }
    }

    fn poll_plain(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamAborted>>> {
        loop {
            if self.state == State::Begin {
                self.state = State::Items;
                if self.format == Format::Json {
                    return Poll::Ready(Some(Ok(Bytes::from_static(b"{\"data\":["))));
                }
            }
            if let Some(piece) = self.slice.next() {
                return Poll::Ready(Some(piece.map_err(StreamAborted::from)));
            }
            if self.state == State::End {
                return Poll::Ready(None);
            }
            match ready!(self.rest.poll_next(context)) {
                Some(Ok(StreamEvent::Slice(slice))) => self.begin(slice),
                Some(Ok(StreamEvent::End)) => {
                    self.state = State::End;
                    if self.format == Format::Json {
                        let end = format!("],\"numResults\":{},\"hasMore\":false}}", self.count);
                        return Poll::Ready(Some(Ok(end.into())));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                // The task that fetches the rest is gone.
                None => return Poll::Ready(Some(Err(Damaged.into()))),
            }
        }
    }

    fn begin(&mut self, Slice { chunk, rows }: Slice) {
        let is_first = self.count == 0;
        self.count += rows.len() as u64;
        self.slice = match self.format {
            Format::Ndjson => Box::new(chunk.lines(rows)),
            Format::Json => Box::new(chunk.text(rows, is_first)),
        };
    }
}
