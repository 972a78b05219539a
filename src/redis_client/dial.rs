//! TCP connections to one server, with or without TLS, and the lookup of a Cluster's names.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use redis::RedisFuture;
use redis::io::AsyncDNSResolver;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;

use crate::network::{Duplex, Network, connect, resolver};

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

/// Looks up the names of a Cluster's nodes.
pub(super) struct ClusterResolver;

impl AsyncDNSResolver for ClusterResolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let addresses = resolver().look_up(host, port).await?;
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}
