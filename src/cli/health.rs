//! `koregate health` and `koregate wait`: ask the admin listener whether the gateway is ready, for images without a
//! shell or `curl`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::{output, pinned_certificate};
use crate::config::{Config, process_environment};
use crate::units::{parse_duration, print_duration_roughly};
use crate::upstream::tls::client_config;

/// The longest that one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two questions of `wait`.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);
/// Maximum bytes of an answer that are shown.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The gateway that is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct HealthArgs {
    /// The admin listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090", conflicts_with = "config")]
    pub url: Uri,
    /// A configuration, whose server.metrics_listen or server.admin_listen is asked instead.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The flags of `wait`.
#[derive(Clone, Debug, clap::Args)]
pub struct WaitArgs {
    /// The gateway that is asked.
    #[command(flatten)]
    pub gateway: HealthArgs,
    /// The longest to wait.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write it like 500ms, 30s or 5m".to_owned())
}

/// Asks once. The exit code is 0 if the gateway is ready, 1 if not, with the reason on stderr, and 2 if the
/// configuration or the URL is at fault.
pub async fn run(args: HealthArgs) -> ExitCode {
    let target = match target(&args) {
        Ok(target) => target,
        Err(error) => return fail(2, &error),
    };
    match ask(&target, Instant::now() + QUESTION_TIMEOUT).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

/// Asks until the gateway is ready. The exit codes are those of [`run`]; 1 is for a gateway that is not ready in time.
pub async fn wait(args: WaitArgs) -> ExitCode {
    let target = match target(&args.gateway) {
        Ok(target) => target,
        Err(error) => return fail(2, &error),
    };
    let end = Instant::now() + args.timeout;
    loop {
        let Err(error) = ask(&target, end.min(Instant::now() + QUESTION_TIMEOUT)).await else {
            return ExitCode::SUCCESS;
        };
        if Instant::now() + WAIT_INTERVAL >= end {
            let waited = print_duration_roughly(args.timeout);
            return fail(1, &error.context(format!("not ready within {waited}")));
        }
        sleep(WAIT_INTERVAL).await;
    }
}

/// The listener that is asked.
struct Target {
    /// Host and port.
    authority: String,
    /// `None` for plain HTTP.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// The listener that the flags name. Of a configuration: its listener for metrics, which needs no TLS, or its admin
/// listener, whose certificate must be that of the configuration.
fn target(args: &HealthArgs) -> anyhow::Result<Target> {
    let Some(file) = &args.config else { return target_of_url(&args.url) };
    let config = Config::load(Some(file), process_environment())?;
    let (listen, tls) = match config.server.metrics_listen {
        Some(listen) => (listen, None),
        None => (config.server.admin_listen, config.admin.tls),
    };
    anyhow::ensure!(listen.port() != 0, "the listener has port 0, any free one; name it with --url");
    let addr = SocketAddr::new(reachable(listen.ip()), listen.port());
    let tls = tls.map(|tls| {
        let config = pinned_certificate::client_config(&tls.cert).context("admin.tls.cert")?;
        anyhow::Ok((TlsConnector::from(Arc::new(config)), ServerName::IpAddress(addr.ip().into())))
    });
    Ok(Target { authority: addr.to_string(), tls: tls.transpose()? })
}

fn target_of_url(url: &Uri) -> anyhow::Result<Target> {
    let malformed = || format!("{url}: write the URL as http://HOST:PORT or https://HOST:PORT");
    let authority = url.authority().with_context(malformed)?;
    let (port, tls) = match url.scheme_str() {
        Some("http") => (80, None),
        Some("https") => {
            let name = authority.host().trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(name.to_owned()).with_context(malformed)?;
            (443, Some((TlsConnector::from(Arc::new(client_config(None)?)), name)))
        }
        _ => anyhow::bail!(malformed()),
    };
    Ok(Target { authority: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(port)), tls })
}

/// The address at which a listener on `ip` is reached from the same machine.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Asks `/readyz` once. The error says why the gateway is not ready.
async fn ask(target: &Target, end: Instant) -> anyhow::Result<()> {
    let authority = &target.authority;
    let answer = timeout_at(end, answer(target)).await;
    let (status, body) =
        answer.map_err(|_| anyhow::anyhow!("{authority} does not answer in time")).and_then(|answer| answer)?;
    anyhow::ensure!(status.is_success(), "not ready: {authority} answers {status}: {}", body.trim());
    Ok(())
}

async fn answer(Target { authority, tls }: &Target) -> anyhow::Result<(StatusCode, String)> {
    let socket = TcpStream::connect(authority).await.with_context(|| format!("{authority} cannot be connected to"))?;
    match tls {
        None => answer_over(socket, authority).await,
        Some((connector, name)) => {
            let socket = connector.connect(name.clone(), socket).await;
            answer_over(socket.with_context(|| format!("{authority}: the TLS handshake failed"))?, authority).await
        }
    }
}

async fn answer_over<I>(socket: I, authority: &str) -> anyhow::Result<(StatusCode, String)>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/readyz").header(header::HOST, authority).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.with_context(|| format!("{authority} gives no answer"))?;
    let status = response.status();
    // The status counts; the body only explains it.
    let body = timeout(QUESTION_TIMEOUT, Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect()).await;
    let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    output::complain(&format_args!("koregate: {error:#}"));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// A listener that answers its connections with these statuses, in this order, and then with the last one.
    async fn listener(statuses: &'static [u16]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut statuses = statuses.iter().peekable();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let status = if statuses.len() > 1 { statuses.next() } else { statuses.peek().copied() };
                let head = format!("HTTP/1.1 {} X\r\ncontent-length: 8\r\n\r\nstarting", status.unwrap());
                socket.write_all(head.as_bytes()).await.unwrap();
                // Dropped later by the client: a close with unread bytes would reset the connection.
                tokio::spawn(
                    async move { socket.readable().await.map(|()| std::future::pending::<()>()).unwrap().await },
                );
            }
        });
        format!("http://{addr}")
    }

    fn args(url: &str) -> HealthArgs {
        HealthArgs { url: url.parse().unwrap(), config: None }
    }

    #[tokio::test]
    async fn health_exit_code_follows_the_status() {
        assert_eq!(run(args(&listener(&[200]).await)).await, ExitCode::SUCCESS);
        assert_eq!(run(args(&listener(&[503]).await)).await, ExitCode::from(1));
        // Nothing listens on port 1.
        assert_eq!(run(args("http://127.0.0.1:1")).await, ExitCode::from(1));
        assert_eq!(run(args("https://127.0.0.1:1")).await, ExitCode::from(1));
        assert_eq!(run(args("ftp://127.0.0.1:1")).await, ExitCode::from(2));
        assert_eq!(run(HealthArgs { config: Some("missing.toml".into()), ..args("/") }).await, ExitCode::from(2));
    }

    #[tokio::test]
    async fn wait_ends_when_the_gateway_is_ready() {
        let gateway = args(&listener(&[503, 503, 200]).await);
        assert_eq!(wait(WaitArgs { gateway, timeout: Duration::from_mins(1) }).await, ExitCode::SUCCESS);
        let gateway = args(&listener(&[503]).await);
        assert_eq!(wait(WaitArgs { gateway, timeout: Duration::ZERO }).await, ExitCode::from(1));
    }

    #[test]
    fn configured_listener_on_all_addresses_is_asked_on_loopback() {
        let dir = tempfile::tempdir().unwrap();
        let (file, secret) = (dir.path().join("koregate.toml"), dir.path().join("secret"));
        std::fs::write(&secret, "hunter2").unwrap();
        let account = format!(
            "[[accounts]]\naccount_id = \"a\"\nclient_id = \"c\"\nclient_secret = {{ file = '{}' }}",
            secret.display()
        );
        let args = HealthArgs { config: Some(file.clone()), ..args("/") };
        for (listen, expected) in [
            ("0.0.0.0:9999", Some("127.0.0.1:9999")),
            ("[::]:9999", Some("[::1]:9999")),
            ("10.1.2.3:9", Some("10.1.2.3:9")),
            ("127.0.0.1:0", None),
        ] {
            std::fs::write(&file, format!("[server]\nadmin_listen = \"{listen}\"\n{account}")).unwrap();
            let target = target(&args).ok();
            assert_eq!(target.map(|target| target.authority).as_deref(), expected, "{listen}");
        }
        std::fs::write(&file, format!("[server]\nmetrics_listen = \"0.0.0.0:9\"\n{account}")).unwrap();
        assert_eq!(target(&args).unwrap().authority, "127.0.0.1:9");
    }

    #[tokio::test]
    async fn listener_with_another_certificate_than_the_configured_is_not_asked() {
        let certified = || rcgen::generate_simple_self_signed(vec!["gate.internal".to_owned()]).unwrap();
        let (own, other) = (certified(), certified());
        let dir = tempfile::tempdir().unwrap();
        let pinned = |certified: &rcgen::CertifiedKey<_>, name: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, certified.cert.pem()).unwrap();
            TlsConnector::from(Arc::new(pinned_certificate::client_config(&file).unwrap()))
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let Ok(mut socket) = acceptor.accept(socket).await else { continue };
                socket.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(socket);
                });
            }
        });
        let end = Instant::now() + QUESTION_TIMEOUT;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let ask_with = async |connector| {
            let target = Target { authority: authority.clone(), tls: Some((connector, name.clone())) };
            ask(&target, end).await.is_ok()
        };
        assert!(ask_with(pinned(&own, "own.pem")).await);
        assert!(!ask_with(pinned(&other, "other.pem")).await);
    }
}
