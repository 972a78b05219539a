//! Connections to the upstream, below TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{BoxError, Service};

use super::proxy::Proxy;
use crate::network::{Duplex, Network, resolver};

/// Connects to the host and the port of a URI.
#[derive(Clone)]
pub(super) struct UpstreamConnector {
    direct: DirectConnector,
    proxy: Option<Proxy>,
    /// The longest that a proxy may take to connect.
    timeout: Duration,
}

/// Connects without a proxy.
#[derive(Clone)]
struct DirectConnector {
    tcp: HttpConnector<UpstreamResolver>,
    network: Network,
}

/// Looks up the name of the upstream, or of the proxy.
#[derive(Clone)]
struct UpstreamResolver;

impl Service<Name> for UpstreamResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        // The connector sets the port.
        Box::pin(async move { Ok(resolver().look_up(name.as_str(), 0).await?.into_iter()) })
    }
}

impl UpstreamConnector {
    /// TCP connections, each of which is established within `timeout`, unless `network` is simulated; through `proxy`, if
    /// there is one.
    pub(super) fn new(timeout: Duration, network: &Network, proxy: Option<Proxy>) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(UpstreamResolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        Self { direct: DirectConnector { tcp, network: network.clone() }, proxy, timeout }
    }
}

impl Service<Uri> for UpstreamConnector {
    type Response = UpstreamStream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<UpstreamStream, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Some(Proxy { uri: proxy, authorization }) = self.proxy.clone() else { return self.direct.call(uri) };
        let tunnel = Tunnel::new(proxy, self.direct.clone());
        let mut tunnel = match authorization {
            Some(authorization) => tunnel.with_auth(authorization),
            None => tunnel,
        };
        let timeout = self.timeout;
        Box::pin(async move { Ok(tokio::time::timeout(timeout, tunnel.call(uri)).await??) })
    }
}

impl Service<Uri> for DirectConnector {
    type Response = UpstreamStream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<UpstreamStream, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match &self.network {
            Network::Tcp => {
                let connecting = self.tcp.call(uri);
                Box::pin(async {
                    let stream = connecting.await?.into_inner();
                    discard_unsent_on_close(&stream);
                    Ok(UpstreamStream::new(Box::new(stream)))
                })
            }
            Network::Simulated(network) => {
                let connecting = network.connect(uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
                Box::pin(async { Ok(UpstreamStream::new(connecting.await?)) })
            }
        }
    }
}

/// Makes closing a connection discard what the network has not delivered yet (`SO_LINGER` of zero).
///
/// Otherwise the kernel repeats the request of a call that has timed out, or of a process that was killed, for a minute
/// or more: after a network failure it would arrive when the ledger does not count it any more.
fn discard_unsent_on_close(stream: &TcpStream) {
    // Refused only for what is not a socket.
    let _ = stream.set_zero_linger();
}

/// A connection to the upstream.
pub(super) struct UpstreamStream(TokioIo<Box<dyn Duplex>>);

impl UpstreamStream {
    fn new(stream: Box<dyn Duplex>) -> Self {
        Self(TokioIo::new(stream))
    }
}

impl Connection for UpstreamStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for UpstreamStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for UpstreamStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }
}
