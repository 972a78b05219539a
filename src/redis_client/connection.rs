//! A connection to Redis, which is reopened when it breaks and guarded by a circuit breaker.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, Shared, ready};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::breaker::{Breaker, PROBE_INTERVAL};
use super::connector::{Connector, RawConnection};
use super::memory_policy::memory_advice;
use super::{Command, ConnectionError, Health, Reply};
use crate::telemetry;
use crate::traces::{Span, SpanKind};

/// A connection that is open, is being opened, or could not be opened.
type Connecting = Shared<BoxFuture<'static, Result<RawConnection, ConnectionError>>>;

/// A connection with a circuit breaker of its own, so that large values cannot cut off small ones.
///
/// The connection is opened by the first call, and again when it is found broken or silent. Opening goes on in the
/// background: a call waits for it no longer than its deadline, and the next call finds it further. No call is repeated
/// here, because only the caller knows whether that is safe.
pub(super) struct Connection {
    name: &'static str,
    connector: Connector,
    timeout: Duration,
    /// The command of a probe. It has a key, because a Cluster that is down answers commands without keys.
    probe: Command,
    /// Locked for bookkeeping only, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    breaker: Breaker,
    /// The error of the last call, if it failed.
    last_error: Option<ConnectionError>,
    connecting: Option<Connecting>,
    /// The number of the connection, so that the failure of an earlier one does not close it.
    number: u64,
    /// When a replacement was last opened while the connection was still in use.
    replaced_at: Option<Instant>,
    /// The last advice about Redis's memory settings, which is logged once.
    memory_advice: Option<&'static str>,
}

impl Connection {
    pub(super) fn new(name: &'static str, connector: Connector, timeout: Duration, prefix: &str) -> Arc<Self> {
        let probe = Command::new("EXISTS").arg(Bytes::from(format!("{prefix}:probe")));
        Arc::new(Self { name, connector, timeout, probe, state: Mutex::default() })
    }

