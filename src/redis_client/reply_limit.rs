//! Bounds the size of replies, between the connection and the parser of the library, which reads each reply into memory
//! as a whole.
//!
//! A value that is too large is replaced by an error while it is received, so that it is a miss and the connection
//! continues. A reply that is too large as a whole ends the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The code of the error in place of a value that is too large. Redis itself does not use it.
pub(super) const TOO_LARGE: &str = "BIG";
/// Bytes of the longest line, which is a length, a number or a short text.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Bytes that a value is counted for beside its own, since a reply may consist of millions of empty values.
const VALUE_OVERHEAD_BYTES: u64 = 64;
/// The size of the largest reply, in values of the largest size.
const MAX_VALUES_PER_REPLY: u64 = 4;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// Follows the replies of a connection in RESP2, in whatever pieces they are received.
#[derive(Debug)]
struct Scanner {
    /// Bytes of the largest value.
    max_value: u64,
    state: State,
    /// The beginning of a line.
    line: Vec<u8>,
    /// Values that the current reply still lacks.
    missing: u64,
    /// Bytes of memory that the current reply takes up to now.
    size: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// At a line, which says what follows.
    Line,
    /// Within a value, with so many bytes left.
    Value(u64),
    /// Within a value that is dropped, with so many bytes left.
    Dropped(u64),
}

impl Scanner {
    fn new(max_value: u64) -> Self {
        Self { max_value, state: State::Line, line: Vec::new(), missing: 1, size: 0 }
    }

    /// Appends to `output` what the parser is to read of `input`.
    ///
    /// # Errors
    /// If a reply is too large, or is not RESP2.
    fn feed(&mut self, mut input: &[u8], output: &mut BytesMut) -> io::Result<()> {
        while !input.is_empty() {
            match self.state {
                State::Line => input = self.read_line(input, output)?,
                State::Value(left) | State::Dropped(left) => {
                    let (taken, rest) = input.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(input.len()));
                    let left = left - taken.len() as u64;
                    if matches!(self.state, State::Value(_)) {
                        output.extend_from_slice(taken);
                        self.state = State::Value(left);
                    } else {
                        self.state = State::Dropped(left);
                    }
                    if left == 0 {
                        self.end_value();
                    }
                    input = rest;
                }
            }
        }
        Ok(())
    }

    /// Takes the bytes of the current line, and returns the rest.
    fn read_line<'a>(&mut self, input: &'a [u8], output: &mut BytesMut) -> io::Result<&'a [u8]> {
        let end = input.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let (taken, rest) = input.split_at(end.unwrap_or(input.len()));
        self.line.extend_from_slice(taken);
        if self.line.len() > MAX_LINE_BYTES {
            return Err(ReplyFault::Nonsense.into());
        }
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            self.begin_value(&line, output)?;
        }
        Ok(rest)
    }

    fn begin_value(&mut self, line: &[u8], output: &mut BytesMut) -> io::Result<()> {
        // The parser would take a line that ends in another way for the beginning of a longer one, without end.
        let text = line.strip_suffix(b"\r\n").ok_or(ReplyFault::Nonsense)?;
        let number = || std::str::from_utf8(text.get(1..)?).ok()?.parse::<i64>().ok();
        // A negative number stands for no value.
        let length = || number().map(|number| u64::try_from(number).ok()).ok_or(ReplyFault::Nonsense);
        self.add(VALUE_OVERHEAD_BYTES + line.len() as u64)?;
        match line.first() {
            Some(b'$') => match length()? {
                Some(length) if length > self.max_value => {
                    output.extend_from_slice(format!("-{TOO_LARGE}\r\n").as_bytes());
                    self.state = State::Dropped(length.saturating_add(2));
                    return Ok(());
                }
                Some(length) => {
                    self.add(length)?;
                    self.state = State::Value(length + 2);
                }
                None => self.end_value(),
            },
            Some(b'*') => {
                self.missing = self.missing.saturating_add(length()?.unwrap_or_default());
                self.end_value();
            }
            Some(b'+' | b'-' | b':') => self.end_value(),
            _ => return Err(ReplyFault::Nonsense.into()),
        }
        output.extend_from_slice(line);
        Ok(())
    }

    fn end_value(&mut self) {
        self.state = State::Line;
        self.missing -= 1;
        if self.missing == 0 {
            (self.missing, self.size) = (1, 0);
        }
    }

    fn add(&mut self, bytes: u64) -> io::Result<()> {
        self.size = self.size.saturating_add(bytes);
        let limit = self.max_value.saturating_mul(MAX_VALUES_PER_REPLY);
        if self.size <= limit { Ok(()) } else { Err(ReplyFault::TooLarge(limit).into()) }
    }
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplyFault {
    /// A reply is larger than so many bytes.
    #[error("a reply of more than {0} bytes")]
    TooLarge(u64),
    #[error("no reply of RESP2")]
    Nonsense,
}

