//! Certificates made for a test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::Settings;

/// A certificate authority, and a folder for its files.
pub(crate) struct CertificateAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate that an authority has signed, and its key, as PEM files.
pub(crate) struct SignedCertificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl CertificateAuthority {
    /// Creates an authority with a key of its own.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// The PEM file of the authority's certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate for a host or client.
    pub(crate) fn sign(&self, name: &str) -> SignedCertificate {
        self.sign_until(name, 4000)
    }

    /// The same with a certificate that ends with the beginning of a year.
    pub(crate) fn sign_until(&self, name: &str, year: i32) -> SignedCertificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let file = |ending| self.folder.path().join(format!("{name}.{ending}"));
        let signed = SignedCertificate { cert: file("cert"), key: file("key") };
        std::fs::write(&signed.cert, cert.pem()).unwrap();
        std::fs::write(&signed.key, key.serialize_pem()).unwrap();
        signed
    }

    /// A client that trusts this authority and presents `own` on request.
    pub(crate) fn client_config(&self, own: Option<&SignedCertificate>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_auth_cert(own.chain(), own.key()).unwrap(),
        }
    }
}

impl SignedCertificate {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(&self.cert).unwrap().map(Result::unwrap).collect()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).unwrap()
    }

    /// An acceptor of TLS connections that presents this certificate.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_no_client_auth().with_single_cert(self.chain(), self.key()).unwrap()).into()
    }

    /// Settings of a gateway that listens with this certificate, and requires client certificates of `client_ca` if
    /// given.
    pub(crate) fn listener_settings(&self, client_ca: Option<&Path>) -> Settings {
        Settings::default().section("server", &self.tls_key(client_ca))
    }

    /// The line of the key `tls`, in the section of any listener.
    pub(crate) fn tls_key(&self, client_ca: Option<&Path>) -> String {
        let client_ca = client_ca.map(|file| format!(", client_ca = '{}'", file.display())).unwrap_or_default();
        format!("tls = {{ cert = '{}', key = '{}'{client_ca} }}", self.cert.display(), self.key.display())
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
