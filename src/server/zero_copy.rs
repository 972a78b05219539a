//! TCP stream that sends mapped bytes without a copy. The kernel copies the bytes that a process writes, but not those
//! that a file server sends with `sendfile`.
//!
//! Bytes of [`crate::mapped_bytes`] are put into a pipe by reference (`vmsplice`) and moved from there into the socket
//! (`splice`). All other bytes are written as usual.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt::{set_tcp_congestion, set_tcp_user_timeout, tcp_congestion};
use rustix::net::{SendFlags, send};
use rustix::pipe::{IoSliceRaw, PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, vmsplice};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::mapped_bytes;

/// Capacity of a pipe in bytes: the default maximum for unprivileged processes (`fs.pipe-max-size`).
const PIPE_CAPACITY: usize = 1 << 20;

thread_local! {
    /// An empty pipe of this thread, which is reused.
    static EMPTY_PIPE: Cell<Option<Pipe>> = const { Cell::new(None) };
}

/// A stream that sends mapped bytes without a copy.
pub(super) struct ZeroCopyStream {
    stream: TcpStream,
    /// Whether `splice` is used: it is of no use for paced connections, and fails on some systems.
    can_splice: bool,
}

/// Congestion control of the connections of a listener.
pub(super) struct Congestion {
    /// The congestion control of the system, if it paces sending with a timer, as BBR does.
    pacing_control: Option<String>,
}

