//! Fuzz target of replies as they are received, and as the library parses them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use redis::Parser;
use tokio::io::{AsyncRead, ReadBuf};

use super::Reply;
use super::connector::reply;
use super::reply_limit::LimitedReplies;
use crate::fuzz_targets::Input;

/// Values of the largest size that a reply may hold.
const MAX_VALUES_PER_REPLY: usize = 4;
/// More replies than this are not parsed.
const MAX_REPLIES: usize = 1000;

/// The replies in a stream of bytes. The bytes that the parser gets do not depend on the pieces in which they were
/// received, and the parser never waits for more than the limit.
pub(crate) fn replies(data: &[u8]) -> Vec<Reply> {
    let mut input = Input::new(data);
    let max_value = [64, 1000, 1 << 20][usize::from(input.byte() % 3)];
    let mut sizes = Input::new(input.part(8));
    let stream = input.rest();
    let whole = receive(stream, max_value, || usize::MAX);
    let pieces = receive(stream, max_value, || 1 + usize::from(sizes.byte()));
    assert_eq!(whole.1, pieces.1, "the error depends on the pieces");
    assert!(pieces.0.starts_with(&whole.0) && (whole.1.is_some() || whole.0 == pieces.0), "the bytes do");
    parse(&pieces.0, max_value)
}

/// Parses as many replies as there are.
fn parse(received: &[u8], max_value: usize) -> Vec<Reply> {
    let (mut rest, mut replies) = (received, Vec::new());
    while !rest.is_empty() && replies.len() < MAX_REPLIES {
        let before = rest;
        match Parser::new().parse_value(&mut rest) {
            Ok(value) => replies.push(reply(value)),
            Err(error) if error.is_io_error() || error.is_connection_dropped() => {
                let most = MAX_VALUES_PER_REPLY * max_value;
                assert!(before.len() <= most, "{} bytes are buffered, more than {most}", before.len());
                break;
            }
            Err(_) => break,
        }
    }
    replies
}

/// The bytes that the parser reads of `stream`, which is received in pieces of so many bytes, and the error at the end.
fn receive(stream: &[u8], max_value: usize, size: impl FnMut() -> usize + Unpin) -> (Vec<u8>, Option<String>) {
    let mut limited = LimitedReplies::new(Pieces { stream, size }, max_value as u64);
    let (mut received, mut buffer) = (Vec::new(), vec![0; 4096]);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        let mut read = ReadBuf::new(&mut buffer);
        match Pin::new(&mut limited).poll_read(&mut context, &mut read) {
            Poll::Ready(Ok(())) if read.filled().is_empty() => return (received, None),
            Poll::Ready(Ok(())) => received.extend_from_slice(read.filled()),
            Poll::Ready(Err(error)) => return (received, Some(error.to_string())),
            Poll::Pending => panic!("the stream is always ready"),
        }
    }
}

/// A stream that is received in pieces.
struct Pieces<'a, F> {
    stream: &'a [u8],
    size: F,
}

impl<F: FnMut() -> usize + Unpin> AsyncRead for Pieces<'_, F> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let size = (this.size)().min(buffer.remaining()).min(this.stream.len());
        let (piece, rest) = this.stream.split_at(size);
        buffer.put_slice(piece);
        this.stream = rest;
        Poll::Ready(Ok(()))
    }
}
