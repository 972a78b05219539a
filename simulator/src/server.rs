//! The listener and the connections.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin_api;
use crate::control::Control;
use crate::data::SimulatedStream;
use crate::handler::{self, ConnectionReset};
use crate::profile::Profile;
use crate::scripted_body::ScriptedBody;
use crate::state::{SimulatorState, WallClock};
use crate::time::UnixTime;

/// How long [`Simulator::shutdown`] waits for responses in flight.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// How long the listener pauses after a failed `accept`.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);

/// A running simulator. Dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct Simulator {
    addr: SocketAddr,
    control: Control,
    /// Stops new connections, and further calls on existing ones.
    finish: CancellationToken,
    /// Drops all connections at once.
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Simulator {
    /// Generates the data and listens on `profile.listen`. The simulator accepts calls when this returns.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound, or a stream names an account that the profile does not have.
    pub async fn start(profile: Profile) -> io::Result<Self> {
        Self::start_with_clock(profile, Timestamp::now).await
    }

    /// [`Simulator::start`] with a wall clock, which decides which items are visible and which tokens have expired.
    /// The rolling limits and all delays use tokio's clock.
    ///
    /// # Errors
    /// If the address cannot be bound, or a stream names an account that the profile does not have.
    pub async fn start_with_clock(
        profile: Profile,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(profile.listen).await?;
        let simulator = Self {
            addr: listener.local_addr()?,
            control: Control::new(profile, now)?,
            finish: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        simulator.tasks.spawn(accept_connections(
            listener,
            simulator.control.clone(),
            simulator.finish.clone(),
            simulator.abort.clone(),
            simulator.tasks.clone(),
        ));
        Ok(simulator)
    }

    /// The address that the simulator listens on, with the actual port.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://<address>`, without a path or a trailing slash.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// A handle that controls the simulator.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Closes the listener, waits up to one second for responses in flight, and then drops the remaining connections.
    pub async fn shutdown(self) {
        self.finish.cancel();
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_GRACE, self.tasks.wait()).await.is_err() {
            self.abort.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.finish.cancel();
        self.abort.cancel();
    }
}

async fn accept_connections(
    listener: TcpListener,
    control: Control,
    finish: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = serve_tcp_connection(stream, control.clone(), finish.clone());
                    let abort = abort.clone();
                    tasks.spawn(async move { abort.run_until_cancelled(connection).await });
                }
                // Most likely there are no file descriptors left, and open connections must close first.
                Err(_) => tokio::time::sleep(ACCEPT_RETRY_DELAY).await,
            },
            () = finish.cancelled() => return,
        }
    }
}

type CallFuture = Pin<Box<dyn Future<Output = Result<Response<ScriptedBody>, ConnectionReset>> + Send>>;

async fn serve_tcp_connection(stream: TcpStream, control: Control, finish: CancellationToken) {
    // With Nagle's algorithm, a body sent in pieces would wait for the acknowledgement of each piece.
    let _ = stream.set_nodelay(true);
    if let Some(stream) = serve_connection(stream, control, finish).await {
        // With a linger time of zero, closing the socket sends RST instead of FIN.
        let _ = stream.set_zero_linger();
    }
}

/// Returns the stream if it must be reset.
async fn serve_connection<S>(stream: S, control: Control, finish: CancellationToken) -> Option<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| respond(control.clone(), request));
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut pinned = Pin::new(&mut connection);
    let ended = tokio::select! {
        ended = pinned.as_mut() => ended,
        () = finish.cancelled() => {
            pinned.as_mut().graceful_shutdown();
            pinned.await
        }
    };
    let is_reset = ended
        .err()
        .is_some_and(|error| error.source().and_then(|source| source.downcast_ref::<ConnectionReset>()).is_some());
    is_reset.then(|| connection.into_parts().io.into_inner())
}

impl Control {
    /// Generates the data of a simulator without a listener; [`Control::serve`] gives it connections.
    ///
    /// # Errors
    /// If a stream names an account that the profile does not have.
    pub fn new(profile: Profile, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> io::Result<Self> {
        let clock = WallClock::new(now);
        let next_midnight = || clock.now().start_of_day() + Duration::from_hours(24);
        let end = profile.end.map_or_else(next_midnight, UnixTime::from);
        let streams: Vec<_> =
            profile.streams.iter().map(|stream| SimulatedStream::new(&profile, stream, end)).collect();
        if let Some(stray) = streams.iter().find(|stream| profile.credential(&stream.account_id).is_none()) {
            let message = format!("stream {} names the unknown account {}", stray.id, stray.account_id);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self(Arc::new(SimulatorState::new(profile, streams, clock))))
    }

    /// Serves a connection until the client closes it. Returns the stream if a fault says that it must be reset.
    pub async fn serve<S>(&self, stream: S) -> Option<S>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        serve_connection(stream, self.clone(), CancellationToken::new()).await
    }
}

fn respond(control: Control, request: Request<Incoming>) -> CallFuture {
    if request.uri().path().starts_with(admin_api::PATH_PREFIX) {
        return Box::pin(async move { Ok(admin_api::handle(control, request).await) });
    }
    Box::pin(async move {
        let now = Timestamp::from(control.0.clock.now());
        let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let mut response = handler::handle(control.0, request).await?;
        response.headers_mut().extend(HeaderValue::try_from(date).ok().map(|date| (header::DATE, date)));
        Ok(response)
    })
}