/// Both ends of a pipe.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Makes the system cut the connections of `socket` whose peers acknowledge nothing of the sent bytes for `timeout`.
/// Only the system knows this, because it also holds bytes in its own buffers.
///
/// # Errors
/// If the system does not support `TCP_USER_TIMEOUT`.
pub(super) fn set_send_timeout(socket: &TcpListener, timeout: Duration) -> io::Result<()> {
    // Accepted connections inherit the option.
    Ok(set_tcp_user_timeout(socket, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?)
}

impl Congestion {
    /// Sets the connections of `socket` to reno if the control of the system paces. A connection that had a pacing
    /// control once stays paced, so accepted connections must begin without it.
    ///
    /// The pacing timer fires several times for a large response that is not copied. Within one machine, which has no
    /// congestion, that costs several times as much as the copy.
    pub(super) fn configure(socket: &TcpListener) -> Self {
        let pacing_control = tcp_congestion(socket).ok().filter(|control| control.starts_with("bbr"));
        Self { pacing_control: pacing_control.filter(|_| set_tcp_congestion(socket, "reno").is_ok()) }
    }

    /// Wraps an accepted stream. A peer on another machine gets the pacing control of the system back, if there is one.
    pub(super) fn accept(&self, stream: TcpStream, peer: SocketAddr) -> ZeroCopyStream {
        let can_splice = self.pacing_control.as_ref().is_none_or(|control| {
            let local = is_local(&stream, peer);
            if !local {
                let _ = set_tcp_congestion(&stream, control);
            }
            local
        });
        ZeroCopyStream { stream, can_splice }
    }
}

/// Whether `peer` is on this machine or in this pod.
fn is_local(stream: &TcpStream, peer: SocketAddr) -> bool {
    let peer = peer.ip().to_canonical();
    peer.is_loopback() || stream.local_addr().is_ok_and(|here| here.ip().to_canonical() == peer)
}

impl ZeroCopyStream {
    /// Makes the connection end with a reset when it is dropped, which discards bytes that were not sent yet.
    pub(super) fn reset_on_drop(&self) {
        // If the system refuses, the connection is closed in order.
        let _ = self.stream.set_zero_linger();
    }

    /// The head and the body of `slices`, if the body is to be spliced.
    fn splittable<'a>(&self, slices: &'a [IoSlice<'_>]) -> Option<(&'a [u8], &'a [u8])> {
        let (head, body): (&[u8], &[u8]) = match slices {
            [body] => (&[], body),
            [head, body, ..] => (head, body),
            [] => return None,
        };
        (self.can_splice && mapped_bytes::is_mapped(body)).then_some((head, body))
    }
}

impl AsyncWrite for ZeroCopyStream {
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some((head, body)) = this.splittable(slices) else {
            return Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        };
        loop {
            ready!(this.stream.poll_write_ready(context))?;
            let mut sent = 0;
            // `try_io` must see `WouldBlock` to clear readiness, even if bytes were sent before.
            let outcome = this.stream.try_io(Interest::WRITABLE, || send_all(&this.stream, head, body, &mut sent));
            let Err(error) = outcome else { return Poll::Ready(Ok(sent)) };
            match error.kind() {
                _ if sent > 0 => return Poll::Ready(Ok(sent)),
                ErrorKind::WouldBlock => {}
                // Some sandboxes lack a system call. After any error, a copying write succeeds or returns the proper
                // error.
                _ => {
                    this.can_splice = false;
                    return Pin::new(&mut this.stream).poll_write_vectored(context, slices);
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl AsyncRead for ZeroCopyStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

/// Sends until all is sent or the socket is full. Adds the bytes that were sent to `sent`, also on an error.
fn send_all(stream: &TcpStream, head: &[u8], body: &[u8], sent: &mut usize) -> io::Result<()> {
    if !head.is_empty() {
        *sent = send(stream, head, SendFlags::MORE | SendFlags::NOSIGNAL)?;
        if *sent < head.len() {
            return Err(ErrorKind::WouldBlock.into());
        }
    }
    let pipe = EMPTY_PIPE.take().map_or_else(Pipe::new, Ok)?;
    let mut rest = body;
    while !rest.is_empty() {
        let mut in_pipe = pipe.fill(rest)?;
        while in_pipe > 0 {
            let moved = splice(&pipe.read, None, stream, None, in_pipe, SpliceFlags::NONBLOCK)?;
            if moved == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            (in_pipe, *sent, rest) = (in_pipe - moved, *sent + moved, &rest[moved..]);
        }
    }
    // On other returns the pipe may still hold bytes of this response, and is closed with them.
    EMPTY_PIPE.set(Some(pipe));
    Ok(())
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller pipe only needs more calls.
        let _ = fcntl_setpipe_size(&write, PIPE_CAPACITY);
        Ok(Self { read, write })
    }

    /// Puts mapped bytes into this pipe, which is empty, up to its capacity. Returns their number.
    ///
    /// # Errors
    /// `Unsupported` if the pipe takes none.
    fn fill(&self, bytes: &[u8]) -> io::Result<usize> {
        let slices = [IoSliceRaw::from_slice(bytes)];
        #[expect(unsafe_code, reason = "there is no safe wrapper of it")]
        // SAFETY: the pipe is written to, so the kernel only reads the bytes, and it does not own them (no `GIFT`).
        // Mapped bytes are never written to again, even after the mapping is gone: see `mapped_bytes`.
        let filled = unsafe { vmsplice(&self.write, &slices, SpliceFlags::NONBLOCK) };
        match filled {
            Ok(filled) if filled > 0 => Ok(filled),
            // An empty pipe that takes nothing will not take it later either.
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use proptest::prelude::*;
    use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

    use super::*;

    async fn listen() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    async fn connect(listener: &TcpListener) -> (ZeroCopyStream, TcpStream) {
        let congestion = Congestion::configure(listener);
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        (congestion.accept(stream, peer), client)
    }

    /// A connection with small socket buffers.
    async fn narrow() -> (ZeroCopyStream, TcpStream) {
        let listener = listen().await;
        set_socket_send_buffer_size(&listener, 60_000).unwrap();
        let (stream, client) = connect(&listener).await;
        set_socket_recv_buffer_size(&client, 60_000).unwrap();
        (stream, client)
    }

    fn bytes(len: usize, seed: usize) -> Bytes {
        (0..len).map(|at| u8::try_from((at * 31 + seed * 7 + at / 251) % 256).unwrap()).collect()
    }

    async fn write(stream: &mut ZeroCopyStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        poll_fn(|context| Pin::new(&mut *stream).poll_write_vectored(context, slices)).await
    }

    async fn write_all(stream: &mut ZeroCopyStream, head: &[u8], body: &[u8]) -> io::Result<()> {
        let mut slices = &mut [IoSlice::new(head), IoSlice::new(body)][..];
        while !slices.is_empty() {
            let written = write(stream, slices).await?;
            assert!(written > 0);
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    /// Reads `len` bytes, at most `at_once` in each read.
    async fn read(client: &TcpStream, len: usize, at_once: usize) -> Vec<u8> {
        let (mut received, mut room) = (Vec::new(), vec![0; at_once]);
        while received.len() < len {
            client.readable().await.unwrap();
            match client.try_read(&mut room) {
                Ok(read) => {
                    assert!(read > 0, "{} of {len}", received.len());
                    received.extend_from_slice(&room[..read]);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        received
    }

    #[derive(Debug, Clone)]
    struct Sent {
        head: usize,
        body: usize,
        is_mapped: bool,
        read: usize,
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let body = prop_oneof![1..9000usize, 32_000..34_000usize, 65_000..1_400_000usize];
        (prop_oneof![Just(0usize), 1..3000usize], body, any::<bool>(), 1000..300_000usize)
            .prop_map(|(head, body, is_mapped, read)| Sent { head, body, is_mapped, read })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn bytes_arrive_once_and_in_order_at_any_reading_pace(all in prop::collection::vec(sent(), 1..5)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut stream, client) = narrow().await;
                for (nth, Sent { head, body, is_mapped, read }) in all.into_iter().enumerate() {
                    let (head, body) = (bytes(head, nth + 100), bytes(body, nth));
                    let to_send = if is_mapped { mapped_bytes::map(body.clone()) } else { body.clone() };
                    let reading = self::read(&client, head.len() + body.len(), read);
                    let (written, received) = tokio::join!(write_all(&mut stream, &head, &to_send), reading);
                    written.unwrap();
                    assert!(received == [head, body].concat(), "message {nth}");
                }
                assert!(stream.can_splice);
            });
        }
    }

    #[tokio::test]
    async fn bytes_are_copied_if_the_pipe_fails() {
        let pipe = || Pipe::new().unwrap();
        // The first pipe takes no bytes, the second returns none.
        let stuck = [Pipe { write: pipe().read, ..pipe() }, Pipe { read: pipe().write, ..pipe() }];
        for (nth, stuck) in stuck.into_iter().enumerate() {
            let (mut stream, client) = narrow().await;
            let body = bytes(300_000, nth);
            let mapped = mapped_bytes::map(body.clone());
            EMPTY_PIPE.set(Some(stuck));
            let reading = read(&client, body.len(), 50_000);
            let (written, received) = tokio::join!(write_all(&mut stream, b"", &mapped), reading);
            written.unwrap();
            assert!(received == body, "{nth}");
            assert!(!stream.can_splice, "{nth}");
        }
    }

    #[tokio::test]
    async fn connections_of_other_machines_alone_are_paced() {
        let listener = listen().await;
        let usual = tcp_congestion(&listener).unwrap();
        // The usual control in place of BBR, which unprivileged processes may not be able to set.
        let congestion = Congestion { pacing_control: Some(usual.clone()) };
        set_tcp_congestion(&listener, "reno").unwrap();
        for (peer, is_paced) in [("127.0.0.9:1", false), ("[::ffff:127.0.0.1]:1", false), ("192.0.2.7:1", true)] {
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            assert_eq!(tcp_congestion(&stream).unwrap(), "reno");
            let taken = congestion.accept(stream, peer.parse().unwrap());
            assert_eq!(taken.can_splice, !is_paced, "{peer}");
            assert_eq!(tcp_congestion(&taken.stream).unwrap(), if is_paced { &usual } else { "reno" }, "{peer}");
        }
        // A control that does not pace is not changed.
        let listener = listen().await;
        set_tcp_congestion(&listener, "reno").unwrap();
        assert!(Congestion::configure(&listener).pacing_control.is_none());
    }

    #[tokio::test]
    async fn mapping_dropped_before_the_peer_reads_arrives_unchanged() {
        // The address of the dropped mapping must be reused by a mapping of this test, which takes several attempts.
        for _ in 0..100 {
            let (mut stream, client) = connect(&listen().await).await;
            let body = bytes(100_000, 3);
            let mapped = mapped_bytes::map(body.clone());
            let at = mapped.as_ptr().addr();
            // Much of the body fits into the socket at once. A pipe that is left for reuse shows that it was spliced.
            let written = write(&mut stream, &[IoSlice::new(&mapped)]).await.unwrap();
            assert!(written > 50_000);
            if written == body.len() {
                assert!(EMPTY_PIPE.take().is_some());
            }
            drop(mapped);
            let others: Vec<Bytes> = (0..64).map(|seed| mapped_bytes::map(bytes(100_000, seed + 50))).collect();
            assert!(read(&client, written, 5000).await == body[..written]);
            if others.iter().any(|other| other.as_ptr().addr() == at) {
                return;
            }
        }
        panic!("the address was never reused");
    }

    #[tokio::test]
    async fn unsent_bytes_do_not_reach_the_next_connection() {
        let body = mapped_bytes::map(bytes(1_000_000, 1));
        let (mut stream, client) = narrow().await;
        assert!(write(&mut stream, &[IoSlice::new(&body)]).await.unwrap() < body.len());
        drop(client);
        assert!(write_all(&mut stream, b"", &body).await.is_err());
        let other = bytes(500_000, 2);
        let (mut stream, client) = narrow().await;
        let (head, to_send) = (b"head", mapped_bytes::map(other.clone()));
        let reading = read(&client, head.len() + other.len(), 100_000);
        let (written, received) = tokio::join!(write_all(&mut stream, head, &to_send), reading);
        written.unwrap();
        assert!(received == [head, &other[..]].concat());
    }
}
