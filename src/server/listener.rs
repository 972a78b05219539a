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
use super::stalled_writes::StalledWrites;
use super::zero_copy::{Congestion, Passing};
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
mod tests;
