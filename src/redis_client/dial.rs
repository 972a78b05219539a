//! TCP connections to one server, with or without TLS.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;

use crate::network::{Duplex, Network, connect};

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
