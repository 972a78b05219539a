//! The client at the bottom of the stack: one HTTP call to Kore, and the interpretation of its answer.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tower::Service;

use super::body;
use super::body::BodyError;
use super::connector::UpstreamConnector;
use super::error::UpstreamError;
use super::page::Page;
use super::proxy::Proxy;
use super::raw_call::{RawAnswer, RawRequest};
use super::{PageRequest, tls};
use crate::clock::Clock;
use crate::config;
use crate::live::Live;
use crate::network::Network;
use crate::telemetry;
use crate::traces::{Span, SpanKind};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters that are not percent-encoded in a path segment (RFC 3986, 3.3, without the sub-delimiters).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A page to fetch, and the token to fetch it with.
#[derive(Clone, Debug)]
pub struct AuthorizedRequest {
    /// The page to fetch.
    pub page: PageRequest,
    /// The `auth` header; marked sensitive.
    pub auth: HeaderValue,
}

/// Connections to Kore that are kept for further calls.
type PooledClient = HyperClient<HttpsConnector<UpstreamConnector>, Full<Bytes>>;

/// Calls Kore over pooled connections.
#[derive(Clone)]
pub struct Client {
    http: Live<PooledClient>,
    scheme: Scheme,
    authority: Authority,
    timeout: Duration,
    clock: Clock,
    send_traceparent: bool,
}

impl Client {
    /// A client for `config.base_url`.
    ///
    /// # Errors
    /// If the trust anchors cannot be loaded, the URL has no scheme and authority, or the proxy cannot be parsed.
    pub fn new(config: &config::UpstreamConfig, clock: &Clock, network: &Network) -> anyhow::Result<Self> {
        let proxy = Proxy::of(config.proxy.as_ref(), &config.base_url)?;
        let parts = config.base_url.clone().into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            anyhow::bail!("upstream.base_url: a scheme and a host are needed");
        };
        let tls = if scheme == Scheme::HTTP { tls::no_tls()? } else { tls::client_config(config.ca_file.as_deref())? };
        let connector = UpstreamConnector::new(CONNECT_TIMEOUT.min(config.timeout), network, proxy);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
        let http = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            // hyper would resend a call when a pooled connection dies, without the ledger's knowledge; the retry stage
            // does that.
            .retry_canceled_requests(false)
            // Read bytes are copied at once into the body's own memory.
            .http1_max_buf_size(64 << 10)
            .build(connector);
        let (timeout, clock, send_traceparent) = (config.timeout, clock.clone(), config.send_traceparent);
        Ok(Self { http: Live::new(http), scheme, authority, timeout, clock, send_traceparent })
    }

    /// Makes all further calls over connections of `other`: with its certificate authorities and its proxy. Calls under
    /// way end on theirs.
    pub fn connect_as(&self, other: &Self) {
        self.http.replace(PooledClient::clone(&other.http.load()));
    }

    fn request(
        &self,
        RawRequest { series, bounds, offset, limit, auth, span }: RawRequest,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("from", &super::Bound::Second(bounds.from).to_string());
        query.append_pair("to", &bounds.to.to_string());
        query.append_pair("offset", &offset.to_string());
        if let Some(limit) = limit {
            query.append_pair("limit", &limit.to_string());
        }
        if series.agentic {
            query.append_pair("includeAgenticData", "true");
        }
        query.extend_pairs(&series.parameters);
        let stream = utf8_percent_encode(&series.stream, SEGMENT);
        let path = format!("/agentassist/api/v1/public/{stream}/v2/agentassistinteractions?{}", query.finish());
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()?;
        let body = series.filter.body();
        let mut request = Request::builder()
            // Kore documents GET for complete data and POST for filtered data.
            .method(if body.is_some() { Method::POST } else { Method::GET })
            .uri(uri)
            .header("accountId", series.account.as_ref())
            .header("auth", auth)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("koregate/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body.unwrap_or_default()))?;
        if let Some(context) = span.context() {
            context.set_headers(request.headers_mut());
        }
        Ok(request)
    }

    /// The span of a call.
    fn page_span(&self, page: &PageRequest) -> Span {
        let span = page.waiters.span().child(SpanKind::Client, "page");
        span.set("server.address", self.authority.host());
        span.set("koregate.offset", page.offset);
        span.set("koregate.limit", page.limit);
        span
    }

    async fn fetch(self, request: AuthorizedRequest, span: Span) -> Result<Page, UpstreamError> {
        let AuthorizedRequest { page: PageRequest { series, bounds, offset, limit, .. }, auth } = request;
        let sent = if self.send_traceparent { span.clone() } else { Span::NONE };
        let request = RawRequest { series, bounds, offset, limit: Some(limit), auth, span: sent };
        let answer = self.exchange(request).await?;
        span.set("http.response.status_code", u64::from(answer.status.as_u16()));
        let date = answer.date();
        if let Some(is_wrong) = date.and_then(|date| self.clock.compare(answer.asked_at, date)) {
            telemetry::clock_wrong(is_wrong);
        }
        answer.page(self.clock.now())
    }

    /// Makes one call, without a timeout of its own.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn exchange(&self, request: RawRequest) -> Result<RawAnswer, UpstreamError> {
        let request = self.request(request).map_err(|_| UpstreamError::Connect)?;
        let asked_at = self.clock.now();
        let response = self
            .http
            .load()
            .request(request)
            .await
            .map_err(|error| if error.is_connect() { UpstreamError::Connect } else { UpstreamError::BrokenOff })?;
        let (head, body) = response.into_parts();
        let body = body::take(body).await.map_err(|why| match why {
            BodyError::TooLarge => UpstreamError::TooLarge,
            BodyError::BrokenOff => UpstreamError::BrokenOff,
        })?;
        Ok(RawAnswer { status: head.status, headers: head.headers, body, asked_at })
    }
}

