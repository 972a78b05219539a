//! Stream of a connection that counts request heads and stalled writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head_meter::HeadMeter;
use super::stalled_writes::ConnectionWrites;
use crate::telemetry;

/// A stream that counts its reads in a [`HeadMeter`] and its stalled writes in [`ConnectionWrites`].
pub(super) struct MeteredStream<I> {
    stream: I,
    heads: HeadMeter,
    writes: ConnectionWrites,
}

impl<I> MeteredStream<I> {
    pub(super) fn new(stream: I, heads: HeadMeter, writes: ConnectionWrites) -> Self {
        Self { stream, heads, writes }
    }

    pub(super) fn inner(&self) -> &I {
        &self.stream
    }

    /// Runs `write` of `bytes` and counts it if it stalls. Fails with `ConnectionAborted` if the connection is to be
    /// cut.
    fn write(
        &mut self,
        context: &mut Context<'_>,
        bytes: usize,
        write: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>>
    where
        I: Unpin,
    {
        if self.writes.is_cut() {
            telemetry::connection_cut("send_memory");
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let written = write(Pin::new(&mut self.stream), context);
        match written {
            Poll::Pending => self.writes.stall(bytes, context.waker()),
            Poll::Ready(_) => self.writes.resume(),
        }
        written
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for MeteredStream<I> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Err(error) = this.heads.before_read() {
            telemetry::connection_cut("request_memory");
            return Poll::Ready(Err(io::Error::other(error)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.heads.after_read(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for MeteredStream<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write(context, bytes.len(), |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.get_mut().write(context, bytes, |stream, context| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
