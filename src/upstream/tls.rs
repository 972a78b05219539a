//! TLS towards the upstream. The only file that names rustls on this side.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// The client configuration with the system's trust anchors and those of `ca_file`.
///
/// # Errors
/// If `ca_file` cannot be read or holds no certificate, or the system has no usable roots.
pub(crate) fn client_config(ca_file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = match ca_file {
        None => Vec::new(),
        Some(file) => certificates(file).with_context(|| format!("{}", file.display()))?,
    };
    let verifier =
        Verifier::new_with_extra_roots(private, provider.clone()).context("the system's root certificates")?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// The configuration for an upstream on loopback over plain HTTP: trusts no certificate, so it cannot be misused.
///
/// # Errors
/// Never in practice: the provider supports the default protocol versions.
pub(crate) fn no_tls() -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!certificates.is_empty(), "no certificate in it");
    Ok(certificates)
}