impl Service<AuthorizedRequest> for Client {
    type Response = Page;
    type Error = UpstreamError;
    type Future = BoxFuture<'static, Result<Page, UpstreamError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: AuthorizedRequest) -> Self::Future {
        let client = self.clone();
        Box::pin(async move {
            let (account, timeout, begun) = (request.page.series.account.clone(), client.timeout, Instant::now());
            let span = client.page_span(&request.page);
            let fetch = client.fetch(request, span.clone());
            let result = tokio::time::timeout(timeout, fetch).await.unwrap_or(Err(UpstreamError::Timeout));
            let label = result.as_ref().map_or_else(UpstreamError::label, |_| "ok");
            if let Ok(page) = &result {
                span.set("koregate.items", page.items.len());
            } else {
                span.fail(label);
            }
            span.end();
            telemetry::upstream_call(&account, label, begun.elapsed());
            result
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use koregate_simulator::{Profile, RateLimits, RollingLimit, Simulator};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::request::{Filter, Requester, RunWaiters, Series};
    use crate::traces::Tracer;
    use crate::upstream::RateLimitHeader;
    use crate::window::{Bound, QueryBounds, Timestamp};

    fn client(base_url: &str, clock: &Clock) -> Client {
        client_behind(base_url, clock, None)
    }

    fn client_behind(base_url: &str, clock: &Clock, proxy: Option<config::ProxyConfig>) -> Client {
        let config = config::UpstreamConfig {
            base_url: base_url.parse().unwrap(),
            timeout: Duration::from_secs(10),
            max_concurrency: 1,
            ca_file: None,
            proxy,
            send_traceparent: false,
        };
        Client::new(&config, clock, &Network::Tcp).unwrap()
    }

    fn page_request(profile: &Profile, clock: &Clock) -> PageRequest {
        let (account, stream) = (profile.account.account_id.as_str().into(), profile.streams[0].id.as_str().into());
        let series = Series { account, stream, filter: Filter::None, parameters: Vec::new(), agentic: false };
        let bounds = QueryBounds { from: clock.now(), to: Bound::Second(clock.now()) };
        let (series, waiters) = (Arc::new(series), RunWaiters::new(Requester::anyone()));
        PageRequest { series, bounds, offset: 0, limit: 1, waiters }
    }

    #[tokio::test]
    async fn abandoned_call_resets_its_connection() {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clock = Clock::manual(Timestamp::from_seconds(1_795_341_600));
        let client = client(&format!("http://{}", upstream.local_addr().unwrap()), &clock);
        let (page, auth) = (page_request(&Profile::default(), &clock), HeaderValue::from_static("token"));
        let call = tokio::spawn(client.clone().fetch(AuthorizedRequest { page, auth }, Span::NONE));
        let connection = upstream.accept().await.unwrap().0;
        // The first readiness may be none.
        let mut request = [0; 4096];
        while connection.try_read(&mut request).is_err() {
            connection.readable().await.unwrap();
        }
        call.abort();
        // A close in order is no error, and delivers all bytes before it, however late.
        let reset = tokio::time::timeout(Duration::from_secs(20), connection.ready(Interest::ERROR)).await;
        reset.expect("the connection is reset").unwrap();
    }

    /// A proxy that opens one tunnel to the host that it is asked for, and the head of the request for it.
    async fn tunnel_once(proxy: TcpListener, answer: &str) -> String {
        let (mut connection, _) = proxy.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
        connection.write_all(answer.as_bytes()).await.unwrap();
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        if answer.contains("200") {
            let mut upstream = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut connection, &mut upstream).await });
        }
        head
    }

    #[tokio::test]
    async fn calls_go_through_the_proxy_with_its_credentials() {
        let clock = Clock::manual(Timestamp::from_seconds(1_795_341_600));
        let profile = Profile { days: 1, ..Profile::default() };
        let page = page_request(&profile, &clock);
        let simulator_clock = clock.clone();
        let simulator = Simulator::start_with_clock(profile, move || simulator_clock.now().into()).await.unwrap();
        let auth: HeaderValue = simulator.control().token().unwrap().parse().unwrap();
        for (answer, is_open) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", true),
            ("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", false),
        ] {
            let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", proxy.local_addr().unwrap()).parse().unwrap();
            let fixed = config::ProxyConfig::Fixed { url, credentials: Some("me:secret".into()) };
            let client = client_behind(&simulator.base_url(), &clock, Some(fixed));
            let tunnel = tokio::spawn(tunnel_once(proxy, answer));
            let result = client.fetch(AuthorizedRequest { page: page.clone(), auth: auth.clone() }, Span::NONE).await;
            let head = tunnel.await.unwrap();
            let upstream = simulator.base_url().replace("http://", "");
            assert!(head.starts_with(&format!("CONNECT {upstream} HTTP/1.1\r\n")), "{head}");
            assert!(head.to_ascii_lowercase().contains("proxy-authorization: basic "), "{head}");
            assert!(head.contains("bWU6c2VjcmV0") && !head.contains(auth.to_str().unwrap()), "{head}");
            match result {
                Ok(_) => assert!(is_open),
                // No call was made, so none counts.
                Err(error) => assert!(!is_open && matches!(error, UpstreamError::Connect), "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn context_of_the_span_is_sent_only_if_asked_for() {
        let clock = Clock::manual(Timestamp::from_seconds(1_795_341_600));
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        for is_sent in [true, false] {
            let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = client(&format!("http://{}", upstream.local_addr().unwrap()), &clock);
            client.send_traceparent = is_sent;
            let mut headers = http::HeaderMap::new();
            headers.insert("traceparent", parent.parse().unwrap());
            headers.insert("tracestate", "vendor=1".parse().unwrap());
            let span = Tracer::passing_on().begin_request(&headers, "request");
            let waiters = RunWaiters::traced(Requester::anyone(), span.child(SpanKind::Internal, "run"));
            let page = PageRequest { waiters, ..page_request(&Profile::default(), &clock) };
            let auth = HeaderValue::from_static("token");
            let call = tokio::spawn(client.call(AuthorizedRequest { page, auth }));
            let (mut connection, mut head) = (upstream.accept().await.unwrap().0, Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                head.push(connection.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            assert_eq!(head.contains(&format!("traceparent: {parent}\r\n")), is_sent, "{head}");
            assert_eq!(head.contains("tracestate: vendor=1\r\n"), is_sent, "{head}");
            call.abort();
        }
    }

    #[tokio::test]
    async fn rate_limit_headers_come_with_the_answer() {
        let limits = vec![RollingLimit::new(2, Duration::from_mins(1))];
        let clock = Clock::manual(Timestamp::from_seconds(1_795_341_600));
        let rate_limits = RateLimits { headers: true, ..limits.into() };
        let profile = Profile { rate_limits, days: 1, ..Profile::default() };
        let page = page_request(&profile, &clock);
        let simulator_clock = clock.clone();
        let simulator = Simulator::start_with_clock(profile, move || simulator_clock.now().into()).await.unwrap();
        let client = client(&simulator.base_url(), &clock);
        let auth: HeaderValue = simulator.control().token().unwrap().parse().unwrap();
        let fetch = || client.clone().fetch(AuthorizedRequest { page: page.clone(), auth: auth.clone() }, Span::NONE);
        let told = |allowance: Option<RateLimitHeader>| allowance.map(|told| (told.limit, told.remaining));

        assert_eq!(told(fetch().await.unwrap().allowance), Some((Some(2), 1)));
        assert_eq!(told(fetch().await.unwrap().allowance), Some((Some(2), 0)));
        match fetch().await {
            Err(UpstreamError::RateLimited { allowance, retry_after: Some(wait), .. }) => {
                assert_eq!(told(allowance), Some((Some(2), 0)));
                assert!((50..=60).contains(&wait.as_secs()), "{wait:?}");
            }
            other => panic!("{other:?}"),
        }
        simulator.control().change(|profile| profile.rate_limits.headers = false);
        simulator.control().set_limits(Vec::new());
        assert_eq!(fetch().await.unwrap().allowance, None);
    }
}
