//! TCP connections to one server, with or without TLS.

use std::io;
use std::sync::Arc;

use futures_util::future::select_ok;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::network::{Duplex, Network, Resolver};

/// Connects to the first address of a host that answers; with `tls`, the server must prove that it is `host`.
///
/// # Errors
/// If no address answers, or the server cannot prove it.
pub(super) async fn dial(
    network: &Network,
    host: &str,
    port: u16,
    tls: Option<&TlsConnector>,
) -> io::Result<Box<dyn Duplex>> {
    let stream = match network {
        Network::Tcp => Box::new(connect(host, port).await?),
        Network::Simulated(network) => network.connect(host, port).await?,
    };
    let Some(tls) = tls else { return Ok(stream) };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(tls.connect(name, stream).await?))
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    static RESOLVER: Resolver = Resolver::new();
    let addresses = RESOLVER.look_up(host, port).await?;
    let (stream, _) = select_ok(addresses.into_iter().map(|address| Box::pin(TcpStream::connect(address)))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Trusts the system's root certificates.
///
/// # Errors
/// If the system has no usable ones.
pub(super) fn tls_connector() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier::new(provider.clone())?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
