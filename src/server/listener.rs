//! One listener: takes connections in, serves them, and lets them end when it is told to.

use std::cell::RefCell;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::connections::{ConnectionLimits, turn_away};
use super::head_meter::HeadMeter;
use super::head_timer::{HEAD_LOOK, HEAD_TIMEOUT, HeadTimer};
use super::linger::linger;
use super::metered::Metered;
use super::passing::{Congestion, Passing};
use super::stalled_writes::StalledWrites;
use crate::api::RequestMemory;
use crate::telemetry;

/// Pause after a failed accept: it means that the process has run out of something, file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) limits: Limits,
    /// Stops taking connections in, and lets those that are open end after the request they are at.
    pub(super) closing: CancellationToken,
    /// Resets those that are still open then.
    pub(super) aborting: CancellationToken,
    /// Holds each connection until it has ended.
    pub(super) tracker: TaskTracker,
}

/// What the connections of a listener may take. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) connections: ConnectionLimits,
    /// Bytes of one head, at least 8 KiB.
    pub(super) max_head_size: usize,
    /// What large heads take their room of.
    pub(super) request_memory: RequestMemory,
    /// What answers may take whose peers do not take them.
    pub(super) stalled_writes: StalledWrites,
}

impl Listener {
    pub(super) fn addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves each peer with a service of its own until it is told to close.
    pub(super) async fn serve<M, S, B>(self, service_for: M)
    where
        M: Fn(SocketAddr) -> S,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let congestion = Arc::new(Congestion::of(&self.socket));
        loop {
            let (stream, peer) = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = self.socket.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be taken in");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let permit = match self.limits.connections.admit(peer) {
                Ok(permit) => permit,
                Err(too_many) => {
                    telemetry::connection_cut(too_many.label());
                    if self.tls.is_none() {
                        turn_away(&stream);
                    }
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let stream = congestion.take_in(stream, peer);
            let connection = Connection {
                limits: self.limits.clone(),
                closing: self.closing.clone(),
                aborting: self.aborting.clone(),
            };
            let service = service_for(peer);
            match self.tls.clone() {
                None => self.tracker.spawn(async move {
                    connection.serve(stream, service).await;
                    drop(permit);
                }),
                Some(tls) => self.tracker.spawn(async move {
                    connection.serve_tls(tls, stream, service).await;
                    drop(permit);
                }),
            };
        }
    }
}

/// What a connection needs to know of its listener.
struct Connection {
    limits: Limits,
    closing: CancellationToken,
    aborting: CancellationToken,
}

/// What happens to a connection besides requests.
enum Seldom {
    Closing,
    Aborting,
    Look,
}

/// A stream whose connection can be reset.
trait Reset {
    /// Lets the connection end with a reset when it is dropped: no peer can take that for the end of an answer.
    fn reset_on_drop(&self);
}

impl Reset for Passing {
    fn reset_on_drop(&self) {
        Passing::reset_on_drop(self);
    }
}

impl<I: Reset> Reset for Metered<I> {
    fn reset_on_drop(&self) {
        self.inner().reset_on_drop();
    }
}

impl Reset for TlsStream<Passing> {
    fn reset_on_drop(&self) {
        self.get_ref().0.reset_on_drop();
    }
}

async fn shake_hands(tls: TlsAcceptor, stream: Passing) -> Option<TlsStream<Passing>> {
    tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await.ok()?.ok()
}

impl Connection {
    async fn serve_tls<S, B>(self, tls: TlsAcceptor, stream: Passing, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        // One who has not shaken hands has asked for nothing, so a drain does not wait for it.
        match self.closing.run_until_cancelled(shake_hands(tls, stream)).await {
            Some(Some(stream)) => self.serve(stream, service).await,
            Some(None) => tracing::debug!("a TLS handshake failed"),
            None => {}
        }
    }

