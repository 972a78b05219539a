//! A connection that sends pages themselves where it can: what a process writes is copied once by the kernel, what a file
//! server sends with `sendfile` is not.
//!
//! Bytes of [`crate::mapped_bytes`] are laid into a pipe, which takes no copy (`vmsplice`), and moved from there into the socket
//! (`splice`).

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

/// The most that anybody's pipe may hold, unless the operator of the machine says otherwise.
const PIPE: usize = 1 << 20;

thread_local! {
    /// An empty pipe, used again and again.
    static EMPTY: Cell<Option<Pipe>> = const { Cell::new(None) };
}

/// A stream that passes pages on.
pub(super) struct Passing {
    stream: TcpStream,
    /// Whether this connection, and this system, can.
    able: bool,
}

/// How a listener's connections keep from sending more than the network carries.
pub(super) struct Congestion {
    /// The system's congestion control, if that paces what is sent by a timer, as BBR does.
    paced: Option<String>,
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Lets the system cut the connections of `socket` whose peers take nothing of what was sent for so long: it alone knows
/// that, whatever sends, and also of what lies in its own buffers.
///
/// # Errors
/// If the system cannot do that.
pub(super) fn set_send_timeout(socket: &TcpListener, timeout: Duration) -> io::Result<()> {
    // The connections that are taken in inherit it.
    Ok(set_tcp_user_timeout(socket, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?)
}

impl Congestion {
    /// Lets the connections of `socket` begin without a timer; one that has had it for a moment is paced for ever.
    ///
    /// The timer goes off several times for a large answer that is not copied, and within one machine, where there is no
    /// congestion, costs several times what is saved.
    pub(super) fn of(socket: &TcpListener) -> Self {
        let paced = tcp_congestion(socket).ok().filter(|control| control.starts_with("bbr"));
        Self { paced: paced.filter(|_| set_tcp_congestion(socket, "reno").is_ok()) }
    }

    /// Takes in a stream that `peer` has opened. From another machine it is paced if the system wants that.
    pub(super) fn take_in(&self, stream: TcpStream, peer: SocketAddr) -> Passing {
        let able = self.paced.as_ref().is_none_or(|control| {
            let local = is_local(&stream, peer);
            if !local {
                let _ = set_tcp_congestion(&stream, control);
            }
            local
        });
        Passing { stream, able }
    }
}

/// Whether `peer` is on this machine, or in this pod.
fn is_local(stream: &TcpStream, peer: SocketAddr) -> bool {
    let peer = peer.ip().to_canonical();
    peer.is_loopback() || stream.local_addr().is_ok_and(|here| here.ip().to_canonical() == peer)
}

impl Passing {
    /// Lets the connection end with a reset when it is dropped, and what was not sent yet go with it.
    pub(super) fn reset_on_drop(&self) {
        // Where the system cannot, the connection is closed in order.
        let _ = self.stream.set_zero_linger();
    }

    /// The bytes to pass on, and what goes before them.
    fn divide<'a>(&self, slices: &'a [IoSlice<'_>]) -> Option<(&'a [u8], &'a [u8])> {
        let (head, body): (&[u8], &[u8]) = match slices {
            [body] => (&[], body),
            [head, body, ..] => (head, body),
            [] => return None,
        };
        (self.able && mapped_bytes::are_worth_passing(body)).then_some((head, body))
    }
}

impl AsyncWrite for Passing {
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some((head, body)) = this.divide(slices) else {
            return Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        };
        loop {
            ready!(this.stream.poll_write_ready(context))?;
            let mut sent = 0;
            // An error that says that the socket is full has to come out of this, also if some was sent before.
            let outcome = this.stream.try_io(Interest::WRITABLE, || send_all(&this.stream, head, body, &mut sent));
            let Err(error) = outcome else { return Poll::Ready(Ok(sent)) };
            match error.kind() {
                _ if sent > 0 => return Poll::Ready(Ok(sent)),
                ErrorKind::WouldBlock => {}
                // Some sandboxes lack a call. Whatever it is: copying does it too, or says what is wrong with the connection.
                _ => {
                    this.able = false;
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

impl AsyncRead for Passing {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

/// Sends until all is sent or the socket is full, and counts what was sent.
fn send_all(stream: &TcpStream, head: &[u8], body: &[u8], sent: &mut usize) -> io::Result<()> {
    if !head.is_empty() {
        *sent = send(stream, head, SendFlags::MORE | SendFlags::NOSIGNAL)?;
        if *sent < head.len() {
            return Err(ErrorKind::WouldBlock.into());
        }
    }
    let pipe = EMPTY.take().map_or_else(Pipe::new, Ok)?;
    let mut rest = body;
    while !rest.is_empty() {
        let mut held = pipe.lay(rest)?;
        while held > 0 {
            let passed = splice(&pipe.read, None, stream, None, held, SpliceFlags::NONBLOCK)?;
            if passed == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            (held, *sent, rest) = (held - passed, *sent + passed, &rest[passed..]);
        }
    }
    // On every other way out it may hold somebody's bytes still, and goes with them.
    EMPTY.set(Some(pipe));
    Ok(())
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // With a smaller one it only takes more calls.
        let _ = fcntl_setpipe_size(&write, PIPE);
        Ok(Self { read, write })
    }

    /// Lays fixed bytes into this pipe, which is empty: as many as it holds.
    fn lay(&self, bytes: &[u8]) -> io::Result<usize> {
        let slices = [IoSliceRaw::from_slice(bytes)];
        #[expect(unsafe_code, reason = "there is no safe face to it")]
        // SAFETY: this is the end that is written to, so the kernel only reads the bytes; and they are not given to it for good
        // (`GIFT`). That nobody writes to them while it still reads is what `pages` is for.
        let laid = unsafe { vmsplice(&self.write, &slices, SpliceFlags::NONBLOCK) };
        match laid {
            Ok(laid) if laid > 0 => Ok(laid),
            // A pipe that takes nothing, though it is empty, will not take it later either.
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

    async fn connect(listener: &TcpListener) -> (Passing, TcpStream) {
        let congestion = Congestion::of(listener);
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        (congestion.take_in(stream, peer), client)
    }

    /// A connection whose ends hold little.
    async fn narrow() -> (Passing, TcpStream) {
        let listener = listen().await;
        set_socket_send_buffer_size(&listener, 60_000).unwrap();
        let (stream, client) = connect(&listener).await;
        set_socket_recv_buffer_size(&client, 60_000).unwrap();
        (stream, client)
    }

    fn bytes(len: usize, seed: usize) -> Bytes {
        (0..len).map(|at| u8::try_from((at * 31 + seed * 7 + at / 251) % 256).unwrap()).collect()
    }

    async fn write(stream: &mut Passing, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        poll_fn(|context| Pin::new(&mut *stream).poll_write_vectored(context, slices)).await
    }

    async fn write_all(stream: &mut Passing, head: &[u8], body: &[u8]) -> io::Result<()> {
        let mut slices = &mut [IoSlice::new(head), IoSlice::new(body)][..];
        while !slices.is_empty() {
            let written = write(stream, slices).await?;
            assert!(written > 0);
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    /// The next bytes, so many at a time.
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
        fixed: bool,
        read: usize,
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let body = prop_oneof![1..9000usize, 32_000..34_000usize, 65_000..1_400_000usize];
        (prop_oneof![Just(0usize), 1..3000usize], body, any::<bool>(), 1000..300_000usize)
            .prop_map(|(head, body, fixed, read)| Sent { head, body, fixed, read })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn whoever_reads_at_whatever_pace_gets_each_byte_once(all in prop::collection::vec(sent(), 1..5)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut stream, client) = narrow().await;
                for (nth, Sent { head, body, fixed, read }) in all.into_iter().enumerate() {
                    let (head, body) = (bytes(head, nth + 100), bytes(body, nth));
                    let told = if fixed { mapped_bytes::fix(body.clone()) } else { body.clone() };
                    let reading = self::read(&client, head.len() + body.len(), read);
                    let (written, received) = tokio::join!(write_all(&mut stream, &head, &told), reading);
                    written.unwrap();
                    assert!(received == [head, body].concat(), "message {nth}");
                }
                assert!(stream.able);
            });
        }
    }

    #[tokio::test]
    async fn what_cannot_be_passed_is_copied() {
        let pipe = || Pipe::new().unwrap();
        // One takes nothing, from the other nothing comes.
        let stuck = [Pipe { write: pipe().read, ..pipe() }, Pipe { read: pipe().write, ..pipe() }];
        for (nth, stuck) in stuck.into_iter().enumerate() {
            let (mut stream, client) = narrow().await;
            let body = bytes(300_000, nth);
            let fixed = mapped_bytes::fix(body.clone());
            EMPTY.set(Some(stuck));
            let reading = read(&client, body.len(), 50_000);
            let (written, received) = tokio::join!(write_all(&mut stream, b"", &fixed), reading);
            written.unwrap();
            assert!(received == body, "{nth}");
            assert!(!stream.able, "{nth}");
        }
    }

    #[tokio::test]
    async fn only_those_from_elsewhere_are_paced() {
        let listener = listen().await;
        let usual = tcp_congestion(&listener).unwrap();
        // As if the system wanted BBR; another one's name will do, of those that it lets anybody have.
        let congestion = Congestion { paced: Some(usual.clone()) };
        set_tcp_congestion(&listener, "reno").unwrap();
        for (peer, paced) in [("127.0.0.9:1", false), ("[::ffff:127.0.0.1]:1", false), ("192.0.2.7:1", true)] {
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            assert_eq!(tcp_congestion(&stream).unwrap(), "reno");
            let taken = congestion.take_in(stream, peer.parse().unwrap());
            assert_eq!(taken.able, !paced, "{peer}");
            assert_eq!(tcp_congestion(&taken.stream).unwrap(), if paced { &usual } else { "reno" }, "{peer}");
        }
        // What has no timer stays as it is.
        let listener = listen().await;
        set_tcp_congestion(&listener, "reno").unwrap();
        assert!(Congestion::of(&listener).paced.is_none());
    }

    #[tokio::test]
    async fn what_is_gone_before_it_was_read_arrives_as_it_was() {
        // Its place in memory is to be taken by something of this test, and not of another that runs beside it.
        for _ in 0..100 {
            let (mut stream, client) = connect(&listen().await).await;
            let body = bytes(100_000, 3);
            let fixed = mapped_bytes::fix(body.clone());
            let at = fixed.as_ptr().addr();
            // Much of it fits into the socket at once. That the pipe was used is seen by its being there for the next one.
            let written = write(&mut stream, &[IoSlice::new(&fixed)]).await.unwrap();
            assert!(written > 50_000);
            if written == body.len() {
                assert!(EMPTY.take().is_some());
            }
            drop(fixed);
            let others: Vec<Bytes> = (0..64).map(|seed| mapped_bytes::fix(bytes(100_000, seed + 50))).collect();
            assert!(read(&client, written, 5000).await == body[..written]);
            if others.iter().any(|other| other.as_ptr().addr() == at) {
                return;
            }
        }
        panic!("its place was never taken");
    }

    #[tokio::test]
    async fn nothing_of_what_one_did_not_take_comes_to_the_next() {
        let body = mapped_bytes::fix(bytes(1_000_000, 1));
        let (mut stream, client) = narrow().await;
        assert!(write(&mut stream, &[IoSlice::new(&body)]).await.unwrap() < body.len());
        drop(client);
        assert!(write_all(&mut stream, b"", &body).await.is_err());
        let other = bytes(500_000, 2);
        let (mut stream, client) = narrow().await;
        let (head, told) = (b"head", mapped_bytes::fix(other.clone()));
        let reading = read(&client, head.len() + other.len(), 100_000);
        let (written, received) = tokio::join!(write_all(&mut stream, head, &told), reading);
        written.unwrap();
        assert!(received == [head, &other[..]].concat());
    }
}