impl From<ReplyFault> for io::Error {
    fn from(fault: ReplyFault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

/// A connection to Redis whose replies are bounded.
#[derive(Debug)]
pub(super) struct LimitedReplies<S> {
    stream: S,
    scanner: Scanner,
    input: Box<[u8]>,
    /// Bytes that the parser has not read yet.
    output: BytesMut,
}

impl<S> LimitedReplies<S> {
    /// Bounds values to `max_value` bytes, and replies to four times that.
    pub(super) fn new(stream: S, max_value: u64) -> Self {
        let input = vec![0; READ_BYTES].into();
        Self { stream, scanner: Scanner::new(max_value), input, output: BytesMut::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedReplies<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.output.is_empty() {
            let mut input = ReadBuf::new(&mut this.input);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut input))?;
            if input.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.scanner.feed(input.filled(), &mut this.output)?;
        }
        let length = this.output.len().min(buffer.remaining());
        buffer.put_slice(&this.output[..length]);
        this.output.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedReplies<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    const MAX_VALUE: u64 = 1000;

    fn seen(pieces: &[&[u8]]) -> io::Result<Vec<u8>> {
        let (mut scanner, mut output) = (Scanner::new(MAX_VALUE), BytesMut::new());
        pieces.iter().try_for_each(|piece| scanner.feed(piece, &mut output))?;
        Ok(output.to_vec())
    }

    /// A reply, and what the parser is to read of it.
    fn reply() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let same = |text: Vec<u8>| (text.clone(), text);
        let leaf = prop_oneof![
            Just(same(b"$-1\r\n".to_vec())),
            Just(same(b"*-1\r\n".to_vec())),
            Just(same(b"*0\r\n".to_vec())),
            any::<i64>().prop_map(move |number| same(format!(":{number}\r\n").into_bytes())),
            "[ -~]{0,20}".prop_map(move |word| same(format!("+{word}\r\n").into_bytes())),
            (0usize..40).prop_map(move |length| {
                same([format!("${length}\r\n").as_bytes(), &vec![b'\n'; length], b"\r\n"].concat())
            }),
            (1001usize..3000).prop_map(|length| {
                let value = [format!("${length}\r\n").as_bytes(), &vec![b'$'; length], b"\r\n"].concat();
                (value, b"-BIG\r\n".to_vec())
            }),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop::collection::vec(inner, 0..4).prop_map(|values| {
                let head = format!("*{}\r\n", values.len()).into_bytes();
                let (all, seen): (Vec<_>, Vec<_>) = values.into_iter().unzip();
                ([head.clone(), all.concat()].concat(), [head, seen.concat()].concat())
            })
        })
    }

    proptest! {
        #[test]
        fn large_values_become_errors_in_any_pieces(
            replies in prop::collection::vec(reply(), 1..6), cuts in prop::collection::vec(any::<Index>(), 0..8),
        ) {
            let (all, wanted): (Vec<_>, Vec<_>) = replies.into_iter().unzip();
            let (all, wanted) = (all.concat(), wanted.concat());
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.index(all.len() + 1)).collect();
            cuts.extend([0, all.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &all[cut[0]..cut[1]]).collect();
            prop_assert_eq!(seen(&pieces).unwrap(), wanted);
        }
    }

    #[test]
    fn large_reply_is_refused_while_it_is_received() {
        // Each value is small enough.
        let value = [b"$900\r\n", [b'x'; 900].as_slice(), b"\r\n"].concat();
        let reply = [b"*1000000000\r\n".to_vec(), value.repeat(5)].concat();
        assert!(seen(&[&reply]).unwrap_err().to_string().contains("more than 4000 bytes"));
        // Empty values count too.
        let empty = [b"*1000000000\r\n".to_vec(), b"$-1\r\n".repeat(80)].concat();
        assert!(seen(&[&empty]).is_err());
        // Each reply is counted for itself.
        assert!(seen(&[&value.repeat(50)]).is_ok());
    }

    #[test]
    fn other_protocols_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\n",
            "$many\r\n",
            "*\r\n",
            "\r\n",
            "%1\r\n",
            "\n",
            "+a\n",
            ":1\n",
            "$1\nx\r\n",
            "$1 \r\nx\r\n",
        ] {
            assert!(seen(&[text.as_bytes()]).is_err(), "{text:?}");
        }
        assert!(seen(&[&vec![b'+'; MAX_LINE_BYTES + 1]]).is_err());
    }
}