    async fn serve<I, S, B>(self, stream: I, service: S)
    where
        I: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let Self { limits: Limits { max_head_size, request_memory, stalled_writes, .. }, closing, aborting } = self;
        let (timer, meter) = (HeadTimer::new(), HeadMeter::new(&request_memory, max_head_size));
        let stream = TokioIo::new(Metered::new(stream, meter.clone(), stalled_writes.connection()));
        // One request comes after the other, so the connection's own service does for all of them.
        let service = RefCell::new(service);
        let answer = move |request| {
            // Both services are always ready, and say no in an answer.
            let answer = service.borrow_mut().call(request);
            meter.begin_answer();
            let meter = meter.clone();
            async move {
                let answer = answer.await;
                meter.end_answer();
                answer
            }
        };
        let mut connection = http1::Builder::new()
            .timer(timer.clone())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(max_head_size)
            .serve_connection(stream, service_fn(answer));
        // Polled only when they have something to say: the token's own lock is shared by all connections.
        let mut seldom = FuturesUnordered::new();
        seldom.push(Either::Left(Either::Left(async {
            closing.cancelled().await;
            Seldom::Closing
        })));
        let look = || async {
            tokio::time::sleep(HEAD_LOOK).await;
            Seldom::Look
        };
        seldom.push(Either::Right(look()));
        let is_broken = loop {
            tokio::select! {
                biased;
                ended = &mut connection => break ended.is_err_and(|error| ended_early(&error)),
                Some(event) = seldom.next() => match event {
                    Seldom::Closing => {
                        std::pin::Pin::new(&mut connection).graceful_shutdown();
                        seldom.push(Either::Left(Either::Right(async {
                            aborting.cancelled().await;
                            Seldom::Aborting
                        })));
                    }
                    Seldom::Aborting => break true,
                    // Then the connection is polled.
                    Seldom::Look => {
                        timer.look();
                        seldom.push(Either::Right(look()));
                    }
                },
            }
        };
        let stream = connection.into_parts().io.into_inner();
        if is_broken {
            stream.reset_on_drop();
        } else {
            // In a box, for few connections end like that, and all would have to have room for it.
            closing.run_until_cancelled(Box::pin(linger(stream))).await;
        }
    }
}

