//! TLS on both sides, each certificate made for the test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::support::{Ask, Rig, STREAM, Settings, at, exact_profile};
use crate::tap::Tap;

const DAY: &str = "from=2026-02-23&to=2026-02-23";

/// An authority, and a folder for what it signs.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate that an authority has signed, and its key, as PEM files.
pub(crate) struct Signed {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn sign(&self, name: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let file = |ending| self.folder.path().join(format!("{name}.{ending}"));
        let signed = Signed { cert: file("cert"), key: file("key") };
        std::fs::write(&signed.cert, cert.pem()).unwrap();
        std::fs::write(&signed.key, key.serialize_pem()).unwrap();
        signed
    }

    /// Trusts this authority, and shows `own` if it is asked who it is.
    pub(crate) fn client(&self, own: Option<&Signed>) -> ClientConfig {
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

impl Signed {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(&self.cert).unwrap().map(Result::unwrap).collect()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).unwrap()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_no_client_auth().with_single_cert(self.chain(), self.key()).unwrap()).into()
    }

    fn server(&self, client_ca: Option<&Path>) -> Settings {
        let client_ca = client_ca.map(|file| format!(", client_ca = '{}'", file.display())).unwrap_or_default();
        let (cert, key) = (self.cert.display(), self.key.display());
        Settings::default().section("server", &format!("tls = {{ cert = '{cert}', key = '{key}'{client_ca} }}"))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The status and the number of items of [`DAY`], if the other side is who it should be, and lets us in.
async fn get(addr: SocketAddr, tls: ClientConfig) -> anyhow::Result<(u16, usize)> {
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
    let path = format!("/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions?{DAY}");
    let uri = format!("https://localhost:{}{path}", addr.port());
    let (head, body) = client.request(Request::get(uri).body(Empty::new())?).await?.into_parts();
    let page: serde_json::Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
    Ok((head.status.as_u16(), page["data"].as_array().map_or(0, Vec::len)))
}

#[tokio::test]
async fn callers_come_in_over_tls_and_not_without() {
    let authority = Authority::new();
    let rig = Rig::start(exact_profile(150, 4), &authority.sign("localhost").server(None)).await;
    assert_eq!(get(rig.door.addr(), authority.client(None)).await.unwrap(), (200, 150));
    let plain = rig.door.try_ask(&Ask::get(DAY)).await;
    assert!(plain.is_err(), "plain text was answered: {plain:?}");
    assert!(get(rig.door.addr(), Authority::new().client(None)).await.is_err(), "anybody could pretend to be it");
    assert_eq!(rig.door.admin("/readyz").await.status, 200, "the admin plane has no TLS");
}

#[tokio::test]
async fn with_a_client_ca_only_callers_that_it_has_signed_come_in() {
    let (authority, callers, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let settings = authority.sign("localhost").server(Some(&callers.file()));
    let rig = Rig::start(exact_profile(150, 4), &settings).await;
    let addr = rig.door.addr();
    assert!(get(addr, authority.client(None)).await.is_err(), "without a certificate");
    assert!(get(addr, authority.client(Some(&strangers.sign("bi-etl")))).await.is_err(), "with a stranger's");
    assert_eq!(rig.calls(), 0);
    assert_eq!(get(addr, authority.client(Some(&callers.sign("bi-etl")))).await.unwrap(), (200, 150));
}

#[tokio::test]
async fn the_token_goes_only_to_an_upstream_that_proves_who_it_is() {
    let authority = Authority::new();
    let trusting = Settings::default().section("upstream", &format!("ca_file = '{}'", authority.file().display()));
    let rig = Rig::start(exact_profile(150, 4), &Settings::default()).await;
    let upstream = rig.simulator.as_ref().unwrap().addr();
    for (name, settings, trusted) in [
        ("localhost", &trusting, true),
        // Nobody that this machine knows has signed it.
        ("localhost", &Settings::default(), false),
        // Signed, but for another host.
        ("platform.example", &trusting, false),
    ] {
        rig.control.reset_counts();
        let tap = Tap::start(upstream, Some(authority.sign(name).acceptor())).await;
        let answer = tap.door(&rig, settings).await.ask(&Ask::get(DAY)).await;
        if trusted {
            let truth = rig.truth(at("2026-02-23"), at("2026-02-24"));
            assert!(answer.page().items().eq(truth.iter().map(Vec::as_slice)));
        } else {
            assert_eq!(answer.status, 502, "{}", answer.text());
            assert!(tap.auths().is_empty() && rig.calls() == 0, "{name}: the token was shown");
        }
    }
}

#[tokio::test]
async fn one_who_connects_and_says_nothing_does_not_hold_up_a_drain() {
    let authority = Authority::new();
    let settings = authority.sign("localhost").server(None).section("server", "drain_timeout = '10s'");
    let rig = Rig::start(exact_profile(150, 4), &settings).await;
    let silent = TcpStream::connect(rig.door.addr()).await.unwrap();
    // Whoever comes later is taken in later: so the silent one has been taken in.
    assert_eq!(get(rig.door.addr(), authority.client(None)).await.unwrap(), (200, 150));
    assert!(rig.door.gateway.drain().await, "it was waited for in vain");
    drop(silent);
}
