//! Stands between a gateway and its upstream: keeps the tokens that go by, holds calls or answers back, and can speak
//! TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use koregate::server::Gateway;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::support::{self, Door, Rig, Settings};

/// A proxy that changes nothing.
#[derive(Debug)]
pub(crate) struct Tap {
    addr: SocketAddr,
    scheme: &'static str,
    auths: Arc<Mutex<Vec<String>>>,
    open: watch::Sender<bool>,
    answers: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What each connection needs.
#[derive(Clone)]
struct Pipe {
    upstream: SocketAddr,
    auths: Arc<Mutex<Vec<String>>>,
    open: watch::Receiver<bool>,
    answers: watch::Receiver<bool>,
    client: Client<HttpConnector, Incoming>,
}

impl Tap {
    /// In front of `upstream`, in plain text or, with an acceptor, over TLS.
    pub(crate) async fn start(upstream: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (open, opened) = watch::channel(true);
        let (answers, answered) = watch::channel(true);
        let auths = Arc::<Mutex<Vec<String>>>::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
        let pipe = Pipe { upstream, auths: auths.clone(), open: opened, answers: answered, client };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (pipe, tls) = (pipe.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => pipe.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                pipe.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { addr, scheme, auths, open, answers, task }
    }

    /// What a gateway calls.
    pub(crate) fn base_url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.addr.port())
    }

    /// A gateway that calls through here, with the clock of `rig`.
    pub(crate) async fn door(&self, rig: &Rig, settings: &Settings) -> Door {
        let config = settings.load(&self.base_url(), &rig.control.profile());
        let gateway = Gateway::start(&config, rig.clock.clone()).await.unwrap();
        Door { gateway, client: support::Client::default() }
    }

    /// The `auth` header of each call, in their order.
    pub(crate) fn auths(&self) -> Vec<String> {
        self.auths.lock().unwrap().clone()
    }

    /// From now on calls come in, but go no further.
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    /// From now on the upstream answers, but its answers go no further.
    pub(crate) fn hold_answers(&self) {
        self.answers.send_replace(false);
    }

    /// Lets go of what was held.
    pub(crate) fn release(&self) {
        self.open.send_replace(true);
        self.answers.send_replace(true);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pipe {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(move |request| self.clone().pass(request));
        // A connection that the upstream broke is broken here too.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn pass(mut self, request: Request<Incoming>) -> anyhow::Result<Response<Incoming>> {
        let auth = request.headers().get("auth").map(|auth| auth.to_str().unwrap().to_owned());
        self.auths.lock().unwrap().push(auth.unwrap_or_default());
        self.open.wait_for(|open| *open).await?;
        let (mut head, body) = request.into_parts();
        head.uri = format!("http://{}{}", self.upstream, head.uri).parse()?;
        let answer = self.client.request(Request::from_parts(head, body)).await?;
        self.answers.wait_for(|open| *open).await?;
        Ok(answer)
    }
}
