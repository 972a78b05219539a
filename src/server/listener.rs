//! One listener: takes connections in, serves them, and lets them end when it is told to.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// How long a client may take to send a request's head, or to shake hands.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept: it means that the process has run out of something, file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
    /// Stops taking connections in, and lets those that are open end after the request they are at.
    pub(super) closing: CancellationToken,
    /// Holds each connection until it has ended.
    pub(super) tracker: TaskTracker,
}

impl Listener {
    pub(super) fn addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until it is told to close.
    pub(super) async fn serve<S, B>(self, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        loop {
            let stream = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be taken in");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let (tls, closing, service) = (self.tls.clone(), self.closing.clone(), service.clone());
            self.tracker.spawn(async move {
                let _ = stream.set_nodelay(true);
                let Some(tls) = tls else { return serve_connection(stream, service, closing).await };
                // One who has not shaken hands has asked for nothing, so a drain does not wait for it.
                match closing.run_until_cancelled(shake_hands(tls, stream)).await {
                    Some(Some(stream)) => serve_connection(stream, service, closing).await,
                    Some(None) => tracing::debug!("a TLS handshake failed"),
                    None => {}
                }
            });
        }
    }
}

async fn shake_hands(tls: TlsAcceptor, stream: TcpStream) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await.ok()?.ok()
}

async fn serve_connection<I, S, B>(stream: I, service: S, closing: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients hang up; that is their right and no news.
        tracing::debug!(%error, "a connection ended early");
    }
}
