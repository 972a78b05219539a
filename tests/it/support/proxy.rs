//! A proxy between a gateway and its upstream: it records the tokens of all calls, can hold calls or responses, and can
//! speak TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A running proxy. It changes no message.
#[derive(Debug)]
pub(crate) struct RecordingProxy {
    addr: SocketAddr,
    scheme: &'static str,
    tokens: Arc<Mutex<Vec<String>>>,
    requests_open: watch::Sender<bool>,
    responses_open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The state that each connection needs.
#[derive(Clone)]
struct ProxyConnection {
    upstream: SocketAddr,
    tokens: Arc<Mutex<Vec<String>>>,
    requests_open: watch::Receiver<bool>,
    responses_open: watch::Receiver<bool>,
    client: Client<HttpConnector, Incoming>,
}

impl RecordingProxy {
    /// Listens in front of `upstream`, in plain text or, with an acceptor, over TLS.
    pub(crate) async fn start(upstream: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        Self::start_at("127.0.0.1", upstream, tls).await
    }

    /// The same with another address to listen at.
    pub(crate) async fn start_at(host: &str, upstream: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (requests_open, requests) = watch::channel(true);
        let (responses_open, responses) = watch::channel(true);
        let tokens = Arc::<Mutex<Vec<String>>>::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
        let tokens_of_connection = tokens.clone();
        let connection = ProxyConnection {
            upstream,
            tokens: tokens_of_connection,
            requests_open: requests,
            responses_open: responses,
            client,
        };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (connection, tls) = (connection.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => connection.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { addr, scheme, tokens, requests_open, responses_open, task }
    }

    /// The base URL for a gateway that calls through this proxy.
    pub(crate) fn base_url(&self) -> String {
        if self.addr.ip().is_loopback() {
            return format!("{}://localhost:{}", self.scheme, self.addr.port());
        }
        format!("{}://{}", self.scheme, self.addr)
    }

    /// The `auth` header of each call so far, in their order.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }

    /// The number of calls so far, held ones included.
    pub(crate) fn calls(&self) -> usize {
        self.tokens.lock().unwrap().len()
    }

    /// Waits until more than `calls` calls have arrived.
    pub(crate) async fn until_calls_exceed(&self, calls: usize) {
        super::until("an upstream call", || self.calls() > calls).await;
    }

    /// Accepts calls from now on without forwarding them.
    pub(crate) fn hold_requests(&self) {
        self.requests_open.send_replace(false);
    }

    /// Forwards calls from now on, and holds the responses.
    pub(crate) fn hold_responses(&self) {
        self.responses_open.send_replace(false);
    }

    /// Forwards all that was held.
    pub(crate) fn release(&self) {
        self.requests_open.send_replace(true);
        self.responses_open.send_replace(true);
    }
}

impl Drop for RecordingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ProxyConnection {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(move |request| self.clone().forward(request));
        // A connection that the upstream broke is broken towards the gateway too.
        let mut server = http1::Builder::new();
        // A request whose sender has given up all the same reaches the upstream.
        server.half_close(true);
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn forward(mut self, request: Request<Incoming>) -> anyhow::Result<Response<Incoming>> {
        let token = request.headers().get("auth").map(|token| token.to_str().unwrap().to_owned());
        self.tokens.lock().unwrap().push(token.unwrap_or_default());
        self.requests_open.wait_for(|open| *open).await?;
        let (mut head, body) = request.into_parts();
        head.uri = format!("http://{}{}", self.upstream, head.uri).parse()?;
        let response = self.client.request(Request::from_parts(head, body)).await?;
        self.responses_open.wait_for(|open| *open).await?;
        Ok(response)
    }
}