    /// The deadline of a call that begins now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Runs commands in one round trip. Returns a reply for each, in their order.
    pub(super) async fn run(
        self: &Arc<Self>,
        commands: &[Command],
        deadline: Instant,
    ) -> Result<Vec<Reply>, ConnectionError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let span = Span::current().child(SpanKind::Client, "redis");
        describe(&span, commands);
        if !self.state().breaker.is_closed() {
            span.fail(ConnectionError::Open.result());
            telemetry::redis_call(ConnectionError::Open.result(), None);
            return Err(ConnectionError::Open);
        }
        let started = Instant::now();
        let result = self.attempt(commands, deadline).await;
        self.record(&result);
        let label = match &result {
            Ok(replies) if replies.iter().any(|reply| matches!(reply, Reply::Error(_))) => "error",
            Ok(_) => "ok",
            Err(error) => error.result(),
        };
        if label != "ok" {
            span.fail(label);
        }
        telemetry::redis_call(label, Some(started.elapsed()));
        result
    }

    pub(super) fn health(&self) -> Health {
        let state = self.state();
        match (state.breaker.down_since(), &state.last_error) {
            (Some(since), Some(why)) => Health::Down { since, why: why.clone() },
            _ => Health::Up,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding this lock")
    }

    /// Runs commands without asking the breaker.
    async fn attempt(self: &Arc<Self>, commands: &[Command], deadline: Instant) -> Result<Vec<Reply>, ConnectionError> {
        let (number, connecting) = self.connecting();
        let connection = match timeout_at(deadline, connecting).await {
            Err(_) => return Err(ConnectionError::TimedOut),
            Ok(Err(error)) => {
                self.close(number);
                return Err(error);
            }
            Ok(Ok(connection)) => connection,
        };
        let replies = match connection.run(commands, deadline).await {
            Ok(replies) => replies,
            Err(error) if connection.recovers_itself() => {
                self.replace(number);
                return Err(error);
            }
            Err(error) => {
                self.close(number);
                return Err(error);
            }
        };
        let all_not_ready = replies.iter().map(not_ready).collect::<Option<Vec<_>>>();
        // After a failover, the connection may lead to a server that is a replica now, or the map to one that is gone.
        let is_misrouted = |reply: &Reply| reply.is_error("READONLY") || reply.is_error("LINK");
        if all_not_ready.is_some() || replies.iter().any(is_misrouted) {
            self.replace(number);
        }
        match all_not_ready {
            Some(codes) => Err(ConnectionError::NotReady(codes[0].to_owned())),
            None => Ok(replies),
        }
    }

    /// The current connection with its number, or else a new one.
    fn connecting(self: &Arc<Self>) -> (u64, Connecting) {
        let mut state = self.state();
        if let Some(connecting) = &state.connecting {
            return (state.number, connecting.clone());
        }
        let connecting = self.connect().shared();
        state.number += 1;
        state.connecting = Some(connecting.clone());
        (state.number, connecting)
    }

    /// Connects in a task of its own, which continues when its callers give up.
    fn connect(self: &Arc<Self>) -> BoxFuture<'static, Result<RawConnection, ConnectionError>> {
        let this = self.clone();
        let task = tokio::spawn(async move {
            let connection = this.connector.connect().await?;
            tokio::spawn(check_memory_policy(Arc::downgrade(&this), connection.clone()));
            Ok(connection)
        });
        task.map(|ended| ended.unwrap_or_else(|_| Err(ConnectionError::Unreachable("connecting has ended".to_owned()))))
            .boxed()
    }

    /// Closes a connection for further calls; calls in flight on it continue.
    fn close(&self, number: u64) {
        let mut state = self.state();
        if state.number == number {
            state.connecting = None;
        }
    }

    /// Opens a connection in place of one that still answers, at least in part. The old one is used until then. At most
    /// once in [`PROBE_INTERVAL`].
    fn replace(self: &Arc<Self>, number: u64) {
        let now = Instant::now();
        let mut state = self.state();
        if state.number != number || state.replaced_at.is_some_and(|at| now < at + PROBE_INTERVAL) {
            return;
        }
        state.replaced_at = Some(now);
        drop(state);
        let (this, connecting) = (Arc::downgrade(self), self.connect());
        tokio::spawn(async move {
            let Ok(connection) = connecting.await else { return };
            let Some(this) = this.upgrade() else { return };
            let mut state = this.state();
            if state.number == number {
                state.number += 1;
                state.connecting = Some(ready(Ok(connection)).boxed().shared());
            }
        });
    }

    /// Records the result of a call or a probe.
    fn record(self: &Arc<Self>, result: &Result<Vec<Reply>, ConnectionError>) {
        let mut state = self.state();
        match result {
            Ok(_) => {
                state.last_error = None;
                let is_recovered = state.breaker.record_success();
                drop(state);
                telemetry::redis_up(self.name, is_recovered);
            }
            Err(error) => {
                state.last_error = Some(error.clone());
                if state.breaker.record_failure(Instant::now()) {
                    drop(state);
                    telemetry::redis_down(self.name, error);
                    tokio::spawn(probe(Arc::downgrade(self)));
                }
            }
        }
    }
}

/// Adds the names of commands to a span, and never their arguments.
fn describe(span: &Span, commands: &[Command]) {
    span.set("db.system.name", "redis");
    if let Some(first) = commands.first() {
        span.set("db.operation.name", first.name);
    }
    span.set("db.operation.batch.size", commands.len());
}

/// The code of an error that all other commands would get too, as if Redis were down.
fn not_ready(reply: &Reply) -> Option<&str> {
    let Reply::Error(text) = reply else { return None };
    let code = text.split(' ').next()?;
    ["LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH"].contains(&code).then_some(code)
}

/// Probes Redis until it answers.
async fn probe(connection: Weak<Connection>) {
    loop {
        let next = connection.upgrade().and_then(|connection| connection.state().breaker.next_probe_at(Instant::now()));
        let Some(at) = next else { return };
        sleep_until(at).await;
        let Some(connection) = connection.upgrade() else { return };
        // Another task may probe too, if this one has not noticed yet that the breaker was closed meanwhile.
        if connection.state().breaker.take_probe(Instant::now()) {
            let result = connection.attempt(std::slice::from_ref(&connection.probe), connection.deadline()).await;
            connection.record(&result);
        }
    }
}

/// Warns if Redis is configured to grow without bound, or to refuse writes.
async fn check_memory_policy(connection: Weak<Connection>, raw: RawConnection) {
    let Some(deadline) = connection.upgrade().map(|connection| connection.deadline()) else { return };
    let advice = memory_advice(&raw, deadline).await;
    let Some(connection) = connection.upgrade() else { return };
    let is_news = std::mem::replace(&mut connection.state().memory_advice, advice) != advice;
    if let (true, Some(advice)) = (is_news, advice) {
        telemetry::redis_memory(advice);
    }
}
