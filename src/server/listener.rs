//! A listener: accepts connections, serves each over HTTP/1, and closes them when the server drains.

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
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::connections::{ConnectionLimits, send_overloaded};
use super::head_meter::HeadMeter;
use super::linger::linger;
use super::metered::MeteredStream;
use super::peer_certificate::peer_certificate;
use super::stalled_writes::StalledWrites;
use super::zero_copy::{Congestion, ZeroCopyStream};
use crate::api::RequestMemory;
use crate::edge::PeerCertificate;
use crate::live::Live;
use crate::telemetry;

/// The longest that a client may take to send a request head, or for a TLS handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Delay after a failed accept, whose usual cause is a lack of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A bound listener.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    /// The acceptor of the next handshakes; `None` serves plain HTTP.
    pub(super) tls: Option<Live<TlsAcceptor>>,
    pub(super) limits: Limits,
    /// Stops accepting connections, and closes open ones after their current request.
    pub(super) closing: CancellationToken,
    /// Resets the connections that are still open after `closing`.
    pub(super) aborting: CancellationToken,
    /// Tracks the tasks of all connections.
    pub(super) tracker: TaskTracker,
}

/// Limits on what the connections of a listener may use. Clones share their state.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) connections: ConnectionLimits,
    /// Maximum bytes of a request head, at least 8 KiB.
    pub(super) max_head_size: usize,
    /// The memory budget of large heads.
    pub(super) request_memory: RequestMemory,
    /// The memory budget of responses that clients do not read.
    pub(super) stalled_writes: StalledWrites,
}

impl Listener {
    /// The address that the listener is bound to.
    pub(super) fn addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves each connection with the service that `service_for` makes for its peer, until `closing` is cancelled.
    pub(super) async fn serve<M, S, B>(self, service_for: M)
    where
        M: Fn(SocketAddr) -> S,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let congestion = Arc::new(Congestion::configure(&self.socket));
        loop {
            let (stream, peer) = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = self.socket.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                        continue;
                    }
                },
            };
            let permit = match self.limits.connections.admit(peer) {
                Ok(permit) => permit,
                Err(limit) => {
                    telemetry::connection_cut(limit.label());
                    if self.tls.is_none() {
                        send_overloaded(&stream);
                    }
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let stream = congestion.accept(stream, peer);
            let connection = Connection {
                limits: self.limits.clone(),
                closing: self.closing.clone(),
                aborting: self.aborting.clone(),
            };
            let service = service_for(peer);
            match self.tls.as_ref().map(Live::load) {
                None => self.tracker.spawn(async move {
                    connection.serve(stream, None, service).await;
                    drop(permit);
                }),
                Some(tls) => self.tracker.spawn(async move {
                    connection.serve_tls(TlsAcceptor::clone(&tls), stream, service).await;
                    drop(permit);
                }),
            };
        }
    }
}

/// The parts of a listener that a connection needs.
struct Connection {
    limits: Limits,
    closing: CancellationToken,
    aborting: CancellationToken,
}

/// An event of a connection other than a request.
enum ConnectionEvent {
    Closing,
    Aborting,
}

/// A stream whose connection can be reset.
trait Reset {
    /// Makes the connection end with a reset when it is dropped, which no client can take for the end of a response.
    fn reset_on_drop(&self);
}

impl Reset for ZeroCopyStream {
    fn reset_on_drop(&self) {
        ZeroCopyStream::reset_on_drop(self);
    }
}

impl<I: Reset> Reset for MeteredStream<I> {
    fn reset_on_drop(&self) {
        self.inner().reset_on_drop();
    }
}

impl Reset for TlsStream<ZeroCopyStream> {
    fn reset_on_drop(&self) {
        self.get_ref().0.reset_on_drop();
    }
}

/// The TLS stream; `None` if the handshake failed or took too long.
async fn handshake(tls: TlsAcceptor, stream: ZeroCopyStream) -> Option<TlsStream<ZeroCopyStream>> {
    tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await.ok()?.ok()
}

impl Connection {
    async fn serve_tls<S, B>(self, tls: TlsAcceptor, stream: ZeroCopyStream, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        // A client without a handshake has no request under way, so a drain does not wait for it.
        match self.closing.run_until_cancelled(handshake(tls, stream)).await {
            Some(Some(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let certificate = certificates.and_then(<[_]>::first).and_then(peer_certificate);
                self.serve(stream, certificate, service).await;
            }
            Some(None) => tracing::debug!("a TLS handshake failed"),
            None => {}
        }
    }

    /// Serves a connection whose client has shown `certificate`, if any.
    async fn serve<I, S, B>(self, stream: I, certificate: Option<PeerCertificate>, service: S)
    where
        I: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let Self { limits: Limits { max_head_size, request_memory, stalled_writes, .. }, closing, aborting } = self;
        let meter = HeadMeter::new(&request_memory, max_head_size);
        let stream = TokioIo::new(MeteredStream::new(stream, meter.clone(), stalled_writes.connection()));
        // The requests of a connection are sequential, so one service serves them all.
        let service = RefCell::new(service);
        let call_service = move |mut request: Request<Incoming>| {
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            // The services are always ready; they refuse a request with a response.
            let response = service.borrow_mut().call(request);
            meter.begin_answer();
            let meter = meter.clone();
            async move {
                let response = response.await;
                meter.end_answer();
                response
            }
        };
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(max_head_size)
            .serve_connection(stream, service_fn(call_service));
        // `FuturesUnordered` polls a future only after it was woken. Polling a token takes a lock that all connections
        // share.
        let mut events = FuturesUnordered::new();
        events.push(Either::Left(async {
            closing.cancelled().await;
            ConnectionEvent::Closing
        }));
        let is_broken = loop {
            tokio::select! {
                biased;
                ended = &mut connection => break ended.is_err_and(|error| report_connection_error(&error)),
                Some(event) = events.next() => match event {
                    ConnectionEvent::Closing => {
                        std::pin::Pin::new(&mut connection).graceful_shutdown();
                        events.push(Either::Right(async {
                            aborting.cancelled().await;
                            ConnectionEvent::Aborting
                        }));
                    }
                    ConnectionEvent::Aborting => break true,
                },
            }
        };
        let stream = connection.into_parts().io.into_inner();
        if is_broken {
            stream.reset_on_drop();
        } else {
            // Boxed, because few connections linger and all would hold the space of the future.
            closing.run_until_cancelled(Box::pin(linger(stream))).await;
        }
    }
}

/// Counts or logs the error that ended a connection. Returns whether the connection must be reset, because a response
/// is incomplete.
fn report_connection_error(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if error.is_parse_too_large() {
        telemetry::connection_cut("max_head_size");
    } else if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
        telemetry::connection_cut("send_timeout");
    } else {
        // A client that closes its connection is no fault.
        tracing::debug!(%error, "a connection ended early");
    }
    // A body that broke off is a user error to hyper; a connection that is cut fails with `ConnectionAborted`.
    error.is_user() || io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionAborted)
}

#[cfg(test)]
mod tests;