/// Takes note of why a connection ended. True if its peer must see that from the way in which it is closed.
fn ended_early(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if error.is_parse_too_large() {
        telemetry::connection_cut("max_head_size");
    } else if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
        telemetry::connection_cut("send_timeout");
    } else {
        // Clients hang up; that is their right and no news.
        tracing::debug!(%error, "a connection ended early");
    }
    // A body that broke off, unlike a client that did, is the service's own; and so is an answer that is cut.
    error.is_user() || io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionAborted)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::{Frame, SizeHint};
    use http_body_util::Full;
    use tokio::net::TcpStream;

    use super::*;

    fn limits() -> Limits {
        let (connections, request_memory) = (ConnectionLimits::new(8, 8), RequestMemory::new(1 << 20));
        Limits { connections, max_head_size: 16 << 10, request_memory, stalled_writes: StalledWrites::new(1 << 20) }
    }

    async fn connect() -> (TcpStream, CancellationToken) {
        connect_to(|_| async { Ok(Response::new(Full::new(Bytes::from_static(b"here")))) }).await
    }

    async fn connect_to<F, R, B>(answer: F) -> (TcpStream, CancellationToken)
    where
        F: FnMut(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Result<Response<B>, Infallible>> + Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (closing, tracker) = (CancellationToken::new(), TaskTracker::new());
        let aborting = CancellationToken::new();
        let listener = Listener { socket, tls: None, limits: limits(), closing: closing.clone(), aborting, tracker };
        let client = TcpStream::connect(listener.addr().unwrap()).await.unwrap();
        tokio::spawn(listener.serve(move |_| tower::service_fn(answer.clone())));
        (client, closing)
    }

    async fn send(client: &TcpStream, bytes: &[u8]) {
        client.writable().await.unwrap();
        assert_eq!(client.try_write(bytes).unwrap(), bytes.len());
    }

    /// What comes next; nothing when the connection is closed.
    async fn receive(client: &TcpStream) -> String {
        let mut bytes = [0; 512];
        loop {
            client.readable().await.unwrap();
            match client.try_read(&mut bytes) {
                Ok(read) => return String::from_utf8(bytes[..read].to_vec()).unwrap(),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
    }

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_finish_its_head_in_time_is_let_go() {
        for (sent, answers) in [(&b""[..], 0), (b"GET / HTTP/1.1\r\nhost", 0), (HEAD, 1)] {
            let (client, _closing) = connect().await;
            let began = tokio::time::Instant::now();
            if !sent.is_empty() {
                send(&client, sent).await;
            }
            for _ in 0..answers {
                assert!(receive(&client).await.ends_with("here"));
            }
            assert_eq!(receive(&client).await, "");
            let took = began.elapsed();
            assert!(took >= HEAD_TIMEOUT && took < HEAD_TIMEOUT + 2 * HEAD_LOOK, "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_on_asking_stays() {
        let (client, closing) = connect().await;
        for _ in 0..20 {
            send(&client, HEAD).await;
            assert!(receive(&client).await.ends_with("here"));
            tokio::time::sleep(HEAD_TIMEOUT / 2).await;
        }
        // One that waits for nothing is let go at once when the gateway closes.
        let closed = tokio::time::Instant::now();
        closing.cancel();
        assert_eq!(receive(&client).await, "");
        assert!(closed.elapsed() < HEAD_LOOK);
    }

    /// A body whose length is told, or not, and that breaks off.
    struct Broken {
        length: Option<u64>,
        frames: u32,
    }

    impl Body for Broken {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.frames += 1;
            match self.frames {
                1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"begun"))))),
                // What has come is sent before it breaks off.
                2 => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                _ => Poll::Ready(Some(Err(std::io::ErrorKind::Other.into()))),
            }
        }

        fn size_hint(&self) -> SizeHint {
            self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

    #[tokio::test]
    async fn connection_whose_answer_breaks_off_is_reset() {
        for (version, length) in [("1.1", None), ("1.1", Some(10)), ("1.0", Some(10)), ("1.0", None)] {
            let answer = move |_| async move { Ok::<_, Infallible>(Response::new(Broken { length, frames: 0 })) };
            let (client, _closing) = connect_to(answer).await;
            send(&client, format!("GET / HTTP/{version}\r\nhost: here\r\n\r\n").as_bytes()).await;
            let error = loop {
                client.readable().await.unwrap();
                match client.try_read(&mut [0; 512]) {
                    Ok(0) => panic!("HTTP/{version}, {length:?}: closed in order"),
                    Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break error,
                    Ok(_) | Err(_) => {}
                }
            };
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "HTTP/{version}, {length:?}");
        }
    }

    #[tokio::test]
    async fn connection_that_is_aborted_is_reset_and_its_task_ends() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (closing, aborting, tracker) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let (connections, arrived) = (tracker.clone(), Arc::new(tokio::sync::Notify::new()));
        let (closed, aborted) = (closing.clone(), aborting.clone());
        let listener = Listener { socket, tls: None, limits: limits(), closing: closed, aborting: aborted, tracker };
        let client = TcpStream::connect(listener.addr().unwrap()).await.unwrap();
        let arrive = arrived.clone();
        let never = move |_| {
            arrive.notify_one();
            std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
        };
        tokio::spawn(listener.serve(move |_| tower::service_fn(never.clone())));
        send(&client, HEAD).await;
        arrived.notified().await;
        closing.cancel();
        aborting.cancel();
        connections.close();
        connections.wait().await;
        client.readable().await.unwrap();
        let error = client.try_read(&mut [0; 512]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}
