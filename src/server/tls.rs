//! TLS certificates of the listeners for callers and for operators, which are read at the start and with each reload. Each
//! reload makes another acceptor, with a store of sessions of its own: no session of a client is resumed whose authority
//! has been removed.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::certificate_validity::Validity;
use crate::config::{FaultyKey, ServerTlsConfig};
use crate::telemetry;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The listener that TLS is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsListener {
    /// With `client_ca`, the handshake requires a certificate.
    Callers,
    /// With `client_ca`, the handshake asks for a certificate, and the admin plane requires it for all but probes.
    Operators,
}

impl TlsListener {
    /// The keys `cert`, `key` and `client_ca` of the configuration.
    pub(super) const fn keys(self) -> [&'static str; 3] {
        match self {
            Self::Callers => ["server.tls.cert", "server.tls.key", "server.tls.client_ca"],
            Self::Operators => ["admin.tls.cert", "admin.tls.key", "admin.tls.client_ca"],
        }
    }

    /// The labels of the expiry of its certificate, and of the authorities of its clients.
    const fn expiry_labels(self) -> [&'static str; 2] {
        match self {
            Self::Callers => ["server", "client_ca"],
            Self::Operators => ["admin", "admin_client_ca"],
        }
    }
}

/// The TLS acceptor with the certificate of the gateway. With `client_ca`, it requires certificates of clients.
///
/// # Errors
/// If a file cannot be read, or the key does not fit the certificate; with a [`FaultyKey`] in its context.
pub(super) fn acceptor(config: &ServerTlsConfig, listener: TlsListener) -> anyhow::Result<TlsAcceptor> {
    let [cert_key, key_key, client_ca_key] = listener.keys();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates(&config.cert).with_context(|| faulty(cert_key, &config.cert))?;
    let key = PrivateKeyDer::from_pem_file(&config.key).with_context(|| faulty(key_key, &config.key))?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = authorities(file).with_context(|| faulty(client_ca_key, file))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(match listener {
                TlsListener::Callers => verifier.build()?,
                TlsListener::Operators => verifier.allow_unauthenticated().build()?,
            })
        }
    };
    let config = builder
        .with_single_cert(chain, key)
        .context("the key does not fit the certificate")
        .with_context(|| faulty(key_key, &config.key))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The acceptor of a listener; `None` without TLS.
///
/// # Errors
/// As [`acceptor`].
pub(super) fn acceptor_of(
    config: Option<&ServerTlsConfig>,
    listener: TlsListener,
) -> anyhow::Result<Option<TlsAcceptor>> {
    config.map(|config| acceptor(config, listener)).transpose()
}

/// Tells the metrics when the certificates of both listeners end, and the first of the authorities of their clients.
pub(super) fn report_expiries(callers: Option<&ServerTlsConfig>, operators: Option<&ServerTlsConfig>) {
    for (config, listener) in [(callers, TlsListener::Callers), (operators, TlsListener::Operators)] {
        if let Some(config) = config {
            report_expiry(config, listener);
        }
    }
}

/// The same of one listener.
fn report_expiry(config: &ServerTlsConfig, listener: TlsListener) {
    let end = |certificate: &CertificateDer<'_>| Some(Validity::of(certificate)?.until.as_nanos() / NANOS_PER_SECOND);
    let first_end = |file: &Path| certificates(file).ok()?.iter().filter_map(end).min();
    let own = certificate(config).ok().and_then(|certificate| end(&certificate));
    let of_clients = config.client_ca.as_deref().and_then(first_end);
    for (name, end) in listener.expiry_labels().into_iter().zip([own, of_clients]) {
        if let Some(end) = end {
            telemetry::certificate_expiry(name, end);
        }
    }
}

fn faulty(key: &'static str, file: &Path) -> FaultyKey {
    FaultyKey { key, subject: file.display().to_string() }
}

fn authorities(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        roots.add(authority)?;
    }
    Ok(roots)
}

/// The certificate of the gateway itself: the first of the chain.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn certificate(config: &ServerTlsConfig) -> anyhow::Result<CertificateDer<'static>> {
    certificates(&config.cert)?.into_iter().next().context("no certificate in it")
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!certificates.is_empty(), "no certificate in it");
    Ok(certificates)
}
