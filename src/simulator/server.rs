//! The socket: takes connections, ends them in order or with a reset.

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
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::Script;
use super::control::Control;
use super::data::Stream;
use super::endpoint;
use super::endpoint::Reset;
use super::profile::Profile;
use super::shared::Shared;
use super::switchboard;
use crate::clock::Clock;

/// How long [`Simulator::shutdown`] waits for answers under way.
const GRACE: Duration = Duration::from_secs(1);

/// A running simulator. Dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct Simulator {
    addr: SocketAddr,
    control: Control,
    /// No new connections, no further calls on those there are.
    finish: CancellationToken,
    /// Connections are dropped where they stand.
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Simulator {
    /// Lays out the data and listens on `profile.listen`; calls are answered as soon as this returns.
    ///
    /// `clock` says what is past and what is future; the rolling limits and all waiting use tokio's clock. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound, or a stream names an account that the profile does not have.
    pub async fn start(profile: Profile, clock: Clock) -> io::Result<Self> {
        const DAY: Duration = Duration::from_hours(24);
        let end = profile.end.unwrap_or_else(|| clock.now().floor_to(DAY) + DAY);
        let streams: Vec<_> = profile.streams.iter().map(|stream| Stream::new(&profile, stream, end)).collect();
        if let Some(stray) = streams.iter().find(|stream| profile.credential(&stream.account_id).is_none()) {
            let message = format!("stream {} names the unknown account {}", stray.id, stray.account_id);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let listener = TcpListener::bind(profile.listen).await?;
        let simulator = Self {
            addr: listener.local_addr()?,
            control: Control(Arc::new(Shared::new(profile, streams, clock))),
            finish: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        simulator.tasks.spawn(accept(
            listener,
            simulator.control.clone(),
            simulator.finish.clone(),
            simulator.abort.clone(),
            simulator.tasks.clone(),
        ));
        Ok(simulator)
    }

    /// The address it listens on, its port filled in.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://<address>`, without a path or a slash at its end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The hand on it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Closes the listener, lets answers under way end for up to a second, and then drops what is left.
    pub async fn shutdown(self) {
        self.finish.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
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

async fn accept(
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
                    let connection = connection(stream, control.clone(), finish.clone());
                    let abort = abort.clone();
                    tasks.spawn(async move { abort.run_until_cancelled(connection).await });
                }
                // Out of file descriptors, most likely: give the others time to close theirs.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            () = finish.cancelled() => return,
        }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Script>, Reset>> + Send>>;

async fn connection(stream: TcpStream, control: Control, finish: CancellationToken) {
    // Without it a body that goes out in pieces waits for the acknowledgement of each.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(control.clone(), request));
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut pinned = Pin::new(&mut connection);
    let ended = tokio::select! {
        ended = pinned.as_mut() => ended,
        () = finish.cancelled() => {
            pinned.as_mut().graceful_shutdown();
            pinned.await
        }
    };
    let reset =
        ended.err().is_some_and(|error| error.source().and_then(|source| source.downcast_ref::<Reset>()).is_some());
    if reset {
        let stream = connection.into_parts().io.into_inner();
        // Makes the close that follows a reset.
        let _ = stream.set_zero_linger();
    }
}

fn answer(control: Control, request: Request<Incoming>) -> Answering {
    if request.uri().path().starts_with(switchboard::PREFIX) {
        return Box::pin(async move { Ok(switchboard::serve(control, request).await) });
    }
    Box::pin(async move {
        let date = control.0.clock.now().to_timestamp().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let mut response = endpoint::serve(control.0, request).await?;
        response.headers_mut().extend(HeaderValue::try_from(date).ok().map(|date| (header::DATE, date)));
        Ok(response)
    })
}
